//! Reading a state back.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use serde::de::DeserializeOwned;

use super::super::Drain;
use super::super::line::Line;
use super::super::machine::State;
use super::super::nodes::LifeId;
use super::super::parcel::{Parcel, Stock};
use super::super::queue::{Entry, Extra, Queue};
use super::super::session::Session;
use super::super::sessions::{Claimed, CleanClaim};
use super::super::settings::Ban;
use super::super::shared::Counts;
use super::{
    BacklogItem, ClaimItem, End, EntryItem, Incarnation, MAGIC, MessageItem, Meta, PartItem,
    RECORD_BYTES_MAX, RetainedItem, SessionItem, VERSION, Will, kind,
};
use crate::auth::{Banned, Rules, User};
use crate::sharing::Turn;

impl State {
    /// Reads what [`Frozen::write`] wrote, and nothing beyond. What exceeds the `stock`'s memory
    /// is put away meanwhile; so it may block.
    ///
    /// # Errors
    /// Those of `from`; `InvalidData` if the bytes are damaged, no snapshot, or of a newer
    /// format.
    pub fn read(from: &mut dyn Read, stock: Arc<Stock>) -> io::Result<Self> {
        let mut head = [0; 12];
        from.read_exact(&mut head)?;
        if head[..8] != MAGIC {
            return Err(damaged("these bytes are no snapshot of the state"));
        }
        let version = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        if version != VERSION {
            let text = format!("the snapshot has format version {version}, this node knows {VERSION}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut loader = Loader { state: Self::new(stock), ..Loader::default() };
        while !loader.record(from)? {}
        Ok(loader.state)
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Builds a state from records.
#[derive(Default)]
struct Loader {
    state: State,
    messages: Vec<Arc<Parcel>>,
    /// Shared filters that queued deliveries name, one copy each.
    groups: HashMap<Arc<str>, (), RandomState>,
    /// The nodes have come; what refers to them follows.
    has_nodes: bool,
    items: u64,
}

impl Loader {
    /// Reads one record; true if it was the last.
    fn record(&mut self, from: &mut dyn Read) -> io::Result<bool> {
        let mut head = [0; 9];
        from.read_exact(&mut head)?;
        let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
        let crc = u32::from_le_bytes([head[5], head[6], head[7], head[8]]);
        if len > RECORD_BYTES_MAX {
            return Err(damaged("a record of the snapshot has an impossible length"));
        }
        // Grows with what really comes, not with what a damaged length promises.
        let mut body = Vec::new();
        from.take(u64::from(len)).read_to_end(&mut body)?;
        if body.len() < len as usize {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the snapshot is cut short"));
        }
        if crc32c::crc32c_append(crc32c::crc32c(&head[..5]), &body) != crc {
            return Err(damaged("a record of the snapshot has a wrong checksum"));
        }
        let mut rest = body.as_slice();
        while !rest.is_empty() {
            rest = self.item(head[0], rest)?;
            self.items += 1;
        }
        Ok(head[0] == kind::END)
    }

    fn item<'b>(&mut self, kind: u8, bytes: &'b [u8]) -> io::Result<&'b [u8]> {
        match kind {
            kind::META => {
                let (meta, rest): (Meta, _) = take(bytes)?;
                self.state.clock_ms = meta.clock_ms;
                self.state.last_incarnation = meta.last_incarnation;
                self.state.feature_level = meta.feature_level;
                self.state.retained.restore(meta.retained_revision);
                Ok(rest)
            }
            kind::NODES => {
                let (nodes, rest) = take(bytes)?;
                if std::mem::replace(&mut self.has_nodes, true) {
                    return Err(damaged("the snapshot says twice what nodes there are"));
                }
                self.state.nodes = nodes;
                Ok(rest)
            }
            kind::WALL_CLOCKS => {
                let (walls, rest) = take(bytes)?;
                self.state.walls = walls;
                Ok(rest)
            }
            kind::ROUTE => {
                let ((filter, lives), rest): ((Box<str>, Vec<LifeId>), _) = take(bytes)?;
                for life in lives {
                    self.check_life(life)?;
                    self.state.route_add(life, &filter);
                }
                Ok(rest)
            }
            kind::MESSAGE => {
                let (item, rest): (MessageItem, _) = take(bytes)?;
                let stock = &self.state.stock;
                let pack = if item.is_shared { Parcel::shared } else { Parcel::new };
                self.messages.push(pack(item.message, stock));
                if stock.is_overfull() {
                    // What the disk refuses stays in memory.
                    let _ = stock.put_away(stock.take_surplus());
                }
                Ok(rest)
            }
            kind::RETAINED => {
                let (item, rest): (RetainedItem, _) = take(bytes)?;
                self.state.retained.insert(&item.message, item.revision);
                Ok(rest)
            }
            kind::CLAIM => {
                let (item, rest) = take(bytes)?;
                self.claim(item)?;
                Ok(rest)
            }
            kind::TURN => {
                let ((filter, turn), rest): ((Arc<str>, Turn), _) = take(bytes)?;
                self.state.shared.set_turn(&filter, turn);
                Ok(rest)
            }
            kind::SHARED_MEMBERS => {
                let ((filter, counts), rest): ((Box<str>, Counts), _) = take(bytes)?;
                for (life, members) in counts {
                    self.state.shared.count_members(&filter, life, members);
                }
                Ok(rest)
            }
            kind::BACKLOG => {
                let (item, rest): (BacklogItem, _) = take(bytes)?;
                let mut waiting = Line::default();
                for entry in item.waiting {
                    waiting.push_back(self.entry(entry)?);
                }
                let queue = Queue::from_parts(0..0, BTreeMap::new(), waiting, item.dropped);
                self.state.shared.set_backlog(item.filter, queue);
                Ok(rest)
            }
            kind::PART => {
                let (part, rest): (PartItem, _) = take(bytes)?;
                self.check_life(part.life)?;
                self.state.parts.entry(part.life).or_default().push(part.bytes);
                Ok(rest)
            }
            kind::USER => {
                let ((name, user), rest): ((Arc<str>, User), _) = take(bytes)?;
                self.state.settings.set_user(name, user);
                Ok(rest)
            }
            kind::RULES => {
                let ((rules, revision), rest): ((Rules, u64), _) = take(bytes)?;
                self.state.settings.set_rules(rules, revision);
                Ok(rest)
            }
            kind::BAN => {
                let ((banned, ban), rest): ((Banned, Ban), _) = take(bytes)?;
                self.state.settings.ban(&banned, ban);
                Ok(rest)
            }
            kind::DRAIN => {
                let ((life, drain), rest): ((LifeId, Drain), _) = take(bytes)?;
                self.check_life(life)?;
                self.state.drains.insert(life, drain);
                Ok(rest)
            }
            kind::END => {
                let (end, rest): (End, _) = take(bytes)?;
                if end.items != self.items {
                    return Err(damaged("the snapshot lacks records"));
                }
                Ok(rest)
            }
            other => {
                let text = format!("the snapshot has records of kind {other}, unknown to this node");
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
        }
    }

    fn check_life(&self, life: LifeId) -> io::Result<()> {
        match self.state.nodes.life(life) {
            Some(_) => Ok(()),
            None => Err(damaged("the snapshot refers to a node's life that it does not have")),
        }
    }

    fn message(&self, id: u32) -> io::Result<Arc<Parcel>> {
        let message = self.messages.get(id as usize);
        message.cloned().ok_or_else(|| damaged("the snapshot refers to a message that it does not have"))
    }

    fn claim(&mut self, item: ClaimItem) -> io::Result<()> {
        let ClaimItem { client, incarnation, owner, will, session } = item;
        if self.state.sessions.get(&client).is_some() {
            return Err(damaged("the snapshot has a client id twice"));
        }
        if let Some(owner) = owner {
            self.check_life(owner)?;
            self.state.nodes.claim_added(owner);
        }
        let claimed = match (session, owner) {
            (Some(item), _) => {
                for (filter, sub) in &item.subs {
                    self.state.link(filter, &client, *sub, owner);
                }
                Claimed::Persistent(Arc::new(self.session(incarnation, owner, will, item)?))
            }
            (None, Some(owner)) => Claimed::Clean(CleanClaim::new(incarnation, owner, will)),
            (None, None) => return Err(damaged("the snapshot has a claim without an owner")),
        };
        self.state.sessions.insert(client, claimed);
        Ok(())
    }

    fn session(
        &mut self,
        incarnation: Incarnation,
        owner: Option<LifeId>,
        will: Option<Arc<Will>>,
        item: SessionItem,
    ) -> io::Result<Session> {
        let mut window = BTreeMap::new();
        for (seq, entry) in item.window {
            window.insert(seq, self.entry(entry)?);
        }
        let mut waiting = Line::default();
        for entry in item.waiting {
            waiting.push_back(self.entry(entry)?);
        }
        Ok(Session {
            incarnation,
            owner,
            expiry_s: item.expiry_s,
            receive_maximum: item.receive_maximum,
            expires_at_ms: item.expires_at_ms,
            will,
            will_at_ms: item.will_at_ms,
            subs: item.subs.into_iter().collect(),
            queue: Queue::from_parts(item.dup_upto..item.sent_upto, window, waiting, item.dropped),
            replaying: item.replaying,
            received: item.received.into_iter().collect(),
        })
    }

    fn entry(&mut self, item: EntryItem) -> io::Result<Entry> {
        let group = item.group.map(|group| {
            let shared = self.groups.get_key_value(&group).map(|(shared, ())| Arc::clone(shared));
            shared.unwrap_or_else(|| {
                self.groups.insert(Arc::clone(&group), ());
                group
            })
        });
        let extra = Extra { ids: item.ids.into(), group, moves: item.moves };
        let message = self.message(item.message)?;
        let mut entry = Entry::new(message, item.qos, item.retain, extra);
        entry.received = item.received;
        Ok(entry)
    }
}

fn take<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<(T, &[u8])> {
    postcard::take_from_bytes(bytes).map_err(|e| {
        io::Error::new(io::ErrorKind::InvalidData, format!("a record of the snapshot is damaged: {e}"))
    })
}
