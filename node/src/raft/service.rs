//! What the other nodes ask of this one's consensus.

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use openraft::raft::{StreamAppendError, StreamAppendResult, TransferLeaderError, TransferLeaderRequest};
use openraft::type_config::alias::SnapshotOf;
use rookery_proto::consensus as pb;
use rookery_proto::consensus::consensus_server::{Consensus as Service, ConsensusServer};
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::change::Change;
use super::node::{ChangeError, Node};
use super::scope::scoped;
use super::transfer::{Damaged, Sink};
use super::types::{Packed, SnapshotData, TypeConfig};
use super::wire::{self, Malformed};
use super::writes::Writes;
use crate::env;
use crate::peer::{Admit, MAX_MESSAGE_BYTES, Member, PeerId, Verifier, keys_server, membership_server};

/// The routes of consensus, for members only, and that of joining. Others may be added.
pub fn routes(node: &Node, verifier: &Verifier) -> Routes {
    let removed = node.clone_weak();
    verifier
        .refuse_removed(std::sync::Arc::new(move |id| removed.get().is_some_and(|node| node.is_removed(id))));
    let server = ConsensusServer::new(Handler { node: node.clone() })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let keys = keys_server(node.channels().identity().keyring.clone());
    let joining = membership_server(node.channels().identity().clone(), admit(node));
    Routes::new(InterceptedService::new(server, verifier.clone()))
        .add_service(InterceptedService::new(keys, verifier.clone()))
        .add_service(joining)
}

/// Newcomers become learners, whichever member they ask.
fn admit(node: &Node) -> Admit {
    let node = node.clone_weak();
    std::sync::Arc::new(move |joiner| {
        let node = node.get();
        Box::pin(async move {
            let node = node.ok_or("this node is stopping")?;
            node.change(Change::Add(joiner.clone())).await.map_err(|e| e.to_string())?;
            let mut members = node.members();
            // This member may not have applied the change yet.
            if members.iter().all(|m| m.node != joiner.node) {
                members.push(joiner);
            }
            Ok(members)
        })
    })
}

struct Handler {
    node: Node,
}

fn stopped(e: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("consensus has stopped on this node: {e}"))
}

