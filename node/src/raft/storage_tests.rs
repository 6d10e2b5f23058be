//! openraft's own suite over both kinds of storage, and what it does not cover.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use openraft::alias::{CommittedLeaderIdOf, SnapshotOf};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::{
    IOFlushed, RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftSnapshotBuilder, RaftStateMachine,
};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{Config, EntryPayload, Raft, ServerState, SnapshotPolicy, StorageError};
use parking_lot::Mutex;
use tempfile::TempDir;

use super::codec::{Entry, LogId, Vote};
use super::log::MAX_APPEND_BYTES;
use super::types::{Packed, PeerNode, SnapshotData, TypeConfig};
use super::{Machine, Observer, RaftLog, Replica, SnapshotView, Snapshots, snapshot};
use crate::state::{At, Command, LogIndex, Outcome, Pack, PackError};
use crate::store::{LogOptions, LogStore, MemoryDisk, MemorySync};

/// Remembers what it was told; rejects packs of sequence 13.
#[derive(Default)]
struct Recorder {
    elapsed: Mutex<Vec<u64>>,
    flushes: Mutex<usize>,
}

struct View(Vec<u64>);

impl SnapshotView for View {
    fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        self.0.iter().try_for_each(|value| to.write_all(&value.to_le_bytes()))
    }
}

impl Replica for Recorder {
    fn apply(&self, _index: LogIndex, _term: u64, pack: Pack) -> Result<Option<Vec<Outcome>>, PackError> {
        if pack.seq == 13 {
            return Ok(None);
        }
        let elapsed = pack.commands.iter().map(|command| match command {
            Command::Tick { elapsed_ms } => *elapsed_ms,
            other => panic!("{other:?}"),
        });
        self.elapsed.lock().extend(elapsed);
        Ok(Some(vec![Outcome::Ok; pack.commands.len()]))
    }

    fn flush(&self) {
        *self.flushes.lock() += 1;
    }

    fn snapshot(&self) -> Box<dyn SnapshotView> {
        Box::new(View(self.elapsed.lock().clone()))
    }

    fn install(&self, _index: LogIndex, from: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        *self.elapsed.lock() =
            bytes.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect();
        Ok(())
    }
}

/// Its first views cannot be written: the disk is full.
struct Refused {
    recorder: Recorder,
    refusals: Arc<AtomicUsize>,
}

struct RefusedView(Arc<AtomicUsize>, Box<dyn SnapshotView>);

impl SnapshotView for RefusedView {
    fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let left = |n: usize| n.checked_sub(1);
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left) {
            Ok(_) => Err(io::ErrorKind::StorageFull.into()),
            Err(_) => self.1.write(to),
        }
    }
}

impl Replica for Refused {
    fn apply(&self, index: LogIndex, term: u64, pack: Pack) -> Result<Option<Vec<Outcome>>, PackError> {
        self.recorder.apply(index, term, pack)
    }

    fn flush(&self) {}

    fn snapshot(&self) -> Box<dyn SnapshotView> {
        Box::new(RefusedView(self.refusals.clone(), self.recorder.snapshot()))
    }

    fn install(&self, index: LogIndex, from: &mut dyn Read) -> io::Result<()> {
        self.recorder.install(index, from)
    }
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderIdOf::<TypeConfig> { term, node_id: 1 }, index)
}

fn normal(term: u64, index: u64, bytes: impl Into<Bytes>) -> Entry {
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(Packed(bytes.into())) }
}

fn tick(index: u64, elapsed_ms: u64) -> Entry {
    let commands = vec![Command::Tick { elapsed_ms }];
    let pack = Pack { origin: 9, epoch: 2, seq: index, commands };
    normal(1, index, pack.encode())
}

fn open_log(dir: &Path) -> RaftLog {
    let options = LogOptions { segment_len: 64 << 10, ..LogOptions::new(7) };
    RaftLog::new(LogStore::open(&dir.join("raft"), options).unwrap())
}

fn open_machine(dir: &Path, replica: Arc<Recorder>, purged: Option<LogId>) -> Machine {
    let snapshots = Snapshots::in_folder(&dir.join("snapshot")).unwrap();
    Machine::open(replica, snapshots, purged, None).unwrap()
}

async fn apply(machine: &mut Machine, entries: Vec<Entry>) -> io::Result<()> {
    machine.apply(stream::iter(entries.into_iter().map(|entry| Ok((entry, None))))).await
}

