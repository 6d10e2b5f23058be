//! Acknowledgements of stored deliveries, coalesced before they go to the log.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::state::{DeliveryStep, Incarnation, QueueSeq};

/// How long an acknowledgement may wait for others of the same session.
pub const LINGER_MS: u64 = 50;
/// So many of one session go to the log at once.
pub const STEPS_MAX: usize = 64;

struct Waiting {
    incarnation: Incarnation,
    steps: Vec<(QueueSeq, DeliveryStep)>,
}

/// One session's steps, to be proposed together.
#[derive(Debug, PartialEq, Eq)]
pub struct SessionProgress {
    pub client: Arc<str>,
    pub incarnation: Incarnation,
    pub steps: Vec<(QueueSeq, DeliveryStep)>,
}

/// The steps of all sessions owned here that have not been proposed yet.
#[derive(Default)]
pub struct Progress(Mutex<HashMap<Arc<str>, Waiting>>);

impl Progress {
    /// Adds a session's steps; returns all of them once enough wait.
    pub fn add(
        &self,
        client: &Arc<str>,
        incarnation: Incarnation,
        steps: &[(QueueSeq, DeliveryStep)],
    ) -> Option<SessionProgress> {
        let mut all = self.0.lock();
        let waiting = all
            .entry(client.clone())
            .or_insert_with(|| Waiting { incarnation, steps: Vec::with_capacity(steps.len()) });
        if waiting.incarnation != incarnation {
            // What an earlier owner had not proposed is void: its client is asked again.
            *waiting = Waiting { incarnation, steps: Vec::new() };
        }
        waiting.steps.extend_from_slice(steps);
        if waiting.steps.len() < STEPS_MAX {
            return None;
        }
        all.remove(client).map(|w| of(client.clone(), w))
    }

    /// What waits for one session.
    pub fn take(&self, client: &Arc<str>, incarnation: Incarnation) -> Option<SessionProgress> {
        let mut all = self.0.lock();
        if all.get(client)?.incarnation != incarnation {
            return None;
        }
        all.remove(client).map(|w| of(client.clone(), w))
    }

    /// What waits for all sessions, by client id.
    pub fn take_all(&self) -> Vec<SessionProgress> {
        let mut all: Vec<_> = std::mem::take(&mut *self.0.lock()).into_iter().collect();
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        all.into_iter().map(|(client, waiting)| of(client, waiting)).collect()
    }
}

fn of(client: Arc<str>, waiting: Waiting) -> SessionProgress {
    SessionProgress { client, incarnation: waiting.incarnation, steps: waiting.steps }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_steps_go_at_once() {
        let progress = Progress::default();
        let client: Arc<str> = "c".into();
        for seq in 0..STEPS_MAX as u64 - 1 {
            assert_eq!(progress.add(&client, 1, &[(seq, DeliveryStep::Done)]), None);
        }
        let all = progress.add(&client, 1, &[(99, DeliveryStep::Done)]).expect("full");
        assert_eq!(all.steps.len(), STEPS_MAX);
        assert!(progress.take_all().is_empty());
    }

    #[test]
    fn an_earlier_owners_steps_are_void() {
        let progress = Progress::default();
        let client: Arc<str> = "c".into();
        progress.add(&client, 1, &[(0, DeliveryStep::Done)]);
        progress.add(&client, 2, &[(5, DeliveryStep::Done)]);
        assert_eq!(progress.take(&client, 1), None);
        assert_eq!(progress.take(&client, 2).expect("the new owner's").steps.len(), 1);
    }
}
