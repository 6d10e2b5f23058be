//! Very many filters at once, by portions: a SUBSCRIBE or UNSUBSCRIBE of a hundred thousand, or
//! the end of a connection that has as many, neither holds an event loop or the index for long nor
//! fills the way into the log, where everybody else's commands would wait behind it. The next
//! portion begins when the one before is applied, as a task of its own.

use std::sync::Arc;

use parking_lot::RwLockWriteGuard;

use super::Broker;
use super::lapse::Turn;
use super::local::{Local, RouteChange};
use crate::mqtt::{ReasonCode, Version};
use crate::session::{Conn, Ended, FILTERS_AT_ONCE as PORTION, SubscribeItem};
use crate::state::{Added, Command, Subscription};

fn code(existed: bool) -> ReasonCode {
    if existed { ReasonCode::Success } else { ReasonCode::NoSubscriptionExisted }
}

/// A persistent session's subscriptions change through the log only.
fn refuse_unsubscribe(conn: &Arc<Conn>, packet_id: u16, filters: usize) {
    if conn.version() == Version::V5 {
        return conn.unsubscribed(packet_id, &vec![ReasonCode::UnspecifiedError; filters]);
    }
    conn.close(Ended::Server, ReasonCode::ServerUnavailable);
}

/// The first portion of `all`, which keeps the rest.
fn split<T>(all: &mut Vec<T>) -> Vec<T> {
    let rest = all.split_off(all.len().min(PORTION));
    std::mem::replace(all, rest)
}

/// What the cluster has to hear of a subscription that has ended.
fn news(filter: Box<str>, change: RouteChange) -> Option<Command> {
    match change {
        RouteChange::Remove => Some(Command::RouteRemove { filter }),
        RouteChange::Members(members) => Some(Command::SharedMembers { filter, members }),
        RouteChange::None | RouteChange::Add(_) => None,
    }
}

impl Broker {
    /// Adds the subscriptions of one SUBSCRIBE in their order, and answers it with `codes`, but for
    /// those that turn out to be too many. `added`: what became of the portions before.
    pub(super) fn subscribe_by_portions(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        packet_id: u16,
        mut rest: Vec<Subscription>,
        mut codes: Vec<ReasonCode>,
        mut added: Vec<Added>,
    ) {
        if conn.is_closing() {
            return;
        }
        let portion = split(&mut rest);
        let (broker, conn_then) = (self.clone(), conn.clone());
        if conn.is_persistent() {
            let done = move |index, of_portion| {
                added.extend(of_portion);
                if !rest.is_empty() {
                    return broker.subscribe_by_portions(&conn_then, packet_id, rest, codes, added);
                }
                let asked = codes.iter_mut().filter(|code| !code.is_error());
                for (code, _) in asked.zip(added).filter(|(_, added)| *added == Added::Refused) {
                    *code = ReasonCode::QuotaExceeded;
                }
                broker.when_applied_everywhere(index, move |life_goes_on| {
                    if life_goes_on {
                        conn_then.subscribed(packet_id, &codes);
                    }
                });
            };
            return self.subscribe_persistent(conn, portion, Box::new(done));
        }
        let done = move || {
            if rest.is_empty() {
                return conn_then.subscribed(packet_id, &codes);
            }
            let again = broker.clone();
            broker.later(move || again.subscribe_by_portions(&conn_then, packet_id, rest, codes, added));
        };
        let id = portion.first().map_or(0, |s| s.id);
        let items = portion.iter().map(|s| SubscribeItem { filter: &s.filter, options: s.options });
        self.subscribe_clean(conn, id, items, Box::new(done));
    }

    pub(super) fn unsubscribe_from(self: &Arc<Self>, conn: &Arc<Conn>, packet_id: u16, filters: &[&str]) {
        let filters: Vec<Box<str>> = filters.iter().map(|f| (*f).into()).collect();
        let persistent = conn.is_persistent();
        match self.turn_of_request() {
            Turn::Later if persistent || !self.serves_its_own() => {}
            Turn::Never if persistent => return refuse_unsubscribe(conn, packet_id, filters.len()),
            // That a clean session gets no more is this node's own affair.
            _ => return self.unsubscribe_by_portions(conn, packet_id, filters, Vec::new()),
        }
        let waiting = conn.clone();
        self.when_leased(filters.iter().map(|filter| filter.len()).sum(), move |broker, leased| {
            if leased || !persistent {
                broker.unsubscribe_by_portions(&waiting, packet_id, filters, Vec::new());
            } else {
                refuse_unsubscribe(&waiting, packet_id, filters.len());
            }
        });
    }

    /// `codes`: of the portions before.
    fn unsubscribe_by_portions(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        packet_id: u16,
        mut rest: Vec<Box<str>>,
        mut codes: Vec<ReasonCode>,
    ) {
        let portion = split(&mut rest);
        let (broker, conn_then) = (self.clone(), conn.clone());
        if conn.is_persistent() {
            let done = move |existed: Vec<bool>| {
                codes.extend(existed.into_iter().map(code));
                if rest.is_empty() {
                    conn_then.unsubscribed(packet_id, &codes);
                } else {
                    broker.unsubscribe_by_portions(&conn_then, packet_id, rest, codes);
                }
            };
            return self.unsubscribe_persistent(conn, portion, Box::new(done));
        }
        let mut local = self.local.write();
        let mut gone = Vec::new();
        for filter in portion {
            let (existed, change) = local.unsubscribe(&filter, conn.id());
            conn.set_replay(&filter, None);
            codes.push(code(existed));
            gone.extend(news(filter, change));
        }
        if rest.is_empty() {
            self.withdraw(local, gone, || {});
            return conn.unsubscribed(packet_id, &codes);
        }
        self.withdraw(local, gone, move || {
            broker.unsubscribe_by_portions(&conn_then, packet_id, rest, codes);
        });
    }

    /// Drops a clean connection's subscriptions.
    pub(super) fn drop_subscriptions(self: &Arc<Self>, conn: &Conn) {
        let filters = self.local.write().take_filters(conn.id());
        self.drop_by_portions(conn.id(), filters);
    }

    fn drop_by_portions(self: &Arc<Self>, conn_id: u64, mut rest: Vec<Box<str>>) {
        if rest.is_empty() {
            return;
        }
        let portion = split(&mut rest);
        let mut local = self.local.write();
        let mut gone = Vec::new();
        for filter in portion {
            let change = local.remove(&filter, conn_id);
            gone.extend(news(filter, change));
        }
        let broker = self.clone();
        self.withdraw(local, gone, move || broker.drop_by_portions(conn_id, rest));
    }

    /// Tells the cluster which filters this node wants no more, and of which it has fewer members.
    /// Proposed under the index's lock, so that announcements and withdrawals reach the log in their
    /// order; `done` is called later, once they are applied here. When this life of the node ends
    /// before, it is not: the index has been emptied.
    fn withdraw(
        self: &Arc<Self>,
        local: RwLockWriteGuard<'_, Local>,
        mut commands: Vec<Command>,
        done: impl FnOnce() + Send + 'static,
    ) {
        let Some(last) = commands.pop() else { return self.later(done) };
        for command in commands {
            self.propose_quietly(command);
        }
        let broker = self.clone();
        let done = move |result: Result<_, _>| {
            if result.is_ok() {
                broker.later(done);
            }
        };
        self.propose(last, Box::new(done));
        drop(local);
    }
}
