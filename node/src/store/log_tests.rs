//! The log through crashes, damage, reuse of files and reopening.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;

const SEGMENT_LEN: u32 = 4096;
const OWNER: u64 = 7;

fn options() -> LogOptions {
    LogOptions { segment_len: SEGMENT_LEN, cache_bytes: 0, cache_min_entries: 0, ..LogOptions::new(OWNER) }
}

fn open(dir: &Path) -> LogStore {
    LogStore::open(dir, options()).unwrap()
}

fn open_error(dir: &Path) -> OpenError {
    match LogStore::open(dir, options()) {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

fn payload(index: u64) -> Bytes {
    format!("entry {index} {}", "x".repeat((index * 37 % 90) as usize)).into()
}

/// A callback, and what it was called with.
fn flushed() -> (Flushed, Receiver<std::io::Result<()>>) {
    let (tx, rx) = channel();
    (Box::new(move |result| tx.send(result).unwrap()), rx)
}

fn wait(change: impl FnOnce(Flushed)) {
    let (done, result) = flushed();
    change(done);
    result.recv().unwrap().unwrap();
}

fn append(log: &LogStore, range: Range<u64>) {
    let payloads = range.clone().map(payload).collect();
    wait(|done| log.append(range.start, payloads, done).unwrap());
}

fn truncate(log: &LogStore, from: u64) {
    wait(|done| log.truncate(from, done).unwrap());
}

fn purge(log: &LogStore, upto: u64) {
    wait(|done| log.purge(upto, Bytes::from(format!("marker {upto}")), done).unwrap());
}

fn assert_holds(log: &LogStore, range: Range<u64>) {
    assert_eq!(log.range(), range);
    let found = log.read(0..u64::MAX, usize::MAX).unwrap();
    assert!(found == range.map(payload).collect::<Vec<_>>());
}

/// The segment files, oldest first.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| segment::number_of(p).is_some())
        .collect();
    found.sort();
    found
}

fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], offset).unwrap();
}

#[test]
fn what_was_acknowledged_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, 0..100);
    wait(|done| log.set_vote("vote".into(), done).unwrap());
    append(&log, 100..200);
    truncate(&log, 150);
    assert_holds(&log, 0..150);
    drop(log);
    assert!(segments(dir.path()).len() > 2);
    let log = open(dir.path());
    assert_eq!(log.vote().unwrap(), "vote");
    assert_holds(&log, 0..150);
    append(&log, 150..160);
    assert_holds(&log, 0..160);
}

#[test]
fn purged_files_are_reused_and_their_old_records_stay_dead() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    wait(|done| log.set_vote("early".into(), done).unwrap());
    let mut next = 0;
    let (mut seen, mut reused) = (HashMap::new(), 0);
    for round in 0..20 {
        append(&log, next..next + 60);
        for path in segments(dir.path()) {
            let inode = fs::metadata(&path).unwrap().ino();
            if seen.insert(inode, path.clone()).is_some_and(|earlier| earlier != path) {
                reused += 1;
            }
        }
        next += 60;
        purge(&log, next - 10);
        purge(&log, next - 20);
        if round % 3 == 0 {
            drop(log);
            log = open(dir.path());
        }
        assert_holds(&log, next - 9..next);
        assert_eq!(log.vote().unwrap(), "early");
        assert_eq!(log.purged().unwrap(), (next - 10, format!("marker {}", next - 10).into()));
    }
    drop(log);
    let files = fs::read_dir(dir.path()).unwrap().count();
    assert!(files <= 3 + LogOptions::DEFAULT_MAX_SPARES, "{files} files");
    assert!(reused > 10, "{reused} files reused");
}

#[test]
fn a_purge_beyond_the_end_lets_the_log_go_on_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, 0..10);
    purge(&log, 99);
    assert_holds(&log, 100..100);
    append(&log, 100..103);
    drop(log);
    assert_holds(&open(dir.path()), 100..103);
    let log = open(dir.path());
    assert!(log.append(104, vec![payload(104)], ignore_flushed()).is_err());
    purge(&log, 102);
    drop(log);
    assert_holds(&open(dir.path()), 103..103);
}

