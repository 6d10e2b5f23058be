//! From samples to levels: up when several in a row ask for it, down when nothing has spoken
//! against it for a while.

use super::{Inputs, Level};

/// Samples in a row that must ask for a level.
const RISES_AFTER: usize = 3;
/// Samples in a row that must be below a level.
const FALLS_AFTER: usize = 10;
/// Samples for which nobody is accepted, at most: who waits is then told why, or where else to go.
const PAUSE_SAMPLES: u32 = 50;

/// Decides the level, one sample every [`Controller::PERIOD_MS`].
///
/// A sample that is worse in every respect never leads to a lower level, now or later; and an input
/// that goes to and fro across a bound moves the level at most once.
#[derive(Clone, Debug)]
pub struct Controller {
    level: Level,
    /// Samples that have followed each other and asked for this level (by its number) or more.
    asked: [usize; 4],
    /// Samples since the last that was at this level or above it.
    quiet: [usize; 4],
    /// Samples at [`Level::Pause`] or above it.
    paused: u32,
    /// That was too long.
    lasting: bool,
}

impl Default for Controller {
    fn default() -> Self {
        Self { level: Level::Normal, asked: [0; 4], quiet: [FALLS_AFTER; 4], paused: 0, lasting: false }
    }
}

impl Controller {
    /// Between two samples.
    pub const PERIOD_MS: u64 = 100;
    /// The longest that nobody is accepted.
    pub const PAUSE_MAX_MS: u64 = PAUSE_SAMPLES as u64 * Self::PERIOD_MS;

