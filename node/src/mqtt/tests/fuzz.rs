//! Arbitrary and damaged bytes: nothing panics, and what is accepted holds together.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::gen_packets::from_client;
use super::{packet, walk};
use crate::mqtt::*;

const VERSIONS: [Option<Version>; 4] = [None, Some(Version::V31), Some(Version::V311), Some(Version::V5)];

/// Decodes in every way there is; whatever is accepted must be sound.
fn decode_all(bytes: &[u8]) {
    let framed = frame_len(bytes, u32::MAX);
    for version in VERSIONS {
        let from_server = version.map(|v| decode_from_server(bytes, v));
        for decoded in [Some(decode(bytes, version)), from_server].into_iter().flatten() {
            match decoded {
                Ok(packet) => {
                    assert_eq!(framed, Ok(Some(bytes.len())));
                    walk(&packet);
                    again(&packet, version);
                }
                Err(e) => assert!(e.reason.is_error() && !e.what.is_empty()),
            }
        }
    }
}

/// What was accepted can be encoded, and reads the same again.
fn again(packet: &Packet<'_>, version: Option<Version>) {
    let mut out = Vec::new();
    match (packet, version) {
        (Packet::Connect(c), _) => {
            encode::connect(&mut out, c).unwrap();
            assert_eq!(decode(&out, None), Ok(*packet));
        }
        (Packet::Publish(p), Some(version)) => {
            let properties = p.forward_properties();
            let message = Publication {
                topic: p.topic,
                payload: p.payload,
                properties: &properties,
                qos: p.qos,
                retain: p.retain,
                expires_at_ms: 0,
                publisher: "",
            };
            let ids: Vec<u32> = p.subscription_ids().collect();
            let again = PublishOut {
                dup: p.dup,
                packet_id: p.packet_id,
                subscription_ids: &ids,
                topic_alias: (p.topic_alias != 0).then_some((p.topic_alias, true)),
                expiry_s: p.expiry_s,
                ..PublishOut::new(version, &message)
            };
            encode::publish(&mut out, &again).unwrap();
            assert_eq!(decode_from_server(&out, version), Ok(*packet));
        }
        (Packet::Subscribe(s), Some(version)) => {
            let filters: Vec<_> = s.filters.iter().collect();
            encode::subscribe(&mut out, version, s.packet_id, s.subscription_id, &filters).unwrap();
            let Ok(Packet::Subscribe(read)) = decode(&out, Some(version)) else { panic!() };
            assert_eq!(read.filters, s.filters);
        }
        _ => {}
    }
}

#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Truncate(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(i, b)| Damage::Set(i, b)),
        (any::<Index>(), 0..8u8).prop_map(|(i, b)| Damage::Flip(i, b)),
        (any::<Index>(), any::<u8>()).prop_map(|(i, b)| Damage::Insert(i, b)),
        any::<Index>().prop_map(Damage::Remove),
        any::<Index>().prop_map(Damage::Truncate),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    if bytes.is_empty() {
        return;
    }
    let len = bytes.len();
    match damage {
        Damage::Set(i, b) => bytes[i.index(len)] = *b,
        Damage::Flip(i, bit) => bytes[i.index(len)] ^= 1 << bit,
        Damage::Insert(i, b) => bytes.insert(i.index(len), *b),
        Damage::Remove(i) => drop(bytes.remove(i.index(len))),
        Damage::Truncate(i) => bytes.truncate(i.index(len)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes(bytes in vec(any::<u8>(), 0..120)) {
        decode_all(&bytes);
    }

    /// The length is right, so that what follows is looked at.
    #[test]
    fn arbitrary_bodies(first in any::<u8>(), body in vec(prop_oneof![0..=0x2Au8, any::<u8>()], 0..40)) {
        decode_all(&packet(first, &body));
    }

    #[test]
    fn damaged_packets((_, bytes) in from_client(), damages in vec(damage(), 1..4)) {
        let mut whole = bytes.clone();
        for damage in &damages {
            apply(&mut whole, damage);
        }
        decode_all(&whole);
        // The same damage behind a correct fixed header.
        let mut body = bytes[header_len(&bytes)..].to_vec();
        for damage in &damages {
            apply(&mut body, damage);
        }
        decode_all(&packet(bytes[0], &body));
    }

    /// Every prefix of a packet is incomplete, never wrong, and its length is known as soon as
    /// the fixed header is there.
    #[test]
    fn prefixes((version, bytes) in from_client(), tail in vec(any::<u8>(), 0..4)) {
        prop_assert!(decode(&bytes, version).is_ok());
        let header = header_len(&bytes);
        for cut in 0..bytes.len() {
            let expected = (cut >= header).then_some(bytes.len());
            prop_assert_eq!(frame_len(&bytes[..cut], u32::MAX), Ok(expected));
            prop_assert!(decode(&bytes[..cut], version).is_err());
        }
        let longer = [bytes.as_slice(), &tail].concat();
        prop_assert_eq!(frame_len(&longer, bytes.len() as u32), Ok(Some(bytes.len())));
        let over = frame_len(&longer, bytes.len() as u32 - 1).map_err(|e| e.reason);
        prop_assert_eq!(over, Err(ReasonCode::PacketTooLarge));
    }

    #[test]
    fn nothing_but_connect_comes_first((version, bytes) in from_client()) {
        prop_assert_eq!(decode(&bytes, None).is_ok(), version.is_none());
    }
}

/// Bytes of the fixed header.
fn header_len(bytes: &[u8]) -> usize {
    1 + bytes[1..].iter().take_while(|b| **b & 0x80 != 0).count() + 1
}
