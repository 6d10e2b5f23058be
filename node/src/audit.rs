//! Who did what, from where: log lines with the target `audit`, whatever the level of the rest.

use std::fmt;

use parking_lot::Mutex;

use crate::env::{self, Instant};

/// The target of these lines.
pub const TARGET: &str = "audit";
/// Lines a second about what strangers do, who could fill the disk with them.
const LINES_PER_SECOND: u32 = 20;

/// What clients were refused, as far as the log has room for it.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

/// One thing that a client was refused. Names are what the client says.
pub struct Refusal<'a> {
    /// `login`, `publish` or `subscribe`.
    pub event: &'static str,
    pub address: String,
    pub client: &'a str,
    pub user: Option<&'a str>,
    /// The topic or filter.
    pub topic: Option<&'a str>,
    pub reason: &'a dyn fmt::Display,
}

impl Refusals {
    /// Writes a line, unless there were too many in this second; the next one says how many were
    /// not written.
    pub fn note<'a>(&self, refusal: impl FnOnce() -> Refusal<'a>) {
        let Some(suppressed) = self.may_write(env::now()) else { return };
        let Refusal { event, address, client, user, topic, reason } = refusal();
        // Debug: nothing that a client says may end a line or look like another field.
        tracing::info!(
            target: TARGET,
            event,
            outcome = "refused",
            address,
            client = ?client,
            user = user.map(tracing::field::debug),
            topic = topic.map(tracing::field::debug),
            suppressed,
            "{reason}"
        );
    }

    fn may_write(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock();
        let is_new = window.began.is_none_or(|began| now.duration_since(began).as_secs() >= 1);
        if is_new {
            window.began = Some(now);
            window.lines = 0;
        }
        if window.lines == LINES_PER_SECOND {
            window.suppressed += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

/// Notes what an operator did. `what` names it without secrets.
pub fn operator(
    by: &str,
    action: &'static str,
    what: &dyn fmt::Debug,
    outcome: Result<(), &dyn fmt::Display>,
) {
    match outcome {
        Ok(()) => tracing::info!(target: TARGET, event = action, outcome = "done", by, ?what),
        Err(error) => {
            tracing::info!(target: TARGET, event = action, outcome = "failed", by, ?what, "{error}")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_counted_instead() {
        let refusals = Refusals::default();
        let began = env::now();
        let written = (0..100).filter(|_| refusals.may_write(began).is_some()).count();
        assert_eq!(written, LINES_PER_SECOND as usize);
        assert_eq!(refusals.may_write(began + Duration::from_secs(1)), Some(80));
        assert_eq!(refusals.may_write(began + Duration::from_secs(1)), Some(0));
    }
}
