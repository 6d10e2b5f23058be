//! The state as bytes: frozen without copying, written record by record, read back.
//!
//! `magic, version, record…, end record`. A record is `kind (u8), length (u32), CRC32C (u32) of
//! kind, length and body, body`, little endian; the body is a run of postcard items of that kind.
//! Equal states give equal bytes. A message in many queues is written once.

mod read;
mod write;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::nodes::LifeId;
use super::replay::Revision;
use super::session::Replaying;
use super::subscribers::Sub;
use super::{Incarnation, QueueSeq, Will};
use crate::mqtt::{Message, QoS};

pub use write::Frozen;

const MAGIC: [u8; 8] = *b"RKYSTATE";
const VERSION: u32 = 1;
/// Items are packed into records of about this size.
const RECORD_BYTES: usize = 64 << 10;
/// A longer record is taken for damage.
const RECORD_BYTES_MAX: u32 = 1 << 30;

mod kind {
    pub const META: u8 = 1;
    pub const NODES: u8 = 2;
    pub const ROUTE: u8 = 3;
    pub const MESSAGE: u8 = 4;
    pub const RETAINED: u8 = 5;
    pub const CLAIM: u8 = 6;
    pub const TURN: u8 = 7;
    pub const PART: u8 = 8;
    pub const WALL_CLOCKS: u8 = 9;
    pub const SHARED_MEMBERS: u8 = 10;
    pub const BACKLOG: u8 = 11;
    pub const USER: u8 = 12;
    pub const RULES: u8 = 13;
    pub const BAN: u8 = 14;
    pub const DRAIN: u8 = 15;
    pub const END: u8 = 255;
}

#[derive(Serialize, Deserialize)]
struct Meta {
    clock_ms: u64,
    last_incarnation: Incarnation,
    feature_level: u32,
    retained_revision: Revision,
}

#[derive(Serialize, Deserialize)]
struct RetainedItem {
    message: Arc<Message>,
    revision: Revision,
}

/// Closes a snapshot: one cut short at a record's end lacks it.
#[derive(Serialize, Deserialize)]
struct End {
    items: u64,
}

/// A part of a command that is not whole yet.
#[derive(Serialize, Deserialize)]
struct PartItem {
    life: LifeId,
    #[serde(with = "crate::mqtt::raw")]
    bytes: Bytes,
}

#[derive(Serialize, Deserialize)]
struct ClaimItem {
    client: Arc<str>,
    incarnation: Incarnation,
    owner: Option<LifeId>,
    will: Option<Arc<Will>>,
    /// `None`: a clean session.
    session: Option<SessionItem>,
}

#[derive(Serialize, Deserialize)]
struct SessionItem {
    expiry_s: u32,
    receive_maximum: u16,
    expires_at_ms: u64,
    will_at_ms: u64,
    subs: Vec<(Box<str>, Sub)>,
    dup_upto: QueueSeq,
    sent_upto: QueueSeq,
    dropped: u64,
    window: Vec<(QueueSeq, EntryItem)>,
    waiting: Vec<EntryItem>,
    replaying: Option<Box<Replaying>>,
    received: Vec<u16>,
}

/// A queued message.
#[derive(Serialize, Deserialize)]
struct MessageItem {
    /// It came through a shared subscription.
    is_shared: bool,
    message: Arc<Message>,
}

#[derive(Serialize, Deserialize)]
struct EntryItem {
    /// Position among the message items.
    message: u32,
    qos: QoS,
    retain: bool,
    received: bool,
    ids: Vec<u32>,
    group: Option<Arc<str>>,
    moves: u8,
}

/// What waits for a member of a shared subscription.
#[derive(Serialize, Deserialize)]
struct BacklogItem {
    filter: Arc<str>,
    dropped: u64,
    waiting: Vec<EntryItem>,
}
