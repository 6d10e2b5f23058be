//! The node in between: passes the lanes of two nodes that cannot reach each other from the one to
//! the other.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use rookery_proto::peer::lane_request::Part;
use rookery_proto::peer::{LaneAck, LaneHello, LaneRequest};
use tonic::{Status, Streaming};

use super::way;
use crate::peer::Dial;
use crate::state::NodeId;

/// What comes back on a lane.
pub(super) type Acks = Pin<Box<dyn Stream<Item = Result<LaneAck, Status>> + Send>>;

/// What this node does for lanes that are not its own.
#[derive(Clone)]
pub(super) struct Relay {
    me: NodeId,
    dial: Arc<dyn Dial>,
}

impl Relay {
    pub(super) fn new(me: NodeId, dial: Arc<dyn Dial>) -> Self {
        Self { me, dial }
    }

    /// Whether this node is the one that the lane is for.
    pub(super) fn ends_here(&self, hello: &LaneHello) -> bool {
        hello.receiver == self.me
    }

    pub(super) async fn reaches(&self, node: NodeId) -> bool {
        way::reaches(&*self.dial, node, node).await
    }

    /// Opens the second half of the way. What comes is asked for when there is room further on, so
    /// that nothing gathers here.
    ///
    /// # Errors
    /// Those of the receiver, and of the way to it.
    pub(super) async fn pass_on(
        &self,
        hello: LaneHello,
        requests: Streaming<LaneRequest>,
    ) -> Result<Acks, Status> {
        let unknown = || Status::unavailable(format!("no address of node {:016x} is known", hello.receiver));
        let channel = self.dial.bulk(hello.receiver).ok_or_else(unknown)?;
        let first = LaneRequest { part: Some(Part::Hello(hello)) };
        let rest = tokio_stream::StreamExt::map_while(requests, Result::ok);
        let onwards = stream::once(std::future::ready(first)).chain(rest);
        let acks = way::client(channel).relay(onwards).await?.into_inner();
        Ok(Box::pin(acks))
    }
}
