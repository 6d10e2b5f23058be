//! The protocol of one connection, seen from its client and from the broker.

mod authenticating;
mod connecting;
mod delivering;
mod publishing;
mod reading;
mod writing;
