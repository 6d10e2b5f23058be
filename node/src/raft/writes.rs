//! Packs on their way into this node's own log.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use openraft::type_config::alias::OneshotReceiverOf;

use super::Consensus;
use super::scope::scoped;
use super::types::{Packed, TypeConfig};

/// Appends packs in order, and notices when one was refused because leadership is about to move
/// or has moved.
pub(super) struct Writes {
    raft: Consensus,
    under_way: FuturesUnordered<OneshotReceiverOf<TypeConfig, ClientWriteResult<TypeConfig>>>,
}

impl Writes {
    pub(super) fn new(raft: Consensus) -> Self {
        Self { raft, under_way: FuturesUnordered::new() }
    }

    /// Forgets what is under way.
    pub(super) fn clear(&mut self) {
        self.under_way.clear();
    }

    /// Whether the pack was queued; `false`: consensus has stopped.
    pub(super) async fn write(&mut self, pack: Packed) -> bool {
        let (responder, outcome) = ProgressResponder::complete_only();
        let queued = scoped(self.raft.client_write_ff(pack, Some(responder))).await.is_ok();
        if queued {
            self.under_way.push(outcome);
        }
        queued
    }

    /// Resolves when one of the packs has been refused, never otherwise. Those after it may have
    /// been taken.
    pub(super) async fn refused(&mut self) {
        loop {
            match self.under_way.next().await {
                Some(Ok(Ok(_))) => {}
                Some(_) => return,
                None => std::future::pending().await,
            }
        }
    }
}
