//! The leader's side: requests in, grants out.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use rookery_proto::peer::lease_server::{Lease as LeaseRpc, LeaseServer};
use rookery_proto::peer::{LeaseAnswer, LeaseGrant, LeaseRequest};
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::{LeaseHost, LeaseTimes, Live, Refusal, Renewal, Round, Table};
use crate::env;
use crate::peer::PeerId;
use crate::state::{Epoch, LogIndex, NodeId};

/// How often the leader looks for expired leases, and every node whether it leads; sooner when a
/// lease is about to expire.
const LOOK_INTERVAL_MS: u64 = 50;
/// A quorum that has not answered by then will not save a lease any more.
const ROUND_TIMEOUT: Duration = Duration::from_millis(1000);
/// Grants that may wait in one stream; a stream that does not read them is closed.
const GRANT_QUEUE: usize = 64;
/// Renewals of one stream that may wait for a round; older ones give way.
const MAX_WAITING: usize = 4;

/// What a node does as the leader; idle while it is not.
pub(super) struct Core {
    host: Arc<dyn LeaseHost>,
    times: LeaseTimes,
    applied: watch::Receiver<LogIndex>,
    lead: Mutex<Option<Lead>>,
    round: Notify,
    next_stream: AtomicU64,
}

/// One term as the leader.
struct Lead {
    term: u64,
    table: Table,
    streams: BTreeMap<u64, Renewer>,
    /// Requests that arrived since the last round began: the next one answers them all.
    waiting: Vec<Waiting>,
    min_applied: LogIndex,
}

struct Renewer {
    node: NodeId,
    /// The stream's node waits for this index; 0: for nothing.
    want: LogIndex,
    to: mpsc::Sender<LeaseGrant>,
}

struct Waiting {
    stream: u64,
    id: u64,
    renewal: Renewal,
}

/// What the host says. Gathered under the lock, so that a later look never follows an earlier.
struct View {
    now_ms: u64,
    term: Option<u64>,
    /// Read before `live`, so that every epoch that began up to here is in `live` or over.
    applied: LogIndex,
    live: Vec<Live>,
    committed: LogIndex,
}

impl Core {
    pub(super) fn new(
        host: Arc<dyn LeaseHost>,
        times: LeaseTimes,
        applied: watch::Receiver<LogIndex>,
    ) -> Arc<Self> {
        Arc::new(Self {
            host,
            times,
            applied,
            lead: Mutex::new(None),
            round: Notify::new(),
            next_stream: AtomicU64::new(0),
        })
    }

    /// A node's stream begins; `None` when this node does not lead.
    pub(super) fn open(&self, node: NodeId) -> Option<(u64, mpsc::Receiver<LeaseGrant>)> {
        let mut guard = self.lead.lock();
        let view = self.view();
        let lead = self.current(&mut guard, &view)?;
        let id = self.next_stream.fetch_add(1, Ordering::Relaxed);
        let (to, grants) = mpsc::channel(GRANT_QUEUE);
        // A node has one stream; an older one is a connection that is not known to be dead yet.
        lead.streams.retain(|_, renewer| renewer.node != node);
        lead.streams.insert(id, Renewer { node, want: 0, to });
        Some((id, grants))
    }

    pub(super) fn close(&self, stream: u64) {
        if let Some(lead) = self.lead.lock().as_mut() {
            lead.streams.remove(&stream);
        }
    }

    /// A request of the stream; false when the stream is over.
    pub(super) fn receive(&self, stream: u64, request: &LeaseRequest) -> bool {
        let mut guard = self.lead.lock();
        let view = self.view();
        let Some(lead) = self.current(&mut guard, &view) else { return false };
        let Some(renewer) = lead.streams.get_mut(&stream) else { return false };
        renewer.want = request.want;
        let node = renewer.node;
        lead.table.report(node, request.epoch, request.applied);
        lead.advance(&view);
        if request.renewal != 0 {
            let renewal =
                Renewal { node, epoch: request.epoch, applied: request.applied, arrived_ms: view.now_ms };
            let mine = lead.waiting.iter().filter(|w| w.stream == stream).count();
            if mine >= MAX_WAITING
                && let Some(oldest) = lead.waiting.iter().position(|w| w.stream == stream)
            {
                lead.waiting.remove(oldest);
            }
            lead.waiting.push(Waiting { stream, id: request.renewal, renewal });
            self.round.notify_one();
        }
        true
    }

