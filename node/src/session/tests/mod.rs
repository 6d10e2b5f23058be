//! The protocol of one connection, seen from its client and from the broker.

mod authenticating;
mod connecting;
mod delivering;
mod limits;
mod overload;
mod publishing;
mod reading;
mod retained;
mod writing;
