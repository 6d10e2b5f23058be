//! The sending half of a lane: what waits to be sent and what waits to be acknowledged.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use parking_lot::Mutex;
use rookery_proto::peer::lane_request::Part;
use rookery_proto::peer::{LaneBatch, LaneHello, LaneRequest};

use super::way::Way;
use super::{CHUNK_BYTES, Done, ForwardConfig, Frame, RELAYED_WINDOW_BYTES, codec};
use crate::env;

/// What a frame costs beside its bytes: its completion and its share of a batch.
pub(super) const FRAME_OVERHEAD_BYTES: usize = 48;

/// Frames are encoded once, into the open batch; the stream takes whatever has gathered there
/// whenever the connection has room, so batches grow by themselves under load. A batch is kept
/// until its last frame is acknowledged.
pub(super) struct Lane {
    state: Mutex<State>,
    batch_bytes: usize,
    window_bytes: usize,
    /// What waits for this node on all its lanes, bytes.
    used: Arc<AtomicUsize>,
    /// When the stream went down; 0 while it is up.
    down_since_ms: AtomicU64,
    /// It is up by way of another node.
    relayed: AtomicBool,
}

#[derive(Default)]
struct State {
    open: OpenBatch,
    /// Sent from the front up to `unsent`, to be sent from there on.
    sealed: VecDeque<Batch>,
    unsent: usize,
    /// How many bytes of the first of those were sent on this stream.
    chunked: usize,
    /// Sent on this stream and not acknowledged, bytes, and how many that may be.
    in_flight: usize,
    window_bytes: usize,
    next_seq: u64,
    /// Every frame up to here is acknowledged.
    taken: u64,
    /// Names the stream that may take batches and acknowledge them; older ones may not.
    stream: u64,
    welcomed: bool,
    closed: bool,
    waker: Option<Waker>,
}

#[derive(Default)]
struct OpenBatch {
    bytes: BytesMut,
    frames: u64,
    dones: VecDeque<(u64, Done)>,
}

struct Batch {
    first_seq: u64,
    last_seq: u64,
    bytes: Bytes,
    dones: VecDeque<(u64, Done)>,
}

/// The lane's life is over.
pub(super) struct Closed;

/// The receiver acknowledged what was never sent.
#[derive(Debug, thiserror::Error)]
#[error("the receiver acknowledged frame {0}, which was never sent")]
pub(super) struct BadAck(u64);

impl Lane {
    pub(super) fn new(config: &ForwardConfig, used: Arc<AtomicUsize>) -> Self {
        Self {
            state: Mutex::new(State { next_seq: 1, ..State::default() }),
            batch_bytes: config.batch_bytes,
            window_bytes: config.window_bytes,
            used,
            down_since_ms: AtomicU64::new(env::boot_ms().max(1)),
            relayed: AtomicBool::new(false),
        }
    }

