//! Consensus messages to and from their wire form.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::type_config::alias::EntryPayloadOf;
use rookery_proto::consensus as pb;

use super::codec::{Entry, LogId, Membership, SnapshotMeta, StoredMembership, Vote};
use super::types::{Packed, PeerNode, TypeConfig};
use crate::state::NodeId;

/// The version of the messages' meaning. A node refuses any other.
pub const WIRE_VERSION: u32 = 1;
/// The only consensus group there is today.
pub const GROUP: u32 = 0;
/// A received pack below this many bytes is copied, because the slice it came in would keep the
/// whole receive buffer alive for as long as the log keeps the entry.
const COPY_BELOW_BYTES: usize = 16 * 1024;

pub type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
pub type VoteRequest = openraft::raft::VoteRequest<TypeConfig>;
pub type VoteResponse = openraft::raft::VoteResponse<TypeConfig>;
type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, NodeId>;

/// A message that no node of this version sends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the message lacks {0}")]
    Missing(&'static str),
    #[error("the message is of wire version {theirs}, this node speaks {WIRE_VERSION}")]
    Version { theirs: u32 },
    #[error("the message is for group {0}, which this node does not have")]
    Group(u32),
    #[error("the membership is not one: {0}")]
    Membership(String),
}

impl From<Malformed> for tonic::Status {
    fn from(e: Malformed) -> Self {
        match e {
            Malformed::Version { .. } | Malformed::Group(_) => Self::unimplemented(e.to_string()),
            _ => Self::invalid_argument(e.to_string()),
        }
    }
}

/// # Errors
/// Another version, or a group that does not exist.
pub fn check(wire: u32, group: u32) -> Result<(), Malformed> {
    if wire != WIRE_VERSION {
        return Err(Malformed::Version { theirs: wire });
    }
    if group != GROUP {
        return Err(Malformed::Group(group));
    }
    Ok(())
}

pub fn log_id_out(id: &LogId) -> pb::LogId {
    let leader = id.committed_leader_id();
    pb::LogId { term: leader.term, node: leader.node_id, index: id.index() }
}

pub fn log_id_in(id: pb::LogId) -> LogId {
    LogId::new(LeaderId { term: id.term, node_id: id.node }, id.index)
}

pub fn vote_out(vote: &Vote) -> pb::Ballot {
    let leader = vote.leader_id();
    pb::Ballot { term: leader.term, node: leader.node_id, committed: vote.is_committed() }
}

/// # Errors
/// There is none.
pub fn vote_in(vote: Option<pb::Ballot>) -> Result<Vote, Malformed> {
    let vote = vote.ok_or(Malformed::Missing("a vote"))?;
    Ok(if vote.committed {
        Vote::new_committed(vote.term, vote.node)
    } else {
        Vote::new(vote.term, vote.node)
    })
}

pub fn member_out(node: NodeId, peer: &PeerNode) -> pb::Member {
    pb::Member { node, name: peer.name.clone(), peer_addr: peer.peer_addr.clone() }
}

pub fn membership_out(membership: &Membership) -> pb::MembershipConfig {
    pb::MembershipConfig {
        voters: membership
            .get_joint_config()
            .iter()
            .map(|set| pb::NodeSet { nodes: set.iter().copied().collect() })
            .collect(),
        members: membership.nodes().map(|(id, node)| member_out(*id, node)).collect(),
    }
}

/// # Errors
/// A voter that is no member.
pub fn membership_in(config: pb::MembershipConfig) -> Result<Membership, Malformed> {
    let voters: Vec<BTreeSet<NodeId>> =
        config.voters.into_iter().map(|set| set.nodes.into_iter().collect()).collect();
    let members: BTreeMap<NodeId, PeerNode> = config
        .members
        .into_iter()
        .map(|m| (m.node, PeerNode { name: m.name, peer_addr: m.peer_addr }))
        .collect();
    Membership::new(voters, members).map_err(|e| Malformed::Membership(e.to_string()))
}

pub fn entry_out(entry: &Entry) -> pb::Entry {
    let payload = match &entry.payload {
        EntryPayload::Blank => pb::entry::Payload::Blank(pb::Blank {}),
        EntryPayload::Normal(packed) => pb::entry::Payload::Pack(packed.0.clone()),
        EntryPayload::Membership(m) => pb::entry::Payload::Membership(membership_out(m)),
    };
    pb::Entry { id: Some(log_id_out(&entry.log_id)), payload: Some(payload) }
}

/// # Errors
/// Parts are missing or contradictory.
pub fn entry_in(entry: pb::Entry) -> Result<Entry, Malformed> {
    let id = entry.id.ok_or(Malformed::Missing("an entry's id"))?;
    let payload: EntryPayloadOf<TypeConfig> = match entry.payload {
        Some(pb::entry::Payload::Blank(_)) => EntryPayload::Blank,
        Some(pb::entry::Payload::Pack(bytes)) => EntryPayload::Normal(Packed(unpinned(bytes))),
        Some(pb::entry::Payload::Membership(m)) => EntryPayload::Membership(membership_in(m)?),
        None => return Err(Malformed::Missing("an entry's payload")),
    };
    Ok(Entry { log_id: log_id_in(id), payload })
}

