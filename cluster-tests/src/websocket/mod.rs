//! WebSocket by hand, so that every bit can be wrong on purpose: frames that are built and taken
//! apart byte by byte, on a socket that hides nothing.

mod frame;
mod socket;

pub use frame::{Form, Frame, opcode};
pub use socket::{Ending, RawSocket, Response};
