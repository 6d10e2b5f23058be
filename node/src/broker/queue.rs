//! Stored deliveries: from the replicated queue of a persistent session to its connection here.

use std::sync::Arc;

use super::Broker;
use super::progress::SessionProgress;
use crate::mqtt::ReasonCode;
use crate::session::{self, Conn, Ended};
use crate::state::{Command, DeliveryStep, Incarnation, Outcome, QueueSeq};

/// Stored deliveries taken out of the state at a time.
const PAGE: usize = 64;

impl Broker {
    /// Hands the connection what its session's queue holds, as far as its window goes. Called
    /// whenever something was queued or the window got room; concurrent calls do no harm.
    pub(super) fn pump(self: &Arc<Self>, conn: &Arc<Conn>) {
        let Some(client) = conn.client_arc() else { return };
        if !self.may_acknowledge() {
            // Somebody else may own the session by now; see `pump_all`.
            self.lapse.notice();
            return;
        }
        let mut from = conn.next_seq();
        loop {
            let page = self.state().stored(client, conn.incarnation(), from, PAGE);
            let expired: Vec<_> = page.expired.iter().map(|seq| (*seq, DeliveryStep::Done)).collect();
            if !expired.is_empty() {
                self.note_progress(client, conn.incarnation(), &expired);
            }
            let taken = conn.deliver_stored(&page.items, self.clock.now_ms());
            if taken < page.items.len() {
                return;
            }
            if !page.away.is_empty() {
                return self.bring(conn, page.away);
            }
            if page.next == from {
                return;
            }
            from = page.next;
        }
    }

    /// Goes on with everything that [`Self::pump`] held back while there was no lease.
    pub(super) fn pump_all(self: &Arc<Self>) {
        for conn in self.clients.persistent() {
            session::turn(|| self.pump(&conn));
        }
    }

    /// The client acknowledged stored deliveries.
    pub(super) fn progress_from(self: &Arc<Self>, conn: &Arc<Conn>, steps: &[(QueueSeq, DeliveryStep)]) {
        let Some(client) = conn.client_arc() else { return };
        let moves_on = self.wiring().is_some_and(|w| w.sharing.redeliver_refused);
        if !moves_on && steps.iter().any(|(_, step)| *step == DeliveryStep::Refused) {
            // The standard says that it is discarded [MQTT-4.8.2-6].
            let discarded = |step| if step == DeliveryStep::Refused { DeliveryStep::Done } else { step };
            let steps: Vec<_> = steps.iter().map(|(seq, step)| (*seq, discarded(*step))).collect();
            self.note_progress(client, conn.incarnation(), &steps);
        } else {
            self.note_progress(client, conn.incarnation(), steps);
        }
        // A PUBREL waits for its PUBREC to be recorded, so these do not linger.
        if steps.iter().any(|(_, step)| *step == DeliveryStep::Received)
            && let Some(command) = self.progress.take(client, conn.incarnation())
        {
            self.propose_progress(command);
        }
    }

    fn note_progress(
        self: &Arc<Self>,
        client: &Arc<str>,
        incarnation: Incarnation,
        steps: &[(QueueSeq, DeliveryStep)],
    ) {
        if let Some(command) = self.progress.add(client, incarnation, steps) {
            self.propose_progress(command);
        }
    }

    /// Proposes all acknowledgements that linger.
    pub fn flush_progress(self: &Arc<Self>) {
        for command in self.progress.take_all() {
            self.propose_progress(command);
        }
    }

    /// Once applied, PUBRELs go out, and what got a position in the queue meanwhile is sent.
    pub(super) fn propose_progress(self: &Arc<Self>, progress: SessionProgress) {
        let SessionProgress { client, incarnation, steps } = progress;
        let received: Vec<QueueSeq> = steps
            .iter()
            .filter_map(|(seq, step)| (*step == DeliveryStep::Received).then_some(*seq))
            .collect();
        let (broker, owner) = (self.clone(), client.clone());
        self.propose(
            Command::Progress { client, incarnation, steps },
            Box::new(move |result| {
                let Ok(applied) = result else { return };
                let Some(conn) = broker.clients.owner(&owner, incarnation) else { return };
                if applied.outcome == Outcome::Stale {
                    return conn.close(Ended::TakenOver, ReasonCode::SessionTakenOver);
                }
                conn.received(&received);
                broker.pump(&conn);
            }),
        );
    }

    /// PUBREL of a persistent session's own publish.
    pub(super) fn release_from(&self, conn: &Arc<Conn>, packet_id: u16) {
        let Some(client) = conn.client_arc().cloned() else { return };
        let conn = conn.clone();
        self.propose(
            Command::Forget { client, incarnation: conn.incarnation(), packet_id },
            Box::new(move |result| match result.map(|applied| applied.outcome) {
                Ok(Outcome::Forgotten { known: true }) => conn.released(packet_id, ReasonCode::Success),
                // Nothing is wrong if it repeats one that was handled before the client came back.
                Ok(Outcome::Forgotten { known: false }) => {
                    conn.released(packet_id, ReasonCode::PacketIdentifierNotFound);
                }
                Ok(_) => conn.close(Ended::TakenOver, ReasonCode::SessionTakenOver),
                Err(_) => {}
            }),
        );
    }
}
