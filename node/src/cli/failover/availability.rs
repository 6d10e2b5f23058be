//! How long who was without an answer. Pure: times are those since the start of the run.

use std::time::Duration;

use serde::Serialize;

/// The longest time without an event, from a first one on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gap {
    last: Option<Duration>,
    longest: Duration,
}

impl Gap {
    pub fn event(&mut self, at: Duration) {
        self.longest = self.up_to(at);
        self.last = Some(at);
    }

    /// The longest time without an event until `end`.
    pub fn up_to(&self, end: Duration) -> Duration {
        self.last.map_or(self.longest, |last| self.longest.max(end.saturating_sub(last)))
    }
}

/// Some of the times that something took, milliseconds; null when it never happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Times {
    pub count: usize,
    pub p50_ms: Option<u64>,
    pub p99_ms: Option<u64>,
    pub max_ms: Option<u64>,
}

impl Times {
    pub fn of(times: &[Duration]) -> Self {
        let mut sorted: Vec<u64> = times.iter().map(|time| time.as_millis() as u64).collect();
        sorted.sort_unstable();
        // The smallest that so many percent do not exceed.
        let percentile = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied()
        };
        Times {
            count: sorted.len(),
            p50_ms: percentile(50),
            p99_ms: percentile(99),
            max_ms: sorted.last().copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_gap_counts_from_the_first_event_to_the_end() {
        let mut gap = Gap::default();
        assert_eq!(gap.up_to(ms(500)), ms(0), "it was never available, so it was not interrupted");
        for at in [1000, 1100, 1400, 1450] {
            gap.event(ms(at));
        }
        assert_eq!(gap.up_to(ms(1500)), ms(300));
        assert_eq!(gap.up_to(ms(9000)), ms(7550), "it did not come back");
    }

    #[test]
    fn percentiles_are_times_that_were_taken() {
        let times: Vec<Duration> = (1..=200).map(ms).collect();
        let want = Times { count: 200, p50_ms: Some(100), p99_ms: Some(198), max_ms: Some(200) };
        assert_eq!(Times::of(&times), want);
        let want = Times { count: 1, p50_ms: Some(7), p99_ms: Some(7), max_ms: Some(7) };
        assert_eq!(Times::of(&[ms(7)]), want);
        assert_eq!(Times::of(&[]), Times::default());
    }
}
