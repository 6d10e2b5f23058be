//! The codec beside an independent one, mqtt-proto: whether they take a packet, what they read in
//! it, and what each makes of what the other writes. Where they disagree, `known` says why.
//!
//! `ROOKERY_FUZZ_SEED` changes which packets.

mod fields;
mod known;
mod theirs;

use std::collections::BTreeMap;
use std::env;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::gen_packets::from_client;
use super::gen_server::from_server;
use crate::mqtt::{Version, decode, decode_from_server};
use fields::{Fields, ours};
use known::{Disagreement, KNOWN, WRITTEN_WRONGLY};

/// Packets of clients, and as many of servers.
const PACKETS: usize = 1200;
/// Damaged forms that are made of each.
const DAMAGED: usize = 20;
const SEED: u64 = 20_190_307;

/// One input for both.
#[derive(Clone, Copy, Debug)]
struct Case<'a> {
    bytes: &'a [u8],
    /// `None`: the first packet of a client.
    version: Option<Version>,
    from_server: bool,
}

impl Case<'_> {
    fn by_us(&self) -> Result<Fields, &'static str> {
        let packet = match self.version {
            Some(version) if self.from_server => decode_from_server(self.bytes, version),
            _ => decode(self.bytes, self.version),
        };
        packet.map(|packet| ours(&packet)).map_err(|e| e.what)
    }

    fn by_them(&self) -> Result<Fields, String> {
        match self.version {
            Some(version) => theirs::decode(self.bytes, version),
            None => match theirs::decode(self.bytes, Version::V5) {
                Err(e) if e.contains("unexpected protocol") => theirs::decode(self.bytes, Version::V311),
                decoded => decoded,
            },
        }
    }

    /// Where the two disagree; nothing if they do not.
    fn disagreements(&self) -> Vec<Disagreement> {
        match (self.by_us(), self.by_them()) {
            (Ok(ours), Ok(theirs)) if ours == theirs => Vec::new(),
            (Ok(ours), Ok(theirs)) => {
                let names = ours.0.keys().chain(theirs.0.keys());
                let mut differing: Vec<_> = names.filter(|n| ours.0.get(*n) != theirs.0.get(*n)).collect();
                differing.sort();
                differing.dedup();
                differing.into_iter().map(|name| Disagreement::InField(name)).collect()
            }
            (Err(what), Ok(_)) => vec![Disagreement::OnlyWeRefuse(what)],
            (Ok(_), Err(what)) => vec![Disagreement::OnlyTheyRefuse(what)],
            (Err(_), Err(_)) => Vec::new(),
        }
    }

    /// Adds the disagreements that nobody has explained.
    fn judge(&self, unexplained: &mut BTreeMap<String, String>) {
        for found in self.disagreements() {
            if !KNOWN.iter().any(|known| known.explains(&found, self.version)) {
                let shown = format!("{self:02X?}\n  we    {:?}\n  they  {:?}", self.by_us(), self.by_them());
                unexplained.insert(format!("{found:?} in {:?}", self.version), shown);
            }
        }
    }
}

fn seed() -> u64 {
    env::var("ROOKERY_FUZZ_SEED").map_or(SEED, |seed| seed.parse().expect("ROOKERY_FUZZ_SEED is a number"))
}

fn samples<T: std::fmt::Debug>(of: impl Strategy<Value = T>) -> impl Iterator<Item = T> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed().to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    (0..PACKETS).map(move |_| of.new_tree(&mut runner).expect("a packet").current())
}

