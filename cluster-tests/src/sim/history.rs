//! What the clients of a run saw, and what was done to the nodes, in the order of simulated time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rookery::state::Epoch;

use super::actors::{Phase, cast};

/// One connection attempt; numbered over the whole run.
pub type ConnId = usize;

/// A message of the scenario: who published it and its number, from 0, in that publisher's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    pub publisher: &'static str,
    pub number: u64,
}

impl MessageId {
    pub fn payload(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    /// # Errors
    /// Not a payload of this scenario.
    pub fn parse(payload: &[u8]) -> Result<Self, String> {
        let text = String::from_utf8_lossy(payload);
        text.split_once(':')
            .and_then(|(publisher, number)| {
                Some(MessageId { publisher: cast::publisher(publisher)?, number: number.parse().ok()? })
            })
            .ok_or_else(|| format!("a message that nobody published: {text:?}"))
    }
}

impl std::fmt::Display for MessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.publisher, self.number)
    }
}

/// How a connection ended, as its client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// DISCONNECT, answered by the end of the stream: the cluster knows.
    Left,
    /// DISCONNECT, and nothing more was heard.
    LeftUnheard,
    /// DISCONNECT with the wish that the will be published.
    LeftWithWill,
    /// The client dropped it.
    Dropped,
    /// The broker or the network ended it.
    Broken(String),
}

/// The will of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Testament {
    pub message: MessageId,
    /// Will Delay Interval, or the Session Expiry Interval where that is shorter.
    pub delay_ms: u64,
}

/// One thing that a client saw or did, or that was done to the nodes. What no invariant asks for is
/// for whoever reads a trace.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "read in traces")]
pub enum Event {
    /// A CONNECT is about to be sent. `clock_ms`: what the cluster's clock shows at least.
    Asked { node: usize, clean_start: bool, will: Option<Testament>, clock_ms: u64 },
    /// CONNACK with success, by this life of the node, to a CONNECT that was sent at `asked_ms`.
    Connected { node: usize, epoch: Epoch, session_present: bool, asked_ms: u64, clock_ms: u64 },
    /// A SUBACK.
    Subscribed { filter: &'static str },
    /// A PUBACK (QoS 1) or PUBREC (QoS 2) with success; `sent_ms`: when this connection sent the
    /// PUBLISH; `again`: it had been sent on an earlier one. `latest_ms`: what the cluster's clock
    /// can be for any node at most.
    Acknowledged { message: MessageId, qos: u8, sent_ms: u64, again: bool, latest_ms: u64 },
    /// A PUBACK or PUBREC with an error.
    Refused { message: MessageId, code: u8 },
    /// A PUBLISH that arrived. `new`: not one that QoS 2 takes for a repetition. `clock_ms`: what the
    /// cluster's clock shows at least.
    Delivered { message: MessageId, qos: u8, dup: bool, new: bool, clock_ms: u64 },
    /// An answer of a node that has a lease.
    Heard,
    /// What a SUBSCRIBE sent at `asked_ms` brought of what is retained.
    Read { message: Option<MessageId>, asked_ms: u64 },
    /// The end; the broker still had the connection at `alive_ms` of the cluster's clock. `clock_ms`:
    /// what that showed before the end was announced, and after it.
    Closed { end: End, alive_ms: u64, clock_ms: (u64, u64) },
    /// The run enters a phase.
    Phase(Phase),
    /// So many faults are in force from now on.
    Faults { active: usize },
    /// A node loses power, or leaves the cluster for good.
    Crashed { node: usize },
    /// A life of a node is over: some node has applied that.
    LifeEnded { node: usize, epoch: Epoch },
}

/// An event, of which client on which connection, and when. Events of the world are nobody's.
#[derive(Clone, Debug)]
pub struct Entry {
    pub at_ms: u64,
    pub conn: ConnId,
    pub client: &'static str,
    pub event: Event,
}

/// All that was seen. Shared by the clients.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Log>>);

#[derive(Default)]
pub struct Log {
    pub entries: Vec<Entry>,
    clients: Vec<&'static str>,
}

impl History {
    pub fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection is attempted.
    pub fn asked(&self, client: &'static str, event: Event) -> ConnId {
        let conn = {
            let mut log = self.lock();
            log.clients.push(client);
            log.clients.len() - 1
        };
        self.note(conn, event);
        conn
    }

    pub fn note(&self, conn: ConnId, event: Event) {
        let client = self.lock().clients.get(conn).copied().unwrap_or_default();
        let entry = Entry { at_ms: super::now_ms(), conn, client, event };
        super::trace(&format!("{entry:?}"));
        self.lock().entries.push(entry);
    }

    /// Something that is no client's.
    pub fn world(&self, event: Event) {
        self.note(ConnId::MAX, event);
    }
}

impl Log {
    /// Connections that were attempted.
    pub fn attempts(&self) -> usize {
        self.clients.len()
    }
}
