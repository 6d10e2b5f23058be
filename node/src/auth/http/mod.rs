//! Clients that a service of the operator's judges: asked by HTTP, its answers are remembered for a
//! while, and what several ask at the same time is asked once.

mod cache;
mod client;
mod exchange;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::{hmac, rand};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, header};
use http_body_util::Full;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

pub use client::Url;
pub(super) use client::{Client, NoAnswer};

use cache::{Bounds, Cache, Tag};

use super::gate::{Gate, Place};
use super::setting::{BadSetting, read_file};
use super::{Authenticator, Count, Failure, Judge, Login, Verdict};
use crate::config::HttpAuthConfig;
use crate::env;
use crate::mqtt::ReasonCode;
use crate::peer::RateLimit;

const NAME: &str = "http";
/// Largest file with a header that is read, bytes.
const HEADER_FILE_MAX_BYTES: usize = 16 << 10;
/// A failing service is reported once in this time.
const FAILURE_LOG_INTERVAL_MS: u64 = 10_000;

const UNAVAILABLE: Failure =
    Failure::new(ReasonCode::ServerUnavailable, "the authentication service does not answer");
const BUSY: Failure = Failure::new(ReasonCode::ServerBusy, "too many clients are being authenticated");

/// Asks the service named in `auth.http`.
pub struct HttpCallback {
    shared: Arc<Shared>,
    runtime: Handle,
}

/// What has been asked and answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpCounts {
    /// Requests that were sent.
    pub requests: u64,
    /// Those without an answer that is understood.
    pub failures: u64,
    /// Log-ins that an earlier answer was good for.
    pub cached: u64,
    /// Log-ins that waited for the same request of another.
    pub joined: u64,
    /// Log-ins turned away because too many waited.
    pub busy: u64,
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    failures: AtomicU64,
    cached: AtomicU64,
    joined: AtomicU64,
    busy: AtomicU64,
}

struct Shared {
    service: Service,
    gate: Gate,
    /// How long a log-in waits for its turn.
    patience: Duration,
    /// Of this process alone: what is remembered tells nobody a password.
    key: hmac::Key,
    state: Mutex<State>,
    joined_max: usize,
    counters: Counters,
    log: RateLimit,
}

/// Where questions go.
struct Service {
    client: Client,
    url: Url,
    header: Option<(HeaderName, HeaderValue)>,
    node: Box<str>,
}

struct State {
    cache: Cache,
    /// What is being asked, with those who wait for the answer.
    flights: HashMap<Tag, Vec<Judge>>,
    /// Of all of them, those who joined.
    joined: usize,
}

impl HttpCallback {
    /// Reads what `auth.http` names, and asks nothing yet. `node`: its name, which the service is
    /// told. Blocks.
    ///
    /// # Errors
    /// There is no `url`, or a file cannot be used.
    pub fn new(config: &HttpAuthConfig, node: &str, runtime: &Handle) -> Result<Self, BadSetting> {
        let service = Service::new(config, node)?;
        if service.url.is_exposed() {
            tracing::warn!(
                "auth.http.url is not encrypted: whoever is between this node and it can read passwords"
            );
        }
        let mut secret = [0; 32];
        rand::fill(&mut secret)
            .map_err(|_| BadSetting::new("url", "cannot be used: the system gives no random numbers"))?;
        let bounds = Bounds {
            max: config.cache_max as usize,
            allow_ttl: Duration::from_secs(config.cache_ttl_s.into()),
            other_ttl: Duration::from_secs(config.deny_cache_ttl_s.into()),
        };
        let queue_max = config.queue_max as usize;
        let shared = Shared {
            service,
            gate: Gate::new(config.concurrency_max as usize, queue_max),
            patience: Duration::from_millis(config.timeout_ms.into()),
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            state: Mutex::new(State { cache: Cache::new(bounds), flights: HashMap::new(), joined: 0 }),
            joined_max: queue_max,
            counters: Counters::default(),
            log: RateLimit::new(FAILURE_LOG_INTERVAL_MS),
        };
        Ok(Self { shared: Arc::new(shared), runtime: runtime.clone() })
    }

    /// Whether [`HttpCallback::new`] would do. Blocks.
    ///
    /// # Errors
    /// As of it.
    pub fn check(config: &HttpAuthConfig) -> Result<(), BadSetting> {
        Service::new(config, "").map(|_| ())
    }

    pub fn counts(&self) -> HttpCounts {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HttpCounts {
            requests: read(&counters.requests),
            failures: read(&counters.failures),
            cached: read(&counters.cached),
            joined: read(&counters.joined),
            busy: read(&counters.busy),
        }
    }
}

impl Authenticator for HttpCallback {
    fn name(&self) -> &'static str {
        NAME
    }

    fn metrics(&self) -> Vec<Count> {
        let HttpCounts { requests, failures, cached, joined, busy } = self.counts();
        let counts = [
            ("auth_http_requests", "Requests to the service that judges log-ins", requests),
            ("auth_http_failures", "Those of them without an answer that is understood", failures),
            ("auth_http_cached", "Log-ins that an earlier answer was good for", cached),
            ("auth_http_joined", "Log-ins that waited for the same request of another", joined),
            ("auth_http_busy", "Log-ins turned away because too many waited for the service", busy),
        ];
        counts.into_iter().map(|(name, help, value)| Count { name, help, value }).collect()
    }

    fn judge(&self, login: &Arc<Login>, judge: Judge) {
        let shared = &self.shared;
        let Some(body) = exchange::question(login, &shared.service.node) else {
            return judge(Verdict::Pass);
        };
        let tag = shared.tag(&body);
        match shared.board(tag, judge) {
            Boarded::Known(verdict, judge) => judge(verdict),
            Boarded::Joined => {}
            Boarded::First(place) => {
                let mut flight = Flight { shared: shared.clone(), tag, verdict: None };
                let login = login.clone();
                self.runtime.spawn(async move { flight.fly(body, &login, place).await });
            }
        }
    }
}

