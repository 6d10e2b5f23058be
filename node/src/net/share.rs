//! How many clients one listener may have, and how fast they may come.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::overload::{Rate, SharedBucket};

/// What one listener may have, and has; its sockets in all loops share it.
#[derive(Debug, Default)]
pub struct Share {
    connections_max: Option<u32>,
    accept_rate: Option<Rate>,
    bucket: SharedBucket,
    clients: AtomicU32,
}

impl Share {
    /// `None`: no bound beside the node's own.
    pub fn new(connections_max: Option<u32>, accept_rate: Option<Rate>) -> Self {
        Self { connections_max, accept_rate, ..Self::default() }
    }

    /// Whether one more client would be too many.
    pub(super) fn is_full(&self) -> bool {
        self.connections_max.is_some_and(|max| self.clients.load(Ordering::Relaxed) >= max)
    }

    pub(super) fn client_came(&self) {
        self.clients.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn client_left(&self) {
        self.clients.fetch_sub(1, Ordering::Relaxed);
    }

    fn take(&self, now_ns: u64) -> Result<(), u64> {
        self.accept_rate.map_or(Ok(()), |rate| self.bucket.take(rate, now_ns))
    }

    fn give_back(&self) {
        if let Some(rate) = self.accept_rate {
            self.bucket.give_back(rate);
        }
    }
}

/// The rate at which a node lets clients in, whatever listener they come to.
#[derive(Debug)]
pub(super) struct Door {
    rate: Option<Rate>,
    bucket: SharedBucket,
    began: crate::env::Instant,
}

impl Door {
    pub fn new(rate: Option<Rate>) -> Self {
        Self { rate, bucket: SharedBucket::default(), began: crate::env::now() }
    }

    /// Lets one client of the listener in.
    ///
    /// # Errors
    /// Not now: the next one in so many milliseconds, at least 1.
    pub fn admit(&self, share: &Share) -> Result<(), u64> {
        if self.rate.is_none() && share.accept_rate.is_none() {
            return Ok(());
        }
        let now_ns = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let admitted = share.take(now_ns).and_then(|()| {
            let taken = self.rate.map_or(Ok(()), |rate| self.bucket.take(rate, now_ns));
            taken.inspect_err(|_| share.give_back())
        });
        admitted.map_err(|wait_ns| wait_ns.div_ceil(1_000_000).max(1))
    }

    /// Nobody came who had been let in.
    pub fn give_back(&self, share: &Share) {
        share.give_back();
        if let Some(rate) = self.rate {
            self.bucket.give_back(rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_of_two_rates_counts_and_takes_nothing_from_the_other() {
        let door = Door::new(Rate::new(1, 5_000));
        let (slow, free) = (Share::new(None, Rate::new(1, 2_000)), Share::default());
        let admitted = |share: &Share| (0..10).filter(|_| door.admit(share).is_ok()).count();
        assert_eq!((admitted(&slow), admitted(&free)), (2, 3));
        assert!((500..=1_000).contains(&door.admit(&free).expect_err("none is left")));
        door.give_back(&free);
        assert_eq!(admitted(&slow), 0, "its own are used up");
        assert_eq!(admitted(&free), 1);
    }
}