#[test]
fn a_reader_keeps_its_files_through_a_purge() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, 0..500);
    let (began, reading) = std::sync::mpsc::channel();
    let reader = {
        let log = log.clone();
        std::thread::spawn(move || {
            while log.range().start < 400 {
                let range = log.range();
                for found in log.read(range, usize::MAX).unwrap() {
                    let text = String::from_utf8(found.to_vec()).unwrap();
                    let index = text.split(' ').nth(1).unwrap().parse().unwrap();
                    assert_eq!(found, payload(index));
                }
                began.send(()).unwrap();
            }
        })
    };
    reading.recv().unwrap();
    for upto in (0..450).step_by(15) {
        purge(&log, upto);
        let end = log.range().end;
        append(&log, end..end + 15);
    }
    reader.join().unwrap();
}

#[test]
fn an_entry_larger_than_a_file_gets_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let large = Bytes::from(vec![5; 3 * SEGMENT_LEN as usize]);
    append(&log, 0..3);
    wait(|done| log.append(3, vec![large.clone(), payload(4)], done).unwrap());
    assert_eq!(log.read(3..5, usize::MAX).unwrap(), [large.clone(), payload(4)]);
    drop(log);
    let log = open(dir.path());
    assert_eq!(log.read(3..5, usize::MAX).unwrap(), [large, payload(4)]);
    purge(&log, 4);
    drop(log);
    assert_holds(&open(dir.path()), 5..5);
}

#[test]
fn reads_are_bounded_but_never_empty() {
    let dir = tempfile::tempdir().unwrap();
    for cache_bytes in [0, usize::MAX] {
        let dir = dir.path().join(cache_bytes.to_string());
        let log = LogStore::open(&dir, LogOptions { cache_bytes, ..options() }).unwrap();
        append(&log, 0..50);
        let two = payload(10).len() + payload(11).len();
        assert_eq!(log.read(10..50, two).unwrap(), [payload(10), payload(11)]);
        assert_eq!(log.read(10..50, 1).unwrap(), [payload(10)]);
        assert_eq!(log.read_cached(10..50, two).is_some(), cache_bytes > 0);
        assert!(log.read(50..60, two).unwrap().is_empty());
    }
}

#[test]
fn memory_is_bounded_and_older_entries_come_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { cache_bytes: 1000, cache_min_entries: 4, ..options() };
    let log = LogStore::open(dir.path(), options).unwrap();
    append(&log, 0..200);
    append(&log, 200..201);
    assert!(log.read_cached(0..1, 1).is_none());
    assert!(log.read_cached(197..201, usize::MAX).is_some());
    assert_holds(&log, 0..201);
}

#[test]
fn callbacks_come_in_order_and_many_appends_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let log = LogStore::open(dir.path(), LogOptions::new(OWNER)).unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    // The first callback holds the flusher, so that the rest is queued together.
    let (go, held) = channel::<()>();
    let (reached, entered) = channel::<()>();
    let hold: Flushed = Box::new(move |_| {
        reached.send(()).unwrap();
        held.recv().unwrap();
    });
    log.append(0, vec![payload(0)], hold).unwrap();
    entered.recv().unwrap();
    let before = log.stats().syncs.load(Ordering::Relaxed);
    for index in 1..=500 {
        let order = order.clone();
        let done: Flushed = Box::new(move |result| {
            result.unwrap();
            order.lock().push(index);
        });
        log.append(index, vec![payload(index)], done).unwrap();
    }
    go.send(()).unwrap();
    append(&log, 501..502);
    assert!(order.lock().iter().copied().eq(1..=500));
    let syncs = log.stats().syncs.load(Ordering::Relaxed) - before;
    assert!(syncs <= 2, "{syncs} syncs for 501 appends");
    assert_eq!(log.stats().appended_entries.load(Ordering::Relaxed), 502);
}

#[test]
fn after_a_failed_write_everything_fails() {
    let dir = tempfile::tempdir().unwrap();
    let log = LogStore::open(dir.path(), LogOptions { max_spares: 0, ..options() }).unwrap();
    append(&log, 0..3);
    // The next file cannot be made.
    fs::remove_dir_all(dir.path()).unwrap();
    let (done, result) = flushed();
    log.append(3, (3..200).map(payload).collect(), done).unwrap();
    assert!(result.recv().unwrap().is_err());
    let (done, result) = flushed();
    log.set_vote("v".into(), done).unwrap();
    assert!(result.recv().unwrap().is_err());
}

#[test]
fn closing_writes_what_is_queued_and_refuses_more() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.append(0, (0..50).map(payload).collect(), ignore_flushed()).unwrap();
    log.hint_committed("hint".into());
    log.close();
    assert!(log.append(50, vec![payload(50)], ignore_flushed()).is_err());
    let again = open(dir.path());
    assert_holds(&again, 0..50);
    assert_eq!(again.committed().unwrap(), "hint");
    assert_holds(&log, 0..50);
}

