//! The receiving side of the lanes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use rookery_proto::peer::forward_server::{Forward, ForwardServer};
use rookery_proto::peer::lane_request::Part;
use rookery_proto::peer::{LaneAck, LaneBatch, LaneHello, LaneRequest, ReachAnswer, ReachRequest};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, warn};

use super::relay::{Acks, Relay};
use super::{MAX_FRAME_BYTES, MAX_LANES, Sink, WIRE_VERSION, codec};
use crate::env;
use crate::peer::{MAX_MESSAGE_BYTES, PeerId};
use crate::state::{Epoch, LogIndex, NodeId};

/// How long a new stream may stay silent before it has said who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// What this node remembers about the lanes of the others.
#[derive(Default)]
pub(super) struct Inbound {
    state: Mutex<State>,
    received: AtomicU64,
}

#[derive(Default)]
struct State {
    my_epoch: Option<Epoch>,
    /// Highest epoch per node that is over.
    ended: BTreeMap<NodeId, Epoch>,
    senders: BTreeMap<NodeId, Sender>,
}

struct Sender {
    epoch: Epoch,
    lanes: BTreeMap<u16, Arc<Lane>>,
}

/// One lane of one sender's life.
struct Lane {
    /// The last frame taken over. Whoever holds it is the lane's one stream: a newer stream
    /// starts only when the older has let go, so nothing is delivered twice or out of order.
    taken: Arc<tokio::sync::Mutex<u64>>,
    /// Names the newest stream; an older one ends when it sees a newer.
    newest: watch::Sender<u64>,
}

/// A stream that was let in.
struct Admitted {
    lane: Arc<Lane>,
    newest: watch::Receiver<u64>,
    stream: u64,
}

impl Inbound {
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn begin(&self, me: NodeId, node: NodeId, epoch: Epoch) {
        let mut state = self.state.lock();
        state.end(node, epoch.saturating_sub(1));
        if node == me && state.my_epoch != Some(epoch) {
            state.my_epoch = Some(epoch);
            state.forget_all();
        }
    }

    pub(super) fn end(&self, me: NodeId, node: NodeId, epoch: Epoch) {
        let mut state = self.state.lock();
        state.end(node, epoch);
        if node == me && state.my_epoch.is_some_and(|mine| mine <= epoch) {
            state.my_epoch = None;
            state.forget_all();
        }
    }

    fn admit(&self, from: NodeId, hello: &LaneHello) -> Result<Admitted, Status> {
        if hello.wire_version != WIRE_VERSION {
            return Err(Status::failed_precondition(format!(
                "frames of version {} are not understood here, only {WIRE_VERSION}",
                hello.wire_version
            )));
        }
        let number = u16::try_from(hello.lane)
            .ok()
            .filter(|n| *n < MAX_LANES)
            .ok_or_else(|| Status::invalid_argument("no such lane"))?;
        let mut state = self.state.lock();
        if state.my_epoch != Some(hello.receiver_epoch) {
            return Err(Status::unavailable(format!("this node's life is not {}", hello.receiver_epoch)));
        }
        if state.ended.get(&from).is_some_and(|ended| *ended >= hello.sender_epoch) {
            return Err(Status::failed_precondition(format!(
                "the caller's life {} is over",
                hello.sender_epoch
            )));
        }
        // A life that this node has not heard of yet is newer than any it has: the caller spoke
        // before the log did, and nothing older of it can be alive.
        state.end(from, hello.sender_epoch.saturating_sub(1));
        let sender = state
            .senders
            .entry(from)
            .or_insert_with(|| Sender { epoch: hello.sender_epoch, lanes: BTreeMap::new() });
        let lane = sender.lanes.entry(number).or_insert_with(|| Arc::new(Lane::new())).clone();
        let mut newest = lane.newest.subscribe();
        lane.newest.send_modify(|n| *n += 1);
        let stream = *newest.borrow_and_update();
        Ok(Admitted { lane, newest, stream })
    }
}

impl State {
    fn end(&mut self, node: NodeId, epoch: Epoch) {
        let ended = self.ended.entry(node).or_default();
        *ended = (*ended).max(epoch);
        if self.senders.get(&node).is_some_and(|sender| sender.epoch <= epoch)
            && let Some(sender) = self.senders.remove(&node)
        {
            sender.stop();
        }
    }

