//! One function per route of messages.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::Value;

use super::super::handlers::{Body, From, Node, Paging, Reply, body, by, page_limit, to_the_end};
use super::{PublishRequest, PublishedList, RetainedMessage, RetainedPage};
use crate::admin::{ControlError, ErrorKind};

/// Messages that one request may publish.
const MESSAGES: std::ops::RangeInclusive<usize> = 1..=1_000;

fn invalid(what: impl Into<String>) -> ControlError {
    ControlError::new(ErrorKind::Invalid, what)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Listing {
    filter: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

pub(in crate::admin) async fn list(
    State(control): Node,
    listing: Result<Query<Listing>, QueryRejection>,
) -> Reply<RetainedPage> {
    let Query(Listing { filter, cursor, limit }) = listing.map_err(|e| invalid(e.body_text()))?;
    let filter = filter.unwrap_or_else(|| "#".to_owned());
    let limit = page_limit(&Paging { cursor: None, limit });
    control.list_retained(filter, cursor, limit).await.map(Json)
}

pub(in crate::admin) async fn show(
    State(control): Node,
    Path(topic): Path<String>,
) -> Reply<RetainedMessage> {
    control.retained(topic).await.map(Json)
}

pub(in crate::admin) async fn remove(
    State(control): Node,
    from: From,
    Path(topic): Path<String>,
) -> Reply<()> {
    to_the_end(control, move |c| c.remove_retained(by(from), topic)).await
}

/// Of a message, or of several. Not an untagged enum, which would not say what is wrong with them.
fn requests(body: Value) -> Result<Vec<PublishRequest>, ControlError> {
    let parsed = match body {
        Value::Array(all) => all.into_iter().map(serde_json::from_value).collect(),
        one => serde_json::from_value(one).map(|one| vec![one]),
    };
    parsed.map_err(|error: serde_json::Error| invalid(error.to_string()))
}

pub(in crate::admin) async fn publish(
    State(control): Node,
    from: From,
    request: Body<Value>,
) -> Reply<PublishedList> {
    let messages = requests(body(request)?)?;
    if !MESSAGES.contains(&messages.len()) {
        let (min, max) = MESSAGES.into_inner();
        return Err(invalid(format!("from {min} to {max} messages, not {}", messages.len())));
    }
    to_the_end(control, move |c| c.publish(by(from), messages)).await
}
