//! Keys that are fetched and change.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::*;
use crate::auth::testing::{Server, begin, json as answer};

const HOUR: Duration = Duration::from_secs(3600);
const PROMPT: Pace = Pace { every: HOUR, cooldown: Duration::ZERO, patience: Duration::from_secs(60) };

/// Like the one of `auth.jwt`, at another pace.
fn open_at(server: &Server, pace: Pace) -> Jwt {
    let config = JwtConfig { jwks_url: Some(server.url("/jwks")), ..JwtConfig::default() };
    let (Keys::Fetched(source, known), rules) = prepare(&config).expect("good") else { panic!("fetched") };
    let runtime = Handle::current();
    let keys = Keyring::fetched(source, known, pace, &runtime);
    Jwt { shared: Arc::new(Shared { rules, keys, signatures: Gate::new(1, WAITING_MAX) }), runtime }
}

/// Serves what is in the cell.
async fn serve(document: &Arc<Mutex<String>>) -> Server {
    let document = document.clone();
    Server::start(move |_, _, _| std::future::ready(answer(200, document.lock().clone()))).await
}

#[tokio::test]
async fn a_new_key_is_fetched_when_it_is_shown() {
    let (old, new) = (Signer::p256(), Signer::ed());
    let document = Arc::new(Mutex::new(signer::jwks(&[old.jwk("old")])));
    let server = serve(&document).await;
    let jwt = open_at(&server, PROMPT);
    let (by_old, by_new) = (
        old.token_by("old", Algorithm::ES256, &claims_of("ann")),
        new.token_by("new", Algorithm::EdDSA, &claims_of("bob")),
    );
    // Before the first fetch has ended, it is waited for.
    assert_eq!(&*allowed(shown(&jwt, &by_old).await).name, "ann");
    assert_eq!(denied(shown(&jwt, &by_new).await), (BAD, UNKNOWN_KEY.what));
    *document.lock() = signer::jwks(&[new.jwk("new")]);
    let before = server.requests();
    assert_eq!(&*allowed(shown(&jwt, &by_old).await).name, "ann", "known keys need no question");
    assert_eq!(server.requests(), before);
    assert_eq!(&*allowed(shown(&jwt, &by_new).await).name, "bob");
    assert_eq!(denied(shown(&jwt, &by_old).await), (BAD, UNKNOWN_KEY.what), "it was taken back");
}

#[tokio::test]
async fn strangers_cannot_make_the_node_ask_again_and_again() {
    let key = Signer::p256();
    let server = serve(&Arc::new(Mutex::new(signer::jwks(&[key.jwk("k")])))).await;
    let jwt = open_at(&server, Pace { cooldown: HOUR, ..PROMPT });
    allowed(shown(&jwt, &key.token_by("k", Algorithm::ES256, &claims_of("ann"))).await);
    for n in 0..100 {
        let token = key.token_by(&n.to_string(), Algorithm::ES256, &claims_of("ann"));
        assert_eq!(denied(shown(&jwt, &token).await), (BAD, UNKNOWN_KEY.what));
    }
    assert_eq!(server.requests(), 1);
    assert_eq!(jwt.refreshes(), (1, 0));
}

