//! Joining a cluster with a token: the newcomer makes sure that it talks to a member, by the CA's
//! fingerprint in the token; proves that it has the token's key without sending it; and gets what makes
//! a member, sealed with a key made from it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use rookery_proto::consensus as pb;
use rookery_proto::consensus::membership_client::MembershipClient;
use rookery_proto::consensus::membership_server::{Membership, MembershipServer};
use tokio::runtime::Handle;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tracing::{info, warn};

use super::auth::{ClusterId, Identity, NoRandomness, RateLimit, fill_random};
use super::channel::endpoint;
use super::connection::Caller;
use super::keyring::Grant;
use super::member::Member;
use super::tls;
use super::token::{JoinToken, member_key};
use crate::env;
use crate::raft::wire;

const NONCE_LEN: usize = 32;
/// Longest name and address of a newcomer, bytes.
const MAX_TEXT: usize = 300;
/// A whole request, bytes.
const MAX_REQUEST: usize = 16 << 10;
/// One attempt at one member.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
const REFUSAL_LOG_INTERVAL_MS: u64 = 10_000;

/// Adds a newcomer to the cluster, and says who its members are.
pub type Admit = Arc<dyn Fn(Member) -> BoxFuture<'static, Result<Vec<Member>, String>> + Send + Sync>;

/// What a newcomer gets.
#[derive(Clone, Debug)]
pub struct Joined {
    pub cluster: ClusterId,
    pub grant: Grant,
    /// With their addresses; the newcomer is among them.
    pub members: Vec<Member>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    #[error("the join token has expired; make a new one on a member with `rookery cluster token`")]
    Expired,
    #[error("the cluster does not let this node in: {0}")]
    Refused(String),
    #[error("no member could be reached: {0}")]
    Unreachable(String),
    #[error(
        "{0} answered, but is no member of the cluster that the token is for, or the cluster's CA was replaced \
         since: compare the address, or make a new token on a member with `rookery cluster token`"
    )]
    NotAMember(String),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Asks the members that the token names, in turn, to let `me` in. May be repeated.
///
/// # Errors
/// See [`JoinError`].
pub async fn join(token: &JoinToken, me: &Member, runtime: &Handle) -> Result<Joined, JoinError> {
    if token.expires_s <= env::wall_ms() / 1000 {
        return Err(JoinError::Expired);
    }
    let mut unreachable = Vec::new();
    for seed in &token.seeds {
        match ask(token, me, runtime, seed).await {
            Err(JoinError::Unreachable(why)) => unreachable.push(format!("{seed}: {why}")),
            result => return result,
        }
    }
    if unreachable.is_empty() {
        unreachable.push("the token names none".to_owned());
    }
    Err(JoinError::Unreachable(unreachable.join("; ")))
}

async fn ask(token: &JoinToken, me: &Member, runtime: &Handle, seed: &str) -> Result<Joined, JoinError> {
    let dialled = {
        let (token, seed) = (token.clone(), seed.to_owned());
        runtime.spawn(async move { dial(&token, &seed).await }).await
    };
    let channel = dialled.map_err(|e| JoinError::Unreachable(e.to_string()))??;
    let key = token.signing_key();
    let mut nonce = [0; NONCE_LEN];
    fill_random(&mut nonce)?;
    let mut request = pb::JoinRequest {
        wire: wire::WIRE_VERSION,
        group: wire::GROUP,
        cluster: token.cluster.0.to_vec().into(),
        expires_s: token.expires_s,
        token_id: token.id.to_vec().into(),
        nonce: nonce.to_vec().into(),
        joiner: Some(me.clone().into()),
        proof: bytes::Bytes::new(),
    };
    request.proof = hmac::sign(&key, &request_bytes(&request)).as_ref().to_vec().into();
    let mut client = MembershipClient::new(channel);
    let answer = match tokio::time::timeout(ATTEMPT_TIMEOUT, client.join(request.clone())).await {
        Err(_) => return Err(JoinError::Unreachable("no answer in time".to_owned())),
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded) => {
            return Err(JoinError::Unreachable(status.message().to_owned()));
        }
        Ok(Err(status)) => return Err(JoinError::Refused(status.message().to_owned())),
    };
    let foreign = || JoinError::NotAMember(seed.to_owned());
    hmac::verify(&key, &answer_bytes(&request, &answer), &answer.proof).map_err(|_| foreign())?;
    let mut sealed = answer.sealed_grant.to_vec();
    let grant = sealing_key(&key, &request.nonce, &answer.nonce)
        .and_then(|k| k.open_in_place(zero_nonce(), Aad::from(&request.nonce), &mut sealed).ok())
        .and_then(|opened| Grant::decode(opened))
        .ok_or_else(foreign)?;
    Ok(Joined {
        cluster: token.cluster,
        grant,
        members: answer.members.into_iter().map(Member::from).collect(),
    })
}

/// A connection to a member, as the token tells one.
pub(super) async fn dial(token: &JoinToken, seed: &str) -> Result<Channel, JoinError> {
    let unreachable = |e: &dyn fmt::Display| JoinError::Unreachable(e.to_string());
    let endpoint = endpoint(seed).map_err(|e| unreachable(&e))?;
    let config = tls::joining_config(token.cluster, token.ca).map_err(|e| unreachable(&e))?;
    let connecting = tls::connect(endpoint.uri().clone(), config);
    let connected = tokio::time::timeout(ATTEMPT_TIMEOUT, connecting).await.map_err(|e| unreachable(&e))?;
    let connection = connected.map_err(|error| match tls::rejected(&error) {
        true => JoinError::NotAMember(seed.to_owned()),
        false => unreachable(&error),
    })?;
    // It is not made again: the request goes over it or nowhere.
    let mut once = Some(TokioIo::new(connection));
    let connector = tower::service_fn(move |_| {
        std::future::ready(once.take().ok_or_else(|| io::Error::other("the member ended the connection")))
    });
    endpoint.connect_with_connector(connector).await.map_err(|e| unreachable(&e))
}

