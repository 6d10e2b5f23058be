//! The commands of the replicated log, their outcomes for the proposer, and the effects that
//! applying them has on the nodes.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::limits::NodeLimits;
use super::{Change, Drain, Epoch, Incarnation, LogIndex, NodeId, Parcel, QueueSeq, Replay, Unchanged};
use crate::mqtt::{Message, QoS, SubOptions};
use crate::sharing::Sharing;

/// What one origin put into one log entry. An origin's packs are applied only in the order of
/// `seq`, each once, and only in the epoch that its `NodeUp` opened (`NodeUp` itself is seq 0).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pack {
    pub origin: NodeId,
    pub epoch: Epoch,
    pub seq: u64,
    pub commands: Vec<Command>,
}

/// Where a node can be reached and what it is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    pub name: String,
    /// host:port of the peer (gRPC) listener as others reach it.
    pub peer_addr: String,
    /// host:port of the HTTP API.
    pub api_addr: String,
    pub mqtt_addr: String,
    pub ws_addr: String,
    pub version: String,
    /// See [`super::FEATURE_LEVEL`].
    pub feature_level: u32,
    pub limits: NodeLimits,
    pub sharing: Sharing,
    /// What clients are told to reach this node by (Server Reference); empty: they are not sent here.
    pub server_reference: String,
    /// Most clients at a time.
    pub connections_max: u32,
}

/// A will as the client gave it, kept by the cluster so that any node can fire it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Will {
    pub message: Arc<Message>,
    /// Seconds the message may live once published; `None`: for ever.
    pub expiry_s: Option<u32>,
    /// Will Delay Interval, seconds [MQTT-3.1.3.2.2].
    pub delay_s: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// The whole filter as subscribed, `$share/group/…` included.
    pub filter: Box<str>,
    pub options: SubOptions,
    /// Subscription identifier; 0: none.
    pub id: u32,
}

/// How a connection ended, which decides what becomes of its will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WillFate {
    /// DISCONNECT with 0x00: the will is discarded.
    Discard,
    /// Anything else: the will fires, after its delay.
    Fire,
}

/// Progress of one delivery to a persistent session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryStep {
    /// QoS 2: the client sent PUBREC; PUBREL may go out.
    Received,
    /// PUBACK, PUBCOMP, or an error acknowledgement: the delivery is over.
    Done,
    /// An error acknowledgement of a shared subscription's message: another member is to have it.
    Refused,
}

/// One change of the replicated state. New kinds go to the end; a node that meets one it does
/// not know stops rather than diverge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A node's start; ends every older epoch of it as `NodeDown` would.
    NodeUp {
        info: NodeInfo,
    },
    /// The leader of `term` found the epoch without a lease. O(1): what belonged to it is cleaned
    /// by the leader's paced `Sweep`s. Void if it was appended in another term: a later leader
    /// may have renewed that lease.
    NodeDown {
        node: NodeId,
        epoch: Epoch,
        term: u64,
    },
    /// The leader's clock advanced by this much.
    Tick {
        elapsed_ms: u64,
    },
    /// A connection takes a client id. Ends the previous owner's ownership at once.
    Claim(Claim),
    /// The owner gives the client id up.
    Release {
        client: Arc<str>,
        incarnation: Incarnation,
        will: WillFate,
        /// A new Session Expiry Interval from DISCONNECT, seconds.
        expiry_s: Option<u32>,
        /// First queue position that was not yet sent, so that DUP is exact; `None`: unknown.
        sent: Option<QueueSeq>,
    },
    /// The origin gained its first clean subscriber of this filter (`$share/group/…` included).
    RouteAdd {
        filter: Box<str>,
    },
    /// The origin lost its last clean subscriber of this filter.
    RouteRemove {
        filter: Box<str>,
    },
    /// A persistent session subscribes.
    Subscribe {
        client: Arc<str>,
        incarnation: Incarnation,
        subscriptions: Vec<Subscription>,
    },
    Unsubscribe {
        client: Arc<str>,
        incarnation: Incarnation,
        filters: Vec<Box<str>>,
    },
    /// A publish that must survive: retained, or for persistent sessions, or QoS 2 of a
    /// persistent publisher.
    Publish {
        message: Arc<Message>,
        /// Set for QoS 2 of a persistent session: its incarnation and packet id.
        exactly_once: Option<(Incarnation, u16)>,
        /// The publisher can be told that a retained message would exceed the limits: it is then
        /// refused, instead of being delivered and not kept.
        or_refuse: bool,
    },
    /// PUBREL of a persistent session's QoS 2 publish.
    Forget {
        client: Arc<str>,
        incarnation: Incarnation,
        packet_id: u16,
    },
    /// Acknowledgements by a persistent session's client, coalesced.
    Progress {
        client: Arc<str>,
        incarnation: Incarnation,
        steps: Vec<(QueueSeq, DeliveryStep)>,
    },
    /// The leader names what has become due: sessions whose owner's epoch is down, wills whose
    /// delay is over, sessions that have expired. `apply` checks each again.
    Sweep {
        clients: Vec<Arc<str>>,
        routes: Vec<Box<str>>,
    },
    /// The origin ends its own life: a planned stop, for which nobody has to wait out a lease.
    Farewell,
    /// A piece of an encoded command that is too large for one entry: the log, the messages between
    /// the nodes and the time that one of them takes stay bounded. The pieces of an origin follow
    /// each other; the `last` one carries the command out.
    Part {
        #[serde(with = "crate::mqtt::raw")]
        bytes: Bytes,
        last: bool,
    },
    /// A session's queue has room for more of the retained messages that its subscriptions are to
    /// get; see [`Effect::ReplayNext`].
    Replay {
        client: Arc<str>,
        incarnation: Incarnation,
    },
    /// The leader found that every member understands this feature level.
    Raise {
        level: u32,
    },
    /// What the origin's wall clock shows, milliseconds since the Unix epoch. Used only to learn how
    /// long all nodes were down.
    WallClock {
        wall_ms: u64,
    },
    /// How many clean members of a shared subscription (`$share/group/…`) the origin has, of which
    /// it has announced that it has some: said again once it is off by more than an eighth.
    SharedMembers {
        filter: Box<str>,
        members: u32,
    },
    /// A clean member on the origin that had a message of a shared subscription with persistent
    /// members was lost, or refused it, or nobody there could take it: another one shall have it.
    Redeliver {
        filter: Box<str>,
        message: Arc<Message>,
        /// See [`MOVES_MAX`](super::limits::MOVES_MAX).
        moves: u8,
    },
    /// Clean members on the origin have room for so many of the messages that wait for a member of
    /// the shared subscription.
    Draw {
        filter: Box<str>,
        max: u32,
    },
    /// An operator changed users, rules or bans.
    Settings(Change),
    /// A node that is up shall let its clients go, or (`None`) keep them again.
    Drain {
        node: NodeId,
        drain: Option<Drain>,
    },
}

