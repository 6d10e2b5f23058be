//! Who a client is, by what it shows over every transport: certificates, tokens, and what a service
//! of the operator's says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cluster_tests::cluster::Cluster;
use cluster_tests::login::{BAD_PASSWORD, NOT_AUTHORIZED, assert_refused, connect, connect_as};
use cluster_tests::mqtt::{Client, Error, Options, Transport, VERSIONS, Version};
use cluster_tests::{fresh, http, tls};
use serde_json::{Value, json};

const COMES: Duration = Duration::from_secs(15);
const MAXIMUM_CONNECT_TIME: u8 = 0xa0;
const SECRET: &[u8] = b"a secret of more than thirty-two bytes, for tests";

fn with(version: Version, user: Option<&str>, password: Option<&str>) -> Options {
    let mut options = Options::new(version, &fresh("c"));
    options.username = user.map(Into::into);
    options.password = password.map(Into::into);
    options
}

/// Shows who the client is taken for: only `name` may publish to `own/NAME`.
fn is_taken_for(client: &mut Client, name: &str) {
    assert_eq!(client.publish(&format!("own/{name}"), "x", 1).expect("an answer"), 0x10, "{name} is itself");
    assert_eq!(client.publish("own/another", "x", 1).expect("an answer"), NOT_AUTHORIZED);
}

