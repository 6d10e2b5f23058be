//! Every node's side: renews the lease, and waits for the others to apply.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rookery_proto::peer::lease_client::LeaseClient;
use rookery_proto::peer::{LeaseAnswer, LeaseGrant, LeaseRequest};
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::{debug, info, warn};

use super::service::Core;
use super::{Everywhere, LeaseHost, LeaseService, LeaseTimes};
use crate::env;
use crate::peer::Dial;
use crate::peer::backoff::Backoff;
use crate::state::{Epoch, LogIndex, NodeId};

#[cfg(test)]
mod testing;

/// How often a node looks whether the leader is still the same.
const LOOK_MS: u64 = 50;
/// After a refusal: the reason may be over soon.
const RETRY_MS: u64 = 100;
/// A renewal that is not answered by then makes the node open another stream.
const ANSWER_TIMEOUT_MS: u64 = 700;
const OPEN_TIMEOUT: Duration = Duration::from_millis(700);
const FIRST_PAUSE_MS: u64 = 20;
const LAST_PAUSE_MS: u64 = 160;
/// Requests that may wait in a stream before the node opens another one.
const REQUEST_QUEUE: usize = 64;

/// This node's lease.
pub struct Lease {
    shared: Arc<Shared>,
    core: Arc<Core>,
    shutdown: watch::Receiver<bool>,
}

struct Shared {
    host: Arc<dyn LeaseHost>,
    times: LeaseTimes,
    dial: Arc<dyn Dial>,
    core: Arc<Core>,
    /// The lease counts before this moment of `env::boot_ms`.
    deadline_ms: AtomicU64,
    applied: watch::Sender<LogIndex>,
    min_applied: AtomicU64,
    wake: Notify,
    /// Something was applied that others wait for.
    urgent: AtomicBool,
    renew_now: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last of this node's lives that is known to be over.
    ended: Option<Epoch>,
    waiters: BTreeMap<(LogIndex, u64), Everywhere>,
    next_waiter: u64,
}

impl Lease {
    /// Renewals run on the current runtime until `shutdown` becomes true or is dropped.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        host: Arc<dyn LeaseHost>,
        dial: Arc<dyn Dial>,
        times: LeaseTimes,
        shutdown: watch::Receiver<bool>,
    ) -> Arc<Self> {
        debug_assert!(times.are_consistent());
        let (applied, told) = watch::channel(0);
        let core = Core::new(host.clone(), times, told);
        let shared = Shared::new(host, times, dial, core.clone(), applied);
        env::spawn(core.clone().run(shutdown.clone()));
        env::spawn(shared.clone().run(shutdown.clone()));
        Arc::new(Self { shared, core, shutdown })
    }

    /// The leader's side, to be mounted behind the peer verification of the peer server.
    pub fn service(&self) -> LeaseService {
        LeaseService::new(self.core.clone(), self.shutdown.clone())
    }

    /// This node may acknowledge: nobody has declared it down yet, nor will before its lease is
    /// over. To be asked immediately before each acknowledgement. Takes no lock.
    pub fn is_valid(&self) -> bool {
        self.shared.is_valid()
    }

    /// The log has been applied up to `index`, the local state included. To be called after each
    /// batch by the thread that applies, and after a snapshot was installed. `urgent`: somebody
    /// may wait for it to be applied everywhere, so it is reported right away.
    pub fn applied(&self, index: LogIndex, urgent: bool) {
        self.shared.applied.send_if_modified(|applied| {
            let news = *applied < index;
            *applied = index.max(*applied);
            news
        });
        if urgent {
            self.shared.urgent.store(true, Ordering::Release);
            self.shared.wake.notify_one();
        }
    }

    /// Follows what [`Self::applied`] is told.
    pub fn applied_watch(&self) -> watch::Receiver<LogIndex> {
        self.shared.applied.subscribe()
    }

    /// Calls `done` with true when every live node has applied `index` (the nodes that were live
    /// at `index`; those that began later serve only after it), and with false when this node's
    /// life ends before. True is said only while the lease is valid: without it this life may be
    /// over, and what it has announced gone. Called at once, on this thread, if it is known
    /// already; else from a task. Bounded by the lease: who does not apply is declared down.
    pub fn when_applied_everywhere(&self, index: LogIndex, done: Everywhere) {
        let is_first = {
            let mut state = self.shared.state.lock();
            if self.min_applied() >= index && self.is_valid() {
                drop(state);
                return done(true);
            }
            let is_first = state.waiters.first_key_value().is_none_or(|((first, _), _)| index < *first);
            let number = state.next_waiter;
            state.next_waiter += 1;
            state.waiters.insert((index, number), done);
            is_first
        };
        // Later ones follow when the leader has answered the first.
        if is_first {
            self.shared.wake.notify_one();
        }
    }

    /// Every live node has applied the log up to here, as far as this node was told.
    pub fn min_applied(&self) -> LogIndex {
        self.shared.min_applied.load(Ordering::Acquire)
    }

    /// Renews at once: the leader has changed, or this node's life has just begun.
    pub fn poke(&self) {
        self.shared.renew_now.store(true, Ordering::Release);
        self.shared.wake.notify_one();
    }

    /// This node's life `epoch` is over: the lease ends at once, and whoever waits is told so.
    /// The lease of a newer life begins with its first renewal, once the host says that it is
    /// this node's.
    pub fn end_life(&self, epoch: Epoch) {
        let waiters = {
            let mut state = self.shared.state.lock();
            state.ended = state.ended.max(Some(epoch));
            self.shared.deadline_ms.store(0, Ordering::Release);
            std::mem::take(&mut state.waiters)
        };
        self.shared.complete(waiters, false);
    }
}

