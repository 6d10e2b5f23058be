//! What a node measures of itself, and what follows from it at the moment.

use super::Level;

/// One sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Inputs {
    /// Resident memory, as a part of what the node may use.
    pub memory: f64,
    /// The longest turn of an event loop since the last sample: so long a client's packet waits.
    pub loop_lag_ms: f64,
    /// How late a task of the runtime of consensus was, at worst, since the last sample.
    pub consensus_lag_ms: f64,
    /// Commands that wait for the log, as a part of those that may.
    pub proposals: f64,
    /// Bytes that wait for the fullest other node, as a part of those that may.
    pub forwards: f64,
}

/// A bound is passed again downwards only at this part of it.
const RELEASES_AT: f64 = 0.9;

const NEVER: f64 = f64::INFINITY;

/// From where on an input asks for [`Level::Shrink`], [`Level::Pause`] and [`Level::Refuse`].
struct Bounds {
    /// For logs.
    name: &'static str,
    of: fn(&Inputs) -> f64,
    levels: [f64; 3],
}

/// Leases run out 1.4 s after they were asked for, so consensus is given far less than that. What
/// waits for other nodes comes from publishers, and keeping clients out would not help it.
const BOUNDS: [Bounds; 5] = [
    Bounds { name: "memory", of: |inputs| inputs.memory, levels: [0.8, 0.9, 1.0] },
    Bounds { name: "event loops", of: |inputs| inputs.loop_lag_ms, levels: [300.0, 600.0, 2_000.0] },
    Bounds { name: "consensus", of: |inputs| inputs.consensus_lag_ms, levels: [250.0, 500.0, 1_000.0] },
    Bounds { name: "commands for the log", of: |inputs| inputs.proposals, levels: [0.25, 0.5, 0.9] },
    Bounds { name: "messages for other nodes", of: |inputs| inputs.forwards, levels: [0.6, NEVER, NEVER] },
];

impl Bounds {
    /// How far the input is beyond its lowest bound.
    fn strain(&self, inputs: &Inputs) -> f64 {
        (self.of)(inputs) / self.levels[0]
    }

    /// The level with bounds of this part of the present ones.
    fn level(&self, inputs: &Inputs, part: f64) -> Level {
        let value = (self.of)(inputs);
        Level::ALL[self.levels.iter().take_while(|bound| value >= **bound * part).count()]
    }
}

impl Inputs {
    /// The level that this sample asks for.
    pub fn demand(&self) -> Level {
        self.level_at(1.0)
    }

    /// The level that this sample lets nobody go below.
    pub fn floor(&self) -> Level {
        self.level_at(RELEASES_AT)
    }

    /// What asks for the level, for logs.
    pub fn cause(&self) -> &'static str {
        let worst = BOUNDS.iter().max_by(|a, b| a.strain(self).total_cmp(&b.strain(self)));
        worst.map_or("nothing", |bounds| bounds.name)
    }

    fn level_at(&self, part: f64) -> Level {
        BOUNDS.iter().map(|bounds| bounds.level(self, part)).max().unwrap_or_default()
    }
}
