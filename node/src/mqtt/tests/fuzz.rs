//! Arbitrary and damaged bytes: nothing panics, and what is accepted holds together.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::gen_packets::from_client;
use super::{decode_all, packet};
use crate::mqtt::*;

const VERSIONS: [Option<Version>; 4] = [None, Some(Version::V31), Some(Version::V311), Some(Version::V5)];

/// Whatever is accepted, in whatever way it is decoded, must be sound.
fn sound_in_every_version(bytes: &[u8]) {
    VERSIONS.into_iter().for_each(|version| decode_all(bytes, version));
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
        sound_in_every_version(&bytes);
    }

    /// The length is right, so that what follows is looked at.
    #[test]
    fn arbitrary_bodies(first in any::<u8>(), body in vec(prop_oneof![0..=0x2Au8, any::<u8>()], 0..40)) {
        sound_in_every_version(&packet(first, &body));
    }

    #[test]
    fn damaged_packets((_, bytes) in from_client(), damages in vec(damage(), 1..4)) {
        let mut whole = bytes.clone();
        for damage in &damages {
            apply(&mut whole, damage);
        }
        sound_in_every_version(&whole);
        // The same damage behind a correct fixed header.
        let mut body = bytes[header_len(&bytes)..].to_vec();
        for damage in &damages {
            apply(&mut body, damage);
        }
        sound_in_every_version(&packet(bytes[0], &body));
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