async fn build(machine: &mut Machine) -> SnapshotOf<TypeConfig, SnapshotData> {
    machine.try_create_snapshot_builder(true).await.unwrap().build_snapshot().await.unwrap()
}

/// A state whose snapshots fail for want of room at first.
#[derive(Default)]
struct Cramped {
    recorder: Recorder,
    attempts: Arc<AtomicUsize>,
}

struct CrampedView(Box<dyn SnapshotView>, Arc<AtomicUsize>);

impl SnapshotView for CrampedView {
    fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        if self.1.fetch_add(1, Ordering::Relaxed) < 3 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write(to)
    }
}

impl Replica for Cramped {
    fn apply(&self, index: LogIndex, term: u64, pack: Pack) -> Result<Option<Vec<Outcome>>, PackError> {
        self.recorder.apply(index, term, pack)
    }

    fn flush(&self) {}

    fn snapshot(&self) -> Box<dyn SnapshotView> {
        Box::new(CrampedView(self.recorder.snapshot(), self.attempts.clone()))
    }

    fn install(&self, index: LogIndex, from: &mut dyn Read) -> io::Result<()> {
        self.recorder.install(index, from)
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_waits_for_room_on_a_full_disk() {
    let replica = Arc::new(Cramped::default());
    let snapshots = Snapshots::in_memory(&MemoryDisk::default());
    let mut machine = Machine::open(replica.clone(), snapshots, None, None).unwrap();
    apply(&mut machine, vec![tick(1, 5), tick(2, 6)]).await.unwrap();
    let built = build(&mut machine).await;
    assert_eq!(replica.attempts.load(Ordering::Relaxed), 4);
    assert_eq!(built.meta.last_log_id, Some(log_id(1, 2)));
}

struct OnDisk;

impl StoreBuilder<TypeConfig, RaftLog, Machine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, RaftLog, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let machine = open_machine(dir.path(), Arc::default(), None);
        Ok((TempDir::new().unwrap(), open_log(dir.path()), machine))
            .map(|(_, log, machine)| (dir, log, machine))
    }
}

struct InMemory(MemorySync);

