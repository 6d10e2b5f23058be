//! What consensus drives, and how the rest of the node proposes to it.

use std::io;

use crate::state::{At, Command, LogIndex, Outcome, Pack, PackError};

/// The replicated state behind the log. Called from one thread, in log order.
pub trait Replica: Send + Sync + 'static {
    /// Applies the pack committed at `index` in `term` and carries out its local effects. `None`: the pack
    /// was a duplicate, out of sequence or of an ended epoch, and changed nothing.
    ///
    /// # Errors
    /// The pack is of a newer version than this node, which must stop.
    fn apply(&self, index: LogIndex, term: u64, pack: Pack) -> Result<Option<Vec<Outcome>>, PackError>;

    /// After each batch of applied entries: what was appended to outboxes is written.
    fn flush(&self);

    /// A view of the state as of the last applied entry, taken without copying it; written out
    /// later, on another thread, while `apply` goes on.
    fn snapshot(&self) -> Box<dyn SnapshotView>;

    /// Replaces the state by a snapshot that [`SnapshotView::write`] wrote.
    ///
    /// # Errors
    /// The bytes are damaged or of a newer format; the state is then unchanged.
    fn install(&self, index: LogIndex, from: &mut dyn io::Read) -> io::Result<()>;
}

/// A frozen view of the replicated state.
pub trait SnapshotView: Send {
    /// # Errors
    /// Those of `to`.
    fn write(&self, to: &mut dyn io::Write) -> io::Result<()>;
}

/// Called once, on the thread that applies, when the proposer's own node has applied the command.
pub type Done = Box<dyn FnOnce(Result<Applied, Abandoned>) + Send>;

/// Called, perhaps, when the command is on the disk of the proposer's own node and nowhere else for
/// certain; never after [`Done`].
pub type Stored = Box<dyn FnOnce() + Send>;

/// The fate of a proposed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub at: At,
    pub outcome: Outcome,
}

/// This life of the node ended before it learned the command's fate: it may or may not have been
/// committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this node's life in the cluster ended before the command's outcome was known")]
pub struct Abandoned;

/// Takes commands for the log. Never blocks; callable from any thread. Commands of one node are
/// applied in the order of the calls.
pub trait Propose: Send + Sync + 'static {
    fn propose(&self, command: Command, done: Done);

    /// As [`Self::propose`], for who is content with one disk. Both are called where that is the
    /// order of things, `done` alone otherwise.
    fn propose_stored(&self, command: Command, stored: Stored, done: Done) {
        drop(stored);
        self.propose(command, done);
    }

    /// More is waiting than the proposer wants to hold: publishes should be refused or slowed.
    fn is_congested(&self) -> bool;
}
