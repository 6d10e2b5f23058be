//! Freezing a state, and writing it out.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use serde::Serialize;

use super::super::Drain;
use super::super::cow::CowMap;
use super::super::machine::State;
use super::super::nodes::{LifeId, Nodes};
use super::super::parcel::Parcel;
use super::super::queue::{Entry, Queue};
use super::super::replay::Revision;
use super::super::retained::Kept;
use super::super::routes::Lives;
use super::super::session::Session;
use super::super::sessions::Claimed;
use super::super::settings::Settings;
use super::super::shared::Counts;
use super::super::wall::WallClocks;
use super::{
    BacklogItem, ClaimItem, End, EntryItem, Incarnation, MAGIC, MessageItem, Meta, PartItem, RECORD_BYTES,
    RECORD_BYTES_MAX, RetainedItem, SessionItem, VERSION, kind,
};
use crate::sharing::Turn;

/// Bans looked at a time.
const BANS_PER_PAGE: usize = 1024;

/// The state as of one moment, unaffected by what is applied afterwards.
#[derive(Clone, Debug)]
pub struct Frozen {
    clock_ms: u64,
    last_incarnation: Incarnation,
    feature_level: u32,
    walls: WallClocks,
    nodes: Nodes,
    routes: CowMap<Lives>,
    retained: CowMap<Kept>,
    retained_revision: Revision,
    claims: CowMap<Claimed>,
    turns: CowMap<Turn>,
    shared_members: CowMap<Counts>,
    backlogs: CowMap<Arc<Queue>>,
    parts: BTreeMap<LifeId, Vec<Bytes>>,
    drains: BTreeMap<LifeId, Drain>,
    settings: Settings,
}

impl State {
    /// Costs some thousand reference counts, whatever the size of the state.
    pub fn freeze(&self) -> Frozen {
        Frozen {
            clock_ms: self.clock_ms,
            last_incarnation: self.last_incarnation,
            feature_level: self.feature_level,
            walls: self.walls.clone(),
            nodes: self.nodes.clone(),
            routes: self.routes.table().clone(),
            retained: self.retained.messages().clone(),
            retained_revision: self.retained.revision(),
            claims: self.sessions.claims().clone(),
            turns: self.shared.turns().clone(),
            shared_members: self.shared.counts().clone(),
            backlogs: self.shared.backlogs().clone(),
            parts: self.parts.clone(),
            drains: self.drains.clone(),
            settings: self.settings.clone(),
        }
    }
}

/// Packs items into records.
struct Records<'a> {
    to: &'a mut dyn Write,
    kind: u8,
    body: Vec<u8>,
    items: u64,
}

impl Records<'_> {
    fn item(&mut self, kind: u8, item: &impl Serialize) -> io::Result<()> {
        if self.kind != kind || self.body.len() >= RECORD_BYTES {
            self.flush()?;
            self.kind = kind;
        }
        let body = std::mem::take(&mut self.body);
        self.body = postcard::to_extend(item, body).map_err(io::Error::other)?;
        self.items += 1;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.body.is_empty() {
            return Ok(());
        }
        let len = u32::try_from(self.body.len()).ok().filter(|l| *l <= RECORD_BYTES_MAX);
        let len = len.ok_or_else(|| io::Error::other("an item is too large for a snapshot"))?;
        let mut head = [0; 9];
        head[0] = self.kind;
        head[1..5].copy_from_slice(&len.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..5]), &self.body);
        head[5..].copy_from_slice(&crc.to_le_bytes());
        self.to.write_all(&head)?;
        self.to.write_all(&self.body)?;
        self.body.clear();
        Ok(())
    }
}

type MessageIds = HashMap<*const Parcel, u32, RandomState>;