impl StoreBuilder<TypeConfig, RaftLog, Machine> for InMemory {
    async fn build(&self) -> Result<((), RaftLog, Machine), StorageError<TypeConfig>> {
        let disk = MemoryDisk::default();
        let log = RaftLog::new(LogStore::in_memory(&disk, self.0));
        let snapshots = Snapshots::in_memory(&disk);
        Ok(((), log, Machine::open(Arc::new(Recorder::default()), snapshots, None, None).unwrap()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_passes_on_disk() {
    Suite::test_all(OnDisk).await.unwrap();
}

#[tokio::test]
async fn the_suite_passes_in_memory() {
    let at_once = Suite::test_all(InMemory(MemorySync::AtOnce));
    let later = Suite::test_all(InMemory(MemorySync::After(Duration::from_millis(1))));
    let (at_once, later) = tokio::join!(at_once, later);
    at_once.unwrap();
    later.unwrap();
}

#[tokio::test]
async fn entries_are_readable_before_they_are_durable() {
    let disk = MemoryDisk::default();
    let store = LogStore::in_memory(&disk, MemorySync::Manual);
    let mut log = RaftLog::new(store.clone());
    log.append([normal(1, 0, "a"), normal(1, 1, "b")], IOFlushed::noop()).await.unwrap();
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 2);
    disk.crash();
    store.sync_memory();
    let mut after = RaftLog::new(LogStore::in_memory(&disk, MemorySync::AtOnce));
    assert!(after.try_get_log_entries(..).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_vote_and_the_commit_hint_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let vote = Vote::new_committed(3, 1);
    {
        let mut log = open_log(dir.path());
        log.save_vote(&vote).await.unwrap();
        log.blocking_append([normal(3, 0, "a"), normal(3, 1, "b")]).await.unwrap();
        log.save_committed(Some(log_id(3, 1))).await.unwrap();
    }
    {
        let mut log = open_log(dir.path());
        assert_eq!(log.read_vote().await.unwrap(), Some(vote));
        assert_eq!(log.read_committed().await.unwrap(), Some(log_id(3, 1)));
        log.truncate_after(Some(log_id(3, 0))).await.unwrap();
    }
    let mut log = open_log(dir.path());
    assert_eq!(log.read_committed().await.unwrap(), None, "the hint is beyond the log");
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(log_id(3, 0)));
}

#[tokio::test]
async fn what_one_request_carries_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_log(dir.path());
    let large = vec![7u8; MAX_APPEND_BYTES / 2 - 100];
    log.blocking_append((0..5).map(|i| normal(1, i, large.clone())).collect::<Vec<_>>()).await.unwrap();
    log.blocking_append([normal(1, 5, vec![1u8; 2 * MAX_APPEND_BYTES])]).await.unwrap();
    for _ in 0..2 {
        assert_eq!(log.limited_get_log_entries(0, 6).await.unwrap().len(), 2);
        assert_eq!(log.limited_get_log_entries(4, 6).await.unwrap().len(), 1);
        let largest = log.limited_get_log_entries(5, 6).await.unwrap();
        assert_eq!(largest, [normal(1, 5, vec![1u8; 2 * MAX_APPEND_BYTES])]);
        assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 6);
        drop(log);
        log = open_log(dir.path());
    }
}

#[tokio::test]
async fn entries_with_a_hole_are_refused() {
    let mut log = RaftLog::new(LogStore::in_memory(&MemoryDisk::default(), MemorySync::AtOnce));
    let hole = log.append([normal(1, 0, "a"), normal(1, 2, "b")], IOFlushed::noop()).await;
    assert_eq!(hole.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    log.append([normal(1, 0, "a")], IOFlushed::noop()).await.unwrap();
    assert!(log.append([normal(1, 2, "b")], IOFlushed::noop()).await.is_err());
    assert!(log.append([normal(1, 0, "b")], IOFlushed::noop()).await.is_err());
}

#[tokio::test]
async fn the_observer_learns_each_packs_fate_and_the_replica_is_flushed() {
    type Seen = Arc<Mutex<Vec<(At, u64, Option<usize>)>>>;
    let seen = Seen::default();
    let observer: Observer = {
        let seen = seen.clone();
        Box::new(move |at, seq, outcomes| seen.lock().push((at, seq, outcomes.map(|o| o.len()))))
    };
    let replica = Arc::new(Recorder::default());
    let snapshots = Snapshots::in_memory(&MemoryDisk::default());
    let mut machine = Machine::open(replica.clone(), snapshots, None, Some(observer)).unwrap();
    apply(&mut machine, vec![tick(12, 5), tick(13, 6), tick(14, 7)]).await.unwrap();
    let at = |index| At { index, origin: 9, epoch: 2 };
    assert_eq!(*seen.lock(), [(at(12), 12, Some(1)), (at(13), 13, None), (at(14), 14, Some(1))]);
    assert_eq!(*replica.elapsed.lock(), [5, 7]);
    assert_eq!(*replica.flushes.lock(), 1);
}

#[tokio::test]
async fn an_entry_that_cannot_be_decoded_stops_the_node() {
    let snapshots = Snapshots::in_memory(&MemoryDisk::default());
    let mut machine = Machine::open(Arc::new(Recorder::default()), snapshots, None, None).unwrap();
    apply(&mut machine, vec![tick(1, 1)]).await.unwrap();
    let error = apply(&mut machine, vec![normal(1, 2, "\u{1}noise")]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(1, 1)));
    let EntryPayload::Normal(Packed(pack)) = tick(2, 1).payload else { panic!() };
    let longer = [&pack[..], b"\0"].concat();
    assert!(apply(&mut machine, vec![normal(1, 2, longer)]).await.is_err(), "trailing bytes");
}

#[tokio::test]
async fn a_snapshot_shows_the_state_as_of_its_index() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = open_machine(dir.path(), Arc::default(), None);
    apply(&mut machine, (0..50_000).map(|i| tick(i, i * 10)).collect()).await.unwrap();
    let mut builder = machine.try_create_snapshot_builder(true).await.unwrap();
    apply(&mut machine, vec![tick(50_000, 1)]).await.unwrap();
    let built = builder.build_snapshot().await.unwrap();
    assert_eq!(built.meta.last_log_id, Some(log_id(1, 49_999)));
    assert_eq!(snapshot::verify(&built.snapshot).unwrap(), built.meta);

    let replica = Arc::new(Recorder::default());
    let mut reopened = open_machine(dir.path(), replica.clone(), Some(log_id(1, 49_999)));
    let current = reopened.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta, built.meta);
    reopened.install_snapshot(&current.meta, current.snapshot).await.unwrap();
    assert_eq!(*replica.elapsed.lock(), (0..50_000).filter(|i| *i != 13).map(|i| i * 10).collect::<Vec<_>>());
    assert_eq!(reopened.applied_state().await.unwrap().0, Some(log_id(1, 49_999)));
}

