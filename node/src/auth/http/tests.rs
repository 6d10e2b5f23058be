//! The callback with services of all kinds.

use std::collections::HashSet;

use axum::http::HeaderMap;
use parking_lot::Mutex as Lock;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::*;
use crate::auth::Password;
use crate::auth::testing::{Server, allowed, begin, denied, file, json as answer, judged, login};

const UNANSWERED: (ReasonCode, &str) = (ReasonCode::ServerUnavailable, UNAVAILABLE.what);

fn config(server: &Server) -> HttpAuthConfig {
    HttpAuthConfig { url: Some(server.url("/login?tenant=1")), ..HttpAuthConfig::default() }
}

fn callback(config: &HttpAuthConfig) -> HttpCallback {
    HttpCallback::new(config, "n1", &Handle::current()).expect("it can be used")
}

/// Knows ann, forbids mallory, has never heard of others.
async fn directory() -> Server {
    Server::start(|_, _, body| {
        let asked: Value = serde_json::from_slice(&body).expect("JSON");
        std::future::ready(match (asked["username"].as_str(), asked["password"].as_str()) {
            (Some("ann"), Some("secret")) => {
                answer(200, json!({"result": "allow", "acl": ["allow any a/%u"]}))
            }
            (Some("ann"), _) => answer(200, json!({"result": "deny"})),
            (Some("mallory"), _) => answer(403, ""),
            _ => answer(200, json!({"result": "ignore"})),
        })
    })
    .await
}

#[tokio::test]
async fn verdicts() {
    let server = directory().await;
    let http = callback(&config(&server));
    let principal = allowed(judged(&http, login("c1", "ann", "secret")).await);
    assert_eq!((&*principal.name, principal.method, principal.rules.0.len()), ("ann", "http", 1));
    let (reason, what) = denied(judged(&http, login("c1", "ann", "wrong")).await);
    assert_eq!((reason, what), (ReasonCode::BadUserNameOrPassword, "refused by the authentication service"));
    assert_eq!(denied(judged(&http, login("c1", "mallory", "x")).await).0, ReasonCode::NotAuthorized);
    assert!(matches!(judged(&http, login("c1", "bob", "x")).await, Verdict::Pass));
    assert_eq!(server.requests(), 4);
    // Who shows nothing is not asked about.
    let nobody = Login { client_id: "c1".into(), ..Login::default() };
    assert!(matches!(judged(&http, nobody).await, Verdict::Pass));
    assert_eq!(server.requests(), 4);
}

#[tokio::test]
async fn what_the_service_is_sent() {
    let seen: Arc<Lock<Option<(HeaderMap, Value)>>> = Arc::default();
    let saw = seen.clone();
    let server = Server::start(move |_, headers, body| {
        *saw.lock() = Some((headers, serde_json::from_slice(&body).expect("JSON")));
        std::future::ready(answer(204, ""))
    })
    .await;
    let (_dir, path) = file("Authorization: Bearer t0ken\n");
    let http = callback(&HttpAuthConfig { header_file: Some(path), ..config(&server) });
    allowed(judged(&http, login("c1", "ann", "secret")).await);
    let (headers, body) = seen.lock().take().expect("asked");
    assert_eq!(
        (&headers["authorization"], &headers["content-type"]),
        (&"Bearer t0ken".parse().expect("text"), &"application/json".parse().expect("text"))
    );
    assert_eq!(body["username"], "ann");
    assert_eq!(body["node"], "n1");
}

#[tokio::test]
async fn an_answer_counts_for_a_while() {
    let server = directory().await;
    let http = callback(&config(&server));
    for _ in 0..10 {
        allowed(judged(&http, login("c1", "ann", "secret")).await);
        denied(judged(&http, login("c1", "ann", "wrong")).await);
    }
    // Another port of the same machine is no other question; another client is.
    let moved = Login { address: "10.0.0.1:9".parse().ok(), ..login("c1", "ann", "secret") };
    allowed(judged(&http, moved).await);
    assert_eq!(server.requests(), 2);
    allowed(judged(&http, login("c2", "ann", "secret")).await);
    assert_eq!(server.requests(), 3);
    assert_eq!(http.counts(), HttpCounts { requests: 3, cached: 19, ..HttpCounts::default() });
    let forgetful = callback(&HttpAuthConfig { cache_ttl_s: 0, deny_cache_ttl_s: 0, ..config(&server) });
    for _ in 0..3 {
        allowed(judged(&forgetful, login("c1", "ann", "secret")).await);
    }
    assert_eq!(server.requests(), 6);
}

