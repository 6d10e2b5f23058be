//! Claims, releases, and what happens to sessions as time passes.

use std::sync::Arc;

use super::machine::{Cause, State};
use super::nodes::LifeId;
use super::session::{NEVER, Session};
use super::sessions::{Claimed, CleanClaim};
use super::subscribers::Sub;
use super::{Claim, Effect, Incarnation, Outcome, QueueSeq, Will, WillFate};
use crate::mqtt::Message;
use crate::topic::split_shared;

impl State {
    pub(super) fn claim(&mut self, cause: Cause, claim: &Claim, effects: &mut Vec<Effect>) -> Outcome {
        let client = claim.client.as_ref();
        self.settle(client, effects);
        self.supersede(client, claim.clean_start, effects);

        let incarnation = self.next_incarnation(cause);
        let will = claim.will.clone().map(Arc::new);
        self.nodes.claim_added(cause.life);
        let (clock_ms, queue_limits) = (self.clock_ms, self.allowed.queue);
        let resumed = self.update_owner(client, |session| {
            session.incarnation = incarnation;
            session.queue.claimed();
            own(session, cause, claim, will.clone());
            session.queue.reserve(session.reserved_max(), clock_ms);
            session.answer_replay();
            session.is_hungry(&queue_limits)
        });
        if let Some(is_hungry) = resumed {
            self.hand_out_to(client, effects);
            if is_hungry {
                self.refill(client, effects);
            }
            return Outcome::Claimed { incarnation, session_present: true };
        }
        let claimed = if claim.expiry_s == 0 {
            Claimed::Clean(CleanClaim::new(incarnation, cause.life, will))
        } else {
            let mut session = Session::new(incarnation, claim.receive_maximum);
            own(&mut session, cause, claim, will);
            Claimed::Persistent(Arc::new(session))
        };
        self.sessions.insert(Arc::clone(&claim.client), claimed);
        Outcome::Claimed { incarnation, session_present: false }
    }

    /// Ends the ownership of a connection that the new one replaces, and the session if it does
    /// not go on. Afterwards there is either no claim or a session without owner and will.
    fn supersede(&mut self, client: &str, clean_start: bool, effects: &mut Vec<Effect>) {
        let Some(claimed) = self.sessions.get(client) else { return };
        let incarnation = claimed.incarnation();
        let owner = claimed.owner();
        if let Some((node, epoch)) = owner.and_then(|o| self.nodes.up(o))
            && let Some(client) = self.sessions.key(client).cloned()
        {
            effects.push(Effect::TakenOver { client, node, epoch, incarnation });
        }
        let Some(session) = claimed.session() else {
            self.end(client, effects);
            return;
        };
        // A session of expiry 0 ends with its connection, whoever closes that.
        let ends_with_connection = owner.is_some() && session.expiry_s == 0;
        if clean_start || ends_with_connection {
            self.end(client, effects);
            return;
        }
        // The session goes on: a will with a delay is not sent any more [MQTT-3.1.3-9]; one
        // without has been due since the old connection was closed.
        let will = self.update_owner(client, |session| {
            session.owner = None;
            (session.expires_at_ms, session.will_at_ms) = (NEVER, NEVER);
            session.will.take()
        });
        if let Some(owner) = owner {
            self.nodes.claim_removed(owner);
        }
        if let Some(Some(will)) = will
            && owner.is_some()
            && will.delay_s == 0
        {
            self.fire(&will, effects);
        }
    }

    pub(super) fn release(
        &mut self,
        client: &str,
        incarnation: Incarnation,
        fate: WillFate,
        expiry_s: Option<u32>,
        sent: Option<QueueSeq>,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let claimed = self.sessions.get(client).filter(|c| c.incarnation() == incarnation);
        let Some(owner) = claimed.and_then(Claimed::owner) else { return Outcome::Stale };
        if let Some(Claimed::Clean(_)) = claimed {
            if let Some((_, Claimed::Clean(claim))) = self.sessions.remove(client) {
                self.nodes.claim_removed(owner);
                if let (WillFate::Fire, Some(will)) = (fate, claim.will) {
                    self.fire(&will, effects);
                }
            }
            return Outcome::Ok;
        }
        let clock_ms = self.clock_ms;
        self.update_owner(client, |session| {
            if let Some(expiry_s) = expiry_s {
                session.expiry_s = expiry_s;
            }
            if fate == WillFate::Discard {
                session.will = None;
            }
            if let Some(sent) = sent {
                session.queue.unreserve(sent);
            }
            session.disown(clock_ms);
        });
        self.nodes.claim_removed(owner);
        self.give_back(client, effects);
        self.expire(client, effects);
        Outcome::Ok
    }

