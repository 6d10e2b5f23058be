//! Who owns which client id, and the persistent sessions.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::cow::CowMap;
use super::nodes::{LifeId, Nodes};
use super::session::Session;
use super::{Incarnation, Will};

/// A claimed client id. A clean session is nothing but its claim; there may be many millions.
#[derive(Clone, Debug)]
pub(super) enum Claimed {
    Clean(CleanClaim),
    Persistent(Arc<Session>),
}

#[derive(Clone, Debug)]
pub(super) struct CleanClaim {
    pub incarnation: Incarnation,
    pub will: Option<Arc<Will>>,
    /// The owner plus 1: the zero tells the two kinds of claims apart without a byte more.
    owner: NonZeroU32,
}

impl CleanClaim {
    pub(super) fn new(incarnation: Incarnation, owner: LifeId, will: Option<Arc<Will>>) -> Self {
        Self { incarnation, will, owner: NonZeroU32::MIN.saturating_add(owner) }
    }

    fn owner(&self) -> LifeId {
        self.owner.get() - 1
    }
}

impl Claimed {
    pub(super) fn incarnation(&self) -> Incarnation {
        match self {
            Self::Clean(claim) => claim.incarnation,
            Self::Persistent(session) => session.incarnation,
        }
    }

    pub(super) fn owner(&self) -> Option<LifeId> {
        match self {
            Self::Clean(claim) => Some(claim.owner()),
            Self::Persistent(session) => session.owner,
        }
    }

    pub(super) fn session(&self) -> Option<&Session> {
        match self {
            Self::Clean(_) => None,
            Self::Persistent(session) => Some(session),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Sessions {
    claims: CowMap<Claimed>,
    persistent: usize,
    /// What is due when, of sessions without an owner.
    deadlines: BTreeSet<(u64, Arc<str>)>,
}

impl Sessions {
    pub(super) fn claims(&self) -> &CowMap<Claimed> {
        &self.claims
    }

    /// Persistent sessions, connected or not.
    pub(super) fn persistent(&self) -> usize {
        self.persistent
    }

    #[inline]
    pub(super) fn get(&self, client: &str) -> Option<&Claimed> {
        self.claims.get(client)
    }

    #[inline]
    pub(super) fn session(&self, client: &str) -> Option<&Session> {
        self.claims.get(client)?.session()
    }

    /// The id as the map holds it, so that all who keep it share one copy.
    pub(super) fn key(&self, client: &str) -> Option<&Arc<str>> {
        Some(self.claims.get_key_value(client)?.0)
    }

    /// For changes that leave owner and deadlines alone.
    pub(super) fn session_mut(&mut self, client: &str) -> Option<&mut Session> {
        match self.claims.get_mut(client)? {
            Claimed::Clean(_) => None,
            Claimed::Persistent(session) => Some(Arc::make_mut(session)),
        }
    }

    /// As [`Self::session_mut`], if the session is of this incarnation.
    pub(super) fn current_mut(&mut self, client: &str, incarnation: Incarnation) -> Option<&mut Session> {
        if self.session(client)?.incarnation != incarnation {
            return None;
        }
        self.session_mut(client)
    }

    /// Changes a session's owner, will or expiry, and keeps the index of deadlines in step.
    pub(super) fn update<R>(&mut self, client: &str, change: impl FnOnce(&mut Session) -> R) -> Option<R> {
        let session = self.session_mut(client)?;
        let before = session.deadline_ms();
        let result = change(session);
        let after = session.deadline_ms();
        if before != after {
            let key = Arc::clone(self.key(client)?);
            if let Some(at) = before {
                self.deadlines.remove(&(at, Arc::clone(&key)));
            }
            if let Some(at) = after {
                self.deadlines.insert((at, key));
            }
        }
        Some(result)
    }

    /// Adds a claim whose client id has none.
    pub(super) fn insert(&mut self, client: Arc<str>, claimed: Claimed) {
        if let Claimed::Persistent(session) = &claimed {
            self.persistent += 1;
            if let Some(at) = session.deadline_ms() {
                self.deadlines.insert((at, Arc::clone(&client)));
            }
        }
        self.claims.insert(client, claimed);
    }

    pub(super) fn remove(&mut self, client: &str) -> Option<(Arc<str>, Claimed)> {
        let key = Arc::clone(self.key(client)?);
        let claimed = self.claims.remove(client)?;
        if let Claimed::Persistent(session) = &claimed {
            self.persistent -= 1;
            if let Some(at) = session.deadline_ms() {
                self.deadlines.remove(&(at, Arc::clone(&key)));
            }
        }
        Some((key, claimed))
    }

    /// Clients with a deadline at or before the clock, the oldest first.
    pub(super) fn due(&self, clock_ms: u64) -> impl Iterator<Item = &Arc<str>> {
        self.deadlines.iter().take_while(move |(at, _)| *at <= clock_ms).map(|(_, c)| c)
    }

    /// Clients of one shard whose owner's life is over.
    pub(super) fn ended<'a>(&'a self, shard: usize, nodes: &'a Nodes) -> impl Iterator<Item = &'a Arc<str>> {
        self.claims.shard(shard).filter(|(_, c)| c.owner().is_some_and(|o| !nodes.is_up(o))).map(|(c, _)| c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claim_of_a_clean_session_is_small() {
        assert!(size_of::<(Arc<str>, Claimed)>() <= 40);
    }
}
