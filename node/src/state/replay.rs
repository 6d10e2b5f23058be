//! Retained messages on their way to a subscription, a page at a time.

use std::collections::btree_map::OccupiedEntry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::limits::REPLAY_EARLY_MAX;
use super::retained::{Retained, Walked};
use super::subscribers::Sub;
use crate::mqtt::{Message, QoS};
use crate::topic::{filter_matches, is_wildcard};

/// Counts the retained messages that were ever set: of two, the one set later has the higher.
pub(super) type Revision = u64;

/// Which of a subscription's retained messages a replay is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Part {
    All,
    /// Those that it gets at QoS 0.
    Unqueued,
    /// Those that it gets at QoS 1 and 2.
    Queued,
}

/// How far a subscription has been given the retained messages of its moment.
///
/// They are given in the order of topics. One that was replaced meanwhile is passed over: what
/// replaced it reaches the subscriber as any publish does. So a replay needs no copy of what it
/// is to give, misses nothing and gives nothing twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    sub: Sub,
    part: Part,
    /// What was set later is not of the subscription's moment.
    upto: Revision,
    /// Topics below have been looked at.
    from: Box<str>,
    /// Topics from there on whose message was given early, ahead of a newer one.
    early: BTreeSet<Box<str>>,
}

impl Replay {
    pub(super) fn new(sub: Sub, part: Part, upto: Revision) -> Self {
        Self { sub, part, upto, from: Box::default(), early: BTreeSet::new() }
    }

    /// The QoS at which `client` gets the message by this replay, if it does.
    fn qos_of(&self, message: &Message, client: &str) -> Option<QoS> {
        let qos = message.qos.min(self.sub.options.qos);
        let is_part = match self.part {
            Part::All => true,
            Part::Unqueued => qos == QoS::AtMostOnce,
            Part::Queued => qos > QoS::AtMostOnce,
        };
        (is_part && !self.sub.excludes(client, &message.publisher)).then_some(qos)
    }

    fn is_ahead(&self, filter: &str, topic: &str) -> bool {
        *self.from <= *topic && filter_matches(filter, topic) && !self.early.contains(topic)
    }
}

/// A retained message as a replay gives it.
#[derive(Clone, Copy, Debug)]
pub struct Replayed<'a> {
    pub message: &'a Arc<Message>,
    pub qos: QoS,
    /// Subscription identifier; 0: none.
    pub subscription_id: u32,
}

/// Why replays went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// They are over.
    Finished,
    /// A message was not taken.
    NoRoom,
    /// So many topics were looked at that others have a turn first.
    Paused,
}

/// The replays of one client, by filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replays {
    /// Apart, so that there may be very many: a topic is of one of them.
    exact: BTreeMap<Box<str>, Replay>,
    wildcard: BTreeMap<Box<str>, Replay>,
}

impl Replays {
    /// Replaces the filter's replay: `None` ends it.
    pub fn set(&mut self, filter: &str, replay: Option<Replay>) {
        let replays = if is_wildcard(filter) { &mut self.wildcard } else { &mut self.exact };
        match replay {
            Some(replay) => replays.insert(filter.into(), replay),
            None => replays.remove(filter),
        };
    }

    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty()
    }

    /// Whether a retained message of the topic may still be to come.
    pub fn is_ahead(&self, topic: &str) -> bool {
        let mut all = self.exact.get_key_value(topic).into_iter().chain(&self.wildcard);
        all.any(|(filter, replay)| replay.is_ahead(filter, topic))
    }

    fn first(&mut self) -> Option<OccupiedEntry<'_, Box<str>, Replay>> {
        self.exact.first_entry().or_else(|| self.wildcard.first_entry())
    }
}

impl Retained {
    /// The replay of a new subscription; `None`: nothing matches.
    pub(super) fn replay(&self, filter: &str, sub: Sub, part: Part) -> Option<Replay> {
        let part = if sub.is_durable() { part } else { Part::All };
        let is_there = match part {
            Part::Unqueued => self.at_qos0() > 0,
            Part::All | Part::Queued => self.may_match(filter),
        };
        is_there.then(|| Replay::new(sub, part, self.revision()))
    }

    /// Goes on with the replays of `client`, one after the other: calls `take` with what is next
    /// until it says that it did not take it, or until `visits`, which is counted down, is 0.
    pub(super) fn resume(
        &self,
        replays: &mut Replays,
        client: &str,
        clock_ms: u64,
        visits: &mut usize,
        take: &mut dyn FnMut(Replayed<'_>) -> bool,
    ) -> Resumed {
        while let Some(mut first) = replays.first() {
            let (filter, replay) = (first.key().clone(), first.get_mut());
            let from = std::mem::take(&mut replay.from);
            let walked = self.walk(&filter, &from, visits, |topic| {
                replay.early.remove(topic)
                    || self.give(replay, topic, client, clock_ms, take) != Given::NoRoom
            });
            match walked {
                Walked::Stopped(at) => {
                    replay.from = at;
                    return Resumed::NoRoom;
                }
                Walked::Paused(at) => {
                    replay.from = at;
                    return Resumed::Paused;
                }
                Walked::End => {
                    first.remove();
                }
            }
        }
        Resumed::Finished
    }

    /// Gives what the replays have of this topic, ahead of a newer message that is about to be
    /// delivered: a topic's messages keep their order [MQTT-4.6.0-5].
    pub(super) fn catch_up(
        &self,
        replays: &mut Replays,
        topic: &str,
        client: &str,
        clock_ms: u64,
        take: &mut dyn FnMut(Replayed<'_>) -> bool,
    ) {
        let exact = replays.exact.get_mut(topic).map(|replay| (topic, replay));
        let wildcard = replays.wildcard.iter_mut().map(|(filter, replay)| (&**filter, replay));
        for (filter, replay) in exact.into_iter().chain(wildcard) {
            if replay.is_ahead(filter, topic)
                && replay.early.len() < REPLAY_EARLY_MAX
                && self.give(replay, topic, client, clock_ms, take) == Given::Taken
            {
                replay.early.insert(topic.into());
            }
        }
    }

    fn give(
        &self,
        replay: &Replay,
        topic: &str,
        client: &str,
        clock_ms: u64,
        take: &mut dyn FnMut(Replayed<'_>) -> bool,
    ) -> Given {
        let Some(message) = self.get_upto(topic, replay.upto, clock_ms) else { return Given::Nothing };
        let Some(qos) = replay.qos_of(message, client) else { return Given::Nothing };
        let replayed = Replayed { message, qos, subscription_id: replay.sub.id };
        if take(replayed) { Given::Taken } else { Given::NoRoom }
    }
}

/// What became of a topic's retained message.
#[derive(PartialEq, Eq)]
enum Given {
    /// There is none for this replay.
    Nothing,
    Taken,
    NoRoom,
}
