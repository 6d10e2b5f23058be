//! The lives of this node. A life begins when its start is applied here and ends when the
//! cluster declares it over, or when a snapshot skips what its connections should have seen; all
//! of its connections end with it, and the node starts a new one.

use std::sync::atomic::Ordering;

use super::Broker;
use crate::mqtt::ReasonCode;
use crate::session::Ended;
use crate::state::{Command, Epoch, NodeId};

/// Asked to begin a new life of this node: draw the next epoch and propose its start.
pub type Rebirth = Box<dyn Fn() + Send + Sync>;

impl Broker {
    /// From now on the node's life is `epoch`; it begins when its start has been applied here.
    pub fn expect_life(&self, epoch: Epoch) {
        self.alive.store(false, Ordering::Release);
        self.epoch.store(epoch, Ordering::Release);
    }

    pub(super) fn begin_life(&self) {
        tracing::info!(epoch = self.epoch(), "this node serves clients");
        self.alive.store(true, Ordering::Release);
        self.begun.notify_waiters();
        self.begin_lapse_again();
        if let Some(wiring) = self.wiring() {
            wiring.forwarder.peer_up(wiring.me, self.epoch());
            for (node, epoch) in self.live_peers() {
                wiring.forwarder.peer_up(node, epoch);
            }
        }
        self.tell_wall_clock();
        self.say_draining();
    }

    /// Completes once a life of this node has begun; the first that was asked for may be over
    /// before.
    pub async fn begun(&self) {
        loop {
            let told = self.begun.notified();
            if self.is_alive() {
                return;
            }
            told.await;
        }
    }

    /// Closes everything of this life and asks for the next one.
    pub(super) fn end_life(&self) {
        if !self.is_stopping() {
            tracing::warn!(epoch = self.epoch(), "the cluster declared this node's life over");
        }
        self.close_all();
        if let Some(wiring) = self.wiring() {
            wiring.lease.end_life(self.epoch());
            if !self.is_stopping() {
                (wiring.rebirth)();
            }
        }
    }

    /// Lets nobody in any more.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// A planned stop has begun.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Ends this node's life by its own wish; completes when the cluster has agreed.
    pub async fn farewell(&self) {
        if !self.is_alive() {
            return;
        }
        let (said, heard) = tokio::sync::oneshot::channel();
        self.propose(
            Command::Farewell,
            Box::new(move |_| {
                // Whether it was committed or abandoned, there is nothing more to wait for.
                let _ = said.send(());
            }),
        );
        let _ = heard.await;
    }

    /// The leader of `term` found that life without a lease.
    pub fn declare_down(&self, node: NodeId, epoch: Epoch, term: u64) {
        self.propose_quietly(Command::NodeDown { node, epoch, term });
    }

    /// Ends every connection of this node with 0x8B; 3.x sees the close.
    pub fn close_all(&self) {
        self.alive.store(false, Ordering::Release);
        for conn in self.clients.drain() {
            conn.close(Ended::Server, ReasonCode::ServerShuttingDown);
            // Its loop may stand in the middle of what it has read. What comes next must not be published
            // in another life, before what went before it and its client sends again [MQTT-4.6.0-1].
            conn.publish_order().lock().get_or_insert_default().end();
        }
        self.local.write().clear();
        self.progress.take_all();
    }
}
