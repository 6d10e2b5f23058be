//! Retained messages on their way from the state to the connections of this node: pages that have
//! room in the outbox and in the client's window, the next one when the client has taken the last.
//! What persistent sessions get at QoS 1 and 2 comes through their queues instead.

use std::cell::OnceCell;
use std::sync::Arc;

use super::Broker;
use crate::mqtt::Message;
use crate::session::{Conn, Delivered, Delivery, Turn};
use crate::state::State;
use crate::state::limits::REPLAY_VISITS_MAX;

impl Broker {
    /// The connection may have room for more of them.
    pub(super) fn go_on_with_retained(&self, conn: &Arc<Conn>) {
        if conn.is_replaying() {
            let _turn = Turn::begin();
            let mut visits = REPLAY_VISITS_MAX;
            self.send_retained(&self.state(), conn, &mut visits);
        }
    }

    /// Within a turn, so that nothing is written under the state's lock. `visits`: topics that may
    /// be looked at, counted down.
    pub(super) fn send_retained(&self, state: &State, conn: &Arc<Conn>, visits: &mut usize) {
        conn.send_retained(self.clock.now_ms(), |replays, take| {
            state.resume(replays, conn.client(), visits, take)
        });
    }

    /// Makes a delivery that must not overtake the retained message of its topic.
    pub(super) fn deliver_after_retained(
        &self,
        conn: &Arc<Conn>,
        delivery: &Delivery<'_>,
        shared: &OnceCell<Arc<Message>>,
        now_ms: u64,
    ) -> Delivered {
        let _turn = Turn::begin();
        let state = self.state();
        conn.deliver_after_retained(delivery, shared, now_ms, |replays, take| {
            state.catch_up(replays, conn.client(), delivery.publication.topic, take);
        })
    }
}
