//! What a node reads from its disk or from another node: records of the log, entries, votes,
//! snapshots and the state in them.

use std::sync::Arc;

use std::io::Read;
use std::path::Path;

use bytes::Bytes;

use super::source::Source;
use crate::raft::codec;
use crate::state::State;
use crate::store::record::{self, Kind, Stamp};
use crate::store::segment::{self, Progress};
use crate::store::{SnapshotReader, SnapshotWriter};

/// Number and owner of the log segment that is read.
const SEGMENT: (u32, u64) = (3, 7);

/// Input: how the rest is meant, and the rest.
pub fn snapshot(input: &[u8]) {
    let mut source = Source::new(input);
    match source.u8() % 6 {
        0 => file(source.rest()),
        1 => drop(State::read(&mut source.rest(), Arc::default())),
        2 => state(&mut source),
        3 => consensus(source.rest()),
        4 => log(source.rest(), source.rest()),
        _ => records(&mut source),
    }
}

/// A snapshot's file, whole or not.
fn file(bytes: &[u8]) {
    let verified = SnapshotReader::new(bytes).and_then(SnapshotReader::verify);
    let mut read = Vec::new();
    let result = SnapshotReader::new(bytes).and_then(|mut reader| {
        reader.read_to_end(&mut read)?;
        Ok(reader.header().to_vec())
    });
    assert_eq!(verified.is_ok(), result.is_ok());
    // Around anything it comes back as it was.
    let mut writer = SnapshotWriter::new(Vec::new(), bytes).expect("short");
    std::io::Write::write_all(&mut writer, bytes).expect("memory takes it");
    let written = writer.finish().expect("memory takes it");
    let header = SnapshotReader::new(&written[..]).and_then(SnapshotReader::verify).expect("whole");
    assert_eq!(header, bytes);
}

/// A state out of records that are whole and say anything. What can be read can be written, and
/// reads as the same again.
fn state(source: &mut Source<'_>) {
    let mut bytes = b"RKYSTATE\x01\0\0\0".to_vec();
    while !source.is_empty() {
        let (kind, body) = (source.u8(), source.slice());
        let mut head = [kind, 0, 0, 0, 0];
        head[1..].copy_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&head);
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&head), body);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(body);
    }
    let Ok(state) = State::read(&mut &bytes[..], Arc::default()) else { return };
    let write = |state: &State| {
        let mut out = Vec::new();
        state.freeze().write(&mut out).expect("memory takes it");
        out
    };
    let written = write(&state);
    let again = State::read(&mut &written[..], Arc::default()).expect("what was written can be read");
    assert!(write(&again) == written, "a restored state is another one");
}

/// Entries, votes, log ids and the headers of snapshots, as they lie on disk.
fn consensus(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(entry) = codec::decode_entry(bytes.clone()) {
        let again = codec::encode_entry(&entry);
        assert!(again.len() >= codec::entry_len(&entry));
        assert_eq!(codec::decode_entry(again).expect("well-formed"), entry);
    }
    if let Ok(vote) = codec::decode_vote(bytes.clone()) {
        assert_eq!(codec::encode_vote(&vote), bytes);
    }
    if let Ok(log_id) = codec::decode_log_id(bytes.clone()) {
        assert_eq!(codec::encode_log_id(log_id.as_ref()), bytes);
    }
    if let Ok(meta) = codec::decode_snapshot_meta(bytes) {
        let again = codec::encode_snapshot_meta(&meta);
        assert_eq!(codec::decode_snapshot_meta(again).expect("well-formed"), meta);
    }
}

/// A segment whose records are whole, up to a tail that says anything.
fn records(source: &mut Source<'_>) {
    const KINDS: [Kind; 6] =
        [Kind::Entry, Kind::Vote, Kind::Truncate, Kind::Purge, Kind::Committed, Kind::Seal];
    let mut written = Vec::new();
    for _ in 0..source.u8() % 16 {
        let (shape, group) = (source.u8(), u64::from(source.u8()));
        let stamp = Stamp { segment: SEGMENT.0, group, ends_group: shape & 0x80 != 0 };
        let kind = KINDS[usize::from(shape % 6)];
        let index = u64::from(source.u16());
        let payload = source.slice();
        let start = written.len();
        record::put(&mut written, stamp, kind, index, [payload, &[]]);
        let raw = record::parse(&written[start..], SEGMENT.0).expect("whole");
        assert_eq!((raw.kind, raw.group, raw.ends_group), (kind, group, stamp.ends_group));
        assert_eq!((raw.index, raw.payload, raw.len()), (index, payload, written.len() - start));
    }
    log(&written, source.rest());
}

/// A segment of these bytes and this tail behind a good header, the last of its log or not.
fn log(whole: &[u8], tail: &[u8]) {
    let (number, owner) = SEGMENT;
    let capacity = (segment::HEAD_LEN + whole.len() + tail.len()) as u32;
    let bytes = [&segment::head(number, owner, capacity), whole, tail].concat();
    for last in [false, true] {
        let mut ends_at = segment::HEAD_LEN;
        let scanned = segment::scan_bytes(
            Path::new(""),
            &bytes,
            number,
            owner,
            last,
            &mut Progress::default(),
            |at, raw| {
                assert_eq!(at as usize, ends_at);
                ends_at += raw.len();
                Ok(())
            },
        );
        assert!(ends_at <= bytes.len());
        if let Ok((found, segment::End::Open { at, .. })) = scanned {
            assert!(last);
            assert_eq!((found, at as usize), (capacity, ends_at));
        }
    }
}
