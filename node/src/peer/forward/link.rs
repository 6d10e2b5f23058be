//! The lanes to one life of one node, and the tasks that keep their streams open.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use rookery_proto::peer::{LaneAck, LaneHello};
use tokio::sync::watch;
use tonic::Status;
use tracing::{debug, info, warn};

use super::lane::{BadAck, FRAME_OVERHEAD_BYTES, Lane};
use super::way::{Links, Way, Ways};
use super::{Done, ForwardConfig, Frame, PeerGone, SendError, WIRE_VERSION, codec};
use crate::env;
use crate::mqtt::QoS;
use crate::peer::Dial;
use crate::peer::backoff::Backoff;
use crate::state::{Epoch, NodeId};

const FIRST_PAUSE_MS: u64 = 20;
const LAST_PAUSE_MS: u64 = 500;
/// How long opening a stream may take, connecting included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// Called after each group of completions.
pub(super) type AfterAcks = Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>;

/// Both ends of a link: sequence numbers mean something only between these two lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lives {
    pub(super) me: NodeId,
    pub(super) my_epoch: Epoch,
    pub(super) peer: NodeId,
    pub(super) peer_epoch: Epoch,
}

pub(super) struct Link {
    pub(super) lives: Lives,
    lanes: Vec<Arc<Lane>>,
    used: Arc<AtomicUsize>,
    queue_bytes: usize,
    queue_qos0_bytes: usize,
    grace_ms: u64,
    closed: watch::Sender<bool>,
}

/// What became of a frame that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Queued,
    /// QoS 0 beyond its bound.
    Dropped,
}

impl Link {
    pub(super) fn new(lives: Lives, config: &ForwardConfig) -> Self {
        let used = Arc::new(AtomicUsize::new(0));
        let lanes = config.lanes.clamp(1, super::MAX_LANES);
        Self {
            lives,
            lanes: (0..lanes).map(|_| Arc::new(Lane::new(config, used.clone()))).collect(),
            used,
            queue_bytes: config.queue_bytes,
            queue_qos0_bytes: config.queue_qos0_bytes,
            grace_ms: config.grace_ms,
            closed: watch::channel(false).0,
        }
    }

    /// Starts the lanes' tasks on the current runtime.
    pub(super) fn start(
        &self,
        dial: &Arc<dyn Dial>,
        links: &Weak<Links>,
        after_acks: &AfterAcks,
        shutdown: &watch::Receiver<bool>,
    ) {
        for (number, lane) in (0u16..).zip(&self.lanes) {
            let task = LaneTask {
                lives: self.lives,
                number,
                lane: lane.clone(),
                ways: Ways::new(self.lives.peer, dial.clone(), links.clone()),
                after_acks: after_acks.clone(),
            };
            env::spawn(task.run(self.closed.subscribe(), shutdown.clone()));
        }
    }

    pub(super) fn send(&self, lane: u16, frame: &Frame<'_>, done: Option<Done>) -> Result<Taken, SendError> {
        let len = codec::encoded_len(frame);
        if len > super::MAX_FRAME_BYTES {
            return Err(SendError::TooLarge);
        }
        // Whoever waits for an acknowledgement is never dropped silently.
        let droppable = frame.publication.qos == QoS::AtMostOnce && done.is_none();
        let bound = if droppable { self.queue_qos0_bytes } else { self.queue_bytes };
        let charge = len + FRAME_OVERHEAD_BYTES;
        let before = self.used.fetch_add(charge, Ordering::Relaxed);
        if before >= bound {
            self.used.fetch_sub(charge, Ordering::Relaxed);
            return if droppable { Ok(Taken::Dropped) } else { Err(SendError::Congested) };
        }
        let lane = &self.lanes[usize::from(lane) % self.lanes.len()];
        lane.push(frame, len, done).map_err(|_| SendError::PeerGone)?;
        Ok(Taken::Queued)
    }

    pub(super) fn is_up(&self) -> bool {
        self.lanes.iter().all(|lane| lane.down_ms() < self.grace_ms)
    }

    pub(super) fn relayed_lanes(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.is_relayed()).count()
    }

    pub(super) fn used_bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Either life is over: ends the streams and gives back what was not acknowledged.
    pub(super) fn close(&self) -> Vec<Done> {
        self.closed.send_replace(true);
        self.lanes.iter().flat_map(|lane| lane.close()).collect()
    }
}

