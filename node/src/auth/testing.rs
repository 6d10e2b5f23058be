//! What tests of authenticators that ask other servers need.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::serve::Listener;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use super::{Authenticator, Login, Password, Principal, Verdict};
use crate::mqtt::ReasonCode;

/// A server on this machine for as long as it is kept.
pub struct Server {
    pub port: u16,
    requests: watch::Sender<usize>,
    task: AbortHandle,
}

impl Server {
    /// Answers every request with what `answer` makes of its number (from 1), headers and body.
    pub async fn start<F>(
        answer: impl Fn(usize, HeaderMap, Bytes) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        Self::on(TcpListener::bind("127.0.0.1:0").await.expect("a free port"), answer)
    }

    pub fn on<L, F>(
        listener: L,
        answer: impl Fn(usize, HeaderMap, Bytes) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        L: Listener<Addr = std::net::SocketAddr>,
        F: Future<Output = Response> + Send + 'static,
    {
        let port = listener.local_addr().expect("bound").port();
        let requests = watch::Sender::new(0);
        let (numbers, seen) = (Arc::new(AtomicUsize::new(0)), requests.clone());
        let handler = move |headers: HeaderMap, body: Bytes| {
            let number = numbers.fetch_add(1, Ordering::SeqCst) + 1;
            seen.send_modify(|requests| *requests = number);
            answer(number, headers, body)
        };
        let router = Router::new().fallback(handler);
        let serve = axum::serve(listener, router.into_make_service());
        let task = tokio::spawn(async move { drop(serve.await) }).abort_handle();
        Self { port, requests, task }
    }

    pub fn url(&self, path: &str) -> super::http::Url {
        format!("http://127.0.0.1:{}{path}", self.port).parse().expect("a URL")
    }

    /// Requests until now.
    pub fn requests(&self) -> usize {
        *self.requests.borrow()
    }

    /// Waits until so many requests have come.
    pub async fn came(&self, count: usize) {
        self.requests.subscribe().wait_for(|requests| *requests >= count).await.expect("it is kept");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn json(status: u16, body: impl ToString) -> Response {
    Response::builder().status(status).body(body.to_string().into()).expect("a response")
}

/// A file with this in it, and the directory that goes with it.
pub fn file(content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("file");
    std::fs::write(&path, content).expect("written");
    (dir, path)
}

pub fn login(client_id: &str, username: &str, password: &str) -> Login {
    Login {
        client_id: client_id.into(),
        username: Some(username.into()),
        password: Some(Password::new(password.as_bytes())),
        address: "10.0.0.1:4711".parse().ok(),
        certificate: None,
        throttled: false,
    }
}

/// Begins to judge a login; the verdict comes from what is returned.
pub fn begin(authenticator: &impl Authenticator, login: Login) -> oneshot::Receiver<Verdict> {
    let (sender, verdict) = oneshot::channel();
    authenticator.judge(&Arc::new(login), Box::new(move |verdict| drop(sender.send(verdict))));
    verdict
}

pub async fn judged(authenticator: &impl Authenticator, login: Login) -> Verdict {
    begin(authenticator, login).await.expect("a verdict")
}

/// Who was let in.
#[track_caller]
pub fn allowed(verdict: Verdict) -> Arc<Principal> {
    match verdict {
        Verdict::Allow(principal) => principal,
        other => panic!("{other:?}"),
    }
}

/// Why it was refused.
#[track_caller]
pub fn denied(verdict: Verdict) -> (ReasonCode, &'static str) {
    match verdict {
        Verdict::Deny(failure) => (failure.reason, failure.what),
        other => panic!("{other:?}"),
    }
}