fn damaged(random: &mut StdRng, bytes: &[u8]) -> Vec<u8> {
    // The length stays right more often than not, so that what follows is looked at.
    let start = 1 + bytes[1..].iter().position(|b| b & 0x80 == 0).map_or(0, |at| at + 1);
    let mut body = bytes[start..].to_vec();
    let mut first = bytes[0];
    for _ in 0..random.random_range(1..3) {
        let at = random.random_range(0..=body.len());
        let there = at < body.len();
        match random.random_range(0..7) {
            0 if there => body[at] = random.random(),
            1 if there => body[at] ^= 1 << random.random_range(0..8),
            2 if there => drop(body.remove(at)),
            3 if there => body[at] = [0, 1, 2, 0x7F, 0x80, 0xFF][random.random_range(0..6)],
            4 => body.insert(at, random.random()),
            5 => body.truncate(at),
            _ => first ^= 1 << random.random_range(0..4),
        }
    }
    let mut packet = super::packet(first, &body);
    if random.random_ratio(1, 16) {
        packet[1] ^= 1 << random.random_range(0..8);
    }
    packet
}

/// Good packets: version, bytes, whether from a server.
fn packets() -> impl Iterator<Item = (Option<Version>, Vec<u8>, bool)> {
    let clients = samples(from_client()).map(|(version, bytes)| (version, bytes, false));
    clients.chain(samples(from_server()).map(|(version, bytes)| (Some(version), bytes, true)))
}

#[test]
fn both_read_the_same() {
    let mut random = StdRng::seed_from_u64(seed());
    let mut unexplained = BTreeMap::new();
    let mut accepted = 0;
    for (version, bytes, from_server) in packets() {
        let whole = Case { bytes: &bytes, version, from_server };
        whole.judge(&mut unexplained);
        accepted += usize::from(whole.by_them().is_ok());
        for _ in 0..DAMAGED {
            Case { bytes: &damaged(&mut random, &bytes), ..whole }.judge(&mut unexplained);
        }
    }
    // Else they would agree by refusing everything.
    assert!(accepted > PACKETS * 2 * 8 / 10, "mqtt-proto took only {accepted} good packets");
    let shown: Vec<_> = unexplained.iter().map(|(what, shown)| format!("{what}\n  {shown}\n")).collect();
    assert!(shown.is_empty(), "ROOKERY_FUZZ_SEED={}, unexplained:\n{}", seed(), shown.concat());
}

#[test]
fn we_read_what_they_write() {
    let mut read = 0;
    for (version, bytes, from_server) in packets() {
        let ours = Case { bytes: &bytes, version, from_server };
        // A CONNECT says which of the codec's two halves it is for.
        let halves = version.map_or(vec![Version::V311, Version::V5], |version| vec![version]);
        let again = halves.into_iter().find_map(|version| theirs::encoded_again(&bytes, version));
        if WRITTEN_WRONGLY.iter().any(|w| w.versions.contains(&version) && (w.spoils)(&bytes)) {
            continue;
        }
        let Some(again) = again else { continue };
        let theirs = Case { bytes: &again, ..ours };
        assert_eq!(theirs.by_us(), ours.by_us(), "they write {again:02X?} for {bytes:02X?}");
        read += 1;
    }
    assert!(read > PACKETS * 2 * 8 / 10, "mqtt-proto took only {read} good packets");
}

/// Each entry of the table shows what it says, so that none outlives its reason.
#[test]
fn what_is_known_is_so() {
    for known in KNOWN {
        let (from_server, bytes) = known.example;
        // The example of an entry for all versions may be a CONNECT.
        let first = if bytes[0] >> 4 == 1 { None } else { known.versions[0] };
        let found = Case { bytes, version: first, from_server }.disagreements();
        let shows = found.iter().any(|found| known.explains(found, first));
        assert!(shows, "{:?}, {:?} fault ({}): {found:?}", known.what, known.fault, known.why);
    }
    let failure = [0x90, 3, 0, 1, 0x80];
    for wrong in WRITTEN_WRONGLY {
        assert!(wrong.versions.contains(&Some(Version::V311)) && (wrong.spoils)(&failure));
        assert_ne!(theirs::encoded_again(&failure, Version::V311), Some(failure.to_vec()), "{}", wrong.why);
    }
}
