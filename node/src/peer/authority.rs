//! What makes a node a member: a certificate signed by the cluster's own CA, and the cluster's secret.
//!
//! Certificates have no end by date (RFC 5280, section 4.1.2.5): a cluster whose clocks are wrong, or
//! whose operator forgot about them, must not fall apart. They end when the authority is replaced.

use std::fmt;

use aws_lc_rs::digest;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, TrustAnchor, UnixTime};
use serde::{Deserialize, Serialize};
use webpki::{EndEntityCert, KeyUsage};

use super::auth::{ClusterId, NoRandomness, SECRET_LEN, Secret, fill_random, hex};
use super::tls;
use crate::state::NodeId;

/// Names a CA: SHA-256 of its certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of a certificate, DER.
    pub(super) fn of(certificate: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Keys and certificates could not be made, or those at hand not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    #[error("no certificate can be made: {0}")]
    Signing(String),
    #[error("the cluster's keys cannot be used: {0}")]
    Unusable(String),
}

impl From<rcgen::Error> for AuthorityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Signing(error.to_string())
    }
}

impl From<rustls::Error> for AuthorityError {
    fn from(error: rustls::Error) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// The CA with its key, and the secret: both are replaced together, since whoever has come to one of
/// them has come to the other. Every member has it, and can therefore let others in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Tells this CA's name from those of the cluster's others.
    name: u64,
    /// PKCS #8.
    key: Vec<u8>,
    /// DER.
    certificate: Vec<u8>,
    secret: [u8; SECRET_LEN],
}

impl Authority {
    /// A new CA, with `secret`.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn new(cluster: ClusterId, secret: &Secret) -> Result<Self, AuthorityError> {
        let mut name = [0; 8];
        fill_random(&mut name)?;
        let name = u64::from_be_bytes(name);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params(cluster, name).self_signed(&key)?.der().to_vec();
        Ok(Self { name, key: key.serialize_der(), certificate, secret: *secret.expose() })
    }

    /// A new CA with a new secret.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn generate(cluster: ClusterId) -> Result<Self, AuthorityError> {
        Self::new(cluster, &Secret::generate()?)
    }

    /// The same CA with another secret.
    #[cfg(test)]
    pub(super) fn with_secret(&self, secret: [u8; SECRET_LEN]) -> Self {
        Self { secret, ..self.clone() }
    }

    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    pub fn secret(&self) -> Secret {
        Secret::new(self.secret)
    }

    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone().into()
    }

    /// Makes a key pair and a certificate for a node.
    ///
    /// # Errors
    /// The authority's own key is none; the system gives no randomness.
    pub(super) fn issue(&self, cluster: ClusterId, node: NodeId) -> Result<Certified, AuthorityError> {
        let ca = params(cluster, self.name);
        let ca_key = PrivatePkcs8KeyDer::from(self.key.as_slice());
        let ca_key = KeyPair::from_pkcs8_der_and_sign_algo(&ca_key, &PKCS_ECDSA_P256_SHA256)?;
        let mut params = unending();
        params.distinguished_name.push(DnType::CommonName, format!("rookery node {node:016x}"));
        params.subject_alt_names = vec![SanType::URI(uri(cluster, node).try_into()?)];
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &Issuer::from_params(&ca, &ca_key))?;
        Ok(Certified { key: key.serialize_der(), certificate: certificate.der().to_vec() })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", self.fingerprint())
    }
}

/// A node's key and certificate.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Certified {
    /// PKCS #8.
    pub key: Vec<u8>,
    /// DER.
    pub certificate: Vec<u8>,
}

fn unending() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    params
}

