//! How forward streams and leases reach the other nodes.

use super::channel::{Channels, PeerChannel};
use crate::state::NodeId;

/// Hands out the connections to the other nodes.
pub trait Dial: Send + Sync + 'static {
    /// The connection for everything large or frequent; `None` while the address is unknown.
    fn bulk(&self, node: NodeId) -> Option<PeerChannel>;
    /// The connection for consensus and leases; `None` while the address is unknown.
    fn consensus(&self, node: NodeId) -> Option<PeerChannel>;
}

impl Dial for Channels {
    fn bulk(&self, node: NodeId) -> Option<PeerChannel> {
        Self::bulk(self, node)
    }

    fn consensus(&self, node: NodeId) -> Option<PeerChannel> {
        Self::consensus(self, node)
    }
}
