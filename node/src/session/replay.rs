//! Retained messages towards a client whose queue the cluster does not keep: as many at a time as
//! there is room for. They do not use up what live messages need: the outbox holds a small part of
//! its bound of them, and none of them waits in the queue for the window.

use std::cell::OnceCell;
use std::sync::Arc;

use super::outbound::{Flags, Outbound};
use super::{Conn, Delivered, Delivery};
use crate::mqtt::{Message, QoS};
use crate::state::{Replay, Replayed, Replays, Resumed};

/// Unsent bytes from which on no more retained messages are appended for now.
const BACKLOG_BYTES: usize = 32 << 10;

/// What takes a retained message, or does not.
pub type Take<'a> = &'a mut dyn FnMut(Replayed<'_>) -> bool;

impl Conn {
    /// From now on the subscription's retained messages are on their way, by
    /// [`Conn::send_retained`]; `None`: no longer.
    pub fn set_replay(&self, filter: &str, replay: Option<Replay>) {
        let mut out = self.out.lock();
        if out.flags.has(Flags::CLOSING) || (replay.is_none() && out.replays().is_none()) {
            return;
        }
        let cold = out.cold();
        let replays = cold.replays.get_or_insert_default();
        replays.set(filter, replay);
        if replays.is_empty() {
            cold.replays = None;
        }
    }

    /// Whether retained messages are on their way.
    pub fn is_replaying(&self) -> bool {
        self.out.lock().replays().is_some()
    }

    /// Appends retained messages while there is room. `resume` is [`State::resume`]; the state is
    /// locked until this returns, so that nothing newer is delivered before. When some are left,
    /// [`Service::wants_more`] follows.
    ///
    /// [`State::resume`]: crate::state::State::resume
    /// [`Service::wants_more`]: super::Service::wants_more
    pub fn send_retained(
        self: &Arc<Self>,
        now_ms: u64,
        resume: impl FnOnce(&mut Replays, Take<'_>) -> Resumed,
    ) {
        let resumed = self.with_out(|out| {
            let mut replays = out.take_replays()?;
            let resumed = resume(&mut replays, &mut |replayed| {
                let has_room = self.has_room_for_retained(out, replayed.qos);
                if has_room {
                    self.append_retained(out, replayed, now_ms);
                }
                has_room
            });
            if resumed != Resumed::Finished {
                out.cold().replays = Some(replays);
                out.flags.set(Flags::HUNGRY);
            }
            Some(resumed)
        });
        if resumed == Some(Resumed::Paused) {
            // There may be nothing to write, after which it would go on.
            self.wake();
        }
    }

    /// Makes a delivery that was [`Delivered::TooEarly`], after the retained messages of its topic.
    /// `catch_up` is [`State::catch_up`](crate::state::State::catch_up).
    pub fn deliver_after_retained(
        self: &Arc<Self>,
        delivery: &Delivery<'_>,
        shared: &OnceCell<Arc<Message>>,
        now_ms: u64,
        catch_up: impl FnOnce(&mut Replays, Take<'_>),
    ) -> Delivered {
        let delivered = self.with_out(|out| {
            if let Some(mut replays) = out.take_replays() {
                catch_up(&mut replays, &mut |replayed| {
                    self.append_retained(out, replayed, now_ms) != Delivered::Dropped
                });
                out.cold().replays = Some(replays);
            }
            self.append(out, delivery, shared, now_ms)
        });
        self.count(delivered)
    }

    fn has_room_for_retained(&self, out: &Outbound, qos: QoS) -> bool {
        out.backlog_bytes() < BACKLOG_BYTES.min(self.limits().outbox_max_bytes as usize)
            && (qos == QoS::AtMostOnce || out.has_room_at_once())
    }

    fn append_retained(&self, out: &mut Outbound, replayed: Replayed<'_>, now_ms: u64) -> Delivered {
        let Replayed { message, qos, subscription_id } = replayed;
        let ids = if subscription_id == 0 { &[][..] } else { std::slice::from_ref(&subscription_id) };
        let publication = message.borrow();
        let delivery =
            Delivery { publication: &publication, qos, retain: true, subscription_ids: ids, share: None };
        let delivered = self.append(out, &delivery, &OnceCell::from(Arc::clone(message)), now_ms);
        self.count(delivered)
    }
}
