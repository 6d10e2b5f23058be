//! Consensus calls to the other nodes.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use openraft::RaftNetworkFactory;
use openraft::base::BoxFuture;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
};
use openraft::raft::{
    SnapshotResponse, StreamAppendError, StreamAppendResult, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse,
};
use openraft::type_config::alias::SnapshotOf;
use rookery_proto::consensus as pb;
use rookery_proto::consensus::consensus_client::ConsensusClient;
use tonic::Status;

use super::codec::Vote;
use super::heard::Heard;
use super::transfer;
use super::types::{PeerNode, SnapshotData, TypeConfig};
use super::wire::{self, AppendRequest, VoteRequest, VoteResponse};
use crate::env;
use crate::peer::{Channels, MAX_MESSAGE_BYTES, PeerChannel};
use crate::state::NodeId;

/// Pauses between attempts to reach a node that does not answer; the last one repeats.
const BACKOFF_MS: [u64; 4] = [20, 50, 100, 200];
/// Longest wait for a peer to take a new append stream. The heartbeat interval that consensus
/// suggests would be too short on a machine that is short of CPU.
const OPEN_TIMEOUT: Duration = Duration::from_millis(500);
/// A snapshot that has not arrived after this long is given up. A connection that died is
/// noticed by keep-alive long before.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(15 * 60);

type Error = RPCError<TypeConfig>;

/// Makes the clients that consensus asks for.
#[derive(Clone)]
pub struct Network {
    channels: Channels,
    heard: Arc<Heard>,
}

impl Network {
    pub fn new(channels: Channels, heard: Arc<Heard>) -> Self {
        Self { channels, heard }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &PeerNode) -> Peer {
        self.channels.suggest(target, &node.peer_addr);
        Peer { target, channels: self.channels.clone(), heard: self.heard.clone() }
    }
}

/// One other node, as consensus talks to it. The connection is looked up for every call, so that
/// a changed address takes effect.
pub struct Peer {
    target: NodeId,
    channels: Channels,
    heard: Arc<Heard>,
}

impl Peer {
    fn consensus(&self) -> Result<ConsensusClient<PeerChannel>, Error> {
        self.channels.consensus(self.target).map(client).ok_or_else(|| self.unknown())
    }

    fn unknown(&self) -> Error {
        RPCError::Unreachable(Unreachable::from_string(format!(
            "no address of node {:016x} is known",
            self.target
        )))
    }

    /// Every failure counts as unreachable, because only that makes consensus wait before it
    /// tries again.
    fn failed(&self, status: &Status) -> Error {
        self.channels.note_refusal(self.target, status);
        RPCError::Unreachable(Unreachable::from_string(format!(
            "node {:016x}: {}: {}",
            self.target,
            status.code(),
            status.message()
        )))
    }

    async fn call<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => Err(self.failed(&Status::deadline_exceeded("no answer in time"))),
        }
    }

    fn malformed(&self, e: &wire::Malformed) -> Error {
        self.failed(&Status::internal(e.to_string()))
    }
}

