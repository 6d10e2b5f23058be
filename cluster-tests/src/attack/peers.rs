//! Strangers at the port that belongs to the cluster's own nodes.

use std::time::Duration;

use super::crowd::push;
use super::{Crowd, Plan};
use crate::peers::client_hello;
use crate::wait::eventually;

/// How HTTP/2 begins; here it is not encrypted.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// For the node to end those that say nothing, or nothing right.
const ENDS: Duration = Duration::from_secs(40);

/// Garbage, half-open connections, TLS handshakes that stop at any byte or after the first message,
/// and what is not encrypted at all.
///
/// # Panics
/// When the node keeps a connection on which nothing was said.
pub fn run(plan: &Plan) {
    let count = plan.size(600, 5_000);
    let hello = client_hello();
    let mut crowd = Crowd::default();
    for i in 0..count {
        let mut rng = plan.rng(i as u64);
        let bytes = match i % 6 {
            0 => Vec::new(),
            1 => rng.bytes(200),
            2 => hello[..rng.below(hello.len())].to_vec(),
            // Costs the node a whole answer.
            3 => hello.clone(),
            4 => [&hello[..rng.below(hello.len())], &rng.bytes(100)].concat(),
            _ => PREFACE.to_vec(),
        };
        let stream = crowd.open(plan.peer).expect("the system opens a connection");
        // The node may end it at any byte.
        push(stream, &bytes);
    }
    eventually("the node ends connections of no peer", ENDS, || (crowd.sift() == 0).then_some(()));
}