#[tokio::test]
async fn a_client_is_let_in_no_longer_than_its_service_says() {
    let server = Server::start(|_, _, _| {
        std::future::ready(answer(200, json!({"result": "allow", "expires_in_s": 0})))
    })
    .await;
    let http = callback(&config(&server));
    let before_ms = env::wall_ms();
    let principal = allowed(judged(&http, login("c1", "ann", "secret")).await);
    assert!((before_ms..=env::wall_ms()).contains(&principal.expires_at_ms.expect("it expires")));
    allowed(judged(&http, login("c1", "ann", "secret")).await);
    assert_eq!(server.requests(), 2, "what has expired is asked again");
}

#[tokio::test]
async fn equal_log_ins_are_asked_about_once() {
    let go = Arc::new(Semaphore::new(0));
    let gate = go.clone();
    let server = Server::start(move |_, _, _| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.expect("open").forget();
            answer(204, "")
        }
    })
    .await;
    // Nothing is remembered: they wait for one another.
    let http = callback(&HttpAuthConfig { cache_max: 0, ..config(&server) });
    let waiting: Vec<_> = (0..100).map(|_| begin(&http, login("c1", "ann", "secret"))).collect();
    server.came(1).await;
    go.add_permits(100);
    for verdict in waiting {
        allowed(verdict.await.expect("a verdict"));
    }
    assert_eq!(server.requests(), 1);
    assert_eq!(http.counts(), HttpCounts { requests: 1, joined: 99, ..HttpCounts::default() });
    let state = http.shared.state.lock();
    assert_eq!((state.flights.len(), state.joined), (0, 0));
}

#[tokio::test]
async fn so_many_at_a_time_and_so_many_wait() {
    let go = Arc::new(Semaphore::new(0));
    let (gate, at_once) = (go.clone(), Arc::new(AtomicU64::new(0)));
    let most = Arc::new(AtomicU64::new(0));
    let highest = most.clone();
    let server = Server::start(move |_, _, _| {
        let (gate, at_once, highest) = (gate.clone(), at_once.clone(), highest.clone());
        async move {
            highest.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            gate.acquire().await.expect("open").forget();
            at_once.fetch_sub(1, Ordering::SeqCst);
            answer(204, "")
        }
    })
    .await;
    let http = callback(&HttpAuthConfig { concurrency_max: 3, queue_max: 5, ..config(&server) });
    let waiting: Vec<_> = (0..20).map(|n| begin(&http, login(&n.to_string(), "ann", "secret"))).collect();
    // The same bound holds for those who join.
    let joining: Vec<_> = (0..20).map(|_| begin(&http, login("0", "ann", "secret"))).collect();
    server.came(3).await;
    go.add_permits(100);
    let mut counts = [0, 0];
    for verdict in waiting {
        match verdict.await.expect("a verdict") {
            Verdict::Allow(_) => counts[0] += 1,
            other => {
                assert_eq!(denied(other), (ReasonCode::ServerBusy, BUSY.what));
                counts[1] += 1;
            }
        }
    }
    assert_eq!(counts, [8, 12]);
    let mut joined = 0;
    for verdict in joining {
        joined += usize::from(matches!(verdict.await.expect("a verdict"), Verdict::Allow(_)));
    }
    assert_eq!(joined, 5);
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(server.requests(), 8);
    allowed(judged(&http, login("later", "ann", "secret")).await);
}

#[tokio::test]
async fn a_service_that_does_not_answer() {
    let server = Server::start(|_, _, _| std::future::pending()).await;
    let http = callback(&HttpAuthConfig { timeout_ms: 100, concurrency_max: 1, ..config(&server) });
    // One is asked about and gets no answer; those behind it do not wait for ever.
    let waiting: Vec<_> = (0..5).map(|n| begin(&http, login(&n.to_string(), "ann", "secret"))).collect();
    let mut reasons = HashSet::new();
    for verdict in waiting {
        reasons.insert(denied(verdict.await.expect("a verdict")).0);
    }
    assert!(reasons.contains(&ReasonCode::ServerUnavailable), "{reasons:?}");
    assert!(reasons.is_subset(&HashSet::from([ReasonCode::ServerUnavailable, ReasonCode::ServerBusy])));
    assert!(http.counts().failures >= 1);
}

#[tokio::test]
async fn nobody_is_let_in_by_an_answer_that_is_not_understood() {
    let huge = format!("{{\"result\":\"allow\",\"x\":\"{}\"}}", "x".repeat(10 << 20));
    let server = Server::start(move |number, _, _| {
        std::future::ready(match number {
            1 => answer(200, &huge),
            2 => answer(200, "allow"),
            3 => answer(500, json!({"result": "allow"})),
            4 => answer(302, ""),
            5 => answer(200, json!({"result": "allow", "acl": "#"})),
            _ => answer(204, ""),
        })
    })
    .await;
    let http = callback(&config(&server));
    for _ in 0..5 {
        assert_eq!(denied(judged(&http, login("c1", "ann", "secret")).await), UNANSWERED);
    }
    assert_eq!(http.counts().failures, 5);
    // A failure is not remembered.
    allowed(judged(&http, login("c1", "ann", "secret")).await);
}