impl Frozen {
    /// # Errors
    /// Those of `to`.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&MAGIC)?;
        to.write_all(&VERSION.to_le_bytes())?;
        let mut records = Records { to, kind: kind::META, body: Vec::new(), items: 0 };
        let meta = Meta {
            clock_ms: self.clock_ms,
            last_incarnation: self.last_incarnation,
            feature_level: self.feature_level,
            retained_revision: self.retained_revision,
        };
        records.item(kind::META, &meta)?;
        records.item(kind::NODES, &self.nodes)?;
        records.item(kind::WALL_CLOCKS, &self.walls)?;
        for (filter, lives) in self.routes.sorted() {
            records.item(kind::ROUTE, &(filter, lives.as_slice()))?;
        }
        for (filter, counts) in self.shared_members.sorted() {
            records.item(kind::SHARED_MEMBERS, &(filter, counts))?;
        }
        let ids = self.write_messages(&mut records)?;
        for (_, Kept { message, revision }) in self.retained.sorted() {
            let item = RetainedItem { message: Arc::clone(message), revision: *revision };
            records.item(kind::RETAINED, &item)?;
        }
        for (client, claimed) in self.claims.sorted() {
            records.item(kind::CLAIM, &claim_item(client, claimed, &ids))?;
        }
        for (filter, turn) in self.turns.sorted() {
            records.item(kind::TURN, &(filter, *turn))?;
        }
        for (filter, queue) in self.backlogs.sorted() {
            let waiting = queue.parts().1.iter().map(|entry| entry_item(entry, &ids)).collect();
            let item = BacklogItem { filter: Arc::clone(filter), dropped: queue.dropped(), waiting };
            records.item(kind::BACKLOG, &item)?;
        }
        for (life, parts) in &self.parts {
            for part in parts {
                records.item(kind::PART, &PartItem { life: *life, bytes: part.clone() })?;
            }
        }
        self.write_settings(&mut records)?;
        for drain in &self.drains {
            records.item(kind::DRAIN, &drain)?;
        }
        let items = records.items;
        records.item(kind::END, &End { items })?;
        records.flush()
    }

    fn write_settings(&self, records: &mut Records<'_>) -> io::Result<()> {
        for user in self.settings.users().sorted() {
            records.item(kind::USER, &user)?;
        }
        if self.settings.rules().1 > 0 {
            records.item(kind::RULES, &self.settings.rules())?;
        }
        let mut after = None;
        loop {
            let page = self.settings.ban_page(after.as_ref(), BANS_PER_PAGE);
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for ban in page {
                records.item(kind::BAN, &ban)?;
            }
        }
    }

    /// Writes every queued message, and numbers them in that order.
    fn write_messages(&self, records: &mut Records<'_>) -> io::Result<MessageIds> {
        let mut ids = MessageIds::default();
        let mut write = |parcel: &Arc<Parcel>| {
            let next = ids.len() as u32;
            match ids.entry(Arc::as_ptr(parcel)) {
                hashbrown::hash_map::Entry::Occupied(_) => Ok(()),
                hashbrown::hash_map::Entry::Vacant(vacant) => {
                    vacant.insert(next);
                    let (is_shared, message) = (parcel.is_shared(), parcel.read()?);
                    records.item(kind::MESSAGE, &MessageItem { is_shared, message })
                }
            }
        };
        for (_, claimed) in self.claims.sorted() {
            let Some(session) = claimed.session() else { continue };
            let (window, waiting) = session.queue.parts();
            for entry in window.values().chain(waiting.iter()) {
                write(&entry.parcel)?;
            }
        }
        for (_, queue) in self.backlogs.sorted() {
            for entry in queue.parts().1.iter() {
                write(&entry.parcel)?;
            }
        }
        Ok(ids)
    }
}

fn claim_item(client: &Arc<str>, claimed: &Claimed, ids: &MessageIds) -> ClaimItem {
    let (will, session) = match claimed {
        Claimed::Clean(claim) => (claim.will.clone(), None),
        Claimed::Persistent(session) => (session.will.clone(), Some(session_item(session, ids))),
    };
    ClaimItem {
        client: Arc::clone(client),
        incarnation: claimed.incarnation(),
        owner: claimed.owner(),
        will,
        session,
    }
}

fn entry_item(e: &Entry, ids: &MessageIds) -> EntryItem {
    EntryItem {
        message: ids[&Arc::as_ptr(&e.parcel)],
        qos: e.qos,
        retain: e.retain,
        received: e.received,
        ids: e.extra.as_ref().map_or_else(Vec::new, |x| x.ids.to_vec()),
        group: e.group().cloned(),
        moves: e.moves(),
    }
}

fn session_item(session: &Session, ids: &MessageIds) -> SessionItem {
    let entry = |e: &Entry| entry_item(e, ids);
    let (window, waiting) = session.queue.parts();
    SessionItem {
        expiry_s: session.expiry_s,
        receive_maximum: session.receive_maximum,
        expires_at_ms: session.expires_at_ms,
        will_at_ms: session.will_at_ms,
        subs: session.subs.iter().map(|(f, s)| (f.clone(), *s)).collect(),
        dup_upto: session.queue.dup_upto(),
        sent_upto: session.queue.sent_upto(),
        dropped: session.queue.dropped(),
        window: window.iter().map(|(seq, e)| (*seq, entry(e))).collect(),
        waiting: waiting.iter().map(entry).collect(),
        replaying: session.replaying.clone(),
        received: session.received.iter().copied().collect(),
    }
}