/// A connection's claim of a client id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub client: Arc<str>,
    pub clean_start: bool,
    /// Session Expiry Interval, seconds; `u32::MAX`: never expires. 0: the session ends with
    /// the connection and nothing but the claim is replicated.
    pub expiry_s: u32,
    pub will: Option<Will>,
    /// The client's Receive Maximum, at least 1.
    pub receive_maximum: u16,
}

/// What the proposer of a command learns when its own node has applied it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, nothing to say.
    Ok,
    Claimed {
        incarnation: Incarnation,
        session_present: bool,
    },
    /// Of `Subscribe`: what became of each subscription.
    Subscribed {
        added: Vec<Added>,
    },
    /// Of `Unsubscribe`: per filter, whether it existed.
    Unsubscribed {
        existed: Vec<bool>,
    },
    /// Of `Publish`: how many sessions queued it or `duplicate` of an earlier packet id.
    Published {
        matched: u32,
        duplicate: bool,
    },
    /// Of `Forget`: whether the packet id was known.
    Forgotten {
        known: bool,
    },
    /// Of `Settings` and `Drain`: it was not possible.
    Unchanged(Unchanged),
    /// Of `Publish`: one more retained message would exceed the limits; nothing was done.
    Refused,
    /// The client id has a newer owner; the sender must close its connection.
    Stale,
}

/// What became of one subscription of a `Subscribe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    New,
    /// The session had one to the same filter [MQTT-3.8.4-3].
    Replaced,
    /// The session has as many as it may.
    Refused,
}

/// What a command wants done outside the state. Every node computes every effect and carries out
/// those that concern it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// `(node, epoch)` no longer owns `client` since `incarnation` was superseded: close with
    /// 0x8E Session taken over.
    TakenOver { client: Arc<str>, node: NodeId, epoch: Epoch, incarnation: Incarnation },
    /// A message that went through the log, for this node's clean subscribers and for those of
    /// `online` that are connected to it.
    Deliver { message: Arc<Message>, online: Vec<AtQos0> },
    /// A clean member of a shared group on `node` was picked for a logged message.
    DeliverShared { node: NodeId, filter: Box<str>, parcel: Arc<Parcel>, moves: u8 },
    /// The owner (`node`, `epoch`) begins to send a subscription of `client` its retained messages
    /// at QoS 0, which are not queued; `None`: it ends what it has begun.
    Replay {
        client: Arc<str>,
        node: NodeId,
        epoch: Epoch,
        incarnation: Incarnation,
        filter: Box<str>,
        replay: Option<Replay>,
    },
    /// Queueing `client`'s retained messages took a pause: its owner (`node`, `epoch`) proposes a
    /// [`Command::Replay`], so that what others propose has its turn.
    ReplayNext { client: Arc<str>, node: NodeId, epoch: Epoch, incarnation: Incarnation },
    /// `client`'s queue has something new to send; its owner is (`node`, `epoch`).
    Wake { client: Arc<str>, node: NodeId, epoch: Epoch, incarnation: Incarnation },
    /// The node may not take part: the cluster uses what its build does not understand.
    Outdated { node: NodeId, understood: u32, used: u32 },
    /// The node's life `epoch` is over.
    NodeDown { node: NodeId, epoch: Epoch },
    /// The node's life `epoch` has begun.
    NodeUp { node: NodeId, epoch: Epoch, info: NodeInfo },
    /// Users, rules or bans have changed.
    Settings(Change),
    /// The node's life `epoch` lets its clients go from now on, or keeps them again.
    Drain { node: NodeId, epoch: Epoch, drain: Option<Drain> },
    /// All nodes were down, and the clock has been advanced by what they missed.
    ClockAdvanced { by_ms: u64 },
}

/// An online persistent session that a message reaches at QoS 0, which is not queued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtQos0 {
    pub client: Arc<str>,
    pub subscription_ids: SmallVec<[u32; 4]>,
    pub retain_as_published: bool,
}

/// One queued delivery, as the owner sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub seq: QueueSeq,
    pub message: Arc<Message>,
    /// Effective QoS, 1 or 2.
    pub qos: QoS,
    pub retain: bool,
    pub subscription_ids: Vec<u32>,
    /// It may have been sent before by an earlier owner.
    pub dup: bool,
    /// QoS 2: PUBREC is recorded; send PUBREL instead of PUBLISH.
    pub received: bool,
}

/// Where an applied command stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    pub index: LogIndex,
    pub origin: NodeId,
    pub epoch: Epoch,
}
