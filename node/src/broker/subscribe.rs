//! SUBSCRIBE and UNSUBSCRIBE. A SUBACK leaves when every live node routes what matches to this
//! subscriber: the announcement of a clean session's filter, or the subscription of a persistent
//! session, is applied on all of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Broker;
use super::filters::Filters;
use super::lapse::Turn;
use super::local::{RouteChange, RouteWait, Subscriber};
use crate::auth::Ask;
use crate::mqtt::{QoS, ReasonCode, SubOptions, Version, topic};
use crate::session::{self, Conn, Ended, FILTERS_AT_ONCE, SubscribeItem};
use crate::state::limits::REPLAY_VISITS_MAX;
use crate::state::{Added, Command, LogIndex, Outcome, Subscription};

fn granted(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
        QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
    }
}

impl Broker {
    pub(super) fn subscribe_from(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        packet_id: u16,
        subscription_id: u32,
        items: &[SubscribeItem<'_>],
    ) {
        if self.refuses_writes() {
            return refuse_subscribe(conn, packet_id, ReasonCode::QuotaExceeded, items.len());
        }
        match self.turn_of_request() {
            Turn::Now => return self.subscribe_now(conn, packet_id, subscription_id, items),
            _ if self.serves_its_own() && !conn.is_persistent() => {
                return self.subscribe_now(conn, packet_id, subscription_id, items);
            }
            Turn::Never => {
                return refuse_subscribe(conn, packet_id, ReasonCode::UnspecifiedError, items.len());
            }
            Turn::Later => {}
        }
        let owned: Vec<(Box<str>, SubOptions)> = items.iter().map(|i| (i.filter.into(), i.options)).collect();
        let bytes = owned.iter().map(|(filter, _)| filter.len() + size_of::<SubscribeItem<'_>>()).sum();
        let waiting = conn.clone();
        self.when_leased(bytes, move |broker, leased| {
            if leased {
                let items: Vec<_> = owned
                    .iter()
                    .map(|(filter, options)| SubscribeItem { filter, options: *options })
                    .collect();
                broker.subscribe_now(&waiting, packet_id, subscription_id, &items);
            } else {
                refuse_subscribe(&waiting, packet_id, ReasonCode::UnspecifiedError, owned.len());
            }
        });
    }

    fn subscribe_now(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        packet_id: u16,
        subscription_id: u32,
        items: &[SubscribeItem<'_>],
    ) {
        let limits = &conn.context().limits;
        let levels_max = usize::from(limits.topic_levels_max);
        let mut codes: Vec<ReasonCode> = items
            .iter()
            .map(|item| match topic::valid_filter(item.filter, levels_max) {
                Ok(()) if item.filter.len() <= usize::from(limits.topic_max_bytes) => {
                    let ask = Ask::Subscribe { filter: item.filter, qos: item.options.qos };
                    if self.permits(conn, ask) {
                        granted(item.options.qos)
                    } else {
                        self.note_denied(conn, ask);
                        ReasonCode::NotAuthorized
                    }
                }
                _ => ReasonCode::TopicFilterInvalid,
            })
            .collect();
        if !conn.is_persistent() {
            self.refuse_beyond(conn, items, &mut codes);
        }
        // What is refused takes no further part.
        let items: Vec<SubscribeItem<'_>> =
            items.iter().zip(&codes).filter(|(_, code)| !code.is_error()).map(|(item, _)| *item).collect();
        if items.len() > FILTERS_AT_ONCE || conn.is_persistent() {
            let subscriptions: Vec<Subscription> = items
                .iter()
                .map(|i| Subscription { filter: i.filter.into(), options: i.options, id: subscription_id })
                .collect();
            return self.subscribe_by_portions(conn, packet_id, subscriptions, codes, Vec::new());
        }
        if !self.may_acknowledge() && self.serves_its_own() {
            // The other nodes hear of it when they can.
            self.subscribe_clean(conn, subscription_id, items.into_iter(), Box::new(|| {}));
            return conn.subscribed(packet_id, &codes);
        }
        let waiting = conn.clone();
        let answer = Box::new(move || waiting.subscribed(packet_id, &codes));
        self.subscribe_clean(conn, subscription_id, items.into_iter(), answer);
    }

    /// Refuses what would be more subscriptions than a clean session may have. Nothing else of the
    /// connection changes them before they are made: few are made at once, and a SUBSCRIBE or
    /// UNSUBSCRIBE of more is alone under way.
    fn refuse_beyond(&self, conn: &Conn, items: &[SubscribeItem<'_>], codes: &mut [ReasonCode]) {
        let most = conn.context().limits.subscriptions_max as usize;
        let local = self.local.read();
        let have = local.filters(conn.id());
        let count = have.map_or(0, Filters::len);
        if count + items.len() <= most {
            return;
        }
        let mut new: BTreeSet<&str> = BTreeSet::new();
        for (item, code) in items.iter().zip(codes).filter(|(_, code)| !code.is_error()) {
            if have.is_some_and(|have| have.contains(item.filter)) || new.contains(item.filter) {
                continue;
            }
            if count + new.len() < most {
                new.insert(item.filter);
            } else {
                *code = ReasonCode::QuotaExceeded;
            }
        }
    }

    /// Adds subscriptions of a clean session; `done` is called when all are live.
    pub(super) fn subscribe_clean<'a>(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        subscription_id: u32,
        items: impl Iterator<Item = SubscribeItem<'a>>,
        done: Box<dyn FnOnce() + Send>,
    ) {
        let wait = RouteWait::new(done);
        let _turn = session::Turn::begin();
        let mut visits = REPLAY_VISITS_MAX;
        for item in items {
            // Under the state's lock no retained publish is applied: each is either seen as
            // retained here, or delivered to the subscription as it passes.
            let state = self.state();
            let subscriber = Subscriber { conn: conn.clone(), options: item.options, id: subscription_id };
            let mut local = self.local.write();
            if conn.is_closing() {
                // Its subscriptions have been dropped, or will be under this lock.
                break;
            }
            let (new, change) = local.subscribe(item.filter, subscriber, &wait);
            match change {
                RouteChange::Add(generation) => self.announce(item.filter, generation),
                RouteChange::Members(members) => {
                    self.propose_quietly(Command::SharedMembers { filter: item.filter.into(), members });
                }
                RouteChange::None | RouteChange::Remove => {}
            }
            let replay = state.replay(item.filter, item.options, subscription_id, new);
            let begins = replay.is_some();
            // Before anything finds the subscription that must not overtake its retained messages.
            // What an earlier one has not got yet still comes, unless it is all sent again.
            if begins {
                conn.set_replay(item.filter, replay);
            }
            drop(local);
            if begins {
                self.send_retained(&state, conn, &mut visits);
            }
        }
        wait.release();
    }

    /// Tells the cluster that this node wants what matches the filter. Called under the local
    /// index's lock, so that announcements and withdrawals reach the log in their order.
    fn announce(self: &Arc<Self>, filter: &str, generation: u64) {
        let broker = self.clone();
        let filter: Box<str> = filter.into();
        self.propose(
            Command::RouteAdd { filter: filter.clone() },
            Box::new(move |result| {
                let Ok(applied) = result else { return };
                let waker = broker.clone();
                broker.when_applied_everywhere(applied.at.index, move |life_goes_on| {
                    if life_goes_on {
                        let waiting = waker.local.write().live(&filter, generation);
                        waiting.iter().for_each(|wait| wait.release());
                    }
                });
            }),
        );
    }

    /// Adds subscriptions of a persistent session; `done` is called when they are applied here,
    /// with the position in the log and what became of each.
    pub(super) fn subscribe_persistent(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        subscriptions: Vec<Subscription>,
        done: Box<dyn FnOnce(LogIndex, Vec<Added>) + Send>,
    ) {
        let Some(client) = conn.client_arc().cloned() else { return };
        let (broker, conn) = (self.clone(), conn.clone());
        self.propose(
            Command::Subscribe { client, incarnation: conn.incarnation(), subscriptions },
            Box::new(move |result| {
                let Ok(applied) = result else { return };
                let Outcome::Subscribed { added } = applied.outcome else {
                    return conn.close(Ended::TakenOver, ReasonCode::SessionTakenOver);
                };
                broker.pump(&conn);
                done(applied.at.index, added);
            }),
        );
    }

    /// Removes subscriptions of a persistent session; `done` is told which existed.
    pub(super) fn unsubscribe_persistent(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        filters: Vec<Box<str>>,
        done: Box<dyn FnOnce(Vec<bool>) + Send>,
    ) {
        let Some(client) = conn.client_arc().cloned() else { return };
        let conn = conn.clone();
        self.propose(
            Command::Unsubscribe { client, incarnation: conn.incarnation(), filters },
            Box::new(move |result| match result.map(|applied| applied.outcome) {
                Ok(Outcome::Unsubscribed { existed }) => done(existed),
                Ok(_) => conn.close(Ended::TakenOver, ReasonCode::SessionTakenOver),
                Err(_) => {}
            }),
        );
    }
}

/// Grants none of the filters: a 3.x client, whose SUBACK cannot say why, sees a close.
fn refuse_subscribe(conn: &Arc<Conn>, packet_id: u16, why: ReasonCode, filters: usize) {
    if conn.version() == Version::V5 {
        return conn.subscribed(packet_id, &vec![why; filters]);
    }
    conn.close(Ended::Server, ReasonCode::ServerUnavailable);
}