#[tokio::test]
async fn a_service_that_is_not_there_or_speaks_something_else() {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = closed.local_addr().expect("bound").port();
    drop(closed);
    let url = format!("http://127.0.0.1:{port}/").parse().ok();
    let http = callback(&HttpAuthConfig { url, ..HttpAuthConfig::default() });
    assert_eq!(denied(judged(&http, login("c1", "ann", "secret")).await), UNANSWERED);

    let rude = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = rude.local_addr().expect("bound").port();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = rude.accept().await {
            drop(tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-x\r\n\r\n").await);
        }
    });
    let url = format!("http://127.0.0.1:{port}/").parse().ok();
    let http = callback(&HttpAuthConfig { url, ..HttpAuthConfig::default() });
    assert_eq!(denied(judged(&http, login("c1", "ann", "secret")).await), UNANSWERED);
    task.abort();
}

#[test]
fn nobody_waits_for_a_question_that_is_lost() {
    let asking = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let url = "http://127.0.0.1:9/".parse().ok();
    let config = HttpAuthConfig { url, ..HttpAuthConfig::default() };
    let http = HttpCallback::new(&config, "n1", asking.handle()).expect("it can be used");
    // It never runs.
    let waiting: Vec<_> = (0..3).map(|_| begin(&http, login("c1", "ann", "secret"))).collect();
    drop(asking);
    for verdict in waiting {
        assert_eq!(denied(verdict.blocking_recv().expect("a verdict")), UNANSWERED);
    }
    let late = begin(&http, login("c1", "ann", "secret"));
    assert_eq!(denied(late.blocking_recv().expect("a verdict")), UNANSWERED);
    assert_eq!(http.shared.state.lock().flights.len(), 0);
}

/// A listener that speaks TLS.
struct Tls(TcpListener, tokio_rustls::TlsAcceptor);

impl axum::serve::Listener for Tls {
    type Io = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.0.accept().await.expect("accepted");
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

#[tokio::test]
async fn over_tls_only_whom_the_operator_trusts() {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server_config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .expect("a certificate");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let server = Server::on(Tls(listener, Arc::new(server_config).into()), |_, _, _| {
        std::future::ready(answer(204, ""))
    });
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    for (host, trusted, good) in
        [("localhost", &own, true), ("localhost", &other, false), ("127.0.0.1", &own, false)]
    {
        let (_dir, path) = file(trusted.cert.pem());
        let url = format!("https://{host}:{}/", server.port).parse().ok();
        let http = callback(&HttpAuthConfig { url, ca_file: Some(path), ..HttpAuthConfig::default() });
        let verdict = judged(&http, login("c1", "ann", "secret")).await;
        assert_eq!(matches!(verdict, Verdict::Allow(_)), good, "{host}: {verdict:?}");
    }
}

#[test]
fn settings() {
    let refused = |config: &HttpAuthConfig| HttpCallback::check(config).expect_err("refused").to_string();
    assert!(refused(&HttpAuthConfig::default()).starts_with("url: is needed"));
    let local = HttpAuthConfig { url: "http://localhost/".parse().ok(), ..HttpAuthConfig::default() };
    HttpCallback::check(&local).expect("good");
    for text in ["", "secret", "Authorization", "a b: secret", "X: secret\nY: secret", "X: secret\u{1}"] {
        let (_dir, path) = file(text);
        let error = refused(&HttpAuthConfig { header_file: Some(path), ..local.clone() });
        assert!(error.starts_with("header_file: ") && error.contains("has to hold one line"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    let line = |line: &str| HttpAuthConfig { header: Some(Password::new(line.as_bytes())), ..local.clone() };
    HttpCallback::check(&line("X-Key: secret")).expect("good");
    let error = refused(&line("secret"));
    assert!(error.starts_with("header: has to be one line") && !error.contains("secret"), "{error}");
    let both = HttpAuthConfig { header_file: Some("/nonexistent".into()), ..line("X: y") };
    assert!(refused(&both).starts_with("header: and header_file are both set"));
    let error = refused(&HttpAuthConfig { header_file: Some("/nonexistent".into()), ..local });
    assert!(error.starts_with("header_file: /nonexistent: "), "{error}");
}
