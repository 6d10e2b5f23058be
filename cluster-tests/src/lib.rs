//! What the tests of a whole cluster stand on: real processes that can be killed, paused and
//! restarted, a client of our own, and the bookkeeping that tells what was acknowledged from
//! what arrived. Each file in `tests/` proves one property.

pub mod attack;
pub mod clients;
pub mod cluster;
pub mod conformance;
pub mod failover;
pub mod faults;
pub mod growth;
pub mod http;
pub mod load;
pub mod login;
pub mod mqtt;
pub mod peers;
pub mod proxy;
pub mod reconnect;
#[cfg(feature = "simulation")]
pub mod sim;
pub mod tls;
pub mod tools;
pub mod traffic;
pub mod wait;
pub mod websocket;

use std::sync::atomic::{AtomicU32, Ordering};

/// A client id or topic level that no other test of this run uses.
pub fn fresh(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
