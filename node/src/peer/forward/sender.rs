//! The node's one door for publishes to other nodes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::link::{AfterAcks, Link, Lives, Taken, complete};
use super::receiver::Inbound;
use super::relay::Relay;
use super::way::Links;
use super::{Done, ForwardConfig, ForwardService, Frame, PeerGone, SendError, Sink};
use crate::peer::Dial;
use crate::state::{Epoch, LogIndex, NodeId};

/// Carries publishes to the other nodes. Follows the lives of all nodes, this one's included, as
/// the log tells them: see [`Self::peer_up`].
pub struct Forwarder {
    me: NodeId,
    config: ForwardConfig,
    dial: Arc<dyn Dial>,
    runtime: Handle,
    shutdown: watch::Receiver<bool>,
    after_acks: AfterAcks,
    /// Serialises changes of lives; never held while completions run.
    known: Mutex<Known>,
    links: Arc<Links>,
    inbound: Arc<Inbound>,
    sent: AtomicU64,
    dropped_qos0: AtomicU64,
    congested: AtomicU64,
}

/// The live epochs as this node has applied them.
#[derive(Default)]
struct Known {
    my_epoch: Option<Epoch>,
    up: BTreeMap<NodeId, Epoch>,
    /// Highest epoch per node that is over.
    ended: BTreeMap<NodeId, Epoch>,
}

/// Counts since the start, and what waits now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardStats {
    /// Frames taken for sending.
    pub sent: u64,
    /// QoS 0 frames dropped at the bound.
    pub dropped_qos0: u64,
    /// QoS 1 and 2 frames refused at the bound.
    pub congested: u64,
    /// Frames delivered here for other nodes.
    pub received: u64,
    /// What waits for all nodes, acknowledgements included, bytes.
    pub queued_bytes: u64,
    /// Streams that go by way of a third node, for want of a direct one.
    pub relayed_lanes: u64,
}

