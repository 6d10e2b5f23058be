//! How consensus's own values lie on disk and travel: fixed-width little endian, versioned, so
//! that a change of openraft's types never reaches either.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::alias::{
    CommittedLeaderIdOf, DefaultEntryOf, LogIdOf, SnapshotMetaOf, StoredMembershipOf, VoteOf,
};

use super::types::{Packed, PeerNode, TypeConfig};

pub type LogId = LogIdOf<TypeConfig>;
pub type Vote = VoteOf<TypeConfig>;
pub type Entry = DefaultEntryOf<TypeConfig>;
pub type Membership = openraft::Membership<u64, PeerNode>;
pub type StoredMembership = StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = SnapshotMetaOf<TypeConfig>;

/// Version of every encoding here; a higher one is refused.
const VERSION: u8 = 1;

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Bytes of an entry before its payload: version, kind, log id.
const ENTRY_HEAD_LEN: usize = 2 + LOG_ID_LEN;
const LOG_ID_LEN: usize = 24;

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("cannot decode {what}"))
}

fn short(what: &'static str) -> impl FnOnce(bytes::TryGetError) -> io::Error {
    move |_| bad(what)
}

fn check_version(from: &mut Bytes, what: &'static str) -> io::Result<()> {
    let version = from.try_get_u8().map_err(short(what))?;
    if version == VERSION {
        return Ok(());
    }
    let why = format!("cannot decode {what} of version {version}; this program knows {VERSION}");
    Err(io::Error::new(io::ErrorKind::Unsupported, why))
}

fn put_log_id(out: &mut BytesMut, log_id: &LogId) {
    out.put_u64_le(log_id.leader_id.term);
    out.put_u64_le(log_id.leader_id.node_id);
    out.put_u64_le(log_id.index);
}

fn get_log_id(from: &mut Bytes) -> io::Result<LogId> {
    if from.remaining() < LOG_ID_LEN {
        return Err(bad("a log id"));
    }
    let leader = CommittedLeaderIdOf::<TypeConfig> { term: from.get_u64_le(), node_id: from.get_u64_le() };
    Ok(LogId::new(leader, from.get_u64_le()))
}

fn put_optional_log_id(out: &mut BytesMut, log_id: Option<&LogId>) {
    out.put_u8(log_id.is_some().into());
    if let Some(log_id) = log_id {
        put_log_id(out, log_id);
    }
}

fn get_optional_log_id(from: &mut Bytes) -> io::Result<Option<LogId>> {
    match from.try_get_u8().map_err(short("a log id"))? {
        0 => Ok(None),
        1 => get_log_id(from).map(Some),
        _ => Err(bad("a log id")),
    }
}

fn put_string(out: &mut BytesMut, text: &str) {
    out.put_u32_le(text.len() as u32);
    out.put_slice(text.as_bytes());
}

fn get_string(from: &mut Bytes) -> io::Result<String> {
    let len = from.try_get_u32_le().map_err(short("a text"))? as usize;
    if from.remaining() < len {
        return Err(bad("a text"));
    }
    String::from_utf8(from.split_to(len).into()).map_err(|_| bad("a text"))
}

fn put_membership(out: &mut BytesMut, membership: &Membership) {
    let configs = membership.get_joint_config();
    out.put_u32_le(configs.len() as u32);
    for config in configs {
        out.put_u32_le(config.len() as u32);
        for id in config {
            out.put_u64_le(*id);
        }
    }
    out.put_u32_le(membership.nodes().count() as u32);
    for (id, node) in membership.nodes() {
        out.put_u64_le(*id);
        put_string(out, &node.name);
        put_string(out, &node.peer_addr);
    }
}

fn get_membership(from: &mut Bytes) -> io::Result<Membership> {
    let what = "a membership";
    let mut configs = Vec::new();
    for _ in 0..from.try_get_u32_le().map_err(short(what))? {
        let mut config = BTreeSet::new();
        for _ in 0..from.try_get_u32_le().map_err(short(what))? {
            config.insert(from.try_get_u64_le().map_err(short(what))?);
        }
        configs.push(config);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..from.try_get_u32_le().map_err(short(what))? {
        let id = from.try_get_u64_le().map_err(short(what))?;
        let node = PeerNode { name: get_string(from)?, peer_addr: get_string(from)? };
        nodes.insert(id, node);
    }
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|e| bad(&format!("{what}: {e}")))
}

fn ended<T>(from: &Bytes, what: &str, value: T) -> io::Result<T> {
    if from.has_remaining() { Err(bad(what)) } else { Ok(value) }
}