    fn forget_all(&mut self) {
        std::mem::take(&mut self.senders).into_values().for_each(|sender| sender.stop());
    }
}

impl Sender {
    fn stop(&self) {
        for lane in self.lanes.values() {
            lane.newest.send_modify(|n| *n += 1);
        }
    }
}

impl Lane {
    fn new() -> Self {
        Self { taken: Arc::default(), newest: watch::channel(0).0 }
    }
}

impl Admitted {
    /// Waits until the older streams have let go.
    ///
    /// # Errors
    /// A newer stream came meanwhile.
    async fn turn(&mut self) -> Result<OwnedMutexGuard<u64>, Status> {
        let taken = self.lane.taken.clone().lock_owned().await;
        if self.is_over() {
            return Err(Status::aborted("a newer stream of the lane has taken over"));
        }
        Ok(taken)
    }

    fn is_over(&self) -> bool {
        *self.newest.borrow() != self.stream
    }

    async fn over(&mut self) {
        let stream = self.stream;
        let _ = self.newest.wait_for(|newest| *newest != stream).await;
    }
}

/// The gRPC service that takes other nodes' publishes.
#[derive(Clone)]
pub struct ForwardService {
    inbound: Arc<Inbound>,
    relay: Relay,
    sink: Arc<dyn Sink>,
    applied: watch::Receiver<LogIndex>,
    shutdown: watch::Receiver<bool>,
}

impl ForwardService {
    pub(super) fn new(
        inbound: Arc<Inbound>,
        relay: Relay,
        sink: Arc<dyn Sink>,
        applied: watch::Receiver<LogIndex>,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        Self { inbound, relay, sink, applied, shutdown }
    }

    /// As a server with the limits of peer connections; needs [`PeerId`] in each request.
    pub fn into_server(self) -> ForwardServer<Self> {
        ForwardServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

/// What a lane begins with.
async fn hello(requests: &mut Streaming<LaneRequest>) -> Result<LaneHello, Status> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, requests.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no hello"))??;
    match first {
        Some(LaneRequest { part: Some(Part::Hello(hello)) }) => Ok(hello),
        _ => Err(Status::invalid_argument("a lane begins with its hello")),
    }
}

impl ForwardService {
    /// A lane that ends here.
    async fn receive(
        &self,
        from: NodeId,
        hello: LaneHello,
        requests: Streaming<LaneRequest>,
    ) -> Result<Acks, Status> {
        let mut admitted = self.inbound.admit(from, &hello)?;
        let taken = admitted.turn().await?;
        // Acknowledgements are cumulative: a slow reader sees the newest and misses nothing.
        let (acks, acked) = watch::channel(*taken);
        let run = LaneRun {
            from,
            lane: hello.lane as u16,
            admitted,
            taken,
            acks,
            service: self.clone(),
            unflushed: false,
            gathered: Vec::new(),
        };
        env::spawn(run.run(requests));
        Ok(Box::pin(WatchStream::new(acked).map(|taken| Ok(LaneAck { taken }))))
    }
}

#[tonic::async_trait]
impl Forward for ForwardService {
    type LaneStream = Acks;

    async fn lane(&self, request: Request<Streaming<LaneRequest>>) -> Result<Response<Acks>, Status> {
        let from = PeerId::of(&request)?;
        let mut requests = request.into_inner();
        let hello = hello(&mut requests).await?;
        Ok(Response::new(self.receive(from, hello, requests).await?))
    }

    type RelayStream = Acks;

    async fn relay(&self, request: Request<Streaming<LaneRequest>>) -> Result<Response<Acks>, Status> {
        let caller = PeerId::of(&request)?;
        let mut requests = request.into_inner();
        let hello = hello(&mut requests).await?;
        if self.relay.ends_here(&hello) {
            let from = hello.sender;
            return Ok(Response::new(self.receive(from, hello, requests).await?));
        }
        if hello.sender != caller {
            return Err(Status::invalid_argument("a lane goes by way of one node at most"));
        }
        Ok(Response::new(self.relay.pass_on(hello, requests).await?))
    }