fn params(cluster: ClusterId, name: u64) -> CertificateParams {
    let mut params = unending();
    params.distinguished_name.push(DnType::CommonName, format!("rookery cluster {cluster} CA {name:016x}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// What a certificate says of its node.
fn uri(cluster: ClusterId, node: NodeId) -> String {
    format!("rookery://{cluster}/{node:016x}")
}

/// What a certificate has proved: which node showed it, and which CA vouches for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven {
    pub node: NodeId,
    pub authority: Fingerprint,
}

/// The side of a connection that shows a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// The CAs that are believed.
#[derive(Clone, Debug)]
pub(super) struct Roots {
    cluster: ClusterId,
    anchors: Vec<(Fingerprint, TrustAnchor<'static>)>,
}

impl Roots {
    pub(super) fn new(cluster: ClusterId) -> Self {
        Self { cluster, anchors: Vec::new() }
    }

    /// # Errors
    /// It is no certificate.
    pub(super) fn believe(mut self, certificate: &CertificateDer<'_>) -> Result<Self, AuthorityError> {
        let anchor = webpki::anchor_from_trusted_cert(certificate)
            .map_err(|e| AuthorityError::Unusable(e.to_string()))?
            .to_owned();
        self.anchors.push((Fingerprint::of(certificate), anchor));
        Ok(self)
    }

    pub(super) fn believes(&self, authority: Fingerprint) -> bool {
        self.anchors.iter().any(|(known, _)| *known == authority)
    }

    /// What `certificate` proves when shown at `now`; that its holder has its key is for the
    /// handshake to see to. It must be signed by a CA directly: one that is about to be forgotten
    /// could otherwise make an intermediate that passes for another.
    pub(super) fn prove(
        &self,
        certificate: &CertificateDer<'_>,
        side: Side,
        now: UnixTime,
    ) -> Option<Proven> {
        let parsed = EndEntityCert::try_from(certificate).ok()?;
        let usage = match side {
            Side::Client => KeyUsage::client_auth(),
            Side::Server => KeyUsage::server_auth(),
        };
        let algorithms = tls::algorithms().all;
        let (authority, _) = self.anchors.iter().find(|(_, anchor)| {
            let anchor = std::slice::from_ref(anchor);
            parsed.verify_for_usage(algorithms, anchor, &[], now, usage, None, None).is_ok()
        })?;
        let prefix = format!("rookery://{}/", self.cluster);
        let mut nodes = parsed.valid_uri_names().filter_map(|uri| uri.strip_prefix(&prefix));
        let node = nodes.next().and_then(|node| NodeId::from_str_radix(node, 16).ok())?;
        nodes.next().is_none().then_some(Proven { node, authority: *authority })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId([5; 16]);

    fn proven(roots: &Roots, certificate: &[u8], side: Side) -> Option<Proven> {
        roots.prove(&certificate.into(), side, UnixTime::now())
    }

    #[test]
    fn a_certificate_proves_a_node_of_the_cluster_at_any_time() {
        let authority = Authority::generate(CLUSTER).expect("randomness");
        let roots = Roots::new(CLUSTER).believe(&authority.certificate()).expect("a CA");
        let node = authority.issue(CLUSTER, 0xab).expect("signed").certificate;
        let expected = Some(Proven { node: 0xab, authority: authority.fingerprint() });
        for side in [Side::Client, Side::Server] {
            assert_eq!(proven(&roots, &node, side), expected);
        }
        for seconds in [0, 1 << 33, 1 << 37] {
            let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
            assert_eq!(roots.prove(&node.as_slice().into(), Side::Client, now), expected, "{seconds}");
        }
    }

    #[test]
    fn nothing_else_proves_anything() {
        let (mine, theirs) = (Authority::generate(CLUSTER), Authority::generate(CLUSTER));
        let (mine, theirs) = (mine.expect("randomness"), theirs.expect("randomness"));
        let roots = Roots::new(CLUSTER).believe(&mine.certificate()).expect("a CA");
        let foreign = theirs.issue(CLUSTER, 1).expect("signed").certificate;
        assert_eq!(proven(&roots, &foreign, Side::Client), None, "of another CA");
        let elsewhere = mine.issue(ClusterId([6; 16]), 1).expect("signed").certificate;
        assert_eq!(proven(&roots, &elsewhere, Side::Client), None, "of another cluster");
        assert_eq!(proven(&roots, &mine.certificate, Side::Server), None, "the CA is no node");
        assert_eq!(proven(&roots, b"garbage", Side::Client), None);
        let none = Roots::new(CLUSTER);
        let good = mine.issue(CLUSTER, 1).expect("signed").certificate;
        assert_eq!(proven(&none, &good, Side::Client), None);
    }

    #[test]
    fn the_keys_are_not_printed() {
        let authority = Authority::new(CLUSTER, &Secret::new([0xee; 32])).expect("randomness");
        let shown = format!("{authority:?}");
        assert_eq!(shown, format!("Authority({})", authority.fingerprint()));
    }
}
