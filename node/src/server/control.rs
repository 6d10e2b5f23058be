//! What operators ask of a node, answered.

use std::sync::Arc;
use std::time::Duration;

use super::error::StartError;
use super::member::Member;
use super::node::{Ended, Node};
use crate::admin::{
    self, Answer, CaMember, CaState, CaStatus, ClientInfo, ClientPage, ClusterStatus, Control, ControlError,
    ErrorKind, JoinToken, Member as MemberInfo, MemberState, NewLeader, Readiness, Role, Startup,
};
use crate::env;
use crate::peer;
use crate::raft::{Change, ChangeError};
use crate::state::{self, NodeId};

/// What a node says that could not renew its lease, as without a majority.
const NO_LEASE: &str = "no lease: it may acknowledge nothing";
/// How long `init` and `join` wait for this node to serve clients.
const SERVING_TIMEOUT: Duration = Duration::from_secs(30);

impl From<ChangeError> for ControlError {
    fn from(error: ChangeError) -> Self {
        let kind = match &error {
            ChangeError::NoLeader
            | ChangeError::NotLeader(_)
            | ChangeError::Unfinished(_)
            | ChangeError::Stopped => ErrorKind::Unavailable,
            ChangeError::Refused(_) => ErrorKind::Unsafe,
            ChangeError::Unknown(_) => ErrorKind::Timeout,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<StartError> for ControlError {
    fn from(error: StartError) -> Self {
        let kind = match &error {
            StartError::Join(peer::JoinError::Unreachable(_)) => ErrorKind::Unavailable,
            StartError::Join(
                peer::JoinError::Expired | peer::JoinError::Refused(_) | peer::JoinError::NotAMember(_),
            )
            | StartError::Token(_) => ErrorKind::Unauthorized,
            StartError::Change(_) => ErrorKind::Conflict,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl Node {
    pub(super) fn of_cluster(&self) -> Result<Arc<Member>, ControlError> {
        self.member().ok_or_else(|| {
            ControlError::new(ErrorKind::Unavailable, "this node is of no cluster yet, or still starting")
        })
    }

    /// A member by its name or its id of 16 hexadecimal digits.
    pub(super) fn find(member: &Member, wanted: &str) -> Result<NodeId, ControlError> {
        let status = member.raft.status();
        let found: Vec<NodeId> = status
            .members()
            .filter(|m| m.name == wanted || format!("{:016x}", m.node) == wanted)
            .map(|m| m.node)
            .collect();
        match found.as_slice() {
            [one] => Ok(*one),
            [] => Err(ControlError::new(ErrorKind::NotFound, format!("no member is called {wanted:?}"))),
            _ => Err(ControlError::new(
                ErrorKind::Invalid,
                format!("several members are called {wanted:?}; name one by its id"),
            )),
        }
    }

    /// [`Self::cluster_status`], and what is wrong with the members as each says of itself.
    async fn cluster_health(&self) -> ClusterStatus {
        let mut answer = self.cluster_status();
        let Some(member) = self.member() else { return answer };
        let up = |id| member.broker.state().node(id).is_some_and(|n| n.up);
        let mut troubles = member.raft.troubles(up).await;
        for shown in &mut answer.members {
            let id = u64::from_str_radix(&shown.id, 16).unwrap_or_default();
            shown.trouble = troubles.remove(&id);
            // A leader that hears nobody any more still takes itself for one, and the others for up.
            if id == self.id() && !member.lease.is_valid() {
                shown.trouble.get_or_insert_with(|| NO_LEASE.to_owned());
            }
        }
        answer
    }

    fn cluster_status(&self) -> ClusterStatus {
        let mut answer = ClusterStatus {
            cluster_id: self.cluster_id().map(|id| id.to_string()),
            node: self.info().name.clone(),
            ..ClusterStatus::default()
        };
        let Some(member) = self.member() else { return answer };
        let status = member.raft.status();
        let state = member.broker.state();
        answer.term = status.term;
        answer.feature_level = state.feature_level();
        answer.ca = Some(member.channels.identity().keyring.standing().current.to_string());
        let last = status.last_log.unwrap_or(0).max(status.committed.unwrap_or(0));
        for peer in status.members() {
            let known = state.node(peer.node);
            let info = known.as_ref().map(|n| n.info.clone()).unwrap_or_default();
            let matched = if peer.node == self.id() {
                status.applied
            } else {
                status.followers.iter().find(|f| f.node == peer.node).and_then(|f| f.matched)
            };
            let leads = status.leader == Some(peer.node);
            if leads {
                answer.leader = Some(peer.name.clone());
            }
            answer.members.push(MemberInfo {
                id: format!("{:016x}", peer.node),
                name: peer.name.clone(),
                role: if status.is_voter(peer.node) { Role::Voter } else { Role::Learner },
                state: if known.is_some_and(|n| n.up) { MemberState::Up } else { MemberState::Down },
                draining: state.draining(peer.node).is_some(),
                peer_addr: member.channels.address(peer.node).unwrap_or_else(|| peer.peer_addr.clone()),
                api_addr: info.api_addr,
                mqtt_addr: info.mqtt_addr,
                ws_addr: info.ws_addr,
                applied: matched.unwrap_or(0),
                lag: matched.map_or(0, |matched| last.saturating_sub(matched)),
                version: info.version,
                leader: leads,
                trouble: None,
            });
        }
        answer.members.sort_by(|a, b| a.name.cmp(&b.name));
        answer
    }

    async fn until_serving(&self) -> Result<ClusterStatus, ControlError> {
        let mut listening = self.listening();
        let served = tokio::time::timeout(SERVING_TIMEOUT, listening.wait_for(|up| *up)).await;
        match served {
            Ok(Ok(_)) => Ok(self.cluster_status()),
            _ => Err(ControlError::new(
                ErrorKind::Timeout,
                "the node is a member, but does not serve clients yet; see `rookery cluster status`",
            )),
        }
    }

    fn shown(&self, member: &Member, info: state::ClientInfo) -> ClientInfo {
        let node = info.owner.map(|(node, _)| {
            let name = member.broker.state().node(node).map(|n| n.info.name);
            name.unwrap_or_else(|| format!("{node:016x}"))
        });
        let conn = member.broker.clients().owner(&info.client, info.incarnation);
        ClientInfo {
            id: info.client.to_string(),
            connected: node.is_some(),
            node,
            persistent: info.persistent,
            incarnation: info.incarnation,
            expiry_s: info.expiry_s,
            subscriptions: info.subscriptions as u64,
            queued: info.queued as u64,
            queued_bytes: info.queued_bytes as u64,
            username: conn
                .as_ref()
                .and_then(|conn| conn.principal())
                .map(|principal| principal.name.to_string()),
            address: conn.map(|conn| conn.peer()),
        }
    }
}

async fn ca_status(member: &Member) -> CaStatus {
    let mut members: Vec<CaMember> = member
        .raft
        .standings()
        .await
        .into_iter()
        .map(|(peer, standing)| CaMember {
            name: peer.name,
            state: match standing {
                None => CaState::Unreachable,
                Some(peer::Standing { old: Some(_), .. }) => CaState::TrustsOld,
                Some(peer::Standing { next: Some(_), .. }) => CaState::TrustsNext,
                Some(_) => CaState::Settled,
            },
            fingerprint: standing.map(|standing| standing.current.to_string()),
        })
        .collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    CaStatus {
        fingerprint: member.channels.identity().keyring.standing().current.to_string(),
        rotating: members.iter().any(|m| matches!(m.state, CaState::TrustsNext | CaState::TrustsOld)),
        members,
    }
}

fn no_such_client(id: &str) -> ControlError {
    ControlError::new(ErrorKind::NotFound, format!("no client or session has the id {id:?}"))
}

/// `Control` by the shared node: its answers outlive the call.
impl Control for Arc<Node> {
    fn status(&self) -> Answer<'_, ClusterStatus> {
        Box::pin(async { Ok(self.cluster_health().await) })
    }

    fn init(&self) -> Answer<'_, ClusterStatus> {
        Box::pin(async {
            if !Node::init(self).await? {
                return Err(ControlError::new(ErrorKind::Conflict, "this node is of a cluster already"));
            }
            self.until_serving().await
        })
    }

    fn token(&self, ttl_s: u64) -> Answer<'_, JoinToken> {
        Box::pin(async move {
            let member = self.of_cluster()?;
            let mut seeds = vec![self.info().peer_addr.clone()];
            seeds.extend(member.channels.known().into_iter().map(|(_, addr)| addr));
            let expires_s = env::wall_ms() / 1000 + ttl_s;
            let token = peer::JoinToken::issue(member.channels.identity(), expires_s, seeds)
                .map_err(|e| ControlError::new(ErrorKind::Internal, e.to_string()))?;
            Ok(JoinToken { token: token.to_string(), expires_in_s: ttl_s })
        })
    }

    fn join(&self, seeds: Vec<String>, token: String) -> Answer<'_, ClusterStatus> {
        Box::pin(async move {
            let mut token: peer::JoinToken = token.parse().map_err(StartError::Token)?;
            if !seeds.is_empty() {
                token.seeds = seeds;
            }
            Node::join(self, &token).await?;
            self.until_serving().await
        })
    }

    fn leave(&self) -> Answer<'_, ()> {
        Box::pin(async {
            let member = self.of_cluster()?;
            member.raft.leave().await?;
            self.no_member(Ended::Left).await;
            Ok(())
        })
    }

    fn forget(&self, node: String, force: bool) -> Answer<'_, ()> {
        Box::pin(async move {
            let member = self.of_cluster()?;
            let id = Node::find(&member, &node)?;
            let runs = member.broker.state().node(id).is_some_and(|n| n.up);
            if runs && !force {
                return Err(ControlError::new(
                    ErrorKind::Unsafe,
                    format!("{node} is up; run `rookery cluster leave` on it, or stop it first"),
                ));
            }
            Ok(member.raft.change(Change::Remove(id)).await?)
        })
    }

