use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use super::{Running, start_with};
use crate::mqtt::{Connect, Version, encode};
use crate::net::{Acceptor, Kind, TlsFiles};
use crate::session::testing::encoded;
use crate::session::{Limits, Metric};

type Authority = CertifiedIssuer<'static, KeyPair>;

const DEVICE: u64 = 7;
const LOST: u64 = 8;
const BRANCH: u64 = 9;

/// One that signs others, itself signed by `by`.
fn authority(name: &str, by: Option<&Authority>) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from(BRANCH));
    let key = KeyPair::generate().expect("a key");
    match by {
        None => CertifiedIssuer::self_signed(params, key),
        Some(by) => CertifiedIssuer::signed_by(params, key, by),
    }
    .expect("a certificate")
}

/// The revocation list of `of`; `until`: the year of its next update.
fn list(of: &Authority, revoked: &[u64], until: i32) -> String {
    let revoked = revoked.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2020, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2019, 1, 1),
        next_update: date_time_ymd(until, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(of).and_then(|list| list.pem()).expect("a list")
}

/// A listener that asks for certificates, and its files.
struct Asking {
    running: Running,
    acceptor: Arc<Acceptor>,
    server: CertificateDer<'static>,
    dir: TempDir,
}

fn write(dir: &Path, name: &str, text: &str) -> Option<PathBuf> {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("written");
    Some(path)
}

fn asking(root: &Authority, lists: Option<&str>) -> Asking {
    let dir = tempfile::tempdir().expect("a directory");
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let files = TlsFiles {
        section: "listeners.tls",
        cert_file: write(dir.path(), "cert", &own.cert.pem()),
        key_file: write(dir.path(), "key", &own.signing_key.serialize_pem()),
        ca_file: write(dir.path(), "ca", &root.pem()),
        crl_file: lists.and_then(|lists| write(dir.path(), "crl", lists)),
        require_client_cert: true,
    };
    let acceptor = Acceptor::load(files, Kind::Tcp).expect("good files");
    let running = start_with(Kind::Tcp, Limits::default(), 1, Some(acceptor.clone()));
    Asking { running, acceptor, server: own.cert.der().clone(), dir }
}

/// Certificate and key of a client that is signed by `by`, with those between it and the root.
fn client(serial: u64, by: &Authority, between: &[&Authority]) -> (Vec<CertificateDer<'static>>, KeyPair) {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(serial));
    params.distinguished_name.push(DnType::CommonName, "device-7");
    params.subject_alt_names = vec![SanType::DnsName("d7.example.org".try_into().expect("ASCII"))];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().expect("a key");
    let leaf = params.signed_by(&key, by).expect("a certificate").der().clone();
    let chain = [leaf].into_iter().chain(between.iter().map(|authority| authority.der().clone()));
    (chain.collect(), key)
}

impl Asking {
    /// What the listener makes of a client: the connection that it accepted, or its alert.
    fn connect(
        &self,
        (chain, key): (Vec<CertificateDer<'static>>, KeyPair),
    ) -> Result<StreamOwned<ClientConnection, TcpStream>, std::io::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(self.server.clone()).expect("a root");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("a key that fits");
        let stream = TcpStream::connect(self.running.address).expect("listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
        let address = self.running.address.ip().into();
        let tls = ClientConnection::new(Arc::new(config), address).expect("a client");
        let mut client = StreamOwned::new(tls, stream);
        let connect = Connect { client_id: "c", ..Connect::new(Version::V311) };
        client.write_all(&encoded(|buf| encode::connect(buf, &connect).expect("fits")))?;
        let mut connack = [0; 4];
        client.read_exact(&mut connack)?;
        Ok(client)
    }
}

#[test]
fn the_names_in_a_verified_certificate_are_known() {
    let root = authority("root", None);
    let asking = asking(&root, None);
    let _client = asking.connect(client(DEVICE, &root, &[])).expect("let in");
    let certificate = asking.running.service.conn().certificate().expect("shown");
    assert_eq!(certificate.common_name.as_deref(), Some("device-7"));
    assert_eq!(*certificate.dns_names, ["d7.example.org".into()]);
}

#[test]
fn everything_in_the_chain_has_to_be_known_not_to_be_revoked() {
    const GOOD_UNTIL: i32 = 2100;
    const OUTDATED: i32 = 2021;
    let root = authority("root", None);
    let branch = authority("branch", Some(&root));
    // It calls itself as the root does.
    let stranger = authority("root", None);
    let good = |of, revoked: &[u64]| list(of, revoked, GOOD_UNTIL);
    let direct = |serial| client(serial, &root, &[]);
    let of_branch = |serial| client(serial, &branch, &[&branch]);
    for (what, lists, shown, refused) in [
        ("nothing is revoked", good(&root, &[]), direct(DEVICE), None),
        ("another is revoked", good(&root, &[LOST]), direct(DEVICE), None),
        ("it is revoked", good(&root, &[LOST]), direct(LOST), Some("Revoked")),
        ("no list of the branch", good(&root, &[]), of_branch(DEVICE), Some("UnknownCA")),
        ("no list of the root", good(&branch, &[]), of_branch(DEVICE), Some("UnknownCA")),
        ("lists of both", good(&root, &[]) + &good(&branch, &[LOST]), of_branch(DEVICE), None),
        (
            "revoked by the branch",
            good(&root, &[]) + &good(&branch, &[LOST]),
            of_branch(LOST),
            Some("Revoked"),
        ),
        (
            "a revoked branch",
            good(&branch, &[]) + &good(&root, &[BRANCH]),
            of_branch(DEVICE),
            Some("Revoked"),
        ),
        ("an outdated list", list(&root, &[], OUTDATED), direct(DEVICE), Some("UnknownCA")),
        ("an outdated list that has it", list(&root, &[LOST], OUTDATED), direct(LOST), Some("UnknownCA")),
        ("a list of a stranger", good(&stranger, &[]), direct(DEVICE), Some("HandshakeFailure")),
    ] {
        let asking = asking(&root, Some(&lists));
        match (asking.connect(shown), refused) {
            (Ok(_), None) => {}
            (Err(error), Some(alert)) => {
                let said = error.to_string();
                assert!(said.contains("alert") && said.contains(alert), "{what}: {said}");
                // The alert is written first.
                asking.running.until(what, |r| r.context.counters.get(Metric::TlsFailures) == 1);
                assert!(asking.running.service.calls.lock().is_empty(), "{what}");
            }
            (outcome, _) => panic!("{what}: {:?}", outcome.map(drop)),
        }
    }
}

#[test]
fn a_list_that_is_read_again_counts_for_new_connections_alone() {
    let root = authority("root", None);
    let asking = asking(&root, Some(&list(&root, &[], 2100)));
    let mut old = asking.connect(client(LOST, &root, &[])).expect("not revoked yet");
    write(asking.dir.path(), "crl", "rubbish");
    let error = asking.acceptor.reload().expect_err("no list");
    assert_eq!((error.section, error.key), ("listeners.tls", "crl_file"));
    asking.connect(client(LOST, &root, &[])).expect("the list before stays in use");
    write(asking.dir.path(), "crl", &list(&root, &[LOST], 2100));
    asking.acceptor.reload().expect("a good list");
    asking.connect(client(LOST, &root, &[])).map(drop).expect_err("revoked");
    asking.connect(client(DEVICE, &root, &[])).expect("not revoked");
    old.write_all(&[0xC0, 0]).expect("still there");
    let mut answer = [0; 2];
    old.read_exact(&mut answer).expect("still there");
    assert_eq!(answer, [0xD0, 0]);
}
