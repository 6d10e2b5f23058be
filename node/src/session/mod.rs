//! One client's connection as pure protocol: what it sent becomes events, what it is sent becomes
//! bytes in its outbox. No I/O, no async, no clock: bytes and time come in as arguments.

mod acks;
mod admission;
mod aliases;
mod conn;
mod counters;
mod deliver;
mod durability;
mod inbound;
mod limits;
mod link;
mod order;
mod outbound;
pub mod pool;
mod proof;
mod replay;
mod service;
mod turn;
mod window;

pub use acks::FILTERS_AT_ONCE;
pub use conn::Conn;
pub use counters::{Counters, Metric};
pub use deliver::{Backlog, Delivered, Delivery, Share};
pub use durability::Durability;
pub use inbound::{Flow, Inbound};
pub use limits::Limits;
pub use link::{Context, Link};
pub use order::{HELD_QOS0_MAX, Held, Path, PublishOrder};
pub use proof::{AuthStep, LogIn};
pub use replay::Take;
pub use service::*;
pub use turn::{Turn, flush, hold, turn};
pub use window::{Unacknowledged, packet_id_of};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
