//! What a node logs. It concerns the process, so that nothing behind the API has to be asked.

use std::time::Duration;

use axum::Json;
use serde::{Deserialize, Serialize};

use super::control::{ControlError, ErrorKind};
use super::handlers::{Body, From, Reply, body, by};
use crate::logging::{FOR_MAX_S, Filter, FilterError, InForce};
use crate::{audit, env, logging};

/// What is to be logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogRequest {
    /// Levels and `TARGET=LEVEL`, separated by commas.
    pub filter: String,
    /// After so many seconds, 1 to [`FOR_MAX_S`], the configured filter is in force again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<u64>,
}

impl std::convert::From<FilterError> for ControlError {
    fn from(error: FilterError) -> Self {
        Self::new(ErrorKind::Invalid, error.to_string())
    }
}

fn filter() -> Result<&'static Filter, ControlError> {
    logging::filter().ok_or_else(|| ControlError::new(ErrorKind::Unavailable, "this process logs nothing"))
}

fn note(by: &str, what: &dyn std::fmt::Debug, outcome: &Result<(), ControlError>) {
    audit::operator(by, "log.filter", what, outcome.as_ref().copied().map_err(|error| error as _));
}

pub(super) async fn get() -> Reply<InForce> {
    Ok(Json(filter()?.in_force()))
}

pub(super) async fn put(from: From, request: Body<LogRequest>) -> Reply<InForce> {
    let request = body(request)?;
    let outcome = set(&request);
    note(&by(from), &request.filter, &outcome);
    outcome?;
    get().await
}

fn set(LogRequest { filter: text, for_s }: &LogRequest) -> Result<(), ControlError> {
    if for_s.is_some_and(|for_s| !(1..=FOR_MAX_S).contains(&for_s)) {
        return Err(ControlError::new(ErrorKind::Invalid, format!("for_s must be from 1 to {FOR_MAX_S}")));
    }
    let filter = filter()?;
    let lasting = for_s.map(Duration::from_secs);
    let change = filter.set(text, lasting)?;
    if let Some(lasting) = lasting {
        env::spawn(async move {
            tokio::time::sleep(lasting).await;
            if let Ok(true) = filter.expire(change) {
                note("the time it was set for", &"configured", &Ok(()));
            }
        });
    }
    Ok(())
}

pub(super) async fn delete(from: From) -> Reply<InForce> {
    let outcome = filter().and_then(|filter| Ok(filter.reset()?));
    note(&by(from), &"configured", &outcome);
    outcome?;
    get().await
}
