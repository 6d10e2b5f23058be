//! Token buckets in the form of the generic cell rate algorithm (ITU-T I.371): all that a bucket
//! holds is the time at which it will be full again.

use std::sync::atomic::{AtomicU64, Ordering};

const NANOS: u64 = 1_000_000_000;

/// How many a second, and how many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    each_ns: u64,
    burst_ns: u64,
}

impl Rate {
    /// `per_s` of them a second, as many as come in `burst_ms` at once; `None`: 0, no bound.
    pub fn new(per_s: u64, burst_ms: u64) -> Option<Self> {
        let each_ns = NANOS / per_s.clamp(1, NANOS);
        (per_s > 0).then_some(Self { each_ns, burst_ns: burst_ms.saturating_mul(1_000_000).max(each_ns) })
    }

    /// When a bucket that is to be full at `full_ns` will be full after `count` more; they are
    /// allowed if that is no further ahead than a burst.
    fn after(self, full_ns: u64, now_ns: u64, count: u64) -> u64 {
        full_ns.max(now_ns).saturating_add(self.each_ns.saturating_mul(count))
    }
}

/// A bucket of one owner. Times are nanoseconds of the owner's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_ns: u64,
}

impl Bucket {
    /// Takes `count`, whether they are there or not; how long the owner has to wait for having taken
    /// too many, nanoseconds. A wait beyond `forgiven_ns` is cut off, and what is left of the debt
    /// with it.
    pub fn spend(&mut self, rate: Rate, now_ns: u64, count: u64, forgiven_ns: u64) -> u64 {
        let most_ns = now_ns.saturating_add(rate.burst_ns).saturating_add(forgiven_ns);
        self.full_ns = rate.after(self.full_ns, now_ns, count).min(most_ns);
        self.full_ns.saturating_sub(now_ns.saturating_add(rate.burst_ns))
    }
}

/// A bucket that several threads take from.
#[derive(Debug, Default)]
pub struct SharedBucket {
    full_ns: AtomicU64,
}

impl SharedBucket {
    /// Takes one.
    ///
    /// # Errors
    /// There is none; the next one is there after so many nanoseconds.
    pub fn take(&self, rate: Rate, now_ns: u64) -> Result<(), u64> {
        let most_ns = now_ns.saturating_add(rate.burst_ns);
        let mut full_ns = self.full_ns.load(Ordering::Relaxed);
        loop {
            let after_ns = rate.after(full_ns, now_ns, 1);
            if after_ns > most_ns {
                return Err(after_ns - most_ns);
            }
            let swapped =
                self.full_ns.compare_exchange_weak(full_ns, after_ns, Ordering::Relaxed, Ordering::Relaxed);
            match swapped {
                Ok(_) => return Ok(()),
                Err(other) => full_ns = other,
            }
        }
    }

    /// Gives one back that was taken for nothing.
    pub fn give_back(&self, rate: Rate) {
        // Only how full it is would be wrong at 0, and only for a burst.
        let _ = self
            .full_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |ns| ns.checked_sub(rate.each_ns));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_rate_is_no_bound_and_any_rate_allows_one() {
        assert_eq!(Rate::new(0, 100), None);
        for per_s in [1, 3, 1_000_000_000, u64::MAX] {
            let bucket = SharedBucket::default();
            assert_eq!(bucket.take(Rate::new(per_s, 0).expect("a rate"), 0), Ok(()), "{per_s}");
        }
    }

    #[test]
    fn a_burst_at_once_and_the_rate_afterwards() {
        let rate = Rate::new(1_000, 100).expect("a rate");
        let bucket = SharedBucket::default();
        let mut taken = 0;
        for now_ms in 0..1_000 {
            while bucket.take(rate, now_ms * 1_000_000).is_ok() {
                taken += 1;
            }
            assert_eq!(taken, 100 + now_ms, "after {now_ms} ms");
        }
        // What was given back is there again, and nothing besides.
        let now_ns = 999 * 1_000_000;
        assert_eq!(bucket.take(rate, now_ns), Err(1_000_000));
        bucket.give_back(rate);
        assert_eq!(bucket.take(rate, now_ns), Ok(()));
        assert!(bucket.take(rate, now_ns).is_err());
    }

    #[test]
    fn a_debt_has_a_bound() {
        let rate = Rate::new(10, 1_000).expect("a rate");
        let mut bucket = Bucket::default();
        assert_eq!(bucket.spend(rate, 0, 10, 5 * NANOS), 0);
        assert_eq!(bucket.spend(rate, 0, 5, 5 * NANOS), NANOS / 2);
        assert_eq!(bucket.spend(rate, 0, u64::MAX, 5 * NANOS), 5 * NANOS);
        assert_eq!(bucket.spend(rate, 5 * NANOS, 1, 5 * NANOS), NANOS / 10);
        assert!(size_of::<Bucket>() <= 8);
    }

    proptest! {
        /// Whatever comes when, never more than the burst and the rate together.
        #[test]
        fn never_more_than_the_rate(
            per_s in 1_u64..100_000,
            burst_ms in 0_u64..2_000,
            steps in prop::collection::vec((0_u64..300, 0_u64..200), 1..100),
        ) {
            let rate = Rate::new(per_s, burst_ms).expect("a rate");
            let bucket = SharedBucket::default();
            let (mut now_ms, mut taken) = (0, 0);
            for (pause_ms, wanted) in steps {
                now_ms += pause_ms;
                for _ in 0..wanted {
                    taken += u64::from(bucket.take(rate, now_ms * 1_000_000).is_ok());
                }
                let most = (now_ms + burst_ms) * NANOS / 1_000 / rate.each_ns + 1;
                prop_assert!(taken <= most, "{taken} of {most} after {now_ms} ms");
            }
        }
    }
}