    async fn reach(&self, request: Request<ReachRequest>) -> Result<Response<ReachAnswer>, Status> {
        PeerId::of(&request)?;
        let ReachRequest { node } = request.into_inner();
        if node == 0 || self.relay.reaches(node).await {
            return Ok(Response::new(ReachAnswer {}));
        }
        Err(Status::unavailable(format!("node {node:016x} is not reached from here")))
    }
}

/// One stream from its admission to its end.
struct LaneRun {
    from: NodeId,
    lane: u16,
    admitted: Admitted,
    taken: OwnedMutexGuard<u64>,
    acks: watch::Sender<u64>,
    service: ForwardService,
    unflushed: bool,
    /// The beginning of a batch that is not whole yet.
    gathered: Vec<u8>,
}

/// The stream must not go on.
enum Stop {
    /// A newer stream, the end of a life, or of this process.
    Over,
    Malformed,
}

impl LaneRun {
    async fn run(mut self, mut requests: Streaming<LaneRequest>) {
        let mut shutdown = self.service.shutdown.clone();
        let stop = loop {
            let request = tokio::select! {
                biased;
                () = self.admitted.over() => break Stop::Over,
                _ = shutdown.wait_for(|stop| *stop) => break Stop::Over,
                request = requests.message() => request,
            };
            let batch = match request {
                Ok(Some(LaneRequest { part: Some(Part::Batch(batch)) })) => batch,
                Ok(Some(_)) => break Stop::Malformed,
                Ok(None) | Err(_) => break Stop::Over,
            };
            let taken = match self.gather(&batch) {
                Ok(None) => continue,
                Ok(Some(frames)) => self.take(batch.first_seq, &frames).await,
                Err(stop) => Err(stop),
            };
            self.hand_over();
            if let Err(stop) = taken {
                break stop;
            }
        };
        match stop {
            Stop::Over => debug!("lane {} from node {:016x} ended", self.lane, self.from),
            Stop::Malformed => {
                warn!("lane {} from node {:016x} carried a malformed frame", self.lane, self.from);
            }
        }
    }

    /// The frames of the batch, once it is whole.
    fn gather(&mut self, chunk: &LaneBatch) -> Result<Option<Bytes>, Stop> {
        if chunk.missing == 0 && self.gathered.is_empty() {
            return Ok(Some(chunk.frames.clone()));
        }
        let so_far = (self.gathered.len() + chunk.frames.len()) as u64;
        if so_far.saturating_add(chunk.missing) > MAX_FRAME_BYTES as u64 {
            return Err(Stop::Malformed);
        }
        self.gathered.extend_from_slice(&chunk.frames);
        Ok((chunk.missing == 0).then(|| std::mem::take(&mut self.gathered).into()))
    }

    /// Delivers what an earlier stream has not.
    async fn take(&mut self, first_seq: u64, mut frames: &[u8]) -> Result<(), Stop> {
        let mut seq = first_seq;
        while let Some(frame) = codec::decode(&mut frames).map_err(|_| Stop::Malformed)? {
            if seq > *self.taken {
                if frame.barrier > *self.service.applied.borrow() {
                    self.hand_over();
                    self.wait_applied(frame.barrier).await?;
                }
                self.service.sink.deliver(self.from, self.lane, &frame.publication, frame.share);
                *self.taken = seq;
                self.unflushed = true;
                self.service.inbound.received.fetch_add(1, Ordering::Relaxed);
            }
            seq = seq.checked_add(1).ok_or(Stop::Malformed)?;
        }
        Ok(())
    }

    async fn wait_applied(&mut self, barrier: LogIndex) -> Result<(), Stop> {
        let mut shutdown = self.service.shutdown.clone();
        tokio::select! {
            biased;
            () = self.admitted.over() => Err(Stop::Over),
            _ = shutdown.wait_for(|stop| *stop) => Err(Stop::Over),
            applied = self.service.applied.wait_for(|applied| *applied >= barrier) => {
                applied.map(|_| ()).map_err(|_| Stop::Over)
            }
        }
    }

    /// What was delivered is written to subscribers, then acknowledged.
    fn hand_over(&mut self) {
        if std::mem::take(&mut self.unflushed) {
            self.service.sink.flush();
            self.acks.send_replace(*self.taken);
        }
    }
}
