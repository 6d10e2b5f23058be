//! What is logged, and how that is changed while the process runs.

use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Handle;

use crate::config::log_level;
use crate::env::{self, Instant};

/// Longest filter that may be set, bytes.
pub const FILTER_MAX_BYTES: usize = 1_024;
/// Longest time for which one may be set, seconds: a day.
pub const FOR_MAX_S: u64 = 86_400;
/// In force whatever else is, unless the filter names these targets. openraft warns of every heartbeat
/// that a dead peer misses; this node says it once.
const ALWAYS: &str = "openraft=error,audit=info";

/// Makes a filter the process's.
type Apply = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// What the process logs.
pub struct Filter {
    configured: String,
    apply: Apply,
    now: Mutex<Now>,
}

struct Now {
    filter: String,
    /// When the configured one is to be in force again.
    until: Option<Instant>,
    /// How many changes there were.
    changes: u64,
}

/// Which lines are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    pub filter: String,
    /// What was in force when the process started.
    pub configured: String,
    /// Seconds until that is in force again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<u64>,
}

/// Why a filter is not put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("a filter has at most {FILTER_MAX_BYTES} bytes")]
    TooLong,
    #[error("{0}")]
    Unusable(String),
}

/// The filter that a level of the configuration stands for.
pub(super) fn of_level(level: &impl std::fmt::Display) -> (String, EnvFilter) {
    let text = format!("{ALWAYS},{level}");
    let filter = EnvFilter::new(&text);
    (text, filter)
}

pub(super) fn applier<S: 'static>(handle: Handle<EnvFilter, S>) -> Apply {
    Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()))
}

/// The filter in full, and as it is applied.
fn parse(text: &str) -> Result<(String, EnvFilter), FilterError> {
    if text.len() > FILTER_MAX_BYTES {
        return Err(FilterError::TooLong);
    }
    log_level(text).map_err(FilterError::Unusable)?;
    let full = format!("{ALWAYS},{text}");
    let filter = EnvFilter::try_new(&full).map_err(|error| FilterError::Unusable(error.to_string()))?;
    Ok((full, filter))
}

impl Filter {
    /// `configured` is in force.
    pub(super) fn new(configured: String, apply: Apply) -> Self {
        let now = Now { filter: configured.clone(), until: None, changes: 0 };
        Self { configured, apply, now: Mutex::new(now) }
    }

    pub fn in_force(&self) -> InForce {
        let now = self.now.lock();
        let left = now.until.map(|until| until.saturating_duration_since(env::now()));
        InForce {
            filter: now.filter.clone(),
            configured: self.configured.clone(),
            for_s: left.map(|left| left.as_secs_f64().ceil() as u64),
        }
    }

    /// Puts a filter in force: levels and `TARGET=LEVEL`, separated by commas. With `lasting`,
    /// [`Filter::expire`] with the number that is returned is to be called after that time.
    ///
    /// # Errors
    /// It is not a filter; nothing has changed.
    pub fn set(&self, text: &str, lasting: Option<Duration>) -> Result<u64, FilterError> {
        let (full, filter) = parse(text)?;
        self.put(&mut self.now.lock(), full, filter, lasting)
    }

    /// Puts the configured filter in force again.
    ///
    /// # Errors
    /// As [`Filter::set`].
    pub fn reset(&self) -> Result<(), FilterError> {
        self.put_back(&mut self.now.lock())
    }

    /// Does that if nothing has been changed since the change of this number. Whether it did.
    ///
    /// # Errors
    /// As [`Filter::set`].
    pub fn expire(&self, change: u64) -> Result<bool, FilterError> {
        let mut now = self.now.lock();
        let is_last = now.changes == change;
        if is_last {
            self.put_back(&mut now)?;
        }
        Ok(is_last)
    }

    fn put_back(&self, now: &mut Now) -> Result<(), FilterError> {
        let filter = EnvFilter::try_new(&self.configured);
        let filter = filter.map_err(|error| FilterError::Unusable(error.to_string()))?;
        self.put(now, self.configured.clone(), filter, None).map(|_| ())
    }

    fn put(
        &self,
        now: &mut Now,
        text: String,
        filter: EnvFilter,
        lasting: Option<Duration>,
    ) -> Result<u64, FilterError> {
        (self.apply)(filter).map_err(FilterError::Unusable)?;
        let until = lasting.map(|lasting| env::now() + lasting);
        *now = Now { filter: text, until, changes: now.changes + 1 };
        Ok(now.changes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A filter, and what was applied.
    fn filter() -> (Filter, Arc<Mutex<Vec<String>>>) {
        let applied = Arc::new(Mutex::new(Vec::new()));
        let notes = applied.clone();
        let (configured, _) = of_level(&"info");
        let apply: Apply = Box::new(move |filter| {
            notes.lock().push(filter.to_string());
            Ok(())
        });
        (Filter::new(configured, apply), applied)
    }

    #[test]
    fn a_filter_is_in_force_until_it_is_reset() {
        let (filter, applied) = filter();
        filter.set("warn,rookery::peer=debug", None).expect("a filter");
        let now = filter.in_force();
        assert_eq!(now.filter, "openraft=error,audit=info,warn,rookery::peer=debug");
        assert_eq!((now.configured.as_str(), now.for_s), ("openraft=error,audit=info,info", None));
        filter.reset().expect("the configured one");
        assert_eq!(filter.in_force().filter, now.configured);
        let applied = applied.lock();
        assert_eq!(applied.len(), 2);
        assert!(
            applied[0].contains("rookery::peer=debug") && applied[0].contains("audit=info"),
            "{applied:?}"
        );
    }

    #[test]
    fn a_target_that_is_always_in_force_can_be_named() {
        let (filter, applied) = filter();
        filter.set("info,openraft=debug", None).expect("a filter");
        assert!(applied.lock()[0].contains("openraft=debug"));
        assert!(!applied.lock()[0].contains("openraft=error"));
    }

    #[test]
    fn what_is_no_filter_changes_nothing() {
        let (filter, applied) = filter();
        for text in ["", "verbose", "debgu", "info,", "rookery=loud", "info debug", &"x=info,".repeat(200)] {
            assert!(filter.set(text, None).is_err(), "{text}");
        }
        assert!(applied.lock().is_empty());
        assert_eq!(filter.in_force().filter, filter.in_force().configured);
    }

    #[test]
    fn a_later_change_outlives_the_end_of_an_earlier_one() {
        let (filter, _) = filter();
        let first = filter.set("debug", Some(Duration::from_secs(600))).expect("a filter");
        assert_eq!(filter.in_force().for_s, Some(600));
        let second = filter.set("trace", Some(Duration::from_secs(60))).expect("a filter");
        assert_eq!(filter.expire(first), Ok(false));
        assert!(filter.in_force().filter.ends_with(",trace"));
        assert_eq!(filter.expire(second), Ok(true));
        assert_eq!(filter.in_force().filter, filter.in_force().configured);
    }
}
