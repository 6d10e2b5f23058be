//! Strangers at the port that belongs to the cluster's own nodes.

use std::time::Duration;

use super::crowd::push;
use super::{Crowd, Plan};
use crate::wait::eventually;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// SETTINGS without any.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// For the node to end those that say nothing, or nothing right.
const ENDS: Duration = Duration::from_secs(40);

/// Garbage, half-open connections, half-finished and idle HTTP/2, calls without credentials.
///
/// # Panics
/// When the node keeps a connection on which nothing was said.
pub fn run(plan: &Plan) {
    let count = plan.size(600, 5_000);
    let mut crowd = Crowd::default();
    for i in 0..count {
        let mut rng = plan.rng(i as u64);
        let bytes = match i % 6 {
            0 => Vec::new(),
            1 => rng.bytes(200),
            2 => PREFACE[..rng.below(PREFACE.len())].to_vec(),
            3 => [PREFACE, &rng.bytes(100)].concat(),
            4 => call(&mut rng),
            _ => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        };
        let stream = crowd.open(plan.peer).expect("the system opens a connection");
        // The node may end it at any byte.
        push(stream, &bytes);
    }
    eventually("the node ends connections of no peer", ENDS, || (crowd.sift() == 0).then_some(()));
}

/// A call with credentials that prove nothing, as literal headers without indexing.
fn call(rng: &mut super::Rng) -> Vec<u8> {
    let mut block = Vec::new();
    let mut field = |name: &str, value: &str| {
        block.extend_from_slice(&[0, name.len() as u8]);
        block.extend_from_slice(name.as_bytes());
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    };
    let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    field(":method", "POST");
    field(":scheme", "http");
    field(":authority", "x");
    field(":path", "/rookery.consensus.Consensus/Append");
    field("content-type", "application/grpc");
    field("te", "trailers");
    field("rookery-cluster", &hex(rng.bytes(16)));
    field("rookery-node", "7");
    field("rookery-addr", "127.0.0.1:1");
    field("rookery-target", "0");
    field("rookery-purpose", "consensus");
    field("rookery-mac", &hex(rng.bytes(32)));
    let length = (block.len() as u32).to_be_bytes();
    // HEADERS of stream 1, complete; END_STREAM.
    let header = [length[1], length[2], length[3], 1, 5, 0, 0, 0, 1];
    [PREFACE, SETTINGS, &header, &block].concat()
}
