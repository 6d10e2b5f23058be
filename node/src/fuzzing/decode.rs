//! Bytes of a client, as packets by themselves and as a connection cut anywhere.

use super::client::{Fed, connect_bytes};
use super::packets::{self, decode_all};
use super::source::chops;
use crate::mqtt::{Version, frame_len};

/// Input: bytes that follow a CONNECT of 3.1.
pub fn decode_v31(input: &[u8]) {
    target(input, Version::V31);
}

/// Input: bytes that follow a CONNECT of 3.1.1.
pub fn decode_v311(input: &[u8]) {
    target(input, Version::V311);
}

/// Input: bytes that follow a CONNECT of 5.0.
pub fn decode_v5(input: &[u8]) {
    target(input, Version::V5);
}

fn target(input: &[u8], version: Version) {
    let mut rest = input;
    decode_all(rest, Some(version));
    while let Ok(Some(len)) = frame_len(rest, u32::MAX)
        && len <= rest.len()
    {
        decode_all(&rest[..len], Some(version));
        decode_all(&rest[..len], None);
        rest = &rest[len..];
    }
    if input.first().is_some_and(|first| first >> 4 == 1) {
        same_in_any_chop(input);
    }
    let mut stream = connect_bytes(version);
    stream.extend_from_slice(input);
    same_in_any_chop(&stream);
}

/// How the bytes of a connection arrive makes no difference to the broker, nor to the client.
fn same_in_any_chop(stream: &[u8]) {
    let whole = Fed::by([stream]);
    packets::from_server(&whole.sent, whole.version);
    let seed = stream.iter().fold(stream.len() as u64, |sum, b| sum.wrapping_mul(31) + u64::from(*b));
    assert_eq!(Fed::by(chops(stream, seed)), whole, "in pieces of up to {} bytes", seed % 16 + 1);
}