/// Frees a small pack from the buffer it was received in.
pub fn unpinned(bytes: Bytes) -> Bytes {
    if bytes.len() < COPY_BELOW_BYTES { Bytes::copy_from_slice(&bytes) } else { bytes }
}

pub fn append_out(request: &AppendRequest) -> pb::AppendRequest {
    pb::AppendRequest {
        wire: WIRE_VERSION,
        group: GROUP,
        vote: Some(vote_out(&request.vote)),
        prev_log: request.prev_log_id.as_ref().map(log_id_out),
        entries: request.entries.iter().map(entry_out).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_out),
    }
}

/// # Errors
/// See [`Malformed`].
pub fn append_in(request: pb::AppendRequest) -> Result<AppendRequest, Malformed> {
    check(request.wire, request.group)?;
    Ok(AppendRequest {
        vote: vote_in(request.vote)?,
        prev_log_id: request.prev_log.map(log_id_in),
        entries: request.entries.into_iter().map(entry_in).collect::<Result<_, _>>()?,
        leader_commit: request.leader_commit.map(log_id_in),
    })
}

pub fn vote_request_out(request: &VoteRequest) -> pb::VoteRequest {
    pb::VoteRequest {
        wire: WIRE_VERSION,
        group: GROUP,
        vote: Some(vote_out(&request.vote)),
        last_log: request.last_log_id.as_ref().map(log_id_out),
        leadership_transfer: request.leadership_transfer,
    }
}

/// # Errors
/// See [`Malformed`].
pub fn vote_request_in(request: pb::VoteRequest) -> Result<VoteRequest, Malformed> {
    check(request.wire, request.group)?;
    Ok(VoteRequest {
        vote: vote_in(request.vote)?,
        last_log_id: request.last_log.map(log_id_in),
        leadership_transfer: request.leadership_transfer,
    })
}

pub fn vote_response_out(response: &VoteResponse) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(vote_out(&response.vote)),
        last_log: response.last_log_id.as_ref().map(log_id_out),
        granted: response.vote_granted,
        heard_ago_ms: None,
    }
}

/// # Errors
/// See [`Malformed`].
pub fn vote_response_in(response: pb::VoteResponse) -> Result<VoteResponse, Malformed> {
    Ok(VoteResponse {
        vote: vote_in(response.vote)?,
        vote_granted: response.granted,
        last_log_id: response.last_log.map(log_id_in),
    })
}

/// Everything about a snapshot but its bytes.
pub fn snapshot_header_out(vote: &Vote, meta: &SnapshotMeta, size: u64) -> pb::SnapshotHeader {
    pb::SnapshotHeader {
        wire: WIRE_VERSION,
        group: GROUP,
        vote: Some(vote_out(vote)),
        last_log: meta.last_log_id.as_ref().map(log_id_out),
        membership_log: meta.last_membership.log_id().as_ref().map(log_id_out),
        membership: Some(membership_out(meta.last_membership.membership())),
        size,
    }
}

/// # Errors
/// See [`Malformed`].
pub fn snapshot_header_in(header: pb::SnapshotHeader) -> Result<(Vote, SnapshotMeta), Malformed> {
    check(header.wire, header.group)?;
    let membership = membership_in(header.membership.ok_or(Malformed::Missing("a membership"))?)?;
    let meta = SnapshotMeta {
        last_log_id: header.last_log.map(log_id_in),
        last_membership: StoredMembership::new(header.membership_log.map(log_id_in), membership),
    };
    Ok((vote_in(header.vote)?, meta))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, node: NodeId, index: u64) -> LogId {
        LogId::new(LeaderId { term, node_id: node }, index)
    }

    #[test]
    fn append_survives_the_wire() {
        let membership = Membership::new(
            vec![BTreeSet::from([1, 2]), BTreeSet::from([1, u64::MAX])],
            BTreeMap::from([
                (1, PeerNode { name: "a".into(), peer_addr: "a:1".into() }),
                (2, PeerNode::default()),
                (9, PeerNode::default()),
                (u64::MAX, PeerNode::default()),
            ]),
        )
        .expect("a membership");
        let request = AppendRequest {
            vote: Vote::new_committed(7, 3),
            prev_log_id: Some(id(6, 2, 41)),
            entries: vec![
                Entry { log_id: id(7, 3, 42), payload: EntryPayload::Blank },
                Entry { log_id: id(7, 3, 43), payload: EntryPayload::Normal(Packed(vec![1, 2, 3].into())) },
                Entry { log_id: id(7, 3, 44), payload: EntryPayload::Membership(membership) },
            ],
            leader_commit: None,
        };
        let back = append_in(append_out(&request)).expect("well-formed");
        assert_eq!(back.vote, request.vote);
        assert_eq!(back.prev_log_id, request.prev_log_id);
        assert_eq!(back.entries, request.entries);
        assert_eq!(back.leader_commit, None);
    }

    #[test]
    fn other_versions_and_groups_are_refused() {
        assert_eq!(check(2, 0), Err(Malformed::Version { theirs: 2 }));
        assert_eq!(check(1, 5), Err(Malformed::Group(5)));
        assert_eq!(check(1, 0), Ok(()));
    }

    #[test]
    fn leadership_transfer_is_carried() {
        let request = VoteRequest { vote: Vote::new(3, 1), last_log_id: None, leadership_transfer: true };
        assert_eq!(vote_request_in(vote_request_out(&request)), Ok(request));
    }
}
