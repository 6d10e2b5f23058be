//! What a node does when there is more to do than it can: rates, and levels of overload from what
//! it measures of itself. Who is connected is served at every level.

mod bucket;
mod controller;
mod inputs;
mod level;
mod memory;

pub use bucket::{Bucket, Rate, SharedBucket};
pub use controller::Controller;
pub use inputs::Inputs;
pub use level::{Level, Pressure};
pub use memory::{memory_limit_bytes, resident_bytes};
