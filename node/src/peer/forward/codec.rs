//! The compact encoding of frames inside a batch.
//!
//! ```text
//! flags | barrier? | expires_at_ms? | topic | publisher | (share, moves, hops)? | properties? | payload
//! ```
//! `flags`: bits 0-1 QoS, 2 retain, 3 barrier present, 4 share present, 5 expiry present,
//! 6 properties present, 7 zero. Numbers are LEB128; texts and bytes have their length before
//! them. The version is agreed once per stream.

use bytes::{BufMut, BytesMut};

use super::{Frame, Share};
use crate::mqtt::{Publication, QoS};

const QOS: u8 = 0b11;
const RETAIN: u8 = 1 << 2;
const BARRIER: u8 = 1 << 3;
const SHARE: u8 = 1 << 4;
const EXPIRES: u8 = 1 << 5;
const PROPERTIES: u8 = 1 << 6;
const KNOWN: u8 = QOS | RETAIN | BARRIER | SHARE | EXPIRES | PROPERTIES;

/// Bytes that do not form a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed frame")]
pub(crate) struct Malformed;

/// The bytes that [`encode`] will append.
pub(crate) fn encoded_len(frame: &Frame<'_>) -> usize {
    let p = &frame.publication;
    let mut len = 1 + text_len(p.topic.len()) + text_len(p.publisher.len()) + text_len(p.payload.len());
    if frame.barrier != 0 {
        len += varint_len(frame.barrier);
    }
    if p.expires_at_ms != 0 {
        len += varint_len(p.expires_at_ms);
    }
    if let Some(share) = frame.share {
        len += text_len(share.filter.len()) + 2;
    }
    if !p.properties.is_empty() {
        len += text_len(p.properties.len());
    }
    len
}

pub(crate) fn encode(frame: &Frame<'_>, to: &mut BytesMut) {
    let p = &frame.publication;
    let mut flags = p.qos as u8;
    for (bit, set) in [
        (RETAIN, p.retain),
        (BARRIER, frame.barrier != 0),
        (SHARE, frame.share.is_some()),
        (EXPIRES, p.expires_at_ms != 0),
        (PROPERTIES, !p.properties.is_empty()),
    ] {
        if set {
            flags |= bit;
        }
    }
    to.put_u8(flags);
    if frame.barrier != 0 {
        put_varint(to, frame.barrier);
    }
    if p.expires_at_ms != 0 {
        put_varint(to, p.expires_at_ms);
    }
    put_bytes(to, p.topic.as_bytes());
    put_bytes(to, p.publisher.as_bytes());
    if let Some(share) = frame.share {
        put_bytes(to, share.filter.as_bytes());
        to.put_u8(share.moves);
        to.put_u8(share.hops);
    }
    if !p.properties.is_empty() {
        put_bytes(to, p.properties);
    }
    put_bytes(to, p.payload);
}

/// Takes the first frame off `from`; `None` at its end.
///
/// # Errors
/// The bytes are cut short, not UTF-8 where text belongs, or use unknown flags.
pub(crate) fn decode<'a>(from: &mut &'a [u8]) -> Result<Option<Frame<'a>>, Malformed> {
    let Some((&flags, rest)) = from.split_first() else { return Ok(None) };
    *from = rest;
    if flags & !KNOWN != 0 {
        return Err(Malformed);
    }
    let qos = match flags & QOS {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        2 => QoS::ExactlyOnce,
        _ => return Err(Malformed),
    };
    let barrier = if flags & BARRIER != 0 { take_varint(from)? } else { 0 };
    let expires_at_ms = if flags & EXPIRES != 0 { take_varint(from)? } else { 0 };
    let topic = take_text(from)?;
    let publisher = take_text(from)?;
    let share = if flags & SHARE != 0 { Some(take_share(from)?) } else { None };
    let properties = if flags & PROPERTIES != 0 { take_bytes(from)? } else { &[] };
    let payload = take_bytes(from)?;
    let retain = flags & RETAIN != 0;
    let publication = Publication { topic, payload, properties, qos, retain, expires_at_ms, publisher };
    Ok(Some(Frame { publication, barrier, share }))
}

