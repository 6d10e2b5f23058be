//! The keys that count now, and where newer ones come from.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::keys::KeySet;
use crate::auth::http::{Client, Url};
use crate::auth::setting::read_file;
use crate::env::{self, Instant};

/// Largest JWKS that is read, bytes.
pub const JWKS_MAX_BYTES: usize = 256 << 10;
/// Most log-ins that wait for newer keys.
pub const WAITING_MAX: usize = 4_096;
/// When a refresh that failed is tried again, unless the cooldown is longer.
const RETRY: Duration = Duration::from_secs(10);

/// Where a JWKS comes from.
pub enum Source {
    Url { client: Box<Client>, url: Url },
    File(PathBuf),
}

impl Source {
    /// # Errors
    /// There is no JWKS there now.
    async fn fetch(&self) -> Result<KeySet, String> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let read = move || {
                    let document =
                        read_file("jwks_file", &path, JWKS_MAX_BYTES).map_err(|error| error.what)?;
                    KeySet::from_jwks(&document).map_err(|what| format!("{} {what}", path.display()))
                };
                env::blocking(read).await
            }
            Self::Url { client, url } => {
                let request = Request::get(url.uri().clone())
                    .header(header::ACCEPT, "application/json")
                    .body(Full::new(Bytes::new()))
                    .map_err(|error| error.to_string())?;
                let (status, document) = client.send(request).await.map_err(|error| error.to_string())?;
                if status != StatusCode::OK {
                    return Err(format!("status {status}"));
                }
                KeySet::from_jwks(&document).map_err(|what| format!("the answer {what}"))
            }
        }
    }
}

/// When keys are fetched.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How often, in any case.
    pub every: Duration,
    /// How long after a refresh the next may follow because somebody shows an unknown key.
    pub cooldown: Duration,
    /// How long a log-in waits for one.
    pub patience: Duration,
}

/// The state of refreshing.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    /// How many have ended.
    ended: u64,
    running: bool,
    last: Option<Instant>,
    failed: bool,
}

/// The keys, and whoever refreshes them.
pub struct Keyring {
    shared: Arc<Shared>,
    refresher: Option<AbortHandle>,
}

struct Shared {
    known: ArcSwap<KeySet>,
    pace: Pace,
    rounds: watch::Sender<Round>,
    /// How many rounds somebody asked for.
    wanted: watch::Sender<u64>,
    waiting: Arc<Semaphore>,
    failures: AtomicU64,
}

/// Whether there may be newer keys than those that are known.
pub enum Newer {
    /// There was a refresh just now, or there is none at all.
    No,
    /// Perhaps, but too many wait for them already.
    Crowded,
    Soon(Refresh),
}

/// A refresh that is under way or about to be, which others wait for too.
pub struct Refresh {
    rounds: watch::Receiver<Round>,
    after: u64,
    patience: Duration,
    _place: OwnedSemaphorePermit,
}

impl Refresh {
    /// Waits until it has ended, or for as long as a log-in may wait.
    pub async fn ended(mut self) {
        let ended = self.rounds.wait_for(|round| round.ended > self.after);
        // Either way the keys that are there by then count.
        let _ = timeout(self.patience, ended).await;
    }
}

impl Keyring {
    /// Keys that stay as they are.
    pub fn fixed(keys: KeySet) -> Self {
        let never = Pace { every: Duration::MAX, cooldown: Duration::MAX, patience: Duration::ZERO };
        Self { shared: Arc::new(Shared::new(keys, never)), refresher: None }
    }

    /// Keys that are fetched from now on; `known`: those that count until then.
    pub fn fetched(source: Source, known: KeySet, pace: Pace, runtime: &Handle) -> Self {
        let shared = Arc::new(Shared::new(known, pace));
        let task = runtime.spawn(refresh(shared.clone(), source));
        Self { shared, refresher: Some(task.abort_handle()) }
    }

    pub fn known(&self) -> Arc<KeySet> {
        self.shared.known.load_full()
    }

    /// Asks for newer keys than those that are known.
    pub fn refresh(&self) -> Newer {
        if self.refresher.is_none() {
            return Newer::No;
        }
        let rounds = self.shared.rounds.subscribe();
        let round = *rounds.borrow();
        if !round.running && !self.shared.has_cooled_down(&round) {
            return Newer::No;
        }
        let Ok(place) = self.shared.waiting.clone().try_acquire_owned() else { return Newer::Crowded };
        if !round.running {
            self.shared.wanted.send_if_modified(|wanted| {
                let is_first = *wanted <= round.ended;
                *wanted = (*wanted).max(round.ended + 1);
                is_first
            });
        }
        Newer::Soon(Refresh {
            rounds,
            after: round.ended,
            patience: self.shared.pace.patience,
            _place: place,
        })
    }

    /// Whether newer keys could not be had: one that is unknown may then be good.
    pub fn is_cut_off(&self) -> bool {
        self.shared.rounds.borrow().failed
    }

    /// Refreshes that ended, and those that failed.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.rounds.borrow().ended, self.shared.failures.load(Ordering::Relaxed))
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        if let Some(refresher) = &self.refresher {
            refresher.abort();
        }
    }
}

impl Shared {
    fn new(known: KeySet, pace: Pace) -> Self {
        Self {
            known: ArcSwap::from_pointee(known),
            pace,
            rounds: watch::Sender::new(Round::default()),
            wanted: watch::Sender::new(0),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            failures: AtomicU64::new(0),
        }
    }

    fn has_cooled_down(&self, round: &Round) -> bool {
        round.last.is_none_or(|last| env::now().saturating_duration_since(last) >= self.pace.cooldown)
    }
}

/// Fetches keys one time after the other: nobody else does, so there is never more than one request.
async fn refresh(shared: Arc<Shared>, source: Source) {
    let mut ended = 0;
    loop {
        shared.rounds.send_modify(|round| round.running = true);
        let fetched = source.fetch().await;
        let failed = fetched.is_err();
        match fetched {
            Ok(keys) => {
                if keys.keys().is_empty() {
                    tracing::warn!("the JWKS has no key that tokens can be verified with");
                }
                shared.known.store(Arc::new(keys));
            }
            Err(what) => {
                shared.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%what, "the JWKS cannot be had; the keys known before go on counting");
            }
        }
        ended += 1;
        shared.rounds.send_replace(Round { ended, running: false, last: Some(env::now()), failed });
        let Pace { every, cooldown, .. } = shared.pace;
        let pause = if failed { every.min(RETRY.max(cooldown)) } else { every };
        let mut wanted = shared.wanted.subscribe();
        // One who asked before this round began has its answer.
        let asked = wanted.wait_for(|wanted| *wanted > ended);
        // Nobody asks any more, or somebody does, or it is time.
        let _ = timeout(pause, asked).await;
    }
}