/// The way to the leader, which may be this node itself.
enum Link {
    Local { core: Arc<Core>, stream: u64, grants: mpsc::Receiver<LeaseGrant> },
    Remote { requests: mpsc::Sender<LeaseRequest>, grants: Box<Streaming<LeaseGrant>> },
}

impl Link {
    /// False: the link is of no use any more.
    fn send(&self, request: LeaseRequest) -> bool {
        match self {
            Self::Local { core, stream, .. } => core.receive(*stream, &request),
            Self::Remote { requests, .. } => requests.try_send(request).is_ok(),
        }
    }

    async fn receive(&mut self) -> Option<LeaseGrant> {
        match self {
            Self::Local { grants, .. } => grants.recv().await,
            Self::Remote { grants, .. } => grants.message().await.ok().flatten(),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Self::Local { core, stream, .. } = self {
            core.close(*stream);
        }
    }
}

/// What one link has been asked and not answered.
#[derive(Default)]
struct Asked {
    /// (request, life, when it was sent), oldest first.
    renewals: VecDeque<(u64, Epoch, u64)>,
    want: LogIndex,
}

impl Shared {
    fn new(
        host: Arc<dyn LeaseHost>,
        times: LeaseTimes,
        dial: Arc<dyn Dial>,
        core: Arc<Core>,
        applied: watch::Sender<LogIndex>,
    ) -> Arc<Self> {
        Arc::new(Self {
            host,
            times,
            dial,
            core,
            deadline_ms: AtomicU64::new(0),
            applied,
            min_applied: AtomicU64::new(0),
            wake: Notify::new(),
            urgent: AtomicBool::new(false),
            renew_now: AtomicBool::new(false),
            state: Mutex::default(),
        })
    }

    async fn run(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => {}
            () = self.follow() => {}
        }
        let waiters = std::mem::take(&mut self.state.lock().waiters);
        self.complete(waiters, false);
    }

