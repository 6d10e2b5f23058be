//! What a seed makes of a run: who takes part, which faults there are and how many. Each seed leaves
//! much out, so that what is left happens often and in combinations that all of it would drown.

use super::faults::Kind;
use super::rng::Rng;

/// The stream of randomness that draws scenarios.
const STREAM: u64 = 1000;

/// One run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The faults that may happen, each with its weight.
    pub faults: Vec<(Kind, u64)>,
    /// From one fault to the next, milliseconds; they may overlap.
    pub pause_ms: (u64, u64),
    /// How long faults happen, milliseconds.
    pub faults_ms: u64,
    /// Longest way of a message through the network, milliseconds.
    pub latency_ms: u64,
    /// How long the disk takes to sync, milliseconds. What is not synced when the machine loses power
    /// is what the last moments brought.
    pub sync_ms: u64,
    /// Entries between two snapshots, and those that are kept before the last one.
    pub snapshot_every: u64,
    pub keep_log: u64,
    /// Two clients of one id.
    pub twins: bool,
    /// A publisher of retained messages, and a reader.
    pub retained: bool,
    /// Publishers at QoS 2.
    pub exactly_once: usize,
    /// Clients with wills, and a witness.
    pub wills: bool,
    /// A group that shares, and its publishers.
    pub shared: bool,
    /// Clean subscribers.
    pub clean: bool,
    /// Messages and a session that expire.
    pub expiry: bool,
    /// More messages than a session can have waiting.
    pub flood: bool,
}

impl Scenario {
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed, STREAM);
        let mut faults: Vec<(Kind, u64)> = Vec::new();
        for kind in Kind::ALL {
            let weight = rng.between(1, 5);
            if rng.chance(35) {
                faults.push((kind, weight));
            }
        }
        let pauses = [(100, 1_500), (300, 3_000), (500, 5_000), (2_000, 8_000)];
        let snapshots = [(500, 200), (60, 20), (2_000, 500)];
        let (snapshot_every, keep_log) = pick(&mut rng, &snapshots);
        Self {
            faults,
            pause_ms: pick(&mut rng, &pauses),
            faults_ms: rng.between(12_000, 25_000),
            latency_ms: pick(&mut rng, &[2, 8, 8, 30]),
            sync_ms: pick(&mut rng, &[1, 3, 3, 12]),
            snapshot_every,
            keep_log,
            twins: rng.chance(50),
            retained: rng.chance(50),
            exactly_once: rng.between(0, 3) as usize,
            wills: rng.chance(60),
            shared: rng.chance(50),
            clean: rng.chance(60),
            expiry: rng.chance(40),
            flood: rng.chance(15),
        }
    }
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.between(0, from.len() as u64) as usize]
}
