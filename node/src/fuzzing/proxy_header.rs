//! Headers of the PROXY protocol: in pieces they are what they are as a whole.

use super::source::chops;
use crate::net::proxy::{HeaderReader, parse};

/// Bytes beyond which no header may be awaited.
const AWAITED_MAX_BYTES: usize = 4096;

/// Input: how it is cut, and what the proxy sends.
pub fn proxy_header(input: &[u8]) {
    let Some((seed, stream)) = input.split_first() else { return };
    let whole = parse(stream);
    let mut reader = HeaderReader::default();
    let mut pieces = Ok(None);
    let mut at = 0;
    for piece in chops(stream, u64::from(*seed)) {
        pieces = reader.read(piece).map(|found| found.map(|(header, length)| (header, at + length)));
        if pieces != Ok(None) {
            break;
        }
        at += piece.len();
    }
    match (&whole, &pieces) {
        (Ok(Some((_, length))), _) => {
            assert!(*length <= stream.len().min(AWAITED_MAX_BYTES));
            assert_eq!(parse(&stream[..length - 1]), Ok(None), "it was whole before its end");
            assert_eq!(pieces, whole);
        }
        (Ok(None), _) => {
            assert!(stream.len() < AWAITED_MAX_BYTES);
            assert_eq!(pieces, whole);
        }
        // The first fault that is found depends on how much has come.
        (Err(_), pieces) => assert!(pieces.is_err()),
    }
}