/// Appends the entry to `out`.
pub fn put_entry(out: &mut BytesMut, entry: &Entry) {
    let kind = match &entry.payload {
        EntryPayload::Blank => BLANK,
        EntryPayload::Normal(_) => NORMAL,
        EntryPayload::Membership(_) => MEMBERSHIP,
    };
    out.put_u8(VERSION);
    out.put_u8(kind);
    put_log_id(out, &entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => {}
        EntryPayload::Normal(packed) => out.put_slice(&packed.0),
        EntryPayload::Membership(membership) => put_membership(out, membership),
    }
}

/// Bytes that [`put_entry`] appends; for a membership, not less than a hint.
pub fn entry_len(entry: &Entry) -> usize {
    ENTRY_HEAD_LEN
        + match &entry.payload {
            EntryPayload::Normal(packed) => packed.0.len(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        }
}

/// The entry alone.
pub fn encode_entry(entry: &Entry) -> Bytes {
    let mut out = BytesMut::with_capacity(entry_len(entry));
    put_entry(&mut out, entry);
    out.freeze()
}

/// The payload of a normal entry is a slice of `from`, not a copy.
///
/// # Errors
/// `InvalidData`: not an entry; `Unsupported`: of a newer version.
pub fn decode_entry(mut from: Bytes) -> io::Result<Entry> {
    let what = "a log entry";
    check_version(&mut from, what)?;
    let kind = from.try_get_u8().map_err(short(what))?;
    let log_id = get_log_id(&mut from)?;
    let payload = match kind {
        BLANK => ended(&from, what, EntryPayload::Blank)?,
        NORMAL => EntryPayload::Normal(Packed(from)),
        MEMBERSHIP => {
            let membership = get_membership(&mut from)?;
            ended(&from, what, EntryPayload::Membership(membership))?
        }
        _ => return Err(bad(what)),
    };
    Ok(Entry { log_id, payload })
}

pub fn encode_vote(vote: &Vote) -> Bytes {
    let mut out = BytesMut::with_capacity(18);
    out.put_u8(VERSION);
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.node_id);
    out.put_u8(vote.committed.into());
    out.freeze()
}

/// # Errors
/// As [`decode_entry`].
pub fn decode_vote(mut from: Bytes) -> io::Result<Vote> {
    let what = "a vote";
    check_version(&mut from, what)?;
    let term = from.try_get_u64_le().map_err(short(what))?;
    let node_id = from.try_get_u64_le().map_err(short(what))?;
    let vote = match from.try_get_u8().map_err(short(what))? {
        0 => Vote::new(term, node_id),
        1 => Vote::new_committed(term, node_id),
        _ => return Err(bad(what)),
    };
    ended(&from, what, vote)
}

pub fn encode_log_id(log_id: Option<&LogId>) -> Bytes {
    let mut out = BytesMut::with_capacity(2 + LOG_ID_LEN);
    out.put_u8(VERSION);
    put_optional_log_id(&mut out, log_id);
    out.freeze()
}

/// # Errors
/// As [`decode_entry`].
pub fn decode_log_id(mut from: Bytes) -> io::Result<Option<LogId>> {
    check_version(&mut from, "a log id")?;
    let log_id = get_optional_log_id(&mut from)?;
    ended(&from, "a log id", log_id)
}

pub fn encode_snapshot_meta(meta: &SnapshotMeta) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    put_optional_log_id(&mut out, meta.last_log_id.as_ref());
    put_optional_log_id(&mut out, meta.last_membership.log_id().as_ref());
    put_membership(&mut out, meta.last_membership.membership());
    out.freeze()
}

