//! Certificates and revocation lists that are replaced under live connections.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use cluster_tests::cluster::{AGREE_TIMEOUT, Cluster};
use cluster_tests::fresh;
use cluster_tests::mqtt::{Client, Error, Options, Transport};
use cluster_tests::tls::{self, Authority, CRL_FILE, Issued, authority};
use cluster_tests::wait::eventually;
use rustls::{AlertDescription, ClientConfig};

/// Live connections, half of them over WebSocket.
const LIVE: usize = 1_000;
const SOON: Duration = Duration::from_secs(20);

fn transports(cluster: &Cluster) -> [Transport; 2] {
    [Transport::Tls(cluster.tls(1)), Transport::Wss(cluster.wss(1))]
}

fn connect(to: Transport, config: &Arc<ClientConfig>) -> Result<Client, Error> {
    // On a busy machine it takes a while to come to the last of them.
    Client::connect_as(to, &Options::v5(&fresh("live")).keep_alive_s(600), config.clone())
}

fn live(cluster: &Cluster, config: &Arc<ClientConfig>) -> Vec<Client> {
    let mut transports = transports(cluster).into_iter().cycle();
    (0..LIVE)
        .map(|i| {
            let mut client = connect(transports.next().expect("endless"), config).expect("connects");
            client.subscribe(&[(&format!("live/{i}"), 1)]).expect("SUBACK");
            client
        })
        .collect()
}

/// Every client is connected as it was, and gets what it publishes.
fn check(clients: &mut [Client], round: &str) {
    for (i, client) in clients.iter_mut().enumerate() {
        let topic = format!("live/{i}");
        client.ping().unwrap_or_else(|error| panic!("client {i} {round}: {error}"));
        client.publish(&topic, round, 1).unwrap_or_else(|error| panic!("client {i} {round}: {error}"));
        assert_eq!(client.texts(1, SOON).expect("its own message"), [round], "client {i}");
    }
}

fn showing(identity: Option<&Issued>) -> Arc<ClientConfig> {
    Arc::new(authority().client(identity, rustls::ALL_VERSIONS))
}

#[test]
fn a_certificate_is_replaced_under_a_thousand_connections() {
    let mut cluster = Cluster::start(1);
    let old = showing(None);
    let mut clients = live(&cluster, &old);
    let new = Authority::new("a new authority");
    let trusting_new = Arc::new(new.client(None, rustls::ALL_VERSIONS));
    connect(transports(&cluster)[0], &trusting_new).map(drop).expect_err("not yet");

    tls::write(cluster.path(), &new.issue("a node"));
    cluster.node(1).signal("HUP");
    for transport in transports(&cluster) {
        eventually("the new certificate", AGREE_TIMEOUT, || connect(transport, &trusting_new).ok());
        connect(transport, &showing(None)).map(drop).expect_err("the old certificate is not shown any more");
    }
    check(&mut clients, "after the certificate was replaced");
    assert_eq!(cluster.metric(1, "rookery_connections"), LIVE as f64);
    assert_eq!(cluster.metric(1, "rookery_keep_alive_timeouts_total"), 0.0);
}

#[test]
fn a_certificate_is_revoked_under_a_thousand_connections() {
    let mut cluster = Cluster::start(1);
    let (ca, crl) = (cluster.ca_file(), cluster.path().join(CRL_FILE));
    fs::write(&crl, authority().revoke(&[])).expect("written");
    cluster.node(1).stop();
    cluster
        .node(1)
        .configure_tls(&format!("ca_file = {ca:?}\ncrl_file = {crl:?}\nrequire_client_cert = true"));
    cluster.restart(1);
    let (good, lost) = (authority().issue("good"), authority().issue("lost"));
    let (showing_good, showing_lost) = (showing(Some(&good)), showing(Some(&lost)));
    let mut clients = live(&cluster, &showing_good);
    let mut connected_before = connect(transports(&cluster)[0], &showing_lost).expect("not revoked yet");

    // What cannot be used changes nothing.
    fs::write(&crl, "no list").expect("written");
    cluster.node(1).signal("HUP");
    eventually("a complaint", AGREE_TIMEOUT, || {
        cluster.node(1).log().contains("holds no revocation list").then_some(())
    });
    connect(transports(&cluster)[0], &showing_lost).expect("the list before stays in use");

    fs::write(&crl, authority().revoke(&[&lost])).expect("written");
    cluster.node(1).signal("HUP");
    for transport in transports(&cluster) {
        eventually("the revoked certificate to be refused", AGREE_TIMEOUT, || {
            let error = connect(transport, &showing_lost).err()?;
            let alert = rustls::Error::AlertReceived(AlertDescription::CertificateRevoked).to_string();
            assert!(error.to_string().contains(&alert), "{error}");
            Some(())
        });
        connect(transport, &showing_good).expect("another certificate is good as before");
    }
    eventually("a line of the audit log", SOON, || {
        let log = cluster.node(1).log();
        let mut lines = log.lines().filter(|line| line.contains("audit") && line.contains("tls_refused"));
        lines.any(|line| line.contains("Revoked") && line.contains("127.0.0.1")).then_some(())
    });
    check(&mut clients, "after another was revoked");
    connected_before.ping().expect("who was connected before stays so");
    assert_eq!(cluster.metric(1, "rookery_connections"), LIVE as f64 + 1.0);
}
