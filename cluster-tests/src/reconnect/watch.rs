//! Looks at nodes while something happens to them.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::http;
use crate::wait;

/// What a node says when its cluster has declared it down.
const DECLARED_OVER: &str = "declared this node's life over";

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Lives that were declared over.
    pub downs: usize,
    /// Times that a node was seen without its lease after it had one.
    pub lapses: usize,
    /// Times that a node was seen to have begun to lead.
    pub leaders: usize,
    /// The highest level of overload.
    pub level: u64,
    /// The longest turn of an event loop, and how late consensus was at worst, as far as it was seen.
    pub loop_lag: Duration,
    pub consensus_lag: Duration,
    /// CONNECTs refused and sent elsewhere for want of room.
    pub refused: u64,
    pub redirected: u64,
}

/// Between two looks: a lapse of a lease lasts longer, and looking costs the nodes time.
const LOOK: Duration = Duration::from_millis(50);

/// A thread that looks as often as that.
pub struct Watch {
    stop: Arc<AtomicBool>,
    logs: Vec<PathBuf>,
    before: usize,
    thread: JoinHandle<Seen>,
}

impl Watch {
    pub fn start(apis: &[SocketAddr], logs: &[PathBuf]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, apis) = (stop.clone(), apis.to_vec());
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            let mut before = vec![None; apis.len()];
            while !stopped.load(Ordering::Relaxed) {
                for (api, before) in apis.iter().zip(&mut before) {
                    look(*api, before, &mut seen);
                }
                wait::pass(LOOK);
            }
            seen
        });
        let logs = logs.to_vec();
        Self { stop, before: declared_over(&logs), logs, thread }
    }

    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.join().expect("it looks until the end");
        Seen { downs: declared_over(&self.logs) - self.before, ..seen }
    }
}

/// A node as it was last seen: leased, leading, and what it had refused and redirected.
type Last = Option<(bool, bool, u64, u64)>;

fn look(api: SocketAddr, before: &mut Last, seen: &mut Seen) {
    // It may be too busy to answer for a moment.
    let Ok((200, text)) = http::get(api, "/metrics") else { return };
    let metric = |name: &str| http::metric(&text, name).unwrap_or(0.0) as u64;
    let leased = metric("rookery_lease_valid") == 1;
    let leads = metric("rookery_leader") == 1;
    let refused = metric("rookery_connects_refused_overload_total");
    let redirected = metric("rookery_connects_redirected_total");
    if let Some((was_leased, led, refused_before, redirected_before)) = *before {
        seen.lapses += usize::from(was_leased && !leased);
        seen.leaders += usize::from(leads && !led);
        seen.refused += refused - refused_before;
        seen.redirected += redirected - redirected_before;
    }
    seen.level = seen.level.max(metric("rookery_overload_level"));
    let lag = |name: &str| Duration::from_micros(metric(name));
    seen.loop_lag = seen.loop_lag.max(lag("rookery_event_loop_lag_microseconds"));
    seen.consensus_lag = seen.consensus_lag.max(lag("rookery_consensus_lag_microseconds"));
    *before = Some((leased, leads, refused, redirected));
}

fn declared_over(logs: &[PathBuf]) -> usize {
    let count = |log: &PathBuf| fs::read_to_string(log).unwrap_or_default().matches(DECLARED_OVER).count();
    logs.iter().map(count).sum()
}