#[tokio::test]
async fn a_received_snapshot_is_kept_and_only_the_newest_two_stay() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut sender = open_machine(from.path(), Arc::default(), None);
    let replica = Arc::new(Recorder::default());
    let mut receiver = open_machine(to.path(), replica.clone(), None);
    for i in 1..=3 {
        apply(&mut sender, vec![tick(i, i)]).await.unwrap();
        let built = build(&mut sender).await;
        let SnapshotData::File(path) = &built.snapshot else { panic!() };
        let incoming = to.path().join(format!("snapshot/incoming-{i}.tmp"));
        std::fs::copy(path, &incoming).unwrap();
        receiver.install_snapshot(&built.meta, SnapshotData::File(incoming)).await.unwrap();
        assert_eq!(receiver.get_current_snapshot().await.unwrap().unwrap().meta, built.meta);
    }
    assert_eq!(*replica.elapsed.lock(), [1, 2, 3]);
    for dir in [&from, &to] {
        assert_eq!(std::fs::read_dir(dir.path().join("snapshot")).unwrap().count(), 2);
    }
    let mut restarted = open_machine(to.path(), Arc::default(), Some(log_id(1, 3)));
    let current = restarted.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta.last_log_id, Some(log_id(1, 3)));
}

#[tokio::test]
async fn a_damaged_or_wrong_snapshot_is_not_installed() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut sender = open_machine(from.path(), Arc::default(), None);
    apply(&mut sender, vec![tick(1, 77)]).await.unwrap();
    let built = build(&mut sender).await;
    let SnapshotData::File(path) = &built.snapshot else { panic!() };
    let whole = std::fs::read(path).unwrap();

    let replica = Arc::new(Recorder::default());
    let mut receiver = open_machine(to.path(), replica.clone(), None);
    let incoming = to.path().join("snapshot/incoming.tmp");
    for damage in [&whole[..whole.len() - 1], &[&whole[..], b"x"].concat(), &flipped(&whole)] {
        std::fs::write(&incoming, damage).unwrap();
        let data = SnapshotData::File(incoming.clone());
        let error = receiver.install_snapshot(&built.meta, data).await.unwrap_err();
        assert!(error.to_string().contains("incoming.tmp"), "{error}");
    }
    std::fs::write(&incoming, &whole).unwrap();
    let mut other = built.meta.clone();
    other.last_log_id = Some(log_id(1, 2));
    assert!(receiver.install_snapshot(&other, SnapshotData::File(incoming)).await.is_err());
    assert!(replica.elapsed.lock().is_empty());
    assert!(receiver.get_current_snapshot().await.unwrap().is_none());
}

fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() - 30;
    bytes[middle] ^= 1;
    bytes
}

#[tokio::test]
async fn a_damaged_newest_snapshot_is_an_error_unless_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = open_machine(dir.path(), Arc::default(), None);
    let mut paths = Vec::new();
    for i in 1..=2 {
        apply(&mut machine, vec![tick(i, i)]).await.unwrap();
        let SnapshotData::File(path) = build(&mut machine).await.snapshot else { panic!() };
        paths.push(path);
    }
    let newest = paths[1].clone();
    std::fs::write(&newest, flipped(&std::fs::read(&newest).unwrap())).unwrap();
    let open = |purged| {
        let snapshots = Snapshots::in_folder(&dir.path().join("snapshot")).unwrap();
        Machine::open(Arc::new(Recorder::default()), snapshots, purged, None)
    };
    let Err(error) = open(Some(log_id(1, 2))) else { panic!("the log does not reach back far enough") };
    assert!(error.to_string().contains(newest.to_str().unwrap()), "{error}");
    assert!(newest.exists());

    let mut machine = open(Some(log_id(1, 1))).unwrap();
    let current = machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta.last_log_id, Some(log_id(1, 1)));
    assert!(!newest.exists() && newest.with_extension("damaged").exists());

    std::fs::remove_file(&paths[0]).unwrap();
    assert!(open(Some(log_id(1, 1))).is_err(), "a purged log without a snapshot");
    assert!(open(None).is_ok());
}

