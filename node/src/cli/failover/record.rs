//! What the clients of a run write down together.

use std::time::Duration;

use super::availability::Gap;
use super::history::{History, StreamId};
use super::link::Clock;

pub struct Record {
    pub history: History,
    clock: Clock,
    /// Acknowledgements by any node.
    pub any: Gap,
    /// Acknowledgements to the clients that stay with one node, by node.
    pub nodes: Vec<NodeRecord>,
    /// How long clients were without a connection until any node accepted them again.
    pub reconnects: Vec<Duration>,
    /// Each publisher that may go elsewhere: its acknowledgements.
    pub roaming: Vec<Gap>,
}

#[derive(Clone, Copy, Default)]
pub struct NodeRecord {
    pub acked: u64,
    pub gap: Gap,
    /// Connections to it that ended without their client's doing.
    pub broken: u64,
}

impl Record {
    pub fn new(nodes: usize) -> Self {
        Record {
            history: History::default(),
            clock: Clock::start(),
            any: Gap::default(),
            nodes: vec![NodeRecord::default(); nodes],
            reconnects: Vec::new(),
            roaming: Vec::new(),
        }
    }

    /// Since the start.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Connections that ended without their client's doing.
    pub fn broken(&self) -> u64 {
        self.nodes.iter().map(|node| node.broken).sum()
    }

    /// A client that lost its connection at that time has another.
    pub fn reconnected(&mut self, lost_at: Duration) {
        let took = self.now().saturating_sub(lost_at);
        self.reconnects.push(took);
    }

    /// Notes an acknowledgement to a publisher: of a node if it stays there, else as the roaming
    /// client of that index.
    pub fn acked(&mut self, stream: StreamId, number: u32, home: Home) {
        let now = self.now();
        self.history.acked(stream, number);
        self.any.event(now);
        match home {
            Home::Node(node) => {
                self.nodes[node].acked += 1;
                self.nodes[node].gap.event(now);
            }
            Home::Roaming(client) => self.roaming[client].event(now),
        }
    }
}

/// Whose availability a publisher's acknowledgements tell.
#[derive(Clone, Copy)]
pub enum Home {
    Node(usize),
    /// An index of [`Record::roaming`].
    Roaming(usize),
}
