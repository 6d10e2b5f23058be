use proptest::prelude::*;

use crate::net::websocket::{Event, FrameReader, Violation};

const MAX: u32 = 100_000;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;

/// What was read; adjacent pieces of data are one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Data(Vec<u8>),
    Ping(Vec<u8>),
    Close(Option<u16>),
    Violation(u16),
}

fn read(reader: &mut FrameReader, bytes: &[u8], seen: &mut Vec<Seen>) {
    let mut bytes = bytes.to_vec();
    let mut rest = &mut bytes[..];
    while let Some(event) = reader.next(&mut rest) {
        match (event, seen.last_mut()) {
            (Ok(Event::Data(piece)), Some(Seen::Data(data))) => data.extend_from_slice(piece),
            (Ok(Event::Data(piece)), _) => seen.push(Seen::Data(piece.to_vec())),
            (Ok(Event::Ping(ping)), _) => seen.push(Seen::Ping(ping.payload().to_vec())),
            (Ok(Event::Close(status)), _) => seen.push(Seen::Close(status)),
            (Err(violation), _) => seen.push(Seen::Violation(violation.status)),
        }
    }
}

fn read_in(bytes: &[u8], piece: usize) -> Vec<Seen> {
    let (mut reader, mut seen) = (FrameReader::new(MAX), Vec::new());
    bytes.chunks(piece).for_each(|piece| read(&mut reader, piece, &mut seen));
    seen
}

fn read_all(bytes: &[u8]) -> Vec<Seen> {
    let whole = read_in(bytes, usize::MAX);
    for piece in [1, 2, 3, 7] {
        assert_eq!(read_in(bytes, piece), whole, "in pieces of {piece}");
    }
    whole
}