#[test]
fn a_missing_or_damaged_file_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    append(&open(dir.path()), 0..300);
    let files = segments(dir.path());
    assert!(files.len() >= 4);

    let aside = dir.path().join("aside");
    for missing in [&files[0], &files[1]] {
        fs::rename(missing, &aside).unwrap();
        let error = open_error(dir.path()).to_string();
        assert!(error.contains(missing.to_str().unwrap()) && error.contains("missing"), "{error}");
        fs::rename(&aside, missing).unwrap();
    }
    for (offset, file) in [(200, &files[1]), (8, &files[0]), (20, &files[0]), (0, &files[2])] {
        let before = fs::read(file).unwrap();
        flip(file, offset);
        let error = open_error(dir.path()).to_string();
        assert!(error.contains(file.to_str().unwrap()), "{error}");
        flip(file, offset);
        assert_eq!(fs::read(file).unwrap(), before);
    }
    assert_holds(&open(dir.path()), 0..300);
}

#[test]
fn damage_before_later_writes_in_the_last_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for index in 0..5 {
        append(&log, index..index + 1);
    }
    drop(log);
    let file = &segments(dir.path())[0];
    let damaged = segment::HEAD_LEN as u64 + 30;
    flip(file, damaged);
    let error = open_error(dir.path());
    let OpenError::Damaged { path, offset, .. } = &error else { panic!("{error}") };
    assert_eq!((path, *offset), (file, segment::HEAD_LEN as u64));
    assert!(error.to_string().contains("remove its data directory"), "{error}");
    flip(file, damaged);
    assert_holds(&open(dir.path()), 0..5);
}

#[test]
fn newer_formats_and_foreign_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    append(&open(dir.path()), 0..3);
    let foreign = LogStore::open(dir.path(), LogOptions { owner: 8, ..options() });
    assert!(matches!(foreign.err(), Some(OpenError::Foreign { found: OWNER, expected: 8, .. })));
    let file = OpenOptions::new().write(true).open(&segments(dir.path())[0]).unwrap();
    file.write_all_at(&(segment::FORMAT + 1).to_le_bytes(), 8).unwrap();
    assert!(matches!(open_error(dir.path()), OpenError::NewerFormat { found: 2, known: 1, .. }));
}

#[test]
fn the_twin_loses_what_was_not_synced() {
    let disk = MemoryDisk::default();
    let log = LogStore::in_memory(&disk, MemorySync::Manual);
    let (done, result) = flushed();
    log.append(0, (0..5).map(payload).collect(), done).unwrap();
    assert!(result.try_recv().is_err(), "not durable yet");
    log.sync_memory();
    result.recv().unwrap().unwrap();
    let (done, result) = flushed();
    log.append(5, (5..9).map(payload).collect(), done).unwrap();
    log.set_vote("lost".into(), ignore_flushed()).unwrap();
    assert_holds(&log, 0..9);
    disk.crash();
    log.sync_memory();
    assert!(result.recv().unwrap().is_err(), "the crashed life can write no more");

    let log = LogStore::in_memory(&disk, MemorySync::AtOnce);
    assert_holds(&log, 0..5);
    assert_eq!(log.vote(), None);
    truncate(&log, 3);
    purge(&log, 0);
    append(&log, 3..4);
    log.hint_committed("c".into());
    wait(|done| log.set_vote("kept".into(), done).unwrap());
    let log = LogStore::in_memory(&disk, MemorySync::AtOnce);
    assert_holds(&log, 1..4);
    assert_eq!((log.vote().unwrap(), log.committed().unwrap()), ("kept".into(), "c".into()));
    purge(&log, 50);
    assert_holds(&LogStore::in_memory(&disk, MemorySync::AtOnce), 51..51);
}

