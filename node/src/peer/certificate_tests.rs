//! Who gets in at the peer port, and who does not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rookery_proto::consensus as pb;
use rookery_proto::consensus::keys_client::KeysClient;
use rookery_proto::consensus::membership_client::MembershipClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Status};

use super::authority::Roots;
use super::testing::{CLUSTER, authority, identity, identity_by};
use super::*;
use crate::env;
use crate::raft::wire;
use crate::state::NodeId;

const PATIENCE: Duration = Duration::from_secs(10);

/// A member: what it believes can be asked by members, and anybody may join.
struct Server {
    me: Identity,
    at: String,
}

impl Server {
    async fn start(me: Identity) -> Self {
        let listener = listen("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("bound").to_string();
        let channels = Channels::new(me.clone(), Connector::new(&me.keyring), Handle::current());
        let keys = InterceptedService::new(keys_server(me.keyring.clone()), Verifier::new(channels));
        let admit: Admit = Arc::new(|joiner| Box::pin(async move { Ok(vec![joiner]) }));
        let routes = Routes::new(keys).add_service(membership_server(me.clone(), admit));
        let incoming = incoming(listener, me.keyring.clone());
        env::spawn(async move { serve(routes, incoming, std::future::pending()).await });
        Self { me, at }
    }

    /// As `caller`, which takes this for the node `whom`.
    async fn called_by(&self, caller: &Identity, whom: NodeId) -> Result<Standing, Status> {
        let channels = Channels::new(caller.clone(), Connector::new(&caller.keyring), Handle::current());
        channels.learn(whom, &self.at);
        look(channels.consensus(whom).expect("known")).await
    }

    fn token(&self, ca: Fingerprint) -> JoinToken {
        let token = JoinToken::issue(&self.me, env::wall_ms() / 1000 + 3600, vec![self.at.clone()]);
        let mut token = token.expect("randomness");
        token.ca = ca;
        token
    }
}

async fn look(channel: PeerChannel) -> Result<Standing, Status> {
    let look = pb::KeysLook { wire: wire::WIRE_VERSION, group: wire::GROUP, term: 0 };
    let answer = tokio::time::timeout(PATIENCE, KeysClient::new(channel).look(look)).await;
    let answer = answer.map_err(|_| Status::deadline_exceeded("no answer"))??;
    Ok(rotation::standing_in(&answer.into_inner()).expect("makes sense"))
}

fn other() -> Authority {
    Authority::generate(CLUSTER).expect("randomness")
}

fn newcomer() -> Member {
    Member { node: 9, name: "new".into(), peer_addr: "127.0.0.1:9".into() }
}

#[tokio::test]
async fn members_reach_each_other_and_only_whom_they_mean() {
    let server = Server::start(identity(1, "a:1")).await;
    let caller = identity(2, "b:1");
    let standing = server.called_by(&caller, 1).await.expect("a member");
    assert_eq!(standing.current, authority().fingerprint());
    let error = server.called_by(&caller, 3).await.expect_err("another node answers");
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
}

#[tokio::test]
async fn without_a_certificate_one_can_only_join() {
    let server = Server::start(identity(1, "a:1")).await;
    let token = server.token(authority().fingerprint());
    let stranger = join::dial(&token, &server.at).await.expect("TLS without a certificate");
    // Even with the cluster's secret.
    let credentials = Credentials::new(identity(2, "b:1"), 1, Purpose::Consensus).expect("an address");
    let error = look(InterceptedService::new(stranger.clone(), credentials)).await.expect_err("refused");
    assert_eq!(error.code(), Code::Unauthenticated, "{error:?}");
    assert!(error.message().contains("no certificate"), "{error:?}");
    // The service for newcomers answers on the same connection, if only to say no.
    let error = MembershipClient::new(stranger).join(pb::JoinRequest::default()).await.expect_err("no token");
    assert_ne!(error.code(), Code::Unauthenticated, "{error:?}");
    join(&token, &newcomer(), &Handle::current()).await.expect("joined");
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused_by_both_sides() {
    let server = Server::start(identity(1, "a:1")).await;
    let stranger = identity_by(other(), 2, "b:1");
    let error = server.called_by(&stranger, 1).await.expect_err("it does not believe the server");
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    // One that believes everybody is refused by the server.
    let believing = Roots::new(CLUSTER).believe(&authority().certificate()).expect("a CA");
    let own = other().issue(CLUSTER, 2).expect("signed");
    let config = tls::client_config(&own, believing).expect("a configuration");
    let uri = format!("http://{}", server.at).parse().expect("a URI");
    let mut connection = tls::connect(uri, config).await.expect("the server is believed");
    // In TLS 1.3 a client hears afterwards that its certificate was refused.
    let error = connection.read(&mut [0; 1]).await.expect_err("refused");
    assert!(tls::rejected(&error), "{error}");
}

#[tokio::test]
async fn a_members_certificate_does_not_let_it_speak_as_another() {
    let server = Server::start(identity(1, "a:1")).await;
    let impostor = Identity { node: 2, ..identity(3, "b:1") };
    let error = server.called_by(&impostor, 1).await.expect_err("refused");
    assert_eq!(error.code(), Code::Unauthenticated, "{error:?}");
    assert!(error.message().contains("its certificate is that of"), "{error:?}");
}

#[tokio::test]
async fn a_certificate_without_the_secret_is_not_enough() {
    let server = Server::start(identity(1, "a:1")).await;
    let guessing = identity_by(authority().with_secret([1; SECRET_LEN]), 2, "b:1");
    let error = server.called_by(&guessing, 1).await.expect_err("refused");
    assert_eq!(error.code(), Code::Unauthenticated, "{error:?}");
    assert!(error.message().contains("does not know the cluster's secret"), "{error:?}");
}

#[tokio::test]
async fn what_is_not_encrypted_is_not_answered() {
    let server = Server::start(identity(1, "a:1")).await;
    let address: SocketAddr = server.at.parse().expect("an address");
    let mut plain = TcpStream::connect(address).await.expect("connects");
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("sent");
    let mut answer = Vec::new();
    // An alert at most, and the end.
    let ended = tokio::time::timeout(PATIENCE, plain.read_to_end(&mut answer)).await;
    let _ = ended.expect("closed");
    assert!(answer.len() < 10 && answer.first().is_none_or(|kind| *kind == 21), "{answer:?}");
}

#[tokio::test]
async fn a_newcomer_talks_to_nobody_but_the_cluster_it_was_told_of() {
    let server = Server::start(identity(1, "a:1")).await;
    let token = server.token(other().fingerprint());
    let error = join(&token, &newcomer(), &Handle::current()).await.expect_err("another CA");
    assert_eq!(error, JoinError::NotAMember(server.at.clone()));
}

#[tokio::test]
async fn what_was_proved_by_a_forgotten_ca_ends() {
    let server = Server::start(identity(1, "a:1")).await;
    let thief = identity(2, "b:1");
    let channels = Channels::new(thief.clone(), Connector::new(&thief.keyring), Handle::current());
    channels.learn(1, &server.at);
    let channel = channels.consensus(1).expect("known");
    look(channel.clone()).await.expect("a member, so far");
    let new = other();
    let (keyring, fingerprint) = (&server.me.keyring, new.fingerprint());
    for step in [Step::Trust(new.clone()), Step::Use(fingerprint)] {
        keyring.carry_out(step, 1).await.expect("taken");
        look(channel.clone()).await.expect("still believed");
    }
    let member = identity_by(new, 3, "c:1");
    server.called_by(&member, 1).await.expect("the new one is believed");
    keyring.carry_out(Step::KeepOnly(fingerprint), 1).await.expect("taken");
    // Both the connection that was there, and any other.
    for _ in 0..3 {
        look(channel.clone()).await.expect_err("forgotten");
    }
    server.called_by(&thief, 1).await.expect_err("forgotten");
    server.called_by(&member, 1).await.expect("and the new one goes on");
}

#[tokio::test]
async fn who_was_away_in_the_middle_follows_what_the_others_use() {
    let server = Server::start(identity(1, "a:1")).await;
    let away = identity(2, "b:1");
    let new = other();
    for keyring in [&server.me.keyring, &away.keyring] {
        keyring.carry_out(Step::Trust(new.clone()), 1).await.expect("taken");
    }
    for step in [Step::Use(new.fingerprint()), Step::KeepOnly(new.fingerprint())] {
        server.me.keyring.carry_out(step, 1).await.expect("taken");
    }
    let mut outcome = server.called_by(&away, 1).await;
    for _ in 0..5 {
        if outcome.is_ok() {
            break;
        }
        outcome = server.called_by(&away, 1).await;
    }
    assert_eq!(outcome.expect("follows").current, new.fingerprint());
    assert_eq!(away.keyring.standing().current, new.fingerprint());
}