    fn transfer_leader(&self, to: Option<String>) -> Answer<'_, NewLeader> {
        Box::pin(async move {
            let member = self.of_cluster()?;
            let to = to.map(|to| Node::find(&member, &to)).transpose()?;
            let mut leader = member.raft.leader_changes();
            let old = *leader.borrow_and_update();
            member.raft.change(Change::TransferLeader(to)).await?;
            let wanted =
                |now: &Option<NodeId>| now.is_some() && (to.is_none_or(|to| *now == Some(to)) || *now != old);
            let _ = tokio::time::timeout(Duration::from_secs(3), leader.wait_for(wanted)).await;
            let leader = self
                .cluster_status()
                .leader
                .ok_or_else(|| ControlError::new(ErrorKind::Timeout, "no leader has been seen since"))?;
            Ok(NewLeader { leader })
        })
    }

    fn ca(&self) -> Answer<'_, CaStatus> {
        Box::pin(async { Ok(ca_status(&*self.of_cluster()?).await) })
    }

    fn rotate_ca(&self, force: bool) -> Answer<'_, CaStatus> {
        Box::pin(async move {
            let member = self.of_cluster()?;
            let standing = member.channels.identity().keyring.standing();
            // The one before a rotation that has to be gone on with.
            let from = standing.old.unwrap_or(standing.current);
            member.raft.change(Change::Rotate { from, force }).await?;
            Ok(ca_status(&member).await)
        })
    }

    fn ready(&self) -> Readiness {
        let mut reasons = Vec::new();
        let trouble = self.disk().trouble();
        reasons.extend(trouble.as_deref());
        match self.member() {
            None => reasons.push("of no cluster yet"),
            Some(member) => {
                if member.raft.leader().is_none() {
                    reasons.push("no leader is known");
                }
                if !member.broker.is_alive() {
                    reasons.push("its start has not been applied yet");
                }
                if !member.broker.knows_the_time() {
                    reasons.push("finding out for how long the cluster was down");
                }
                if !member.lease.is_valid() {
                    reasons.push(NO_LEASE);
                }
                if !self.is_listening() {
                    reasons.push("not listening yet");
                }
            }
        }
        if self.member().is_some_and(|member| member.broker.is_draining()) {
            reasons.push("letting its clients go");
        }
        if self.is_stopping() {
            reasons.push("stopping");
        }
        Readiness { ready: reasons.is_empty(), reasons: reasons.into_iter().map(str::to_owned).collect() }
    }

    fn started(&self) -> Startup {
        let mut reasons = Vec::new();
        if !self.has_started() {
            match self.member() {
                None if self.cluster_id().is_none() => reasons.push("of no cluster yet"),
                None => reasons.push("opening what it has on disk"),
                Some(member) if member.broker.is_alive() => reasons.push("not listening yet"),
                Some(member) => {
                    reasons.push("its start has not been applied yet");
                    if member.raft.leader().is_none() {
                        reasons.push("no leader is known");
                    }
                }
            }
        }
        Startup { started: reasons.is_empty(), reasons: reasons.into_iter().map(str::to_owned).collect() }
    }

    fn clients(&self, cursor: Option<String>, limit: usize) -> Answer<'_, ClientPage> {
        Box::pin(async move {
            let member = self.of_cluster()?;
            let page = member.broker.state().clients(cursor.as_deref(), limit);
            let next = (page.len() == limit).then(|| page.last().map(|c| c.client.to_string())).flatten();
            Ok(ClientPage { clients: page.into_iter().map(|c| self.shown(&member, c)).collect(), next })
        })
    }

    fn client(&self, id: String) -> Answer<'_, ClientInfo> {
        Box::pin(async move {
            let member = self.of_cluster()?;
            let info = member.broker.state().client(&id).ok_or_else(|| no_such_client(&id))?;
            Ok(self.shown(&member, info))
        })
    }

    fn kick(&self, id: String) -> Answer<'_, ()> {
        Box::pin(async move {
            let member = self.of_cluster()?;
            if member.broker.state().client(&id).is_none() {
                return Err(no_such_client(&id));
            }
            member
                .broker
                .end_session(&id)
                .await
                .map_err(|e| ControlError::new(ErrorKind::Unavailable, e.to_string()))
        })
    }

    fn metrics_text(&self) -> String {
        self.registry().map(admin::encode).unwrap_or_default()
    }
}
