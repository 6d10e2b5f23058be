//! The state machine of openraft: hands committed packs to the [`Replica`] and keeps its
//! snapshots.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::OptionalSend;
use openraft::alias::SnapshotOf;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use parking_lot::Mutex;
use tracing::warn;

use super::codec::{LogId, SnapshotMeta, StoredMembership};
use super::growth::LogGrowth;
use super::snapshot::{Finished, Snapshots, off_runtime, with_reader};
use super::types::{Packed, SnapshotData, TypeConfig};
use super::{Replica, SnapshotView};
use crate::state::{At, Outcome, Pack, PackError};
use crate::store::OpenError;

/// Told of every pack after it was applied: where, its sequence, and its outcomes (`None`: it
/// changed nothing, see [`Replica::apply`]).
pub type Observer = Box<dyn Fn(At, u64, Option<Vec<Outcome>>) + Send + Sync>;

/// Commands applied before other tasks of the runtime get their turn.
const TURN_COMMANDS: usize = 1024;
/// Between two attempts to write a snapshot that the disk refuses.
const WRITE_RETRY: Duration = Duration::from_secs(2);
/// Bytes of packs applied before other tasks get their turn.
const TURN_BYTES: usize = 256 << 10;

/// The state that the log leads to.
pub struct Machine {
    replica: Arc<dyn Replica>,
    observer: Option<Observer>,
    snapshots: Snapshots,
    /// The newest finished snapshot; builders finish on tasks of their own.
    current: Arc<Mutex<Option<Finished>>>,
    growth: Arc<LogGrowth>,
    applied: Option<LogId>,
    membership: StoredMembership,
}

impl Machine {
    /// The state is empty until openraft, at its start, restores the newest snapshot and applies
    /// the log after it. `purged`: log id up to which the log is gone.
    ///
    /// # Errors
    /// [`OpenError`]: the snapshots and the log together do not hold the whole state.
    pub fn open(
        replica: Arc<dyn Replica>,
        snapshots: Snapshots,
        purged: Option<LogId>,
        observer: Option<Observer>,
    ) -> Result<Self, OpenError> {
        let current = Arc::new(Mutex::new(snapshots.newest(purged)?));
        let (growth, membership) = (Arc::default(), StoredMembership::default());
        Ok(Self { replica, observer, snapshots, current, growth, applied: None, membership })
    }

    pub(super) fn growth(&self) -> Arc<LogGrowth> {
        self.growth.clone()
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }

    /// Returns how many commands there were.
    fn apply_pack(&self, log_id: LogId, packed: &Packed) -> io::Result<usize> {
        // To go on without it would make this node's state another one than the cluster's.
        let unknown = |error: PackError| {
            let why = format!("cannot apply the committed entry {log_id}: {error}");
            io::Error::new(io::ErrorKind::InvalidData, why)
        };
        let pack = Pack::decode(&packed.0).map_err(unknown)?;
        let at = At { index: log_id.index, origin: pack.origin, epoch: pack.epoch };
        let (seq, commands) = (pack.seq, pack.commands.len());
        let outcomes = self.replica.apply(log_id.index, log_id.leader_id.term, pack).map_err(unknown)?;
        if let Some(observer) = &self.observer {
            observer(at, seq, outcomes);
        }
        Ok(commands)
    }
}

/// Keeps the newer one of what is there and `finished`.
fn promote(current: &Mutex<Option<Finished>>, finished: Finished) {
    let mut current = current.lock();
    let newer = current.as_ref().is_none_or(|old| old.meta.last_log_id <= finished.meta.last_log_id);
    if newer {
        *current = Some(finished);
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let (mut commands, mut bytes) = (0, 0);
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(packed) => {
                    commands += self.apply_pack(entry.log_id, &packed)?;
                    bytes += packed.0.len();
                    self.growth.applied(entry.log_id.index, packed.0.len());
                }
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
            }
            self.applied = Some(entry.log_id);
            if let Some(responder) = responder {
                responder.send(());
            }
            if commands >= TURN_COMMANDS || bytes >= TURN_BYTES {
                (commands, bytes) = (0, 0);
                self.replica.flush();
                tokio::task::yield_now().await;
            }
        }
        self.replica.flush();
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        let view = self.replica.snapshot();
        self.growth.viewed();
        Builder {
            view: Mutex::new(Some(view)),
            meta: self.meta(),
            snapshots: self.snapshots.clone(),
            current: self.current.clone(),
            growth: self.growth.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Self::SnapshotData,
    ) -> Result<(), io::Error> {
        let (snapshots, replica) = (self.snapshots.clone(), self.replica.clone());
        let own = self.current.lock().clone().filter(|current| is_same(&current.data, &snapshot));
        let (announced, received) = (meta.clone(), own.is_none());
        let finished = off_runtime(self.snapshots.uses_files(), move || {
            // Durable before it is the state: the log behind it is purged next.
            let finished = match own {
                Some(own) => own,
                None => snapshots.take_over(&announced, snapshot)?,
            };
            let index = announced.last_log_id.map_or(0, |id| id.index);
            with_reader(&finished.data, |from| replica.install(index, from))?;
            Ok(finished)
        });
        let finished = finished.await?;
        self.growth.installed(finished.bytes, received);
        *self.current.lock() = Some(finished);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.replica.flush();
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, SnapshotData>>, io::Error> {
        Ok(self.current.lock().clone().map(to_openraft))
    }
}

fn is_same(a: &SnapshotData, b: &SnapshotData) -> bool {
    match (a, b) {
        (SnapshotData::File(a), SnapshotData::File(b)) => a == b,
        (SnapshotData::Memory(a), SnapshotData::Memory(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}

fn to_openraft(finished: Finished) -> SnapshotOf<TypeConfig, SnapshotData> {
    SnapshotOf::<TypeConfig, SnapshotData> { meta: finished.meta, snapshot: finished.data }
}

/// Writes out a view of the state that was taken between two applied entries.
pub struct Builder {
    view: Mutex<Option<Box<dyn SnapshotView>>>,
    meta: SnapshotMeta,
    snapshots: Snapshots,
    current: Arc<Mutex<Option<Finished>>>,
    growth: Arc<LogGrowth>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, SnapshotData>, io::Error> {
        let view = self.view.lock().take();
        let mut view = view.ok_or_else(|| io::Error::other("this snapshot was built before"))?;
        let finished = loop {
            let (snapshots, meta) = (self.snapshots.clone(), self.meta.clone());
            let writing = off_runtime(self.snapshots.uses_files(), move || {
                let written = snapshots.write(meta, view.as_ref());
                Ok((view, written))
            });
            let (kept, written) = writing.await?;
            match written {
                Ok(finished) => break finished,
                // No reason to stop: the log has everything, and only grows longer meanwhile.
                Err(error) => warn!(%error, "cannot write a snapshot, trying again"),
            }
            view = kept;
            tokio::time::sleep(WRITE_RETRY).await;
        };
        self.growth.written(finished.bytes);
        promote(&self.current, finished.clone());
        Ok(to_openraft(finished))
    }
}