fn set_rules(cluster: &Cluster) {
    let rules = json!({ "rules": ["allow publish own/%u"] }).to_string();
    let (status, said) = http::put(cluster.api(1), "/api/v1/rules", &rules).expect("an answer");
    assert_eq!(status, 200, "{said}");
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn token(secret: &[u8], claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

#[test]
fn tokens() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("secret");
    std::fs::write(&file, SECRET).expect("written");
    let toml = format!(
        "[auth]\nrequired = true\nchain = [\"jwt\"]\nfailed_login_delay_ms = 0\n[auth.jwt]\nsecret_file = {file:?}\nleeway_s = 0\n"
    );
    let mut cluster = Cluster::start_with(1, &toml);
    set_rules(&cluster);
    let hour = now_s() + 3_600;
    for to in cluster.transports(1) {
        for version in VERSIONS {
            let log_in = |token: &str| connect(to, &with(version, Some("anything"), Some(token)));
            drop(log_in(&token(SECRET, &json!({ "sub": "ann", "exp": hour }))).expect("let in"));
            let expired = token(SECRET, &json!({ "sub": "ann", "exp": now_s() - 1 }));
            assert_refused(log_in(&expired), version, NOT_AUTHORIZED);
            let forged =
                token(b"another secret of more than thirty-two bytes", &json!({ "sub": "ann", "exp": hour }));
            assert_refused(log_in(&forged), version, BAD_PASSWORD);
            assert_refused(log_in("no token"), version, BAD_PASSWORD);
            assert_refused(connect(to, &with(version, None, None)), version, NOT_AUTHORIZED);
        }
        let claims = json!({ "sub": "ann", "exp": hour });
        let mut ann =
            connect(to, &with(Version::V5, Some("x"), Some(&token(SECRET, &claims)))).expect("let in");
        is_taken_for(&mut ann, "ann");
        let claims =
            json!({ "sub": "ann", "exp": hour, "acl": ["deny publish own/ann", "allow any mine/%c/#"] });
        let options = with(Version::V5, Some("x"), Some(&token(SECRET, &claims)));
        let own = format!("mine/{}/x", options.client_id);
        let mut bound = connect(to, &options).expect("let in");
        assert_eq!(
            bound.publish("own/ann", "x", 1).expect("an answer"),
            NOT_AUTHORIZED,
            "its own rules come first"
        );
        assert_eq!(bound.publish(&own, "x", 1).expect("an answer"), 0x10);
        assert_eq!(bound.subscribe(&[(&own, 1), ("mine/#", 1)]).expect("a SUBACK"), [1, NOT_AUTHORIZED]);
        // The token ends, and the connection with it.
        let short = token(SECRET, &json!({ "sub": "ann", "exp": now_s() + 8 }));
        let mut passing = connect(to, &with(Version::V5, Some("x"), Some(&short))).expect("let in");
        let ended = passing.ending(COMES).expect("ends");
        assert!(matches!(ended, Error::Disconnected(MAXIMUM_CONNECT_TIME)), "{ended}");
        ann.ping().expect("its token is good");
    }
    let log = cluster.node(1).log();
    let expired = log.lines().any(|line| line.contains("event=\"login\"") && line.contains("expired token"));
    assert!(expired, "an audit line");
    assert!(!log.contains("eyJ"), "a token in the log");
    assert!(cluster.metric(1, "rookery_authorizations_expired_total") >= 4.0);
}

#[test]
fn certificates() {
    let dir = tempfile::tempdir().expect("a folder");
    let ca = dir.path().join("clients.pem");
    let authority = tls::Authority::new("clients");
    std::fs::write(&ca, authority.pem()).expect("written");
    let mut cluster = Cluster::spawned(1, "[auth]\nrequired = true\nfailed_login_delay_ms = 0\n");
    cluster.node(1).stop();
    cluster.node(1).configure_tls(&format!("ca_file = {ca:?}"));
    cluster.node(1).spawn();
    cluster.node(1).wait_live();
    cluster_tests::cluster::cli::init(cluster.api(1));
    cluster.node(1).wait_ready();
    set_rules(&cluster);
    let issued = authority.issue("device 7");
    let shows = |to: Transport, version: Version| {
        // The node's certificate is signed by the authority of the tests.
        let config = Arc::new(tls::authority().client(Some(&issued), rustls::ALL_VERSIONS));
        connect_as(to, &with(version, None, None), &config)
    };
    for to in &cluster.transports(1)[2..] {
        for version in VERSIONS {
            drop(shows(*to, version).expect("let in"));
            assert_refused(connect(*to, &with(version, None, None)), version, NOT_AUTHORIZED);
            assert_refused(connect(*to, &with(version, Some("device 7"), Some("x"))), version, BAD_PASSWORD);
        }
        is_taken_for(&mut shows(*to, Version::V5).expect("let in"), "device 7");
    }
}

/// Answers what log-ins are asked about, and counts.
fn service(asked: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let asked = asked.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
                loop {
                    let mut length = 0;
                    loop {
                        let mut line = String::new();
                        if reader.read_line(&mut line).unwrap_or(0) == 0 {
                            return;
                        }
                        let line = line.trim().to_ascii_lowercase();
                        if let Some(value) = line.strip_prefix("content-length:") {
                            length = value.trim().parse().expect("a length");
                        }
                        if line.is_empty() {
                            break;
                        }
                    }
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).expect("a body");
                    asked.fetch_add(1, Ordering::Relaxed);
                    let question: Value = serde_json::from_slice(&body).expect("JSON");
                    let answer = match (question["username"].as_str(), question["password"].as_str()) {
                        (Some("ann"), Some("right")) => json!({ "result": "allow" }),
                        (Some("bob"), _) => {
                            json!({ "result": "allow", "username": "robert", "expires_in_s": 5 })
                        }
                        (Some("eve"), _) => json!({ "result": "ignore" }),
                        _ => json!({ "result": "deny" }),
                    }
                    .to_string();
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                        answer.len()
                    );
                    let mut stream = &stream;
                    if stream.write_all(format!("{head}{answer}").as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn what_a_service_says() {
    let asked = Arc::new(AtomicUsize::new(0));
    let url = format!("http://{}/login", service(asked.clone()));
    let toml = format!(
        "[auth]\nrequired = true\nchain = [\"http\"]\nfailed_login_delay_ms = 0\n[auth.http]\nurl = \"{url}\"\n"
    );
    let mut cluster = Cluster::start_with(1, &toml);
    set_rules(&cluster);
    for to in cluster.transports(1) {
        for version in VERSIONS {
            let log_in = |user: &str, password: &str| connect(to, &with(version, Some(user), Some(password)));
            drop(log_in("ann", "right").expect("let in"));
            assert_refused(log_in("ann", "wrong"), version, BAD_PASSWORD);
            // Nobody knows it.
            assert_refused(log_in("eve", "x"), version, BAD_PASSWORD);
        }
        let options = with(Version::V5, Some("ann"), Some("right"));
        is_taken_for(&mut connect(to, &options).expect("let in"), "ann");
        let before = asked.load(Ordering::Relaxed);
        drop(connect(to, &options).expect("let in"));
        assert_eq!(asked.load(Ordering::Relaxed), before, "the same is not asked twice");
        let mut bob = connect(to, &with(Version::V5, Some("bob"), Some("x"))).expect("let in");
        is_taken_for(&mut bob, "robert");
        let ended = bob.ending(COMES).expect("ends");
        assert!(matches!(ended, Error::Disconnected(MAXIMUM_CONNECT_TIME)), "{ended}");
    }
    assert!(!cluster.node(1).log().contains("right"), "a password in the log");
    let asked = asked.load(Ordering::Relaxed) as f64;
    assert_eq!(cluster.metric(1, "rookery_auth_http_requests_total"), asked);
    assert!(cluster.metric(1, "rookery_auth_http_cached_total") >= 4.0);
}
