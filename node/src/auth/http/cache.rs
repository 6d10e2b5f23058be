//! Verdicts of the callback, remembered for a while.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::auth::Verdict;
use crate::env::Instant;

/// What stands for everything that was asked: a keyed hash of it.
pub type Tag = [u8; 32];

/// How many verdicts are remembered, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most that let a client in; of the others a quarter of that.
    pub max: usize,
    pub allow_ttl: Duration,
    pub other_ttl: Duration,
}

/// Verdicts that let a client in are kept apart from the others, so that guesses push out no others
/// than guesses.
pub struct Cache {
    allows: Shelf,
    others: Shelf,
}

struct Shelf {
    verdicts: HashMap<Tag, (Instant, Verdict)>,
    /// In the order in which they run out.
    order: VecDeque<(Instant, Tag)>,
    ttl: Duration,
    max: usize,
}

impl Cache {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            allows: Shelf::new(bounds.allow_ttl, bounds.max),
            others: Shelf::new(bounds.other_ttl, bounds.max.div_ceil(4)),
        }
    }

    /// `now_ms`: since the Unix epoch; a principal that has expired by then is not let in again.
    pub fn get(&self, tag: &Tag, now: Instant, now_ms: u64) -> Option<Verdict> {
        let (until, verdict) = self.allows.verdicts.get(tag).or_else(|| self.others.verdicts.get(tag))?;
        let expired = match verdict {
            Verdict::Allow(principal) => principal.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms),
            Verdict::Pass | Verdict::Deny(_) => false,
        };
        (now < *until && !expired).then(|| verdict.clone())
    }

    pub fn put(&mut self, tag: Tag, verdict: Verdict, now: Instant) {
        match verdict {
            Verdict::Allow(_) => {
                self.others.verdicts.remove(&tag);
                self.allows.put(tag, verdict, now);
            }
            Verdict::Pass | Verdict::Deny(_) => {
                self.allows.verdicts.remove(&tag);
                self.others.put(tag, verdict, now);
            }
        }
    }
}

impl Shelf {
    fn new(ttl: Duration, max: usize) -> Self {
        Self { verdicts: HashMap::new(), order: VecDeque::new(), ttl, max }
    }

    fn put(&mut self, tag: Tag, verdict: Verdict, now: Instant) {
        if self.max == 0 || self.ttl.is_zero() {
            return;
        }
        while self.order.front().is_some_and(|(until, _)| *until <= now) || self.order.len() >= self.max {
            let Some((until, tag)) = self.order.pop_front() else { break };
            // It may have been put again since.
            if self.verdicts.get(&tag).is_some_and(|(newest, _)| *newest == until) {
                self.verdicts.remove(&tag);
            }
        }
        let until = now + self.ttl;
        self.verdicts.insert(tag, (until, verdict));
        self.order.push_back((until, tag));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::{Failure, Principal};
    use crate::env;
    use crate::mqtt::ReasonCode;

    const SECOND: Duration = Duration::from_secs(1);

    fn cache(max: usize) -> Cache {
        Cache::new(Bounds { max, allow_ttl: 10 * SECOND, other_ttl: SECOND })
    }

    fn allow(expires_at_ms: Option<u64>) -> Verdict {
        Verdict::Allow(Arc::new(Principal { expires_at_ms, ..Principal::default() }))
    }

    fn deny() -> Verdict {
        Verdict::Deny(Failure::new(ReasonCode::NotAuthorized, "no"))
    }

    fn tag(n: u8) -> Tag {
        [n; 32]
    }

    #[test]
    fn each_for_its_time() {
        let (mut cache, now) = (cache(10), env::now());
        cache.put(tag(1), allow(None), now);
        cache.put(tag(2), deny(), now);
        cache.put(tag(3), Verdict::Pass, now);
        cache.put(tag(4), allow(Some(5_000)), now);
        let known = |cache: &Cache, after: Duration, now_ms| {
            (1..=4).filter(|n| cache.get(&tag(*n), now + after, now_ms).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(known(&cache, Duration::ZERO, 0), [1, 2, 3, 4]);
        assert_eq!(known(&cache, SECOND, 0), [1, 4]);
        assert_eq!(known(&cache, SECOND, 5_000), [1]);
        assert_eq!(known(&cache, 10 * SECOND, 0), [0u8; 0]);
        // Put again, it is good for its whole time.
        cache.put(tag(4), allow(Some(9_000)), now + 6 * SECOND);
        cache.put(tag(5), allow(None), now + 11 * SECOND);
        assert_eq!(known(&cache, 12 * SECOND, 5_000), [4]);
    }

    #[test]
    fn the_last_word_counts() {
        let (mut cache, now) = (cache(10), env::now());
        cache.put(tag(1), allow(None), now);
        cache.put(tag(1), deny(), now);
        assert!(matches!(cache.get(&tag(1), now, 0), Some(Verdict::Deny(_))));
        cache.put(tag(1), allow(None), now);
        assert!(matches!(cache.get(&tag(1), now, 0), Some(Verdict::Allow(_))));
    }

    #[test]
    fn the_oldest_makes_room_and_guesses_only_push_out_guesses() {
        let (mut cache, now) = (cache(8), env::now());
        for n in 0..9 {
            cache.put(tag(n), allow(None), now);
        }
        for n in 100..200 {
            cache.put(tag(n), deny(), now);
        }
        let known = |range: std::ops::Range<u8>| {
            range.filter(|n| cache.get(&tag(*n), now, 0).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(known(0..100), (1..9).collect::<Vec<_>>());
        assert_eq!(known(100..200), [198, 199]);
        assert!(cache.others.order.len() <= 2 && cache.others.verdicts.len() <= 2);
    }

    #[test]
    fn none_is_kept_where_none_may_be() {
        let now = env::now();
        for bounds in [
            Bounds { max: 0, allow_ttl: SECOND, other_ttl: SECOND },
            Bounds { max: 9, allow_ttl: Duration::ZERO, other_ttl: Duration::ZERO },
        ] {
            let mut cache = Cache::new(bounds);
            cache.put(tag(1), allow(None), now);
            cache.put(tag(2), deny(), now);
            assert!(cache.get(&tag(1), now, 0).is_none() && cache.get(&tag(2), now, 0).is_none());
        }
    }
}