/// The member's side, mounted without [`super::Verifier`].
pub fn membership_server(member: Identity, admit: Admit) -> MembershipServer<JoinService> {
    let service = JoinService { member, admit, log: RateLimit::new(REFUSAL_LOG_INTERVAL_MS) };
    MembershipServer::new(service).max_decoding_message_size(MAX_REQUEST)
}

pub struct JoinService {
    member: Identity,
    admit: Admit,
    log: RateLimit,
}

impl JoinService {
    /// The key of the request's token, and who asks.
    fn check(&self, request: &pb::JoinRequest) -> Result<(hmac::Key, Member), Status> {
        wire::check(request.wire, request.group)?;
        if request.cluster[..] != self.member.cluster.0 {
            return Err(Status::permission_denied(format!(
                "the join token is for another cluster than this node's, {}",
                self.member.cluster
            )));
        }
        if self.member.keyring.standing().is_rotating() {
            return Err(Status::unavailable(
                "the cluster's CA is being replaced; try again when that is done, with a new token, or \
                 finish it with `rookery cluster rotate-ca`",
            ));
        }
        let forged = || Status::permission_denied("the join token is not genuine");
        let id = request.token_id[..].try_into().map_err(|_| forged())?;
        let key = member_key(&self.member, &id, request.expires_s);
        // Constant in time.
        hmac::verify(&key, &request_bytes(request), &request.proof).map_err(|_| forged())?;
        if request.expires_s <= env::wall_ms() / 1000 {
            return Err(Status::permission_denied(
                "the join token has expired; make a new one on a member with `rookery cluster token`",
            ));
        }
        let joiner: Member = request.joiner.clone().map(Member::from).unwrap_or_else(|| Member {
            node: 0,
            name: String::new(),
            peer_addr: String::new(),
        });
        if joiner.node == 0
            || joiner.node == self.member.node
            || joiner.peer_addr.is_empty()
            || joiner.peer_addr.len() > MAX_TEXT
            || joiner.name.len() > MAX_TEXT
            || request.nonce.len() != NONCE_LEN
        {
            return Err(Status::invalid_argument("the newcomer does not say who and where it is"));
        }
        Ok((key, joiner))
    }
}

#[tonic::async_trait]
impl Membership for JoinService {
    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinResponse>, Status> {
        let from = Caller::shown(&request);
        let request = request.into_inner();
        let (key, joiner) = self.check(&request).inspect_err(|status| {
            if let Some(suppressed) = self.log.permit() {
                warn!(%from, suppressed, "refused to let a node join: {}", status.message());
            }
        })?;
        info!("node {:016x} ({}) at {} joins with a token", joiner.node, joiner.name, joiner.peer_addr);
        let members = (self.admit)(joiner).await.map_err(Status::unavailable)?;
        let mut nonce = [0; NONCE_LEN];
        fill_random(&mut nonce).map_err(|e| Status::internal(e.to_string()))?;
        let mut sealed = self.member.keyring.grant().encode();
        sealing_key(&key, &request.nonce, &nonce)
            .and_then(|k| {
                k.seal_in_place_append_tag(zero_nonce(), Aad::from(&request.nonce), &mut sealed).ok()
            })
            .ok_or_else(|| Status::internal("the cluster's keys could not be sealed"))?;
        let mut answer = pb::JoinResponse {
            sealed_grant: sealed.into(),
            nonce: nonce.to_vec().into(),
            members: members.into_iter().map(Into::into).collect(),
            proof: bytes::Bytes::new(),
        };
        answer.proof = hmac::sign(&key, &answer_bytes(&request, &answer)).as_ref().to_vec().into();
        Ok(Response::new(answer))
    }
}

/// A key for one answer; both sides contribute a nonce, so it never seals twice.
fn sealing_key(key: &hmac::Key, asked: &[u8], answered: &[u8]) -> Option<LessSafeKey> {
    let mut message = b"rookery join seal\x01".to_vec();
    put(&mut message, asked);
    put(&mut message, answered);
    let derived = hmac::sign(key, &message);
    UnboundKey::new(&AES_256_GCM, derived.as_ref()).ok().map(LessSafeKey::new)
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn put(to: &mut Vec<u8>, part: &[u8]) {
    to.extend_from_slice(&(part.len() as u64).to_be_bytes());
    to.extend_from_slice(part);
}

fn put_member(to: &mut Vec<u8>, member: &pb::Member) {
    put(to, &member.node.to_be_bytes());
    put(to, member.name.as_bytes());
    put(to, member.peer_addr.as_bytes());
}

/// What the newcomer's proof covers.
fn request_bytes(request: &pb::JoinRequest) -> Vec<u8> {
    let mut bytes = b"rookery join request\x01".to_vec();
    put(&mut bytes, &request.cluster);
    put(&mut bytes, &request.expires_s.to_be_bytes());
    put(&mut bytes, &request.token_id);
    put(&mut bytes, &request.nonce);
    if let Some(joiner) = &request.joiner {
        put_member(&mut bytes, joiner);
    }
    bytes
}

/// What the member's proof covers.
fn answer_bytes(request: &pb::JoinRequest, answer: &pb::JoinResponse) -> Vec<u8> {
    let mut bytes = b"rookery join answer\x01".to_vec();
    put(&mut bytes, &request.nonce);
    put(&mut bytes, &answer.nonce);
    put(&mut bytes, &answer.sealed_grant);
    for member in &answer.members {
        put_member(&mut bytes, member);
    }
    bytes
}