pub(super) fn client(channel: PeerChannel) -> ConsensusClient<PeerChannel> {
    ConsensusClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

impl NetBackoff<TypeConfig> for Peer {
    fn backoff(&self) -> Option<Backoff> {
        let last = BACKOFF_MS[BACKOFF_MS.len() - 1];
        Some(Backoff::new(BACKOFF_MS.into_iter().chain(std::iter::repeat(last)).map(Duration::from_millis)))
    }
}

impl NetVote<TypeConfig> for Peer {
    async fn vote(&mut self, rpc: VoteRequest, option: RPCOption) -> Result<VoteResponse, Error> {
        let mut client = self.consensus()?;
        let answer = self.call(option.hard_ttl(), client.vote(wire::vote_request_out(&rpc))).await?;
        // Who does not say when it heard a leader may have done so just now.
        let heard_ms = env::boot_ms().saturating_sub(answer.heard_ago_ms.unwrap_or(0));
        self.heard.by_voter(rpc.vote.leader_id().term, heard_ms);
        wire::vote_response_in(answer).map_err(|e| self.malformed(&e))
    }

    async fn pre_vote(&mut self, rpc: VoteRequest, option: RPCOption) -> Result<VoteResponse, Error> {
        let mut client = self.consensus()?;
        let answer = self.call(option.hard_ttl(), client.pre_vote(wire::vote_request_out(&rpc))).await?;
        wire::vote_response_in(answer).map_err(|e| self.malformed(&e))
    }
}

impl NetTransferLeader<TypeConfig> for Peer {
    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Error> {
        let mut client = self.consensus()?;
        let request = pb::TransferLeaderRequest {
            wire: wire::WIRE_VERSION,
            group: wire::GROUP,
            from_leader: Some(wire::vote_out(req.from_leader())),
            to: *req.to_node_id(),
            last_log: req.last_log_id().map(wire::log_id_out),
        };
        let answer = self.call(option.hard_ttl().max(OPEN_TIMEOUT), client.transfer_leader(request)).await?;
        use pb::transfer_leader_response::Refused;
        Ok(match answer.refused {
            None => Ok(()),
            Some(Refused::VoteChanged(v)) => Err(TransferLeaderError::VoteChanged {
                expected: wire::vote_in(v.expected).map_err(|e| self.malformed(&e))?,
                actual: wire::vote_in(v.actual).map_err(|e| self.malformed(&e))?,
            }),
            Some(Refused::LogNotFlushed(l)) => Err(TransferLeaderError::LogNotFlushed {
                expected: l.expected.map(wire::log_id_in),
                actual: l.actual.map(wire::log_id_in),
            }),
        })
    }
}

impl NetStreamAppend<TypeConfig> for Peer {
    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, Error>>, Error>>
    where
        S: Stream<Item = AppendRequest> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            // The pause after a failure is taken inside `input`. Dialling before polling it
            // would dial a dead node without pause and burn a core.
            let Some(first) = input.next().await else {
                return Ok(stream::empty().boxed());
            };
            let mut client = self.consensus()?;
            let requests = stream::once(std::future::ready(first)).chain(input).map(|r| wire::append_out(&r));
            let answers = self.call(OPEN_TIMEOUT, client.append(requests)).await?;
            let peer: &Self = self;
            Ok(answers
                .map(move |answer| match answer {
                    Ok(answer) => append_answer(answer).map_err(|e| peer.malformed(&e)),
                    Err(status) => Err(peer.failed(&status)),
                })
                .boxed())
        })
    }
}

fn append_answer(answer: pb::AppendResponse) -> Result<StreamAppendResult<TypeConfig>, wire::Malformed> {
    use pb::append_response::Result as Answer;
    Ok(match answer.result.ok_or(wire::Malformed::Missing("a result"))? {
        Answer::Matched(m) => Ok(m.id.map(wire::log_id_in)),
        Answer::Conflict(id) => Err(StreamAppendError::Conflict(wire::log_id_in(id))),
        Answer::HigherVote(v) => Err(StreamAppendError::HigherVote(wire::vote_in(Some(v))?)),
    })
}

impl NetSnapshot<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut client = client(self.channels.bulk(self.target).ok_or_else(|| self.unknown())?);
        let unreadable = |e: std::io::Error| {
            StreamingError::Unreachable(Unreachable::from_string(format!("cannot read the snapshot: {e}")))
        };
        let source = transfer::Source::open(&snapshot.snapshot).await.map_err(unreadable)?;
        let header = wire::snapshot_header_out(&vote, &snapshot.meta, source.size());
        let call = self.call(SNAPSHOT_TIMEOUT, client.snapshot(source.chunks(header)));
        let answer = tokio::select! {
            answer = call => answer?,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        let vote = wire::vote_in(answer.vote).map_err(|e| self.malformed(&e))?;
        Ok(SnapshotResponse::new(vote))
    }
}
