//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// Between two looks at a condition that nobody reports.
const POLL: Duration = Duration::from_millis(10);

/// Looks until `probe` has an answer; `None` after `deadline`.
pub fn within<T>(deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = probe() {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        pause();
    }
}

/// As [`within`], for what has to happen.
///
/// # Panics
/// When it has not happened by the deadline.
#[track_caller]
pub fn eventually<T>(what: &str, deadline: Duration, probe: impl FnMut() -> Option<T>) -> T {
    match within(deadline, probe) {
        Some(answer) => answer,
        None => panic!("not within {deadline:?}: {what}"),
    }
}

/// Lets a time pass that is itself what is tested: until something expires, or while nothing may
/// happen.
pub fn pass(time: Duration) {
    let _ = within(time, || None::<()>);
}

/// One polling interval.
#[expect(clippy::disallowed_methods, reason = "the one place that polls")]
pub fn pause() {
    std::thread::sleep(POLL);
}