fn header(first: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![first];
    match len {
        0..=125 => bytes.push(0x80 | len as u8),
        126..=0xFFFF => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    let mut bytes = header(first, payload.len());
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

#[test]
fn the_example_of_the_standard() {
    let hello = [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(read_all(&hello), [Seen::Data(b"Hello".to_vec())]);
}

#[test]
fn every_form_of_length() {
    for len in [1, 125, 126, 127, 128, 0xFFFF, 0x1_0000, MAX as usize] {
        let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
        assert_eq!(read_all(&frame(BINARY, &payload)), [Seen::Data(payload)]);
    }
    assert_eq!(read_all(&frame(BINARY, &[])), []);
}

#[test]
fn fragments_with_controls_between() {
    let bytes = [
        frame(0x02, b"ab"),
        frame(PING, b"1"),
        frame(0x00, b""),
        frame(PONG, b"not asked for"),
        frame(0x00, b"cd"),
        frame(PING, b""),
        frame(0x80, b""),
        frame(BINARY, b"ef"),
        frame(CLOSE, b"\x03\xE8bye"),
        frame(PING, b"late"),
        vec![0xFF; 20],
    ];
    let data = |text: &[u8]| Seen::Data(text.to_vec());
    let ping = |text: &[u8]| Seen::Ping(text.to_vec());
    let expected = [data(b"ab"), ping(b"1"), data(b"cd"), ping(b""), data(b"ef"), Seen::Close(Some(1000))];
    assert_eq!(read_all(&bytes.concat()), expected);
}

/// Each is refused with its last byte, and no earlier.
#[test]
fn what_is_refused() {
    let mut cases = vec![
        (1002, vec![0x80]),
        (1002, vec![0x00]),
        (1003, vec![0x81]),
        (1003, vec![0x01]),
        (1002, vec![BINARY, 0x05]),
        (1002, vec![BINARY, 0x80 | 126, 0, 125]),
        (1002, vec![BINARY, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]),
        (1002, vec![BINARY, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        (1009, header(BINARY, MAX as usize + 1)),
        (1009, [frame(0x02, &[0; 60_000]), header(0x80, 40_001)].concat()),
        (1009, [frame(0x02, &[0; 60_000]), frame(0x00, &[0; 40_000]), header(0x00, 1)].concat()),
        (1002, vec![PING, 0x80 | 126]),
        (1002, vec![PONG, 0x80 | 127]),
        (1002, vec![CLOSE, 0xFF]),
        (1002, [frame(0x02, b"ab"), vec![BINARY]].concat()),
        (1002, [frame(0x02, b"ab"), vec![0x81]].concat()),
        (1002, [frame(0x02, b"ab"), frame(0x80, b"c"), vec![0x80]].concat()),
        (1002, frame(CLOSE, b"\x03")),
        (1007, frame(CLOSE, b"\x03\xE8\xCE\xBA\xED\xA0\x80")),
    ];
    cases.extend(
        [0x03, 0x04, 0x05, 0x06, 0x07, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F].map(|op| (1002, vec![0x80 | op])),
    );
    cases.extend([0x10, 0x20, 0x40, 0x70].map(|rsv| (1002, vec![BINARY | rsv])));
    cases.extend([0x08, 0x09, 0x0A].map(|control| (1002, vec![control])));
    for status in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535_u16] {
        cases.push((1002, frame(CLOSE, &status.to_be_bytes())));
    }
    for (status, bytes) in cases {
        let before = read_all(&bytes[..bytes.len() - 1]);
        assert!(!before.iter().any(|seen| matches!(seen, Seen::Violation(_))), "{bytes:x?}: {before:?}");
        let then = read_all(&[&bytes[..], &frame(PING, b"late")].concat());
        assert_eq!(then, [&before[..], &[Seen::Violation(status)]].concat(), "{bytes:x?}");
    }
}

#[test]
fn statuses_and_reasons_of_close() {
    assert_eq!(read_all(&frame(CLOSE, &[])), [Seen::Close(None)]);
    for status in
        [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
    {
        let payload = [&u16::to_be_bytes(status)[..], "ß".repeat(61).as_bytes()].concat();
        assert_eq!(read_all(&frame(CLOSE, &payload)), [Seen::Close(Some(status))]);
    }
}

#[test]
fn a_message_may_be_as_large_as_allowed_again_and_again() {
    let half = vec![7; MAX as usize / 2];
    let message = [frame(0x02, &half), frame(0x80, &half)].concat();
    let seen = read_in(&message.repeat(3), usize::MAX);
    assert_eq!(seen, [Seen::Data(vec![7; 3 * MAX as usize])]);
}

/// A valid frame and whether it ends its message.
fn valid_frames() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let payload = proptest::collection::vec(any::<u8>(), 0..300);
    let control = proptest::collection::vec(any::<u8>(), 0..=125);
    let one = prop_oneof![
        3 => (any::<bool>(), payload).prop_map(|(last, payload)| (u8::from(last) << 7, payload)),
        1 => control.clone().prop_map(|payload| (PING, payload)),
        1 => control.prop_map(|payload| (PONG, payload)),
    ];
    proptest::collection::vec(one, 0..20).prop_map(|mut frames| {
        let mut fragmented = false;
        for (first, _) in frames.iter_mut().filter(|(first, _)| first & 0x08 == 0) {
            *first |= if fragmented { 0x00 } else { 0x02 };
            fragmented = *first & 0x80 == 0;
        }
        frames
    })
}

fn chopped(bytes: &[u8], sizes: &[usize]) -> Vec<Seen> {
    let (mut reader, mut seen) = (FrameReader::new(MAX), Vec::new());
    let (mut rest, mut sizes) = (bytes, sizes.iter().cycle());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(*sizes.next().expect("not empty")));
        read(&mut reader, piece, &mut seen);
        rest = after;
    }
    seen
}

proptest! {
    /// Valid frames give their payload back, however they arrive.
    #[test]
    fn valid_frames_in_any_pieces(
        frames in valid_frames(),
        sizes in proptest::collection::vec(1usize..50, 1..10),
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(|(first, payload)| frame(*first, payload)).collect();
        let mut expected = Vec::new();
        for (first, payload) in frames {
            match (first, expected.last_mut()) {
                (PING, _) => expected.push(Seen::Ping(payload)),
                (PONG, _) => {}
                (_, Some(Seen::Data(data))) => data.extend(payload),
                (_, _) if payload.is_empty() => {}
                (_, _) => expected.push(Seen::Data(payload)),
            }
        }
        prop_assert_eq!(chopped(&bytes, &sizes), expected);
    }

    /// Whatever arrives, the pieces make no difference and nothing follows the end.
    #[test]
    fn any_bytes_in_any_pieces(
        frames in valid_frames(),
        junk in proptest::collection::vec(any::<u8>(), 0..200),
        sizes in proptest::collection::vec(1usize..50, 1..10),
    ) {
        let mut bytes: Vec<u8> = frames.iter().flat_map(|(first, payload)| frame(*first, payload)).collect();
        bytes.extend(junk);
        let seen = chopped(&bytes, &sizes);
        prop_assert_eq!(&seen, &chopped(&bytes, &[bytes.len().max(1)]));
        let ends = |seen: &Seen| matches!(seen, Seen::Close(_) | Seen::Violation(_));
        prop_assert!(seen.iter().rev().skip(1).all(|seen| !ends(seen)));
        let statuses =
            [Violation::PROTOCOL, Violation::UNSUPPORTED, Violation::NOT_UTF8, Violation::TOO_BIG];
        if let Some(Seen::Violation(status)) = seen.last() {
            prop_assert!(statuses.contains(status));
        }
    }
}