    /// Changes a session's owner, and tells the shared subscriptions that it has.
    fn update_owner<R>(&mut self, client: &str, change: impl FnOnce(&mut Session) -> R) -> Option<R> {
        let result = self.sessions.update(client, change)?;
        if let Some(session) = self.sessions.session(client) {
            for filter in session.shared_filters() {
                self.shared.own(filter, client, session.owner);
            }
        }
        Some(result)
    }

    /// Does what is due for the client: its owner's life may be over, its will or its session's
    /// end may be due. Does nothing if nothing is.
    pub(super) fn sweep(&mut self, client: &str, effects: &mut Vec<Effect>) {
        self.settle(client, effects);
        self.expire(client, effects);
    }

    /// If the owner's life is over: the connection ended when the life did.
    fn settle(&mut self, client: &str, effects: &mut Vec<Effect>) {
        let Some(claimed) = self.sessions.get(client) else { return };
        let Some(owner) = claimed.owner() else {
            return self.expire(client, effects);
        };
        if self.nodes.is_up(owner) {
            return;
        }
        if claimed.session().is_none() {
            self.end(client, effects);
            return;
        }
        let down_at_ms = self.nodes.life(owner).and_then(|l| l.down_at_ms).unwrap_or(self.clock_ms);
        self.update_owner(client, |session| session.disown(down_at_ms));
        self.nodes.claim_removed(owner);
        self.give_back(client, effects);
        self.expire(client, effects);
    }

    /// Of a session without owner: ends it, or fires its will, if the time has come.
    fn expire(&mut self, client: &str, effects: &mut Vec<Effect>) {
        let Some(session) = self.sessions.session(client).filter(|s| s.owner.is_none()) else { return };
        if session.expires_at_ms <= self.clock_ms {
            self.end(client, effects);
        } else if session.will_at_ms <= self.clock_ms {
            let will = self.sessions.update(client, |session| {
                session.will_at_ms = NEVER;
                session.will.take()
            });
            if let Some(Some(will)) = will {
                self.fire(&will, effects);
            }
        }
    }

    /// Ends the claim, and the session with all that belongs to it; its will, if it still has
    /// one, fires now [MQTT-3.1.2-8].
    fn end(&mut self, client: &str, effects: &mut Vec<Effect>) {
        let Some((client, claimed)) = self.sessions.remove(client) else { return };
        if let Some(owner) = claimed.owner() {
            self.nodes.claim_removed(owner);
        }
        let will = match claimed {
            Claimed::Clean(claim) => claim.will,
            Claimed::Persistent(session) => {
                for filter in session.subs.keys() {
                    self.unlink(filter, &client);
                }
                let will = session.will.clone();
                if session.queue.has_reassignable() {
                    let entries = Arc::unwrap_or_clone(session).queue.into_reassignable().collect();
                    self.wait_again(entries, effects);
                }
                will
            }
        };
        if let Some(will) = will {
            self.fire(&will, effects);
        }
    }

    /// Enters a subscription into the index it belongs to.
    pub(super) fn link(&mut self, filter: &str, client: &Arc<str>, sub: Sub, owner: Option<LifeId>) {
        match split_shared(filter) {
            Some(_) => self.shared.join(filter, client, sub, owner),
            None => self.subscribers.insert(filter, client, sub),
        }
    }

    pub(super) fn unlink(&mut self, filter: &str, client: &str) {
        match split_shared(filter) {
            Some(_) => self.shared.leave(filter, client),
            None => self.subscribers.remove(filter, client),
        }
    }

    fn fire(&mut self, will: &Will, effects: &mut Vec<Effect>) {
        let message = match will.expiry_s {
            None => Arc::clone(&will.message),
            Some(expiry_s) => Arc::new(Message {
                expires_at_ms: self.clock_ms.saturating_add(u64::from(expiry_s) * 1000).max(1),
                ..Message::clone(&will.message)
            }),
        };
        self.publish(&message, effects);
    }
}

/// Gives the session to the claiming connection.
fn own(session: &mut Session, cause: Cause, claim: &Claim, will: Option<Arc<Will>>) {
    session.owner = Some(cause.life);
    session.expiry_s = claim.expiry_s;
    session.receive_maximum = claim.receive_maximum.max(1);
    (session.expires_at_ms, session.will_at_ms) = (NEVER, NEVER);
    session.will = will;
}