#[tokio::test]
async fn a_simulated_node_finds_its_snapshot_after_a_crash() {
    let disk = MemoryDisk::default();
    let open = |replica| Machine::open(replica, Snapshots::in_memory(&disk), None, None).unwrap();
    let mut machine = open(Arc::new(Recorder::default()));
    apply(&mut machine, vec![tick(1, 4)]).await.unwrap();
    build(&mut machine).await;
    disk.crash();
    let replica = Arc::new(Recorder::default());
    let mut machine = open(replica.clone());
    let current = machine.get_current_snapshot().await.unwrap().unwrap();
    machine.install_snapshot(&current.meta, current.snapshot).await.unwrap();
    assert_eq!(*replica.elapsed.lock(), [4]);
}

/// The network of a node without peers.
struct NoPeers;

impl RaftNetworkFactory<TypeConfig> for NoPeers {
    type Network = Self;

    async fn new_client(&mut self, _target: u64, _node: &PeerNode) -> Self {
        Self
    }
}

fn nobody() -> Unreachable<TypeConfig> {
    Unreachable::from_string("no peers")
}

impl RaftNetworkV2<TypeConfig> for NoPeers {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(nobody().into())
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(nobody().into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(nobody().into())
    }
}

/// Starts a node over the files in `dir`, as a process would.
async fn start(dir: &Path) -> (Raft<TypeConfig, Machine>, RaftLog, Arc<Recorder>) {
    let config = Config {
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        ..Config::default()
    };
    let replica = Arc::new(Recorder::default());
    let log = open_log(dir);
    let machine = open_machine(dir, replica.clone(), log.purged().unwrap());
    let raft = Raft::new(1, Arc::new(config.validate().unwrap()), NoPeers, log.clone(), machine);
    (raft.await.unwrap(), log, replica)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_comes_back_from_its_snapshot_and_the_log_after_it() {
    let limit = Some(Duration::from_secs(20));
    let dir = tempfile::tempdir().unwrap();
    let packed = |value| match tick(100 + value, value).payload {
        EntryPayload::Normal(packed) => packed,
        _ => unreachable!(),
    };
    let mut expected = Vec::new();
    let mut value = 0;
    for life in 0..3 {
        let (raft, log, replica) = start(dir.path()).await;
        assert_eq!(*replica.elapsed.lock(), expected, "what was applied before is back, life {life}");
        if life == 0 {
            raft.initialize(BTreeMap::from([(1, PeerNode::default())])).await.unwrap();
        }
        raft.wait(limit).state(ServerState::Leader, "elected").await.unwrap();
        let mut last = 0;
        for round in 0..2 {
            for _ in 0..200 {
                last = raft.client_write(packed(value)).await.unwrap().log_id.index;
                expected.push(value);
                value += 1;
            }
            if round == 0 {
                raft.trigger().snapshot().await.unwrap();
                let at = |id: &LogId| id.index == last;
                let waited = raft.wait(limit);
                let metrics = waited.metrics(|m| m.snapshot.as_ref().is_some_and(at), "snapshot");
                metrics.await.unwrap();
                raft.trigger().purge_log(last).await.unwrap();
                let waited = raft.wait(limit);
                let metrics = waited.metrics(|m| m.purged.as_ref().is_some_and(at), "purged");
                metrics.await.unwrap();
                assert_eq!(log.store().range(), last + 1..last + 1);
            }
        }
        assert_eq!(*replica.elapsed.lock(), expected);
        assert_eq!(log.store().range().end, last + 1);
        raft.shutdown().await.unwrap();
        // A task of the node that is on its way out may hold the log for a moment more.
        log.store().close();
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_the_disk_refuses_is_tried_again() {
    let refusals = Arc::new(AtomicUsize::new(2));
    let replica = Arc::new(Refused { recorder: Recorder::default(), refusals: refusals.clone() });
    let disk = MemoryDisk::default();
    let mut machine = Machine::open(replica, Snapshots::in_memory(&disk), None, None).unwrap();
    apply(&mut machine, vec![tick(1, 5)]).await.unwrap();
    let built = build(&mut machine).await;
    assert_eq!(refusals.load(Ordering::Relaxed), 0);
    assert_eq!(built.meta.last_log_id, Some(log_id(1, 1)));
    let kept = machine.get_current_snapshot().await.unwrap().expect("it was written in the end");
    assert_eq!(snapshot::verify(&kept.snapshot).unwrap(), built.meta);
}