#[tokio::test]
async fn all_wait_for_the_one_refresh() {
    let key = Signer::p256();
    let document = signer::jwks(&[key.jwk("k")]);
    let go = Arc::new(Semaphore::new(0));
    let gate = go.clone();
    let server = Server::start(move |_, _, _| {
        let (gate, document) = (gate.clone(), document.clone());
        async move {
            gate.acquire().await.expect("open").forget();
            answer(200, document)
        }
    })
    .await;
    let jwt = open_at(&server, Pace { cooldown: HOUR, ..PROMPT });
    let waiting: Vec<_> = (0..100)
        .map(|n| {
            let kid = if n % 2 == 0 { "k" } else { "other" };
            begin(&jwt, login("c", "u", &key.token_by(kid, Algorithm::ES256, &claims_of("ann"))))
        })
        .collect();
    server.came(1).await;
    go.add_permits(100);
    for (n, verdict) in waiting.into_iter().enumerate() {
        let verdict = verdict.await.expect("a verdict");
        if n % 2 == 0 {
            allowed(verdict);
        } else {
            assert_eq!(denied(verdict), (BAD, UNKNOWN_KEY.what));
        }
    }
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_log_in_waits_for_keys_within_bounds() {
    let server = Server::start(|_, _, _| std::future::pending()).await;
    let jwt = open_at(&server, Pace { patience: Duration::from_millis(50), ..PROMPT });
    let token = Signer::p256().token_by("k", Algorithm::ES256, &claims_of("ann"));
    let waiting: Vec<_> = (0..10_000).map(|_| begin(&jwt, login("c", "u", &token))).collect();
    let mut busy = 0;
    for verdict in waiting {
        let (reason, _) = denied(verdict.await.expect("a verdict"));
        busy += usize::from(reason == ReasonCode::ServerBusy);
        assert!(reason == ReasonCode::ServerBusy || reason == BAD, "{reason:?}");
    }
    assert_eq!(busy, 10_000 - keyring::WAITING_MAX, "those beyond did not even wait");
    assert!(server.requests() <= 1);
}

#[tokio::test]
async fn keys_stay_when_their_server_is_gone() {
    let (key, new) = (Signer::p256(), Signer::p256());
    let up = Arc::new(AtomicBool::new(true));
    let (serving, document) = (up.clone(), signer::jwks(&[key.jwk("k")]));
    let server = Server::start(move |number, _, _| {
        let broken = ["", "nonsense", "{\"keys\":7}"][number % 3];
        let up = serving.load(Ordering::SeqCst);
        std::future::ready(match number % 2 {
            _ if up => answer(200, &document),
            0 => answer(500, &document),
            _ => answer(200, broken),
        })
    })
    .await;
    let jwt = open_at(&server, PROMPT);
    let good = key.token_by("k", Algorithm::ES256, &claims_of("ann"));
    let unknown = new.token_by("new", Algorithm::ES256, &claims_of("ann"));
    allowed(shown(&jwt, &good).await);
    up.store(false, Ordering::SeqCst);
    for _ in 0..6 {
        // It might be a new key, and nobody is there to say so.
        assert_eq!(denied(shown(&jwt, &unknown).await), (ReasonCode::ServerUnavailable, NO_KEYS.what));
        allowed(shown(&jwt, &good).await);
    }
    assert!(jwt.refreshes().1 >= 6);
    up.store(true, Ordering::SeqCst);
    assert_eq!(denied(shown(&jwt, &unknown).await), (BAD, UNKNOWN_KEY.what));
}

#[tokio::test]
async fn a_server_that_was_never_there() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://127.0.0.1:{}/", closed.local_addr().expect("bound").port());
    drop(closed);
    let config = JwtConfig { jwks_url: Some(url.parse().expect("a URL")), ..JwtConfig::default() };
    let jwt = open(&config);
    let token = Signer::p256().token_by("k", Algorithm::ES256, &claims_of("ann"));
    assert_eq!(denied(shown(&jwt, &token).await), (ReasonCode::ServerUnavailable, NO_KEYS.what));
}

#[tokio::test]
async fn a_document_without_end_is_not_read() {
    let huge = "x".repeat(10 << 20);
    let server = Server::start(move |_, _, _| std::future::ready(answer(200, &huge))).await;
    let jwt = open_at(&server, PROMPT);
    let token = Signer::p256().token_by("k", Algorithm::ES256, &claims_of("ann"));
    assert_eq!(denied(shown(&jwt, &token).await), (ReasonCode::ServerUnavailable, NO_KEYS.what));
}

#[tokio::test]
async fn keys_are_fetched_in_any_case() {
    let server = serve(&Arc::new(Mutex::new(signer::jwks(&[])))).await;
    let jwt = open_at(&server, Pace { every: Duration::from_millis(1), cooldown: HOUR, ..PROMPT });
    server.came(3).await;
    drop(jwt);
}

#[tokio::test]
async fn a_file_may_change_too() {
    let (old, new) = (Signer::p256(), Signer::p256());
    let (_dir, path) = file(signer::jwks(&[old.jwk("old")]));
    let config = JwtConfig { jwks_file: Some(path.clone()), ..JwtConfig::default() };
    let (Keys::Fetched(source, known), rules) = prepare(&config).expect("good") else { panic!("fetched") };
    let runtime = Handle::current();
    let keys = Keyring::fetched(source, known, PROMPT, &runtime);
    let jwt = Jwt { shared: Arc::new(Shared { rules, keys, signatures: Gate::new(1, 10) }), runtime };
    let by_new = new.token_by("new", Algorithm::ES256, &claims_of("ann"));
    assert_eq!(denied(shown(&jwt, &by_new).await), (BAD, UNKNOWN_KEY.what));
    allowed(shown(&jwt, &old.token_by("old", Algorithm::ES256, &claims_of("ann"))).await);
    std::fs::write(&path, signer::jwks(&[new.jwk("new")])).expect("written");
    allowed(shown(&jwt, &by_new).await);
}
