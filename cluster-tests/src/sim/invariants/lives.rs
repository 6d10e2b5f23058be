//! What several invariants have to know of a connection: whether the life of the node that held it
//! went on. When it did not, the cluster may have ended the connection before its client knew.

use std::collections::BTreeMap;

use rookery::state::Epoch;

use crate::sim::history::{ConnId, Entry, Event};

/// The end of a life, and what its clients see of it, may be seen in another order.
const SLACK_MS: u64 = 50;

#[derive(Default)]
pub struct Lives {
    conns: BTreeMap<ConnId, (usize, Epoch)>,
    /// When a life was over: some node had applied that, or it had lost its power.
    ended_ms: BTreeMap<(usize, Epoch), u64>,
    newest: BTreeMap<usize, Epoch>,
}

impl Lives {
    pub fn see(&mut self, entry: &Entry) {
        match entry.event {
            Event::Connected { node, epoch, .. } => {
                self.conns.insert(entry.conn, (node, epoch));
                self.newest.insert(node, epoch);
            }
            Event::LifeEnded { node, epoch } => {
                self.ended_ms.entry((node, epoch)).or_insert(entry.at_ms);
            }
            Event::Crashed { node } => {
                // A life that no client saw is not asked for.
                if let Some(epoch) = self.newest.get(&node) {
                    self.ended_ms.entry((node, *epoch)).or_insert(entry.at_ms);
                }
            }
            _ => {}
        }
    }

    /// Whether, as far as is known, the node under this connection was well until then.
    pub fn intact(&self, conn: ConnId, until_ms: u64) -> bool {
        let Some(life) = self.conns.get(&conn) else { return false };
        self.ended_ms.get(life).is_none_or(|at_ms| *at_ms > until_ms + SLACK_MS)
    }
}