/// # Errors
/// As [`decode_entry`].
pub fn decode_snapshot_meta(mut from: Bytes) -> io::Result<SnapshotMeta> {
    let what = "a snapshot's header";
    check_version(&mut from, what)?;
    let last_log_id = get_optional_log_id(&mut from)?;
    let membership_log_id = get_optional_log_id(&mut from)?;
    let membership = get_membership(&mut from)?;
    let last_membership = StoredMembership::new(membership_log_id, membership);
    ended(&from, what, SnapshotMeta { last_log_id, last_membership })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn log_id() -> impl Strategy<Value = LogId> {
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(term, node_id, index)| {
            LogId::new(CommittedLeaderIdOf::<TypeConfig> { term, node_id }, index)
        })
    }

    fn membership() -> impl Strategy<Value = Membership> {
        let node = (".{0,12}", ".{0,12}").prop_map(|(name, peer_addr)| PeerNode { name, peer_addr });
        let nodes = proptest::collection::btree_map(any::<u64>(), node, 1..6);
        (nodes, any::<bool>()).prop_map(|(nodes, joint)| {
            let all: BTreeSet<u64> = nodes.keys().copied().collect();
            let one: BTreeSet<u64> = all.iter().copied().take(1).collect();
            let configs = if joint { vec![all, one] } else { vec![one] };
            Membership::new(configs, nodes).unwrap()
        })
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let payload = prop_oneof![
            Just(EntryPayload::Blank),
            proptest::collection::vec(any::<u8>(), 0..64)
                .prop_map(|bytes| EntryPayload::Normal(Packed(bytes.into()))),
            membership().prop_map(EntryPayload::Membership),
        ];
        (log_id(), payload).prop_map(|(log_id, payload)| Entry { log_id, payload })
    }

    proptest! {
        #[test]
        fn entries_round_trip(entry in entry()) {
            let bytes = encode_entry(&entry);
            prop_assert!(bytes.len() >= entry_len(&entry));
            prop_assert_eq!(decode_entry(bytes).unwrap(), entry);
        }

        #[test]
        fn votes_and_log_ids_round_trip(id in log_id(), committed: bool, some: bool) {
            let vote = Vote { leader_id: id.leader_id, committed };
            prop_assert_eq!(decode_vote(encode_vote(&vote)).unwrap(), vote);
            let id = some.then_some(id);
            prop_assert_eq!(decode_log_id(encode_log_id(id.as_ref())).unwrap(), id);
        }

        #[test]
        fn snapshot_headers_round_trip(last in log_id(), at in log_id(), membership in membership()) {
            let last_membership = StoredMembership::new(Some(at), membership);
            let meta = SnapshotMeta { last_log_id: Some(last), last_membership };
            prop_assert_eq!(decode_snapshot_meta(encode_snapshot_meta(&meta)).unwrap(), meta);
        }

        #[test]
        fn what_is_cut_short_or_noise_is_an_error_and_no_panic(
            entry in entry(), cut in any::<prop::sample::Index>(),
            noise in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes = encode_entry(&entry);
            let cut = bytes.slice(..cut.index(bytes.len()));
            let normal = matches!(entry.payload, EntryPayload::Normal(_)) && cut.len() >= ENTRY_HEAD_LEN;
            prop_assert_eq!(decode_entry(cut).is_ok(), normal);
            let _ = decode_entry(noise.clone().into());
            let _ = decode_snapshot_meta(noise.into());
        }
    }

    #[test]
    fn an_empty_snapshot_header_round_trips() {
        let meta = SnapshotMeta::default();
        assert_eq!(decode_snapshot_meta(encode_snapshot_meta(&meta)).unwrap(), meta);
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = encode_vote(&Vote::new(1, 2)).to_vec();
        bytes[0] = VERSION + 1;
        assert!(decode_vote(bytes.into()).unwrap_err().to_string().contains("version 2"));
    }

    #[test]
    fn what_the_first_release_wrote_is_read() {
        let id = |index| LogId::new(CommittedLeaderIdOf::<TypeConfig> { term: 3, node_id: 7 }, index);
        let node = |name: &str| PeerNode { name: name.into(), peer_addr: format!("{name}:17883") };
        let nodes = BTreeMap::from([(7, node("n1")), (8, node("n2")), (9, node("n3"))]);
        let configs = vec![BTreeSet::from([7, 8]), BTreeSet::from([7, 8, 9])];
        let membership = Membership::new(configs, nodes).expect("a membership");
        let entries = [
            EntryPayload::Blank,
            EntryPayload::Normal(Packed(Bytes::from_static(b"a pack"))),
            EntryPayload::Membership(membership.clone()),
        ];
        let entries = entries.map(|payload| Entry { log_id: id(300), payload });
        let meta = SnapshotMeta {
            last_log_id: Some(id(300)),
            last_membership: StoredMembership::new(Some(id(5)), membership),
        };
        let (vote, log_id) = (Vote::new_committed(3, 7), Some(id(299)));
        let mut now: Vec<(String, Vec<u8>)> = Vec::new();
        let mut item = |name: &str, bytes: Bytes| now.push((name.to_owned(), bytes.to_vec()));
        for (name, entry) in ["blank", "normal", "membership"].iter().zip(&entries) {
            item(name, encode_entry(entry));
        }
        item("vote", encode_vote(&vote));
        item("log_id", encode_log_id(log_id.as_ref()));
        item("snapshot_meta", encode_snapshot_meta(&meta));
        let kept = crate::fixture::first_format("log.hex", &now);
        let bytes = |at: usize| Bytes::from(kept[at].1.clone());
        for (at, entry) in entries.iter().enumerate() {
            assert_eq!(&decode_entry(bytes(at)).expect("an entry"), entry);
        }
        assert_eq!(decode_vote(bytes(3)).expect("a vote"), vote);
        assert_eq!(decode_log_id(bytes(4)).expect("a log id"), log_id);
        assert_eq!(decode_snapshot_meta(bytes(5)).expect("a header"), meta);
    }
}
