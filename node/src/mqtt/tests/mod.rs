//! Tests of the codec at its boundary: bytes in, packets out, and back.

mod differential;
mod fuzz;
mod gen_packets;
mod gen_server;
mod known;
mod malformed;
mod roundtrip;
mod topic;

use crate::fuzzing::{decode_all, walk};

/// A packet with this first byte, and a correct length before `body`.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    super::write::varint(&mut out, body.len());
    out.extend_from_slice(body);
    out
}