    /// Takes in a sample; the level from now on.
    pub fn sample(&mut self, inputs: &Inputs) -> Level {
        let (demand, floor) = (inputs.demand(), inputs.floor());
        for level in Level::ALL {
            let at = level as usize;
            self.asked[at] = if demand >= level { (self.asked[at] + 1).min(RISES_AFTER) } else { 0 };
            self.quiet[at] = if floor >= level { 0 } else { (self.quiet[at] + 1).min(FALLS_AFTER) };
        }
        let highest = |holds: &dyn Fn(usize) -> bool| {
            Level::ALL.into_iter().rev().find(|level| holds(*level as usize)).unwrap_or_default()
        };
        let asked = highest(&|at| self.asked[at] >= RISES_AFTER);
        let lately = highest(&|at| self.quiet[at] < FALLS_AFTER);
        self.level = asked.max(self.level.min(lately));
        let pauses = self.level >= Level::Pause;
        self.paused = if pauses { self.paused.saturating_add(1) } else { 0 };
        // Not when it is about to end.
        let goes_on = self.paused > PAUSE_SAMPLES && floor >= Level::Pause;
        self.lasting = pauses && (self.lasting || goes_on);
        if self.lasting { Level::Refuse } else { self.level }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(samples: &[Inputs]) -> Vec<Level> {
        let mut controller = Controller::default();
        samples.iter().map(|inputs| controller.sample(inputs)).collect()
    }

    fn memory(part: f64) -> Inputs {
        Inputs { memory: part, ..Inputs::default() }
    }

    fn changes(levels: &[Level]) -> usize {
        levels.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    #[test]
    fn a_level_is_reached_after_some_samples_and_left_after_more() {
        use Level::*;
        let levels = run(&[[memory(0.95); 4].as_slice(), &[memory(0.5); 12]].concat());
        assert_eq!(levels[..4], [Normal, Normal, Pause, Pause]);
        assert_eq!(levels[4..13], [Pause; 9]);
        assert_eq!(levels[13..], [Normal; 3]);
        // Every input counts by itself.
        for (inputs, level) in [
            (Inputs { loop_lag_ms: 600.0, ..Inputs::default() }, Pause),
            (Inputs { consensus_lag_ms: 1_200.0, ..Inputs::default() }, Refuse),
            (Inputs { proposals: 0.3, ..Inputs::default() }, Shrink),
            (Inputs { forwards: 5.0, ..Inputs::default() }, Shrink),
        ] {
            assert_eq!(run(&[inputs; 3])[2], level, "{inputs:?}");
        }
    }

    #[test]
    fn a_pause_that_lasts_becomes_a_refusal_until_it_is_over() {
        let samples = [vec![memory(0.95); 60], vec![memory(0.5); 10]].concat();
        let levels = run(&samples);
        let refused = levels.iter().filter(|level| **level == Level::Refuse).count();
        assert_eq!(levels[2 + PAUSE_SAMPLES as usize], Level::Refuse);
        assert_eq!(levels[1 + PAUSE_SAMPLES as usize], Level::Pause);
        assert_eq!((levels[69], refused), (Level::Normal, 60 - 2 - PAUSE_SAMPLES as usize + 9));
    }

    fn inputs() -> impl Strategy<Value = Inputs> {
        let part = || prop_oneof![0.0..1.3, Just(0.8), Just(0.9), Just(1.0), Just(0.72)];
        let lag = || prop_oneof![0.0..3_000.0, Just(0.0), Just(200.0), Just(500.0)];
        (part(), lag(), lag(), part(), part()).prop_map(
            |(memory, loop_lag_ms, consensus_lag_ms, proposals, forwards)| Inputs {
                memory,
                loop_lag_ms,
                consensus_lag_ms,
                proposals,
                forwards,
            },
        )
    }

    proptest! {
        /// More pressure, in any respect at any time, never leads to a lower level.
        #[test]
        fn it_is_monotone(
            samples in prop::collection::vec((inputs(), inputs()), 1..200),
        ) {
            let lighter: Vec<_> = samples.iter().map(|(inputs, _)| *inputs).collect();
            let heavier: Vec<_> = samples
                .iter()
                .map(|(a, b)| Inputs {
                    memory: a.memory.max(b.memory),
                    loop_lag_ms: a.loop_lag_ms.max(b.loop_lag_ms),
                    consensus_lag_ms: a.consensus_lag_ms.max(b.consensus_lag_ms),
                    proposals: a.proposals.max(b.proposals),
                    forwards: a.forwards.max(b.forwards),
                })
                .collect();
            for (light, heavy) in run(&lighter).into_iter().zip(run(&heavier)) {
                prop_assert!(light <= heavy);
            }
        }

        /// An input that goes to and fro across a bound moves the level once at most, and the pause
        /// that lasts once more.
        #[test]
        fn it_does_not_flap(
            bound in prop_oneof![Just(0.8), Just(0.9), Just(1.0)],
            noise in prop::collection::vec(-0.05..0.05, 1..300),
        ) {
            let samples: Vec<_> = noise.iter().map(|by| memory(bound * (1.0 + by))).collect();
            let levels = run(&samples);
            let to_level = changes(&levels);
            prop_assert!(to_level <= 3, "{levels:?}");
            prop_assert!(levels.windows(2).all(|pair| pair[0] <= pair[1]), "{levels:?}");
        }

        /// Whatever comes: between a rise and the next rise lies a fall that took its time.
        #[test]
        fn it_never_moves_faster_than_it_may(samples in prop::collection::vec(inputs(), 1..300)) {
            let levels = run(&samples);
            let mut last_rise = None;
            for (at, pair) in levels.windows(2).enumerate() {
                if pair[1] > pair[0] {
                    last_rise = Some(at);
                }
                if pair[1] < pair[0]
                    && let Some(rise) = last_rise
                {
                    prop_assert!(at - rise >= FALLS_AFTER - 1, "{levels:?}");
                }
            }
        }

        /// Without pressure it is over after a bounded time.
        #[test]
        fn it_ends(samples in prop::collection::vec(inputs(), 0..200)) {
            let rest = [samples.as_slice(), &[Inputs::default(); FALLS_AFTER]].concat();
            prop_assert_eq!(run(&rest).last().copied(), Some(Level::Normal));
        }
    }
}
