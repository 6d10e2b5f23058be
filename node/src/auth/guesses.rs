//! How often log-ins from an address have failed of late.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// Addresses that are watched; beyond it those are forgotten that have failed least.
const ADDRESSES_MAX: usize = 65_536;
/// Bits of an IPv6 address that a single subscriber has: what follows is hers to choose.
const V6_PREFIX: u32 = 64;

/// What failed log-ins lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Failed log-ins of an address beyond which its passwords are not tried any more until it is
    /// forgiven some.
    pub burst: u32,
    /// How long it takes to forgive one, milliseconds.
    pub forgive_ms: u32,
    /// How long the answer to a failed log-in is held back, milliseconds; more for each that came
    /// before it, up to ten times that.
    pub delay_ms: u32,
    /// Failed log-ins of an address from which on it is banned; 0: it is not.
    pub ban_after: u32,
    /// For how long, seconds.
    pub ban_s: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { burst: 20, forgive_ms: 1_000, delay_ms: 500, ban_after: 0, ban_s: 600 }
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    failures: u32,
    /// Up to when they have been forgiven, milliseconds.
    since_ms: u64,
}

/// Failed log-ins by address. Time is handed in: milliseconds of any monotonic clock.
#[derive(Debug, Default)]
pub struct Guesses {
    patience: Patience,
    buckets: HashMap<IpAddr, Bucket>,
}

fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let mask = u128::MAX << (128 - V6_PREFIX);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
        v4 => v4,
    }
}

impl Guesses {
    pub fn new(patience: Patience) -> Self {
        Self { patience, buckets: HashMap::new() }
    }

    fn forgive(&self, bucket: Bucket, now_ms: u64) -> Bucket {
        let every_ms = u64::from(self.patience.forgive_ms.max(1));
        let forgiven = now_ms.saturating_sub(bucket.since_ms) / every_ms;
        if forgiven >= u64::from(bucket.failures) {
            return Bucket { failures: 0, since_ms: now_ms };
        }
        let failures = bucket.failures - forgiven as u32;
        Bucket { failures, since_ms: bucket.since_ms + forgiven * every_ms }
    }

    /// Failures of the address that are not forgiven yet.
    fn failures(&self, address: IpAddr, now_ms: u64) -> u32 {
        let bucket = self.buckets.get(&subscriber(address));
        bucket.map_or(0, |bucket| self.forgive(*bucket, now_ms).failures)
    }

    /// Whether passwords from this address should not be tried for now.
    pub fn are_too_many(&self, address: IpAddr, now_ms: u64) -> bool {
        self.failures(address, now_ms) >= self.patience.burst
    }

    /// One more log-in failed. How long its answer is to be held back, milliseconds, and whether
    /// that was enough to ban the address.
    pub fn failed(&mut self, address: IpAddr, now_ms: u64) -> (u64, bool) {
        let key = subscriber(address);
        let had = self.buckets.get(&key).copied().unwrap_or(Bucket { failures: 0, since_ms: now_ms });
        let had = self.forgive(had, now_ms);
        if self.buckets.len() >= ADDRESSES_MAX && !self.buckets.contains_key(&key) {
            self.make_room(now_ms);
        }
        let failures = had.failures.saturating_add(1);
        self.buckets.insert(key, Bucket { failures, ..had });
        let Patience { delay_ms, ban_after, .. } = self.patience;
        let delay_ms = u64::from(delay_ms) * u64::from(failures.min(10));
        (delay_ms, ban_after > 0 && failures == ban_after)
    }

    /// Forgets those that have been forgiven everything, or else a half of all.
    fn make_room(&mut self, now_ms: u64) {
        let Self { patience, buckets } = self;
        let judge = Self::new(*patience);
        buckets.retain(|_, bucket| judge.forgive(*bucket, now_ms).failures > 0);
        if buckets.len() < ADDRESSES_MAX {
            return;
        }
        let mut all: Vec<u32> = buckets.values().map(|bucket| bucket.failures).collect();
        let (_, median, _) = all.select_nth_unstable(ADDRESSES_MAX / 2);
        let median = *median;
        let mut equal = ADDRESSES_MAX / 2;
        buckets.retain(|_, bucket| {
            let goes = bucket.failures < median || (bucket.failures == median && equal > 0);
            equal -= usize::from(goes && bucket.failures == median);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guesses() -> Guesses {
        Guesses::new(Patience { burst: 3, forgive_ms: 100, delay_ms: 10, ban_after: 5, ban_s: 1 })
    }

    #[test]
    fn failures_add_up_and_are_forgiven() {
        let mut guesses = guesses();
        let [a, b]: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        assert_eq!([0, 0, 0].map(|now| guesses.failed(a, now)), [(10, false), (20, false), (30, false)]);
        assert!(guesses.are_too_many(a, 0) && !guesses.are_too_many(b, 0));
        assert!(guesses.are_too_many(a, 99) && !guesses.are_too_many(a, 100));
        assert_eq!(guesses.failed(a, 150), (30, false));
        assert!(guesses.are_too_many(a, 199) && !guesses.are_too_many(a, 200));
        assert_eq!([200, 200, 200].map(|now| guesses.failed(a, now).1), [false, false, true]);
        assert!(!guesses.are_too_many(a, 10_000));
        assert_eq!(guesses.failed(a, 10_000), (10, false));
    }

    #[test]
    fn a_network_of_version_6_is_one_address() {
        let mut guesses = guesses();
        for last in 0..3 {
            guesses.failed(format!("2001:db8:1:2::{last}").parse().unwrap(), 0);
        }
        assert!(guesses.are_too_many("2001:db8:1:2:ffff::1".parse().unwrap(), 0));
        assert!(!guesses.are_too_many("2001:db8:1:3::1".parse().unwrap(), 0));
    }

    #[test]
    fn a_flood_from_everywhere_takes_bounded_room_and_forgets_the_small() {
        let mut guesses = guesses();
        let bad: IpAddr = "10.0.0.1".parse().unwrap();
        for _ in 0..3 {
            guesses.failed(bad, 0);
        }
        for n in 0..200_000u32 {
            guesses.failed(IpAddr::V4((0x2000_0000 + n).into()), 0);
            assert!(guesses.buckets.len() <= ADDRESSES_MAX);
        }
        assert!(guesses.are_too_many(bad, 0));
    }
}