    /// Watches over the leases and answers renewals until `shutdown`.
    pub(super) async fn run(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => {}
            () = self.look() => {}
            () = self.rounds() => {}
        }
        *self.lead.lock() = None;
    }

    async fn look(&self) {
        let mut pause_ms = LOOK_INTERVAL_MS;
        loop {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            pause_ms = LOOK_INTERVAL_MS;
            let mut guard = self.lead.lock();
            let view = self.view();
            let Some(lead) = self.current(&mut guard, &view) else { continue };
            lead.advance(&view);
            match lead.table.first_expiry_ms() {
                Some(at_ms) if at_ms <= view.now_ms => self.round.notify_one(),
                Some(at_ms) => pause_ms = pause_ms.min(at_ms - view.now_ms),
                None => {}
            }
        }
    }

    /// One round at a time. Whoever comes during a round waits for the next one, which serves
    /// all that came meanwhile.
    async fn rounds(&self) {
        loop {
            self.round.notified().await;
            let Some((term, waiting)) = self.take_waiting() else { continue };
            let began_ms = env::boot_ms();
            let asked = tokio::time::timeout(ROUND_TIMEOUT, self.host.quorum_round()).await;
            let round = Round { began_ms, succeeded: asked.unwrap_or(false) };
            for (node, epoch) in self.settle(term, &waiting, round) {
                warn!("node {node:016x} epoch {epoch} has not renewed its lease: declared down");
                self.host.propose_down(node, epoch, term);
            }
        }
    }

    fn take_waiting(&self) -> Option<(u64, Vec<Waiting>)> {
        let mut guard = self.lead.lock();
        let lead = guard.as_mut()?;
        Some((lead.term, std::mem::take(&mut lead.waiting)))
    }

    /// Answers what the round was for. Returns the epochs to end: only a leader whom a quorum
    /// has just confirmed gives anybody up, since one that slept or was cut off sees everybody's
    /// lease expired.
    fn settle(&self, term: u64, waiting: &[Waiting], round: Round) -> Vec<(NodeId, Epoch)> {
        let mut guard = self.lead.lock();
        let view = self.view();
        let ready = self.host.term_applied();
        let Some(lead) = self.current(&mut guard, &view).filter(|lead| lead.term == term) else {
            return Vec::new();
        };
        let answers: Vec<_> = waiting
            .iter()
            .map(|w| (w.stream, w.id, lead.table.renew(view.now_ms, ready, &w.renewal, &round)))
            .collect();
        lead.advance(&view);
        for (stream, id, answer) in answers {
            lead.send(
                stream,
                LeaseGrant { renewal: id, answer: wire_answer(answer) as i32, min_applied: lead.min_applied },
            );
        }
        if !round.succeeded || !ready {
            return Vec::new();
        }
        let mut down = lead.table.expired(view.now_ms);
        down.retain(|(node, epoch)| lead.table.declare_down(view.now_ms, *node, *epoch));
        down
    }

    fn view(&self) -> View {
        let applied = *self.applied.borrow();
        View {
            now_ms: env::boot_ms(),
            term: self.host.leading(),
            applied,
            live: self.host.live(),
            committed: self.host.committed(),
        }
    }

    /// The present term's record. A new term starts from nothing, and ends the streams of the
    /// one before: their nodes must ask again.
    fn current<'a>(&self, lead: &'a mut Option<Lead>, view: &View) -> Option<&'a mut Lead> {
        let Some(term) = view.term else {
            *lead = None;
            return None;
        };
        if lead.as_ref().is_none_or(|lead| lead.term != term) {
            info!("leases are granted here in term {term}");
            let heard_ms = self.host.heard_leaders(term).unwrap_or(view.now_ms);
            *lead = Some(Lead {
                term,
                table: Table::new(view.now_ms, heard_ms, self.times),
                streams: BTreeMap::new(),
                waiting: Vec::new(),
                min_applied: 0,
            });
        }
        let lead = lead.as_mut()?;
        lead.table.observe(view.now_ms, &view.live, view.committed);
        Some(lead)
    }
}

impl Lead {
    /// Recomputes the minimum and tells those who wait for it at once; the others learn it with
    /// their next grant.
    fn advance(&mut self, view: &View) {
        let min_applied = self.table.min_applied(&view.live).min(view.applied);
        self.min_applied = self.min_applied.max(min_applied);
        let min_applied = self.min_applied;
        let answer = LeaseAnswer::None as i32;
        self.streams.retain(|_, renewer| {
            if renewer.want == 0 || renewer.want > min_applied {
                return true;
            }
            renewer.want = 0;
            renewer.to.try_send(LeaseGrant { renewal: 0, answer, min_applied }).is_ok()
        });
    }

    fn send(&mut self, stream: u64, grant: LeaseGrant) {
        if self.streams.get(&stream).is_some_and(|renewer| renewer.to.try_send(grant).is_err()) {
            self.streams.remove(&stream);
        }
    }
}

fn wire_answer(result: Result<(), Refusal>) -> LeaseAnswer {
    match result {
        Ok(()) => LeaseAnswer::Granted,
        Err(Refusal::NoQuorum) => LeaseAnswer::NoQuorum,
        Err(Refusal::NotReady) => LeaseAnswer::NotReady,
        Err(Refusal::NotLive) => LeaseAnswer::NotLive,
        Err(Refusal::DeclaredDown) => LeaseAnswer::DeclaredDown,
        Err(Refusal::Lagging) => LeaseAnswer::Lagging,
    }
}

/// The gRPC service of leases; refuses while this node does not lead.
#[derive(Clone)]
pub struct LeaseService {
    core: Arc<Core>,
    shutdown: watch::Receiver<bool>,
}

impl LeaseService {
    pub(super) fn new(core: Arc<Core>, shutdown: watch::Receiver<bool>) -> Self {
        Self { core, shutdown }
    }

    /// As a server; needs [`PeerId`] in each request.
    pub fn into_server(self) -> LeaseServer<Self> {
        LeaseServer::new(self)
    }
}

#[tonic::async_trait]
impl LeaseRpc for LeaseService {
    type RenewStream = Pin<Box<dyn Stream<Item = Result<LeaseGrant, Status>> + Send>>;

    async fn renew(
        &self,
        request: Request<Streaming<LeaseRequest>>,
    ) -> Result<Response<Self::RenewStream>, Status> {
        let node = PeerId::of(&request)?;
        let mut requests = request.into_inner();
        let (stream, grants) =
            self.core.open(node).ok_or_else(|| Status::unavailable("this node does not lead"))?;
        let core = self.core.clone();
        let mut shutdown = self.shutdown.clone();
        env::spawn(async move {
            loop {
                let request = tokio::select! {
                    _ = shutdown.wait_for(|stop| *stop) => break,
                    request = requests.message() => request,
                };
                match request {
                    Ok(Some(request)) if core.receive(stream, &request) => {}
                    _ => break,
                }
            }
            core.close(stream);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(grants).map(Ok))))
    }
}