struct LaneTask {
    lives: Lives,
    number: u16,
    lane: Arc<Lane>,
    ways: Ways,
    after_acks: AfterAcks,
}

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the node's address is unknown")]
    NoAddress,
    #[error("no answer in {} ms", OPEN_TIMEOUT.as_millis())]
    TimedOut,
    #[error("{0}")]
    Refused(Box<Status>),
    #[error("the receiver ended the stream")]
    Ended,
    #[error("the node neither acknowledges nor answers, and there is another way")]
    Silent(Way),
    #[error("the node can be reached directly again")]
    Direct,
    #[error(transparent)]
    BadAck(#[from] BadAck),
}

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl LaneTask {
    async fn run(self, mut closed: watch::Receiver<bool>, mut shutdown: watch::Receiver<bool>) {
        let mut backoff = Backoff::new(FIRST_PAUSE_MS, LAST_PAUSE_MS);
        let mut way = Way::Direct;
        loop {
            let mut welcomed = false;
            let broken = tokio::select! {
                // A link or forwarder that was dropped ends its tasks as well.
                _ = closed.wait_for(|closed| *closed) => return,
                _ = shutdown.wait_for(|stop| *stop) => break,
                broken = self.stream(way, &mut welcomed) => broken,
            };
            self.lane.detach();
            let Lives { peer, peer_epoch, .. } = self.lives;
            if welcomed {
                backoff.reset();
            }
            if matches!(broken, Broken::Direct) {
                info!("lane {} to node {peer:016x} epoch {peer_epoch}: {broken}", self.number);
            } else if welcomed {
                warn!("lane {} to node {peer:016x} epoch {peer_epoch} broke: {broken}", self.number);
            } else {
                debug!("lane {} to node {peer:016x} epoch {peer_epoch}: {broken}", self.number);
            }
            tokio::select! {
                _ = closed.wait_for(|closed| *closed) => return,
                _ = shutdown.wait_for(|stop| *stop) => break,
                found = self.find_way(&mut backoff, &broken) => way = found,
            }
        }
        complete(self.lane.close(), Err(PeerGone), &self.after_acks);
    }

    /// The way of the next stream, after the last one broke, when it is time for it.
    async fn find_way(&self, backoff: &mut Backoff, broken: &Broken) -> Way {
        tokio::time::sleep(backoff.next()).await;
        match broken {
            Broken::Direct => Way::Direct,
            Broken::Silent(way) => *way,
            _ => self.ways.find().await,
        }
    }

    /// One stream from its opening to its end.
    async fn stream(&self, way: Way, welcomed: &mut bool) -> Broken {
        let conversation = async {
            match self.converse(way, welcomed).await {
                Ok(()) => Broken::Ended,
                Err(broken) => broken,
            }
        };
        match way {
            Way::Direct => tokio::select! {
                broken = conversation => broken,
                way = self.ways.silent(&self.lane) => Broken::Silent(way),
            },
            Way::Over(_) => tokio::select! {
                broken = conversation => broken,
                () = self.ways.direct() => Broken::Direct,
            },
        }
    }

    async fn converse(&self, way: Way, welcomed: &mut bool) -> Result<(), Broken> {
        let mut client = self.ways.first_stop(way).ok_or(Broken::NoAddress)?;
        let Lives { me, my_epoch, peer, peer_epoch } = self.lives;
        let hello = LaneHello {
            wire_version: WIRE_VERSION,
            sender: me,
            sender_epoch: my_epoch,
            receiver: peer,
            receiver_epoch: peer_epoch,
            lane: u32::from(self.number),
        };
        let outgoing = self.lane.stream(hello, way);
        let stream = outgoing.id();
        let open = async {
            let mut acks = match way {
                Way::Direct => client.lane(outgoing).await?,
                Way::Over(_) => client.relay(outgoing).await?,
            }
            .into_inner();
            let LaneAck { taken } = acks.message().await?.ok_or(Broken::Ended)?;
            Ok::<_, Broken>((acks, taken))
        };
        let (mut acks, taken) =
            tokio::time::timeout(OPEN_TIMEOUT, open).await.map_err(|_| Broken::TimedOut)??;
        complete(self.lane.welcome(stream, taken)?, Ok(()), &self.after_acks);
        *welcomed = true;
        if let Way::Over(between) = way {
            warn!(
                "lane {} to node {peer:016x} epoch {peer_epoch} goes by way of node {between:016x}, since there \
                 is no direct one",
                self.number
            );
        }
        while let Some(LaneAck { taken }) = acks.message().await? {
            complete(self.lane.acknowledge(stream, taken)?, Ok(()), &self.after_acks);
        }
        Ok(())
    }
}

/// Calls completions, without any lock.
pub(super) fn complete(dones: Vec<Done>, result: Result<(), PeerGone>, after_acks: &AfterAcks) {
    if dones.is_empty() {
        return;
    }
    for done in dones {
        done(result);
    }
    if let Some(after) = after_acks.get() {
        after();
    }
}
