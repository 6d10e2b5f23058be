//! How a stream gets to a node that may not be reachable directly.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::RwLock;
use rookery_proto::peer::ReachRequest;
use rookery_proto::peer::forward_client::ForwardClient;

use super::lane::Lane;
use super::link::Link;
use crate::peer::{Dial, MAX_MESSAGE_BYTES, PeerChannel};
use crate::state::NodeId;

/// A node that says nothing for so long when asked whether it can be reached, cannot.
const REACH_TIMEOUT: Duration = Duration::from_millis(500);
/// Without an acknowledgement of what was sent for so long, the node is asked.
const SILENCE: Duration = Duration::from_millis(500);
/// How often a node is asked while another one is in between.
const RETURN_LOOK: Duration = Duration::from_secs(1);

pub(super) type Links = RwLock<BTreeMap<NodeId, Arc<Link>>>;

/// The way of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Direct,
    /// By way of another node, which passes everything on.
    Over(NodeId),
}

/// Finds ways to one node.
pub(super) struct Ways {
    to: NodeId,
    dial: Arc<dyn Dial>,
    links: Weak<Links>,
    /// Counts the nodes tried in between, so that each has its turn.
    tried: usize,
}

impl Ways {
    pub(super) fn new(to: NodeId, dial: Arc<dyn Dial>, links: Weak<Links>) -> Self {
        Self { to, dial, links, tried: 0 }
    }

    /// The node that a stream of this way is opened with; `None` while its address is unknown.
    pub(super) fn first_stop(&self, way: Way) -> Option<ForwardClient<PeerChannel>> {
        let node = match way {
            Way::Direct => self.to,
            Way::Over(node) => node,
        };
        self.dial.bulk(node).map(client)
    }

    /// The direct way if there is one, else one around.
    pub(super) async fn find(&mut self) -> Way {
        if self.is_direct().await { Way::Direct } else { self.around() }
    }

    /// Over one of the nodes that can be reached, if there are any.
    pub(super) fn around(&mut self) -> Way {
        let between: Vec<NodeId> = self.links.upgrade().map_or_else(Vec::new, |links| {
            let links = links.read();
            links.iter().filter(|(node, link)| **node != self.to && link.is_up()).map(|(n, _)| *n).collect()
        });
        if between.is_empty() {
            return Way::Direct;
        }
        self.tried += 1;
        Way::Over(between[self.tried % between.len()])
    }

    /// Returns when the node cannot be reached any more, which is looked at when it does not
    /// acknowledge what `lane` has sent it: a connection that went silent would be found out much
    /// later. A barrier or a slow subscriber may hold acknowledgements as well.
    pub(super) async fn silent(&self, lane: &Lane) {
        let mut before = None;
        loop {
            tokio::time::sleep(SILENCE).await;
            let now = lane.unacknowledged_after();
            if now.is_some() && now == before && !self.is_direct().await {
                return;
            }
            before = now;
        }
    }

    /// Returns when the node can be reached directly again.
    pub(super) async fn direct(&self) {
        loop {
            tokio::time::sleep(RETURN_LOOK).await;
            if self.is_direct().await {
                return;
            }
        }
    }

    async fn is_direct(&self) -> bool {
        let Some(mut client) = self.first_stop(Way::Direct) else { return false };
        match tokio::time::timeout(REACH_TIMEOUT, client.reach(ReachRequest {})).await {
            Ok(Ok(_)) => true,
            // What the node refuses with is an answer; what the connection failed of has a cause.
            Ok(Err(status)) => status.source().is_none(),
            Err(_) => false,
        }
    }
}

/// With the limits of peer connections.
pub(super) fn client(channel: PeerChannel) -> ForwardClient<PeerChannel> {
    ForwardClient::new(channel)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
}
