//! Callers of a node's peer port that are none of its cluster: one without a certificate, and one that
//! has a node's keys as a thief of its disk would.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rookery::peer::{Channels, ClusterId, Connector, Identity, Keyring};
use rookery_proto::consensus::HelloRequest;
use rookery_proto::consensus::consensus_client::ConsensusClient;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

use crate::cluster::Cluster;
use crate::http;

const PATIENCE: Duration = Duration::from_secs(5);

/// What the member at `api` says of its cluster.
///
/// # Panics
/// When it says nothing.
pub fn document(api: SocketAddr, path: &str) -> Value {
    let (status, body) = http::get(api, path).expect("the API answers");
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

fn hello() -> HelloRequest {
    HelloRequest { wire: 1, group: 0 }
}

async fn in_time<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let called = tokio::time::timeout(PATIENCE, call).await;
    called.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")))
}

/// The keys of a node as they were on its disk at a moment.
pub struct Stolen {
    runtime: Runtime,
    channels: Channels,
}

impl Stolen {
    /// From node `i` of a cluster.
    ///
    /// # Panics
    /// When it has none.
    pub fn from(cluster: &mut Cluster, i: usize) -> Self {
        let keys = std::fs::read(keys_file(&cluster.node(i).data_dir())).expect("a member's keys");
        let status = document(cluster.api(i), "/api/v1/cluster");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let id: ClusterId = text(&status["cluster_id"]).parse().expect("a cluster's id");
        let named = |m: &&Value| m["name"] == status["node"];
        let member = status["members"].as_array().expect("members").iter().find(named).expect("a member");
        let node = u64::from_str_radix(&text(&member["id"]), 16).expect("a node's id");
        let keyring = Keyring::load(id, node, &keys, Box::new(|_| Ok(()))).expect("usable keys");
        // The owner's address: what the others learn from a caller must not lead them astray.
        let advertised = text(&member["peer_addr"]);
        let runtime = runtime();
        let me = Identity { cluster: id, node, advertised, keyring: keyring.clone() };
        let channels = Channels::new(me, Connector::new(&keyring), runtime.handle().clone());
        Self { runtime, channels }
    }

    /// Whether the member at `peer` takes this for the node that it was stolen from.
    pub fn is_believed(&self, peer: SocketAddr) -> bool {
        let channel = self.channels.dial(&peer.to_string()).expect("an address");
        let called = self.runtime.block_on(in_time(ConsensusClient::new(channel).hello(hello())));
        match called {
            Ok(_) => true,
            Err(status) if matches!(status.code(), Code::Unavailable | Code::Unauthenticated) => false,
            // The connection is ended as soon as the certificate has been seen.
            Err(status) if status.code() == Code::Unknown => false,
            Err(status) => panic!("neither believed nor refused: {status:?}"),
        }
    }
}

/// Where a node keeps what it proves itself by.
pub fn keys_file(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("cluster.keys")
}

/// What the member at `peer` answers to a member's call that comes over TLS without a certificate.
pub fn call_without_certificate(peer: SocketAddr) -> Result<(), Status> {
    runtime().block_on(async {
        let connector = tower::service_fn(move |_: tonic::transport::Uri| async move {
            let tcp = TcpStream::connect(peer).await?;
            let name = ServerName::try_from("anybody").expect("a name");
            let tls = tokio_rustls::TlsConnector::from(Arc::new(trusting_all())).connect(name, tcp).await?;
            Ok::<_, std::io::Error>(TokioIo::new(tls))
        });
        let endpoint = Endpoint::from_shared(format!("http://{peer}")).expect("an address");
        let channel = endpoint.connect_with_connector(connector).await.expect("TLS is offered to anybody");
        in_time(ConsensusClient::new(channel).hello(hello())).await.map(drop)
    })
}

/// The first bytes of a TLS client that goes no further.
pub fn client_hello() -> Vec<u8> {
    let name = ServerName::try_from("anybody").expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::new(trusting_all()), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("written to memory");
    hello
}

fn trusting_all() -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a version that fits the ciphers")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Believes every server: this is a stranger, which wants in.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