fn text_len(len: usize) -> usize {
    varint_len(len as u64) + len
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_varint(to: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        to.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    to.put_u8(value as u8);
}

fn put_bytes(to: &mut BytesMut, bytes: &[u8]) {
    put_varint(to, bytes.len() as u64);
    to.put_slice(bytes);
}

fn take_varint(from: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first().ok_or(Malformed)?;
        *from = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(Malformed);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn take_bytes<'a>(from: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let len = usize::try_from(take_varint(from)?).map_err(|_| Malformed)?;
    let (bytes, rest) = from.split_at_checked(len).ok_or(Malformed)?;
    *from = rest;
    Ok(bytes)
}

fn take_share<'a>(from: &mut &'a [u8]) -> Result<Share<'a>, Malformed> {
    let filter = take_text(from)?;
    let (&[moves, hops], rest) = from.split_first_chunk().ok_or(Malformed)?;
    *from = rest;
    Ok(Share { filter, moves, hops })
}

fn take_text<'a>(from: &mut &'a [u8]) -> Result<&'a str, Malformed> {
    std::str::from_utf8(take_bytes(from)?).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_come_back_as_they_were(
            topic in "[a-z/é]{0,40}",
            publisher in ".{0,20}",
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            properties in proptest::collection::vec(any::<u8>(), 0..40),
            qos in 0u8..3,
            retain: bool,
            expires_at_ms: u64,
            barrier in prop_oneof![Just(0u64), any::<u64>()],
            share in proptest::option::of(("[a-z/$]{0,20}", any::<u8>(), any::<u8>())),
        ) {
            let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][qos as usize];
            let publication = Publication {
                topic: &topic, payload: &payload, properties: &properties, qos, retain, expires_at_ms,
                publisher: &publisher,
            };
            let share = share.as_ref().map(|(filter, moves, hops)| Share { filter, moves: *moves, hops: *hops });
            let frame = Frame { publication, barrier, share };
            let mut bytes = BytesMut::new();
            encode(&frame, &mut bytes);
            prop_assert_eq!(bytes.len(), encoded_len(&frame));
            encode(&frame, &mut bytes);

            let mut from = &bytes[..];
            for _ in 0..2 {
                let back = decode(&mut from).unwrap().unwrap();
                prop_assert_eq!(back.publication.to_message(), publication.to_message());
                prop_assert_eq!(back.barrier, barrier);
                prop_assert_eq!(back.share, share);
            }
            prop_assert!(decode(&mut from).unwrap().is_none());

            // Cut anywhere inside a frame, it is an error and never a panic.
            for cut in 1..bytes.len() / 2 {
                prop_assert!(decode(&mut &bytes[..cut]).is_err());
            }
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut from = &bytes[..];
            while let Ok(Some(_)) = decode(&mut from) {}
        }
    }

    #[test]
    fn frames_are_read_as_the_first_release_wrote_them() {
        let publication = Publication {
            topic: "a/b",
            payload: b"payload",
            properties: b"\x01\x01",
            qos: QoS::AtLeastOnce,
            retain: true,
            expires_at_ms: 90_000,
            publisher: "publisher",
        };
        let bare = Publication {
            properties: b"",
            qos: QoS::AtMostOnce,
            retain: false,
            expires_at_ms: 0,
            ..publication
        };
        let share = Some(Share { filter: "$share/group/a/+", moves: 1, hops: 2 });
        let frames = [
            ("bare", Frame { publication: bare, barrier: 0, share: None }),
            ("full", Frame { publication, barrier: 300, share }),
        ];
        let now = frames.map(|(name, frame)| {
            let mut bytes = BytesMut::new();
            encode(&frame, &mut bytes);
            (name.to_owned(), bytes.to_vec())
        });
        for ((_, kept), (name, frame)) in crate::fixture::first_format("frames.hex", &now).iter().zip(frames)
        {
            let read = decode(&mut kept.as_slice()).expect("well formed").expect("a frame");
            assert_eq!(read.publication.to_message(), frame.publication.to_message(), "{name}");
            assert_eq!((read.barrier, read.share), (frame.barrier, frame.share), "{name}");
        }
    }
}
