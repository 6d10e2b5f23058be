//! Keeps one publisher's messages in order while they take two different paths: the replicated
//! log, or straight to the subscribers and the nodes that own them.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use super::AckTicket;
use crate::mqtt::Message;
use crate::state::{Epoch, LogIndex, NodeId};

/// Publishes at QoS 0 that may wait for an earlier one of the same publisher; more are dropped.
/// At QoS 1 and 2 the Receive Maximum is the bound.
pub const HELD_QOS0_MAX: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    Log,
    Direct,
}

/// A publish that waits for the publisher's earlier ones.
pub struct Held {
    pub message: Arc<Message>,
    pub ticket: Option<AckTicket>,
    pub packet_id: u16,
    /// The life of the node that took it.
    pub epoch: Epoch,
}

/// What a publisher has under way. A publish to be logged waits until the forwards before it are
/// acknowledged, those at QoS 0 by a fence sent after them; a direct one until the logged ones
/// before it are applied here, and its forwards carry [`PublishOrder::barrier`] so that their
/// receivers apply that first too.
#[derive(Default)]
pub struct PublishOrder {
    logged: u32,
    forwarded: u32,
    /// Nodes that got forwards at QoS 0, of which nothing says that they arrived.
    unconfirmed: SmallVec<[NodeId; 2]>,
    barrier: LogIndex,
    held: VecDeque<Held>,
    refused: bool,
    over: bool,
}

impl PublishOrder {
    /// May a publish on this path go now?
    pub fn admits(&self, path: Path) -> bool {
        self.held.is_empty() && self.is_free_for(path)
    }

    fn is_free_for(&self, path: Path) -> bool {
        match path {
            Path::Log => self.forwarded == 0 && self.unconfirmed.is_empty(),
            Path::Direct => self.logged == 0,
        }
    }

    /// Whether every publish so far has been routed: none waits, none is on its way through the log.
    pub fn is_settled(&self) -> bool {
        self.held.is_empty() && self.logged == 0
    }

    /// Queues a publish behind the others. `false`: dropped, too many at QoS 0 wait.
    pub fn hold(&mut self, held: Held) -> bool {
        if held.ticket.is_none() && self.held.len() >= HELD_QOS0_MAX {
            return false;
        }
        self.held.push_back(held);
        true
    }

    /// The life of the node that the connection is of has ended: what it has read and not routed is
    /// void, and its client sends that again.
    pub fn end(&mut self) {
        self.over = true;
        self.held.clear();
    }

    pub fn is_over(&self) -> bool {
        self.over
    }

    /// A publish was refused with [`Conn::refuse_publish`](super::Conn::refuse_publish).
    pub fn note_refused(&mut self) {
        self.refused = true;
    }

    /// Whether one ever was; if not, the connection need not be asked.
    pub fn has_refused(&self) -> bool {
        self.refused
    }

    /// The next held publish, to be routed anew; give it back with [`Self::put_back`] when its
    /// path is not free.
    pub fn next_held(&mut self) -> Option<Held> {
        self.held.pop_front()
    }

    pub fn put_back(&mut self, held: Held) {
        self.held.push_front(held);
    }

    /// May the held publish just taken go on this path?
    pub fn admits_held(&self, path: Path) -> bool {
        self.is_free_for(path)
    }

    pub fn log_started(&mut self) {
        self.logged += 1;
    }

    /// A logged publish was applied here at `index`.
    pub fn log_ended(&mut self, index: LogIndex) {
        self.logged -= 1;
        self.barrier = self.barrier.max(index);
    }

    pub fn forward_started(&mut self) {
        self.forwarded += 1;
    }

    /// A forward at QoS 0 went to `node`; its end is not told.
    pub fn forwarded_unconfirmed(&mut self, node: NodeId) {
        if !self.unconfirmed.contains(&node) {
            self.unconfirmed.push(node);
        }
    }

    /// The nodes that a fence must be sent to, as a forward like any other, before anything can
    /// be logged.
    pub fn take_unconfirmed(&mut self) -> SmallVec<[NodeId; 2]> {
        std::mem::take(&mut self.unconfirmed)
    }

    pub fn forward_ended(&mut self) {
        self.forwarded -= 1;
    }

    /// Index of the publisher's last logged publish.
    pub fn barrier(&self) -> LogIndex {
        self.barrier
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::{Publication, QoS};

    fn held(ticket: Option<u64>) -> Held {
        let publication = Publication {
            topic: "t",
            payload: b"",
            properties: b"",
            qos: QoS::AtMostOnce,
            retain: false,
            expires_at_ms: 0,
            publisher: "p",
        };
        Held { message: publication.to_message(), ticket: ticket.map(AckTicket), packet_id: 0, epoch: 1 }
    }

    #[test]
    fn a_direct_publish_waits_for_the_logged_ones() {
        let mut order = PublishOrder::default();
        assert!(order.admits(Path::Log) && order.admits(Path::Direct));
        order.log_started();
        assert!(order.admits(Path::Log) && !order.admits(Path::Direct));
        order.log_ended(7);
        assert!(order.admits(Path::Direct));
        assert_eq!(order.barrier(), 7);
    }

    #[test]
    fn a_logged_publish_waits_for_the_forwards() {
        let mut order = PublishOrder::default();
        order.forward_started();
        assert!(order.admits(Path::Direct) && !order.admits(Path::Log));
        order.forward_ended();
        assert!(order.admits(Path::Log));
    }

    #[test]
    fn a_logged_publish_waits_for_a_fence_after_qos_0() {
        let mut order = PublishOrder::default();
        order.forwarded_unconfirmed(2);
        order.forwarded_unconfirmed(3);
        order.forwarded_unconfirmed(2);
        assert!(order.admits(Path::Direct) && !order.admits(Path::Log));
        for _node in [2, 3] {
            order.forward_started();
        }
        assert_eq!(order.take_unconfirmed().as_slice(), [2, 3]);
        order.forward_ended();
        assert!(!order.admits(Path::Log));
        order.forward_ended();
        assert!(order.admits(Path::Log));
    }

    #[test]
    fn nothing_overtakes_a_held_publish() {
        let mut order = PublishOrder::default();
        order.log_started();
        assert!(order.hold(held(Some(1))));
        order.log_ended(1);
        assert!(!order.admits(Path::Log) && !order.admits(Path::Direct));
        let first = order.next_held().unwrap();
        assert_eq!(first.ticket, Some(AckTicket(1)));
        assert!(order.admits_held(Path::Direct));
    }

    #[test]
    fn only_qos_0_is_dropped_when_too_many_wait() {
        let mut order = PublishOrder::default();
        for _ in 0..HELD_QOS0_MAX {
            assert!(order.hold(held(None)));
        }
        assert!(!order.hold(held(None)));
        assert!(order.hold(held(Some(1))));
    }
}