#[tonic::async_trait]
impl Service for Handler {
    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        let request = wire::vote_request_in(request.into_inner())?;
        let answer = scoped(self.node.raft().vote(request)).await.map_err(stopped)?;
        let heard_ago_ms = Some(self.node.heard().ago_ms(env::boot_ms()));
        Ok(Response::new(pb::VoteResponse { heard_ago_ms, ..wire::vote_response_out(&answer) }))
    }

    async fn pre_vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        let request = wire::vote_request_in(request.into_inner())?;
        let answer = scoped(self.node.raft().pre_vote(request)).await.map_err(stopped)?;
        Ok(Response::new(wire::vote_response_out(&answer)))
    }

    type AppendStream = BoxStream<'static, Result<pb::AppendResponse, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let heard = self.node.heard().clone();
        let requests = stream::unfold((request.into_inner(), heard), |(mut incoming, heard)| async move {
            // A connection that ended is nothing to report; the leader opens another.
            let message = incoming.message().await.ok().flatten()?;
            heard.here(env::boot_ms());
            match wire::append_in(message) {
                Ok(request) => Some((request, (incoming, heard))),
                Err(e) => {
                    warn!("refused an append stream: {e}");
                    None
                }
            }
        });
        let raft = self.node.raft();
        let answers = scoped(async move { raft.stream_append(requests) }).await;
        let answers = answers.map(|answer| match answer {
            Ok(answer) => Ok(append_answer(&answer)),
            Err(fatal) => Err(stopped(fatal)),
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotResponse>, Status> {
        let from = PeerId::of(&request)?;
        let mut chunks = request.into_inner();
        let damaged = |e: Damaged| Status::data_loss(e.to_string());
        let mut first = chunks.message().await?.ok_or(Malformed::Missing("a first chunk"))?;
        let header = first.header.take().ok_or(Malformed::Missing("a header"))?;
        let size = header.size;
        let (vote, meta) = wire::snapshot_header_in(header)?;
        info!("receiving a snapshot of {size} bytes from node {from:016x}");
        let folder = self.node.config().incoming_dir.as_deref();
        let mut sink = Sink::create(folder, size).await.map_err(|e| damaged(e.into()))?;
        sink.write(&first).await.map_err(damaged)?;
        drop(first);
        while let Some(chunk) = chunks.message().await? {
            sink.write(&chunk).await.map_err(damaged)?;
        }
        let data = sink.finish().await.map_err(damaged)?;
        let leftover = match &data {
            SnapshotData::File(path) => Some(path.clone()),
            SnapshotData::Memory(_) => None,
        };
        self.node.heard().here(env::boot_ms());
        let snapshot: SnapshotOf<TypeConfig, SnapshotData> =
            SnapshotOf::<TypeConfig, _> { meta, snapshot: data };
        let installed = scoped(self.node.raft().install_full_snapshot(vote, snapshot)).await;
        if let Some(path) = leftover {
            // The state machine has renamed it if it wanted it.
            drop(tokio::fs::remove_file(path).await);
        }
        let answer = installed.map_err(stopped)?;
        Ok(Response::new(pb::SnapshotResponse { vote: Some(wire::vote_out(&answer.vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        wire::check(request.wire, request.group)?;
        let request = TransferLeaderRequest::new(
            wire::vote_in(request.from_leader)?,
            request.to,
            request.last_log.map(wire::log_id_in),
        );
        let answer = scoped(self.node.raft().handle_transfer_leader(request)).await.map_err(stopped)?;
        use pb::transfer_leader_response::Refused;
        let refused = match answer {
            Ok(()) => None,
            Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                Some(Refused::VoteChanged(pb::VoteChanged {
                    expected: Some(wire::vote_out(&expected)),
                    actual: Some(wire::vote_out(&actual)),
                }))
            }
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                Some(Refused::LogNotFlushed(pb::LogNotFlushed {
                    expected: expected.as_ref().map(wire::log_id_out),
                    actual: actual.as_ref().map(wire::log_id_out),
                }))
            }
        };
        Ok(Response::new(pb::TransferLeaderResponse { refused }))
    }

    type ProposeStream = BoxStream<'static, Result<pb::ProposalTaken, Status>>;

    async fn propose(
        &self,
        request: Request<Streaming<pb::Proposal>>,
    ) -> Result<Response<Self::ProposeStream>, Status> {
        let taking = take_proposals(self.node.clone(), request.into_inner());
        Ok(Response::new(stream::once(taking).boxed()))
    }

    async fn hello(&self, request: Request<pb::HelloRequest>) -> Result<Response<pb::HelloResponse>, Status> {
        wire::check(request.get_ref().wire, request.get_ref().group)?;
        let channels = self.node.channels();
        let status = self.node.status();
        let identity = channels.identity();
        let name = status.members().find(|m| m.node == identity.node).map(|m| m.name.clone());
        Ok(Response::new(pb::HelloResponse {
            me: Some(pb::Member {
                node: identity.node,
                name: name.unwrap_or_default(),
                peer_addr: identity.advertised.clone(),
            }),
            leader: status.leader.unwrap_or(0),
            // Only what is newer than what the asking node finds in its own log.
            members: status
                .members()
                .filter_map(|m| Some(Member { peer_addr: channels.own_word(m.node)?, ..m.clone() }))
                .map(Into::into)
                .collect(),
            trouble: self.node.trouble().unwrap_or_default(),
        }))
    }

    async fn change(
        &self,
        request: Request<pb::ChangeRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        let request = request.into_inner();
        wire::check(request.wire, request.group)?;
        let change = request.change.ok_or(Malformed::Missing("a change"))?;
        let answer = match self.node.change_here(change.try_into()?).await {
            Ok(()) => pb::ChangeResponse::default(),
            Err(ChangeError::NotLeader(leader)) => pb::ChangeResponse {
                not_leader: true,
                leader: leader.unwrap_or(0),
                ..pb::ChangeResponse::default()
            },
            Err(e) => pb::ChangeResponse {
                refused: e.to_string(),
                unfinished: matches!(e, ChangeError::Unfinished(_)),
                ..pb::ChangeResponse::default()
            },
        };
        Ok(Response::new(answer))
    }
}

/// Appends what comes, in order, until it cannot take one: then everything after it is refused
/// as well, because the origin's packs count only in order.
async fn take_proposals(
    node: Node,
    mut proposals: Streaming<pb::Proposal>,
) -> Result<pb::ProposalTaken, Status> {
    let moved = || Status::unavailable("this node does not lead");
    let mut count = 0;
    let route = node.route();
    let mut writes = Writes::new(node.raft().clone());
    loop {
        let proposal = tokio::select! {
            proposal = proposals.message() => proposal?,
            () = writes.refused() => return Err(moved()),
        };
        let Some(proposal) = proposal else { return Ok(pb::ProposalTaken { count }) };
        wire::check(proposal.wire, proposal.group)?;
        if route.borrow().leader != Some(node.id())
            || !writes.write(Packed(wire::unpinned(proposal.pack))).await
        {
            return Err(moved());
        }
        count += 1;
    }
}

fn append_answer(answer: &StreamAppendResult<TypeConfig>) -> pb::AppendResponse {
    use pb::append_response::Result as Answer;
    let result = match answer {
        Ok(matched) => Answer::Matched(pb::Matched { id: matched.as_ref().map(wire::log_id_out) }),
        Err(StreamAppendError::Conflict(id)) => Answer::Conflict(wire::log_id_out(id)),
        Err(StreamAppendError::HigherVote(vote)) => Answer::HigherVote(wire::vote_out(vote)),
    };
    pb::AppendResponse { result: Some(result) }
}