impl Forwarder {
    /// Streams run on the current runtime until `shutdown` becomes true or is dropped. None is
    /// opened before this node's own life began: [`Self::peer_up`] with `me`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        config: ForwardConfig,
        me: NodeId,
        dial: Arc<dyn Dial>,
        shutdown: watch::Receiver<bool>,
    ) -> Arc<Self> {
        Arc::new(Self {
            me,
            config,
            dial,
            runtime: Handle::current(),
            shutdown,
            after_acks: Arc::new(OnceLock::new()),
            known: Mutex::default(),
            links: Arc::default(),
            inbound: Arc::new(Inbound::default()),
            sent: AtomicU64::new(0),
            dropped_qos0: AtomicU64::new(0),
            congested: AtomicU64::new(0),
        })
    }

    /// The receiving side, to be mounted behind the peer verification of the peer server.
    /// `applied` tells the last log index that this node has applied, for barriers.
    pub fn service(&self, sink: Arc<dyn Sink>, applied: watch::Receiver<LogIndex>) -> ForwardService {
        let relay = Relay::new(self.me, self.dial.clone());
        ForwardService::new(self.inbound.clone(), relay, sink, applied, self.shutdown.clone())
    }

    /// Calls `hook` after each group of completions, so that what they appended to outboxes is
    /// written once. Only the first hook counts.
    pub fn after_acks(&self, hook: Box<dyn Fn() + Send + Sync>) {
        let _ = self.after_acks.set(hook);
    }

    /// Takes a frame for node `to`, another than this. Frames of one lane (modulo the configured number of lanes)
    /// are delivered in the order of the calls; `lane` should be a hash of the publisher. Never
    /// blocks; callable from any thread.
    ///
    /// `done` is called once when the node has taken the frame over or when either node's life
    /// ended before; it is dropped without a call when an error is returned. A QoS 0 frame
    /// without `done` may be dropped silently (and is counted).
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send(&self, to: NodeId, lane: u16, frame: Frame<'_>, done: Option<Done>) -> Result<(), SendError> {
        let link = self.links.read().get(&to).cloned().ok_or(SendError::PeerGone)?;
        match link.send(lane, &frame, done) {
            Ok(Taken::Queued) => {
                self.sent.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Ok(Taken::Dropped) => {
                self.dropped_qos0.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                if error == SendError::Congested {
                    self.congested.fetch_add(1, Ordering::Relaxed);
                }
                Err(error)
            }
        }
    }

    /// The node is live and every lane to it is open, or has been down for less than the grace
    /// period (500 ms by default).
    pub fn is_up(&self, node: NodeId) -> bool {
        self.links.read().get(&node).is_some_and(|link| link.is_up())
    }

    /// The node's life `epoch` has begun, which ends its older ones. To be called in log order
    /// for every node (this one too) when its beginning is applied, and after a snapshot was
    /// installed for every node that is live in it.
    pub fn peer_up(&self, node: NodeId, epoch: Epoch) {
        let closing = {
            let mut known = self.known.lock();
            if known.up.get(&node).is_some_and(|up| *up >= epoch)
                || known.ended.get(&node).is_some_and(|ended| *ended >= epoch)
            {
                return;
            }
            known.end(node, epoch.saturating_sub(1));
            known.up.insert(node, epoch);
            self.inbound.begin(self.me, node, epoch);
            if node == self.me {
                known.my_epoch = Some(epoch);
                let closing: Vec<_> = std::mem::take(&mut *self.links.write()).into_values().collect();
                for (peer, peer_epoch) in &known.up {
                    self.open(epoch, *peer, *peer_epoch);
                }
                closing
            } else {
                let old = self.links.write().remove(&node);
                if let Some(my_epoch) = known.my_epoch {
                    self.open(my_epoch, node, epoch);
                }
                Vec::from_iter(old)
            }
        };
        self.close(closing);
    }

    /// The node's life `epoch` is over, and every older one: what it has not acknowledged is
    /// completed with [`PeerGone`] before this returns.
    pub fn peer_down(&self, node: NodeId, epoch: Epoch) {
        let closing = {
            let mut known = self.known.lock();
            known.end(node, epoch);
            self.inbound.end(self.me, node, epoch);
            if known.up.get(&node).is_some_and(|up| *up > epoch) {
                return;
            }
            known.up.remove(&node);
            if node == self.me {
                known.my_epoch = None;
                std::mem::take(&mut *self.links.write()).into_values().collect()
            } else {
                Vec::from_iter(self.links.write().remove(&node))
            }
        };
        self.close(closing);
    }

    pub fn stats(&self) -> ForwardStats {
        let links = self.links.read();
        let queued: usize = links.values().map(|link| link.used_bytes()).sum();
        let relayed: usize = links.values().map(|link| link.relayed_lanes()).sum();
        ForwardStats {
            sent: self.sent.load(Ordering::Relaxed),
            dropped_qos0: self.dropped_qos0.load(Ordering::Relaxed),
            congested: self.congested.load(Ordering::Relaxed),
            received: self.inbound.received(),
            queued_bytes: queued as u64,
            relayed_lanes: relayed as u64,
        }
    }

    /// What waits for the node that most waits for, as a part of what may.
    pub fn congestion(&self) -> f64 {
        let most = self.links.read().values().map(|link| link.used_bytes()).max();
        most.unwrap_or(0) as f64 / self.config.queue_bytes.max(1) as f64
    }

    fn open(&self, my_epoch: Epoch, peer: NodeId, peer_epoch: Epoch) {
        if peer == self.me {
            return;
        }
        let lives = Lives { me: self.me, my_epoch, peer, peer_epoch };
        let link = Arc::new(Link::new(lives, &self.config));
        self.links.write().insert(peer, link.clone());
        let _in_runtime = self.runtime.enter();
        link.start(&self.dial, &Arc::downgrade(&self.links), &self.after_acks, &self.shutdown);
    }

    fn close(&self, links: Vec<Arc<Link>>) {
        for link in links {
            complete(link.close(), Err(PeerGone), &self.after_acks);
        }
    }
}

impl Known {
    fn end(&mut self, node: NodeId, epoch: Epoch) {
        let ended = self.ended.entry(node).or_default();
        *ended = (*ended).max(epoch);
    }
}
