//! An MQTT client that is nobody's but the tests': it speaks raw packets through an encoder and
//! decoder of its own, so that a mistake in the broker's codec cannot hide behind the same
//! mistake here, and it can do what a well-behaved client never does.

mod authentication;
mod client;
mod options;
mod packet;
mod props;
mod scram;
mod stream;
mod wire;

pub use authentication::{AGAIN, CONTINUE, proof};
pub use client::{Client, Error, Received, Result};
pub use options::{Options, Will};
pub use packet::{Ack, AckKind, Packet, Publish};
pub use props::{Prop, Props, prop};
pub use scram::{SCRAM, Scram};
pub use stream::Transport;
pub use wire::{ack, auth, connect, decode, disconnect, publish, remaining_length, subscribe, unsubscribe};

/// The protocol level of CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V31 = 3,
    V311 = 4,
    V5 = 5,
}

/// All the versions a broker has to serve.
pub const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];
