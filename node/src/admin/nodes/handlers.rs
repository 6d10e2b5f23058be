//! One function per route of nodes.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};

use super::super::handlers::{Body, From, Node, Reply, body, by, to_the_end};
use super::{DecommissionRequest, DrainRequest, NodeInfo, NodeList};
use crate::admin::{ControlError, ErrorKind};
use crate::state::Drain;

/// Bounds for how long clients may take to go, seconds: up to a day.
const TIMEOUT_S: std::ops::RangeInclusive<u64> = 0..=86_400;

fn within<T: PartialOrd + std::fmt::Display>(
    name: &str,
    value: &T,
    bounds: &std::ops::RangeInclusive<T>,
) -> Result<(), ControlError> {
    if bounds.contains(value) {
        return Ok(());
    }
    let message = format!("{name} must be from {} to {}", bounds.start(), bounds.end());
    Err(ControlError::new(ErrorKind::Invalid, message))
}

fn check_rate(rate_per_s: Option<u32>) -> Result<(), ControlError> {
    rate_per_s.map_or(Ok(()), |rate| within("rate_per_s", &rate, &Drain::RATES))
}

pub(in crate::admin) async fn nodes(State(control): Node) -> Reply<NodeList> {
    control.nodes().await.map(Json)
}

pub(in crate::admin) async fn node(State(control): Node, Path(node): Path<String>) -> Reply<NodeInfo> {
    control.node(node).await.map(Json)
}

pub(in crate::admin) async fn drain(
    State(control): Node,
    from: From,
    Path(node): Path<String>,
    request: Result<Option<Json<DrainRequest>>, JsonRejection>,
) -> Reply<NodeInfo> {
    let request = request.map_err(|e| ControlError::new(ErrorKind::Invalid, e.body_text()))?;
    let request = request.map(|Json(request)| request).unwrap_or_default();
    check_rate(request.rate_per_s)?;
    to_the_end(control, move |c| c.drain(by(from), node, request)).await
}

pub(in crate::admin) async fn undrain(
    State(control): Node,
    from: From,
    Path(node): Path<String>,
) -> Reply<NodeInfo> {
    to_the_end(control, move |c| c.undrain(by(from), node)).await
}

pub(in crate::admin) async fn decommission(
    State(control): Node,
    from: From,
    Path(node): Path<String>,
    request: Body<DecommissionRequest>,
) -> Reply<()> {
    let request = body(request)?;
    check_rate(request.rate_per_s)?;
    within("timeout_s", &request.timeout_s, &TIMEOUT_S)?;
    to_the_end(control, move |c| c.decommission(by(from), node, request)).await
}