/// What a test does to a log, and to a model of it.
#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    Truncate(u64),
    Purge(u64),
    Vote(u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..30u64).prop_map(Step::Append),
        2 => (0..20u64).prop_map(Step::Truncate),
        2 => (0..40u64).prop_map(Step::Purge),
        1 => any::<u8>().prop_map(Step::Vote),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn behaves_as_a_list_of_entries(steps in proptest::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path());
        let (mut first, mut model) = (0u64, Vec::<Bytes>::new());
        let (mut vote, mut stamp) = (None, 0u64);
        for step in steps {
            let next = first + model.len() as u64;
            match step {
                Step::Append(count) => {
                    let new: Vec<Bytes> = (0..count).map(|i| payload(stamp + i)).collect();
                    stamp += count;
                    wait(|done| log.append(next, new.clone(), done).unwrap());
                    model.extend(new);
                }
                Step::Truncate(back) => {
                    let from = next.saturating_sub(back).max(first);
                    truncate(&log, from);
                    model.truncate((from - first) as usize);
                }
                Step::Purge(ahead) => {
                    let upto = first + ahead;
                    purge(&log, upto);
                    model.drain(..(ahead as usize + 1).min(model.len()));
                    first = upto + 1;
                }
                Step::Vote(value) => {
                    vote = Some(Bytes::from(vec![value]));
                    wait(|done| log.set_vote(Bytes::from(vec![value]), done).unwrap());
                }
                Step::Reopen => {
                    drop(log);
                    log = open(dir.path());
                }
            }
            // An empty log that was never purged begins wherever the first entry is put.
            prop_assert_eq!(log.range(), first..first + model.len() as u64);
            prop_assert!(log.read(0..u64::MAX, usize::MAX).unwrap() == model);
            prop_assert_eq!(log.vote(), vote.clone());
        }
    }

    #[test]
    fn a_torn_end_loses_nothing_acknowledged_and_leaves_no_hole(
        groups in proptest::collection::vec(1..12u64, 1..30),
        cut in any::<prop::sample::Index>(), garbage in proptest::collection::vec(any::<u8>(), 0..300),
        shorten: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        let mut next = 0;
        // Where the log ended after each acknowledged group.
        let mut ends = vec![(1, segment::HEAD_LEN as u64, 0)];
        for count in groups {
            append(&log, next..next + count);
            next += count;
            let file = segments(dir.path()).pop().unwrap();
            let bytes = fs::read(&file).unwrap();
            let used = bytes.iter().rposition(|b| *b != 0).unwrap() as u64 + 1;
            ends.push((segment::number_of(&file).unwrap(), used, next));
        }
        drop(log);
        // The last file as an interrupted write might have left it: whole up to the cut, then
        // anything.
        let file = segments(dir.path()).pop().unwrap();
        let number = segment::number_of(&file).unwrap();
        let last = ends.last().unwrap().1;
        let in_last: Vec<_> = ends.iter().filter(|end| end.0 == number).collect();
        let lowest = if in_last.len() > 1 { in_last[in_last.len() - 2].1 } else { segment::HEAD_LEN as u64 };
        let cut = lowest + cut.index((last - lowest + 1) as usize) as u64;
        let handle = OpenOptions::new().write(true).open(&file).unwrap();
        if shorten {
            handle.set_len(cut).unwrap();
        } else {
            let room = (u64::from(SEGMENT_LEN) - cut).min(garbage.len() as u64) as usize;
            handle.write_all_at(&vec![0; (u64::from(SEGMENT_LEN) - cut) as usize], cut).unwrap();
            handle.write_all_at(&garbage[..room], cut).unwrap();
        }
        let acknowledged = ends.iter().filter(|end| end.0 < number || end.1 <= cut).map(|end| end.2).max().unwrap();
        let log = open(dir.path());
        let end = log.range().end;
        prop_assert!(end >= acknowledged && end <= next, "{end} of {acknowledged}..={next}");
        if end > 0 {
            assert_holds(&log, 0..end);
        }
        append(&log, end..end + 40);
        drop(log);
        assert_holds(&open(dir.path()), 0..end + 40);
    }
}

/// The files of a folder, by name.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|file| {
            let path = file.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_log_is_read_as_the_first_release_wrote_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    wait(|done| log.set_vote(Bytes::from_static(b"vote"), done).unwrap());
    append(&log, 1..6);
    truncate(&log, 5);
    append(&log, 5..8);
    wait(|done| log.purge(2, Bytes::from_static(b"marker"), done).unwrap());
    drop(log);
    let kept = crate::fixture::first_format("segments.hex", &files(dir.path()));

    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in kept {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let log = open(dir.path());
    assert_eq!((log.range(), log.vote()), (3..8, Some(Bytes::from_static(b"vote"))));
    assert_eq!(log.purged(), Some((2, Bytes::from_static(b"marker"))));
    assert_eq!(log.read(3..8, usize::MAX).unwrap(), (3..8).map(payload).collect::<Vec<_>>());
}