/// What becomes of a log-in.
enum Boarded {
    Known(Verdict, Judge),
    Joined,
    /// It has to be asked about.
    First(Place),
}

impl Shared {
    fn tag(&self, body: &[u8]) -> Tag {
        let mut tag = Tag::default();
        let hash = hmac::sign(&self.key, body);
        tag.copy_from_slice(hash.as_ref());
        tag
    }

    fn board(&self, tag: Tag, judge: Judge) -> Boarded {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        let (now, now_ms) = (env::now(), env::wall_ms());
        let mut state = self.state.lock();
        if let Some(verdict) = state.cache.get(&tag, now, now_ms) {
            count(&self.counters.cached);
            return Boarded::Known(verdict, judge);
        }
        let room = state.joined < self.joined_max;
        if let Some(waiting) = state.flights.get_mut(&tag) {
            if room {
                waiting.push(judge);
                state.joined += 1;
                count(&self.counters.joined);
                return Boarded::Joined;
            }
        } else if let Some(place) = self.gate.place() {
            state.flights.insert(tag, vec![judge]);
            return Boarded::First(place);
        }
        count(&self.counters.busy);
        Boarded::Known(Verdict::Deny(BUSY), judge)
    }

    async fn ask(&self, body: Zeroizing<Vec<u8>>, login: &Login) -> Result<Verdict, String> {
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        let request = self.service.request(body).map_err(|error| error.to_string())?;
        let (status, answer) =
            self.service.client.send(request).await.map_err(|e: NoAnswer| e.to_string())?;
        exchange::verdict(status, &answer, login, env::wall_ms())
    }
}

/// A question on its way. It lands when it is dropped, so that nobody waits for one that got lost.
struct Flight {
    shared: Arc<Shared>,
    tag: Tag,
    verdict: Option<Verdict>,
}

impl Flight {
    async fn fly(&mut self, body: Zeroizing<Vec<u8>>, login: &Login, place: Place) {
        let shared = &self.shared;
        let Some(_inside) = place.enter(shared.patience).await else {
            shared.counters.busy.fetch_add(1, Ordering::Relaxed);
            self.verdict = Some(Verdict::Deny(BUSY));
            return;
        };
        match shared.ask(body, login).await {
            Ok(verdict) => {
                shared.state.lock().cache.put(self.tag, verdict.clone(), env::now());
                self.verdict = Some(verdict);
            }
            Err(what) => {
                shared.counters.failures.fetch_add(1, Ordering::Relaxed);
                if let Some(more) = shared.log.permit() {
                    tracing::warn!(%what, more, "the authentication service cannot be used; clients are refused");
                }
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let judges = {
            let mut state = self.shared.state.lock();
            let judges = state.flights.remove(&self.tag).unwrap_or_default();
            state.joined -= judges.len().saturating_sub(1);
            judges
        };
        let verdict = self.verdict.take().unwrap_or(Verdict::Deny(UNAVAILABLE));
        for judge in judges {
            judge(verdict.clone());
        }
    }
}

impl Service {
    fn new(config: &HttpAuthConfig, node: &str) -> Result<Self, BadSetting> {
        let Some(url) = config.url.clone() else {
            return Err(BadSetting::new("url", "is needed: where the service is that judges clients"));
        };
        let timeout = Duration::from_millis(config.timeout_ms.into());
        let client = Client::new(&url, config.ca_file.as_deref(), timeout, exchange::ANSWER_MAX_BYTES)?;
        let header = match (&config.header_file, &config.header) {
            (None, None) => None,
            (Some(path), None) => {
                let line = read_file("header_file", path, HEADER_FILE_MAX_BYTES)?;
                let shown = format!("{} has to hold", path.display());
                Some(parse_header(&line).ok_or_else(|| wrong_header("header_file", &shown))?)
            }
            (None, Some(line)) => {
                Some(parse_header(line.expose()).ok_or_else(|| wrong_header("header", "has to be"))?)
            }
            (Some(_), Some(_)) => return Err(BadSetting::new("header", "and header_file are both set")),
        };
        Ok(Self { client, url, header, node: node.into() })
    }

    fn request(&self, body: Zeroizing<Vec<u8>>) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.url.uri().clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(Full::new(Bytes::from_owner(body)))?;
        if let Some((name, value)) = &self.header {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        Ok(request)
    }
}

/// A line such as `Authorization: Bearer …`.
fn parse_header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = std::str::from_utf8(line).ok()?.trim_end().split_once(':')?;
    let mut value = HeaderValue::from_str(value.trim()).ok()?;
    value.set_sensitive(true);
    Some((name.trim().parse().ok()?, value))
}

fn wrong_header(key: &'static str, has_to: &str) -> BadSetting {
    BadSetting::new(key, format!("{has_to} one line such as Authorization: Bearer TOKEN"))
}
