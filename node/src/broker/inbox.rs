//! Publishes that other nodes hand over for this node's subscribers.

use std::sync::Arc;

use super::Broker;
use crate::mqtt::Publication;
use crate::peer::forward::{Share, Sink};
use crate::session;
use crate::state::NodeId;

/// The broker as the forward streams see it. What comes here is delivered here or nowhere: it is
/// never forwarded again, but for what no member of a shared subscription here can take.
pub struct FromPeers(pub Arc<Broker>);

impl Sink for FromPeers {
    fn deliver(&self, _from: NodeId, _lane: u16, publication: &Publication<'_>, share: Option<Share<'_>>) {
        // Written by `flush`, once for the whole batch.
        session::hold(|| match share {
            Some(share) if share.is_fence() => 0,
            Some(share) => usize::from(self.0.deliver_shared(share, publication)),
            None => self.0.deliver_here(publication),
        });
    }

    fn flush(&self) {
        session::flush();
    }
}
