//! What the clients of a run saw, in the order of simulated time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One connection attempt that got a CONNACK; numbered over the whole run.
pub type ConnId = usize;

/// A message of the scenario: who published it and its number, from 0, in that publisher's order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    pub publisher: String,
    pub number: u64,
}

impl MessageId {
    pub fn payload(&self) -> Vec<u8> {
        format!("{}:{}", self.publisher, self.number).into_bytes()
    }

    /// # Errors
    /// Not a payload of this scenario.
    pub fn parse(payload: &[u8]) -> Result<Self, String> {
        let text = String::from_utf8_lossy(payload);
        text.split_once(':')
            .and_then(|(publisher, number)| {
                Some(MessageId { publisher: publisher.into(), number: number.parse().ok()? })
            })
            .ok_or_else(|| format!("a message that nobody published: {text:?}"))
    }
}

impl std::fmt::Display for MessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.publisher, self.number)
    }
}

/// One thing that a client saw. What no invariant asks for is for whoever reads a trace.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "read in traces")]
pub enum Event {
    /// CONNACK with success to a CONNECT that was sent at `asked_ms`.
    Connected { client: String, node: usize, session_present: bool, asked_ms: u64 },
    /// The first SUBACK of the client id.
    Subscribed,
    /// A PUBACK (QoS 1) or PUBREC (QoS 2) with success; `sent_ms`: when this connection sent the PUBLISH.
    Acknowledged { message: MessageId, qos: u8, sent_ms: u64 },
    /// A PUBACK or PUBREC with an error.
    Refused { message: MessageId, code: u8 },
    /// A PUBLISH that arrived. `new`: not one that QoS 2 takes for a repetition.
    Delivered { message: MessageId, qos: u8, dup: bool, new: bool },
    /// What a SUBSCRIBE sent at `asked_ms` brought of what is retained.
    Read { message: Option<MessageId>, asked_ms: u64 },
    /// The end as the client saw it, or made it.
    Closed { why: String },
}

/// An event, on which connection, and when.
#[derive(Clone, Debug)]
pub struct Entry {
    pub at_ms: u64,
    pub conn: ConnId,
    pub event: Event,
}

/// All that was seen. Shared by the clients.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Log>>);

#[derive(Default)]
pub struct Log {
    pub entries: Vec<Entry>,
    clients: Vec<String>,
}

impl History {
    pub fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection was granted.
    pub fn connected(&self, client: &str, node: usize, session_present: bool, asked_ms: u64) -> ConnId {
        let conn = {
            let mut log = self.lock();
            log.clients.push(client.to_owned());
            log.clients.len() - 1
        };
        self.note(conn, Event::Connected { client: client.to_owned(), node, session_present, asked_ms });
        conn
    }

    pub fn note(&self, conn: ConnId, event: Event) {
        let entry = Entry { at_ms: super::now_ms(), conn, event };
        super::trace(&format!("{entry:?}"));
        self.lock().entries.push(entry);
    }
}

impl Log {
    pub fn client(&self, conn: ConnId) -> &str {
        &self.clients[conn]
    }

    /// What was acknowledged, with the moment of its first acknowledgement.
    pub fn acknowledged(&self, qos: u8) -> BTreeMap<&MessageId, u64> {
        let mut found = BTreeMap::new();
        for entry in &self.entries {
            if let Event::Acknowledged { message, qos: of, .. } = &entry.event
                && *of == qos
            {
                found.entry(message).or_insert(entry.at_ms);
            }
        }
        found
    }

    /// What a client id got on all of its connections, in order.
    pub fn deliveries<'a>(&'a self, client: &'a str) -> impl Iterator<Item = (&'a Entry, &'a MessageId)> {
        self.entries.iter().filter_map(move |entry| match &entry.event {
            Event::Delivered { message, new: true, .. } if self.client(entry.conn) == client => {
                Some((entry, message))
            }
            _ => None,
        })
    }

    /// When the client id's subscription was acknowledged first; `None`: it was not.
    pub fn subscribed_at(&self, client: &str) -> Option<u64> {
        let first = self
            .entries
            .iter()
            .find(|e| matches!(e.event, Event::Subscribed) && self.client(e.conn) == client);
        first.map(|e| e.at_ms)
    }
}