    /// Goes from leader to leader.
    async fn follow(&self) {
        let mut backoff = Backoff::new(FIRST_PAUSE_MS, LAST_PAUSE_MS);
        let mut next_id = 1;
        loop {
            if let Some(leader) = self.host.leader()
                && let Some(link) = self.open(leader).await
            {
                let answered = self.converse(leader, link, &mut next_id).await;
                if answered {
                    backoff.reset();
                }
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    async fn open(&self, leader: NodeId) -> Option<Link> {
        let (me, _) = self.host.me();
        if leader == me {
            let (stream, grants) = self.core.open(me)?;
            return Some(Link::Local { core: self.core.clone(), stream, grants });
        }
        let mut client = LeaseClient::new(self.dial.consensus(leader)?);
        let (requests, outgoing) = mpsc::channel(REQUEST_QUEUE);
        match tokio::time::timeout(OPEN_TIMEOUT, client.renew(ReceiverStream::new(outgoing))).await {
            Ok(Ok(response)) => Some(Link::Remote { requests, grants: Box::new(response.into_inner()) }),
            Ok(Err(status)) => {
                debug!("leases are not to be had from node {leader:016x}: {}", status.message());
                None
            }
            Err(_) => None,
        }
    }

    /// Renews and reports over one link until it breaks or another node leads. True if it was
    /// of any use.
    async fn converse(&self, leader: NodeId, mut link: Link, next_id: &mut u64) -> bool {
        let mut asked = Asked::default();
        let mut answered = false;
        let mut renew_at_ms = env::boot_ms();
        // A new leader knows nothing of what was reported to the last one.
        let mut report = true;
        loop {
            let now_ms = env::boot_ms();
            if asked.renewals.front().is_some_and(|(_, _, sent)| now_ms > sent + ANSWER_TIMEOUT_MS) {
                debug!("node {leader:016x} does not answer renewals");
                return answered;
            }
            let life = self.life();
            if let Some(epoch) = life {
                let poked = self.renew_now.swap(false, Ordering::AcqRel);
                report |= self.urgent.swap(false, Ordering::AcqRel);
                let renewal = (poked || now_ms >= renew_at_ms).then(|| {
                    *next_id += 1;
                    *next_id
                });
                let want = self.want();
                if renewal.is_some() || report || want != asked.want {
                    let request = LeaseRequest {
                        epoch,
                        renewal: renewal.unwrap_or(0),
                        applied: *self.applied.borrow(),
                        want,
                    };
                    if let Some(id) = renewal {
                        asked.renewals.push_back((id, epoch, now_ms));
                        renew_at_ms = now_ms + self.times.renew_ms;
                    }
                    if !link.send(request) {
                        return answered;
                    }
                    asked.want = want;
                    report = false;
                }
            }
            let pause_ms = match life {
                Some(_) => LOOK_MS.min(renew_at_ms.saturating_sub(now_ms)).max(1),
                None => LOOK_MS,
            };
            tokio::select! {
                grant = link.receive() => match grant {
                    Some(grant) => {
                        answered = true;
                        if let Some(retry_ms) = self.granted(&grant, &mut asked) {
                            renew_at_ms = renew_at_ms.min(env::boot_ms() + retry_ms);
                        }
                    }
                    None => return answered,
                },
                () = self.wake.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {
                    if self.host.leader() != Some(leader) {
                        return answered;
                    }
                }
            }
        }
    }

    /// Takes an answer in; after a refusal, when to ask again.
    fn granted(&self, grant: &LeaseGrant, asked: &mut Asked) -> Option<u64> {
        self.advance(grant.min_applied);
        if asked.want <= grant.min_applied {
            asked.want = 0;
        }
        if grant.renewal == 0 {
            return None;
        }
        let mut renewed = None;
        // Answers come in order: a request before this one was given up by the leader.
        while let Some(front) = asked.renewals.front().filter(|(id, ..)| *id <= grant.renewal).copied() {
            asked.renewals.pop_front();
            renewed = Some(front).filter(|(id, ..)| *id == grant.renewal);
        }
        let (_, epoch, sent_ms) = renewed?;
        if grant.answer == LeaseAnswer::Granted as i32 {
            self.renewed(epoch, sent_ms);
            self.tell_ready();
            return None;
        }
        let answer = LeaseAnswer::try_from(grant.answer).unwrap_or(LeaseAnswer::None);
        match answer {
            LeaseAnswer::DeclaredDown | LeaseAnswer::Lagging => {
                warn!("the leader refuses to renew this node's lease: {}", answer.as_str_name());
            }
            _ => debug!("the leader refuses to renew this node's lease: {}", answer.as_str_name()),
        }
        Some(RETRY_MS)
    }

    /// The lease counts from when its renewal was sent.
    fn renewed(&self, epoch: Epoch, sent_ms: u64) {
        let state = self.state.lock();
        // The life may have ended while the answer was under way.
        if state.ended.is_some_and(|ended| ended >= epoch) {
            return;
        }
        let before = self.deadline_ms.fetch_max(sent_ms + self.times.fence_ms, Ordering::AcqRel);
        drop(state);
        if before <= env::boot_ms() {
            info!("this node holds a lease");
            self.host.regained();
        }
    }

    fn is_valid(&self) -> bool {
        env::boot_ms() < self.deadline_ms.load(Ordering::Acquire)
    }

    fn advance(&self, min_applied: LogIndex) {
        let before = {
            let _state = self.state.lock();
            self.min_applied.fetch_max(min_applied, Ordering::AcqRel)
        };
        if before < min_applied {
            self.tell_ready();
        }
    }

    /// Tells those whose index is applied everywhere, if the lease is valid. What comes in without
    /// one may have been under way for long.
    fn tell_ready(&self) {
        let ready = {
            let mut state = self.state.lock();
            if !self.is_valid() {
                return;
            }
            let min_applied = self.min_applied.load(Ordering::Acquire);
            let later = state.waiters.split_off(&(min_applied.saturating_add(1), 0));
            std::mem::replace(&mut state.waiters, later)
        };
        self.complete(ready, true);
    }

    fn complete(&self, waiters: BTreeMap<(LogIndex, u64), Everywhere>, everywhere: bool) {
        if waiters.is_empty() {
            return;
        }
        for done in waiters.into_values() {
            done(everywhere);
        }
        self.host.flush();
    }

    /// The index to wait for next; 0: none.
    fn want(&self) -> LogIndex {
        let state = self.state.lock();
        let min_applied = self.min_applied.load(Ordering::Acquire);
        let mut unknown = state.waiters.range((min_applied.saturating_add(1), 0)..);
        unknown.next().map_or(0, |((index, _), _)| *index)
    }

    /// This node's present life, unless it is known to be over.
    fn life(&self) -> Option<Epoch> {
        let (_, epoch) = self.host.me();
        (self.state.lock().ended < Some(epoch)).then_some(epoch)
    }
}
