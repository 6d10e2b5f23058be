//! TLS between nodes: 1.3 only, both sides with a certificate of the cluster's own CA. No session is
//! resumed: a connection is to be proved by what is believed now.

use std::io;
use std::sync::{Arc, OnceLock};

use hyper_util::client::legacy::connect::HttpConnector;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Uri;
use tower::ServiceExt;

use super::auth::ClusterId;
use super::authority::{Certified, Fingerprint, Proven, Roots, Side};

/// What gRPC is spoken over.
const PROTOCOL: &[u8] = b"h2";

fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider()))
}

/// How certificates may be signed.
pub(super) fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

/// Asks callers for a certificate, and lets in those that have none: they may only join.
pub(super) fn server_config(
    own: &Certified,
    ca: &CertificateDer<'static>,
    roots: Roots,
) -> Result<Arc<ServerConfig>, Error> {
    let (chain, key) = shown(own, Some(ca));
    let mut config = ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(Believed::Members(roots)))
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Shows this node's certificate, and believes those of members.
pub(super) fn client_config(own: &Certified, roots: Roots) -> Result<Arc<ClientConfig>, Error> {
    let (chain, key) = shown(own, None);
    let config = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believed::Members(roots)))
        .with_client_auth_cert(chain, key)?;
    Ok(client(config))
}

/// For a newcomer, which has no certificate: it believes the CA of which it was told the fingerprint.
pub(super) fn joining_config(cluster: ClusterId, ca: Fingerprint) -> Result<Arc<ClientConfig>, Error> {
    let config = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believed::Pinned { cluster, ca }))
        .with_no_client_auth();
    Ok(client(config))
}

fn client(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Arc::new(config)
}

/// A newcomer needs the CA's certificate; members have it.
fn shown(
    own: &Certified,
    ca: Option<&CertificateDer<'static>>,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = std::iter::once(own.certificate.clone().into()).chain(ca.cloned()).collect();
    (chain, PrivateKeyDer::Pkcs8(own.key.clone().into()))
}

/// Opens a connection to a host and port and encrypts it.
///
/// # Errors
/// Those of the network, and [`rejected`] ones.
pub(super) async fn connect(to: Uri, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let mut network = HttpConnector::new();
    network.set_nodelay(true);
    let tcp = network.oneshot(to).await.map_err(io::Error::other)?.into_inner();
    // It is not sent: who answers proves which node it is.
    let name = ServerName::try_from("rookery").map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, tcp).await
}

/// Whether the other side's certificate, or this side's, was not accepted.
pub(super) fn rejected(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    use rustls::AlertDescription as Alert;
    matches!(
        tls,
        Some(
            Error::InvalidCertificate(_)
                | Error::AlertReceived(
                    Alert::UnknownCA
                        | Alert::BadCertificate
                        | Alert::CertificateUnknown
                        | Alert::AccessDenied
                        | Alert::DecryptError
                )
        )
    )
}

/// Whose certificates are believed.
#[derive(Debug)]
enum Believed {
    /// Those of members.
    Members(Roots),
    /// That of any node of the cluster whose CA has the fingerprint; it shows its CA as well.
    Pinned { cluster: ClusterId, ca: Fingerprint },
}

impl Believed {
    fn check(
        &self,
        shown: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        side: Side,
        now: UnixTime,
    ) -> Result<Proven, Error> {
        let proven = match self {
            Self::Members(roots) => roots.prove(shown, side, now),
            Self::Pinned { cluster, ca } => others
                .iter()
                .find(|other| Fingerprint::of(other) == *ca)
                .and_then(|ca| Roots::new(*cluster).believe(ca).ok())
                .and_then(|roots| roots.prove(shown, side, now)),
        };
        proven.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }
}

impl ServerCertVerifier for Believed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, Side::Server, now).map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

impl ClientCertVerifier for Believed {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates, Side::Client, now).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

fn too_old() -> Error {
    Error::General("only TLS 1.3 is spoken between nodes".to_owned())
}
