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
use crate::env;
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
}

impl Ways {
    pub(super) fn new(to: NodeId, dial: Arc<dyn Dial>, links: Weak<Links>) -> Self {
        Self { to, dial, links }
    }

    /// The node that a stream of this way is opened with; `None` while its address is unknown.
    pub(super) fn first_stop(&self, way: Way) -> Option<ForwardClient<PeerChannel>> {
        let node = match way {
            Way::Direct => self.to,
            Way::Over(node) => node,
        };
        self.dial.bulk(node).map(client)
    }

    /// The direct way, unless there is none but another one.
    pub(super) async fn find(&self) -> Way {
        if self.is_direct().await { Way::Direct } else { self.around().await.unwrap_or(Way::Direct) }
    }

    /// Over one of the nodes that can be reached and say that they reach it.
    async fn around(&self) -> Option<Way> {
        let mut between: Vec<NodeId> = {
            let links = self.links.upgrade()?;
            let links = links.read();
            links.iter().filter(|(node, link)| **node != self.to && link.is_up()).map(|(n, _)| *n).collect()
        };
        let first = env::random_below(between.len() as u64) as usize;
        between.rotate_left(first);
        for node in between {
            if reaches(&*self.dial, node, self.to).await {
                return Some(Way::Over(node));
            }
        }
        None
    }

    /// Returns another way when the node neither acknowledges what `lane` has sent it nor answers,
    /// and there is one: a connection that went silent would be found out much later. A barrier or a
    /// slow subscriber may hold acknowledgements as well, and a node that nobody reaches may be busy.
    pub(super) async fn silent(&self, lane: &Lane) -> Way {
        let mut before = None;
        loop {
            tokio::time::sleep(SILENCE).await;
            let now = lane.unacknowledged_after();
            if now.is_some()
                && now == before
                && !self.is_direct().await
                && let Some(way) = self.around().await
            {
                return way;
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
        reaches(&*self.dial, self.to, self.to).await
    }
}

/// Whether `node` answers, and says that it reaches `to` if that is another.
pub(super) async fn reaches(dial: &dyn Dial, node: NodeId, to: NodeId) -> bool {
    let Some(mut client) = dial.bulk(node).map(client) else { return false };
    let (further, limit) = if node == to { (0, REACH_TIMEOUT) } else { (to, 2 * REACH_TIMEOUT) };
    match tokio::time::timeout(limit, client.reach(ReachRequest { node: further })).await {
        Ok(Ok(_)) => true,
        // Whatever a node refuses with is an answer too; what the connection failed of has a cause.
        Ok(Err(status)) => node == to && status.source().is_none(),
        Err(_) => false,
    }
}

/// With the limits of peer connections.
pub(super) fn client(channel: PeerChannel) -> ForwardClient<PeerChannel> {
    ForwardClient::new(channel)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
}