    /// Appends a frame of `len` encoded bytes, which the caller has charged to `used`.
    pub(super) fn push(&self, frame: &Frame<'_>, len: usize, done: Option<Done>) -> Result<(), Closed> {
        let waker = {
            let mut state = self.state.lock();
            if state.closed {
                return Err(Closed);
            }
            if state.open.frames > 0 && state.open.bytes.len() + len > self.batch_bytes {
                state.seal(self.batch_bytes);
            }
            let seq = state.next_seq;
            state.next_seq += 1;
            let open = &mut state.open;
            open.bytes.reserve(len);
            codec::encode(frame, &mut open.bytes);
            open.frames += 1;
            open.dones.extend(done.map(|done| (seq, done)));
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// A new stream takes over; an older one that still runs ends.
    pub(super) fn stream(self: &Arc<Self>, hello: LaneHello, way: Way) -> Outgoing {
        let relayed = way != Way::Direct;
        let (stream, waker) = {
            let mut state = self.state.lock();
            let stream = state.detach();
            state.window_bytes =
                if relayed { self.window_bytes.min(RELAYED_WINDOW_BYTES) } else { self.window_bytes };
            (stream, state.waker.take())
        };
        self.relayed.store(relayed, Ordering::Relaxed);
        if let Some(waker) = waker {
            waker.wake();
        }
        Outgoing { lane: self.clone(), stream, hello: Some(hello) }
    }

    /// The receiver knows everything up to `taken` from earlier streams: the rest is sent, or
    /// sent again.
    pub(super) fn welcome(&self, stream: u64, taken: u64) -> Result<Vec<Done>, BadAck> {
        let dones = self.acknowledge(stream, taken)?;
        let waker = {
            let mut state = self.state.lock();
            if state.stream != stream || state.closed {
                return Ok(dones);
            }
            state.welcomed = true;
            state.waker.take()
        };
        self.down_since_ms.store(0, Ordering::Relaxed);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(dones)
    }

    /// The receiver has taken over everything up to `taken`: gives back what to call, in order.
    pub(super) fn acknowledge(&self, stream: u64, taken: u64) -> Result<Vec<Done>, BadAck> {
        let mut dones = Vec::new();
        let mut freed = 0;
        let waker = {
            let mut state = self.state.lock();
            if state.stream != stream || taken <= state.taken {
                return Ok(dones);
            }
            if taken > state.last_sealed() {
                return Err(BadAck(taken));
            }
            state.taken = taken;
            while state.sealed.front().is_some_and(|batch| batch.first_seq <= taken) {
                let Some(batch) = state.sealed.front_mut() else { break };
                while batch.dones.front().is_some_and(|(seq, _)| *seq <= taken) {
                    dones.extend(batch.dones.pop_front().map(|(_, done)| done));
                }
                if batch.last_seq > taken {
                    break;
                }
                let len = batch.bytes.len();
                freed += batch.charge();
                state.sealed.pop_front();
                if state.unsent > 0 {
                    state.unsent -= 1;
                    state.in_flight -= len;
                }
            }
            let waiting = state.unsent < state.sealed.len() || state.open.frames > 0;
            if waiting { state.waker.take() } else { None }
        };
        self.used.fetch_sub(freed, Ordering::Relaxed);
        // The window may have opened.
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(dones)
    }

    /// How far the receiver has got, if it has been sent more than that.
    pub(super) fn unacknowledged_after(&self) -> Option<u64> {
        let state = self.state.lock();
        (state.in_flight > 0).then_some(state.taken)
    }

    /// The stream is up, and goes by way of another node.
    pub(super) fn is_relayed(&self) -> bool {
        self.down_since_ms.load(Ordering::Relaxed) == 0 && self.relayed.load(Ordering::Relaxed)
    }

    /// The stream broke; the next one starts with the oldest frame that is not acknowledged.
    pub(super) fn detach(&self) {
        self.state.lock().detach();
        // An outage goes on however often it is tried again.
        let _ = self.down_since_ms.compare_exchange(
            0,
            env::boot_ms().max(1),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// The life is over: nothing more is taken, and what is not acknowledged is given back.
    pub(super) fn close(&self) -> Vec<Done> {
        let (dones, waker) = {
            let mut state = self.state.lock();
            state.closed = true;
            let sealed = std::mem::take(&mut state.sealed);
            let open = std::mem::take(&mut state.open);
            state.unsent = 0;
            state.chunked = 0;
            state.in_flight = 0;
            let dones = sealed.into_iter().flat_map(|batch| batch.dones).chain(open.dones);
            (dones.map(|(_, done)| done).collect(), state.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        dones
    }

    /// For how long the stream has been down; 0 while it is up.
    pub(super) fn down_ms(&self) -> u64 {
        match self.down_since_ms.load(Ordering::Relaxed) {
            0 => 0,
            since => env::boot_ms().saturating_sub(since).max(1),
        }
    }

    fn poll_batch(&self, stream: u64, cx: &mut Context<'_>) -> Poll<Option<LaneBatch>> {
        let mut state = self.state.lock();
        if state.stream != stream || state.closed {
            return Poll::Ready(None);
        }
        if state.welcomed {
            if state.unsent == state.sealed.len() && state.open.frames > 0 {
                state.seal(self.batch_bytes);
            }
            if let Some(batch) = state.sealed.get(state.unsent) {
                let (len, from) = (batch.bytes.len(), state.chunked);
                if from > 0 || state.in_flight == 0 || state.in_flight + len <= state.window_bytes {
                    let upto = len.min(from + CHUNK_BYTES);
                    let chunk = LaneBatch {
                        first_seq: batch.first_seq,
                        frames: batch.bytes.slice(from..upto),
                        missing: (len - upto) as u64,
                    };
                    if upto == len {
                        state.unsent += 1;
                        state.in_flight += len;
                        state.chunked = 0;
                    } else {
                        state.chunked = upto;
                    }
                    return Poll::Ready(Some(chunk));
                }
            }
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl State {
    fn seal(&mut self, batch_bytes: usize) {
        let open = &mut self.open;
        let last_seq = self.next_seq - 1;
        // What is left of a large frame's buffer would keep all of it alive.
        let bytes = match open.bytes.len() > batch_bytes {
            true => std::mem::take(&mut open.bytes),
            false => open.bytes.split(),
        };
        self.sealed.push_back(Batch {
            first_seq: last_seq + 1 - open.frames,
            last_seq,
            bytes: bytes.freeze(),
            dones: std::mem::take(&mut open.dones),
        });
        open.frames = 0;
    }

    fn last_sealed(&self) -> u64 {
        self.next_seq - 1 - self.open.frames
    }

    fn detach(&mut self) -> u64 {
        self.stream += 1;
        self.welcomed = false;
        self.unsent = 0;
        self.chunked = 0;
        self.in_flight = 0;
        self.stream
    }
}

impl Batch {
    fn charge(&self) -> usize {
        self.bytes.len() + (self.last_seq + 1 - self.first_seq) as usize * FRAME_OVERHEAD_BYTES
    }
}

/// The messages of one stream, made when the connection asks for them.
pub(super) struct Outgoing {
    lane: Arc<Lane>,
    stream: u64,
    hello: Option<LaneHello>,
}

impl Outgoing {
    /// Names the stream to the lane.
    pub(super) fn id(&self) -> u64 {
        self.stream
    }
}

impl Stream for Outgoing {
    type Item = LaneRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<LaneRequest>> {
        if let Some(hello) = self.hello.take() {
            return Poll::Ready(Some(LaneRequest { part: Some(Part::Hello(hello)) }));
        }
        self.lane
            .poll_batch(self.stream, cx)
            .map(|batch| batch.map(|batch| LaneRequest { part: Some(Part::Batch(batch)) }))
    }
}
