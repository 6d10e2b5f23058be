//! Publishes on their way to the nodes that own target subscribers.
//!
//! A sender has a fixed number of lanes to each live node; every lane is one stream that keeps
//! its order. Frames are numbered, acknowledged cumulatively once the receiver has handed them
//! to its subscribers' queues, and kept until then, so that a broken connection loses and
//! repeats nothing. Where two nodes cannot reach each other, their lanes go by way of a third, and
//! are otherwise the same. All numbering belongs to one pair of lives: when the sender's or the
//! receiver's epoch ends, what is not acknowledged is given up and said to be so.

pub(crate) mod codec;
mod lane;
mod link;
mod receiver;
mod relay;
mod sender;
#[cfg(test)]
mod tests;
mod way;

use crate::mqtt::{Publication, QoS};
use crate::state::{LogIndex, NodeId};

pub use receiver::ForwardService;
pub use sender::{ForwardStats, Forwarder};

/// One publish for one node.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub publication: Publication<'a>,
    /// The receiver delivers the frame only after it has applied the log up to here, and holds
    /// the lane until then; 0: at once. Keeps a publisher's order when it changes from logged
    /// to unlogged publishes.
    pub barrier: LogIndex,
    /// The shared subscription of which the receiver picks one local member; `None`: every local
    /// subscriber that matches.
    pub share: Option<Share<'a>>,
}

/// One member of a shared subscription is to get a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share<'a> {
    /// `$share/group/filter`.
    pub filter: &'a str,
    /// How many members have refused it.
    pub moves: u8,
    /// How many nodes have passed it on, because no member there could take it.
    pub hops: u8,
}

impl<'a> Share<'a> {
    pub fn new(filter: &'a str) -> Self {
        Self { filter, moves: 0, hops: 0 }
    }

    /// Whether this is what [`Frame::FENCE`] carries instead of a filter.
    pub fn is_fence(&self) -> bool {
        self.filter.is_empty()
    }
}

impl Frame<'static> {
    /// Delivers nothing, having no member to deliver to. That it is acknowledged says that what
    /// went before it on its lane, without an end to be told of, was taken over or dropped.
    pub const FENCE: Self = Frame {
        publication: Publication {
            topic: "",
            payload: &[],
            properties: &[],
            qos: QoS::AtMostOnce,
            retain: false,
            expires_at_ms: 0,
            publisher: "",
        },
        barrier: 0,
        share: Some(Share { filter: "", moves: 0, hops: 0 }),
    };
}

/// The life of the receiver, or of this node, ended before the frame was acknowledged: it may or
/// may not have been delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node's life ended before it acknowledged")]
pub struct PeerGone;

/// Called once, on a thread of the runtime or on the one that reported the end of a life. Must
/// not block; may send again.
pub type Done = Box<dyn FnOnce(Result<(), PeerGone>) + Send>;

/// Why a frame was not taken; its `done` is dropped without a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// More is waiting for this node than the bound allows.
    #[error("too much is waiting for the node")]
    Congested,
    /// The node is not live, or this node is not.
    #[error("the node is not live")]
    PeerGone,
    /// The frame exceeds [`MAX_FRAME_BYTES`].
    #[error("the message is too large to forward")]
    TooLarge,
}

/// Where received frames go.
pub trait Sink: Send + Sync + 'static {
    /// Hands a publish over to the local subscribers' queues: `share` names the group whose
    /// member to pick, `None` means all that match. In the order of the lane. Must not block.
    fn deliver(&self, from: NodeId, lane: u16, publication: &Publication<'_>, share: Option<Share<'_>>);
    /// After each batch, on the thread that delivered it: what was appended to outboxes is written.
    fn flush(&self);
}

/// Version of the encoding of frames; a receiver refuses a lane of another one.
pub const WIRE_VERSION: u32 = 1;
/// Largest encoded frame, bytes: the largest PUBLISH, and what a frame says beside it.
pub const MAX_FRAME_BYTES: usize = (256 << 20) + (1 << 20);
/// A batch, which is larger than configured only if it is a single large frame, travels in messages
/// of at most so many bytes.
const CHUNK_BYTES: usize = 256 << 10;
/// What may be under way on one lane that goes by way of a third node, bytes: it shares that node's
/// connection with its own lanes, whose windows leave room for this.
const RELAYED_WINDOW_BYTES: usize = 256 << 10;
/// Lanes that a receiver accepts from one sender.
pub const MAX_LANES: u16 = 256;

/// Limits of the forward streams.
#[derive(Clone, Copy, Debug)]
pub struct ForwardConfig {
    /// Streams to each node, 1 to [`MAX_LANES`]. A publisher's messages always take the same one.
    pub lanes: u16,
    /// Frames are gathered into messages of about this size, bytes.
    pub batch_bytes: usize,
    /// What may be under way on one lane without an acknowledgement, bytes. All lanes together
    /// stay well below the connection's window: a lane that a barrier holds must not block the
    /// snapshot that would let the barrier pass.
    pub window_bytes: usize,
    /// With so much waiting for one node, acknowledgements included, QoS 1 and 2 are refused,
    /// bytes. A frame that is taken may itself be larger.
    pub queue_bytes: usize,
    /// With this much waiting, QoS 0 is dropped, bytes. Less than `queue_bytes`, so that a
    /// flood of QoS 0 cannot crowd out the rest.
    pub queue_qos0_bytes: usize,
    /// How long a stream may be down while the node still counts as reachable, milliseconds.
    pub grace_ms: u64,
}

impl Default for ForwardConfig {
    fn default() -> Self {
        Self {
            lanes: 4,
            batch_bytes: 64 << 10,
            window_bytes: 2 << 20,
            queue_bytes: 64 << 20,
            queue_qos0_bytes: 32 << 20,
            grace_ms: 500,
        }
    }
}
