//! One function per route: unwrap the request, ask [`Control`], wrap the answer.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::control::{
    Answer, CaStatus, ClientInfo, ClientPage, ClusterStatus, Control, ControlError, ErrorKind, ForgetRequest,
    Health, JoinRequest, JoinToken, NewLeader, Readiness, RotateRequest, Startup, TokenRequest,
    TransferRequest,
};
use crate::env;

pub(super) type Node = State<Arc<dyn Control>>;
pub(super) type From = ConnectInfo<SocketAddr>;
pub(super) type Body<T> = Result<Json<T>, JsonRejection>;
pub(super) type Reply<T> = Result<Json<T>, ControlError>;

/// Most items on one page, and how many come unasked.
const MAX_PAGE: usize = 1_000;
const DEFAULT_PAGE: usize = 100;
/// Bounds for the life of a join token, seconds: a minute to a month.
const TOKEN_TTL_S: std::ops::RangeInclusive<u64> = 60..=2_592_000;

/// Runs a change to its end even if the caller goes away in the middle of it.
pub(super) async fn to_the_end<T, F>(control: Arc<dyn Control>, change: F) -> Reply<T>
where
    T: Send + 'static,
    F: for<'a> FnOnce(&'a dyn Control) -> Answer<'a, T> + Send + 'static,
{
    env::spawn(async move { change(&*control).await })
        .await
        .unwrap_or_else(|_| Err(ControlError::new(ErrorKind::Unavailable, "the node is stopping")))
        .map(Json)
}

/// Who asks, for the audit log.
pub(super) fn by(ConnectInfo(address): From) -> String {
    format!("api from {address}")
}

pub(super) fn body<T>(body: Body<T>) -> Result<T, ControlError> {
    body.map(|Json(value)| value).map_err(|e| ControlError::new(ErrorKind::Invalid, e.body_text()))
}

fn invalid<T>(message: impl Into<String>) -> Result<T, ControlError> {
    Err(ControlError::new(ErrorKind::Invalid, message))
}

/// Says only that the process answers; the cluster's troubles are no reason to restart it.
pub(super) async fn livez() -> Json<Value> {
    Json(json!({ "live": true }))
}

/// The status by which a probe counts as passed or not.
fn probed<T>(passed: bool, answer: T) -> (StatusCode, Json<T>) {
    (if passed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(answer))
}

pub(super) async fn startupz(State(control): Node) -> (StatusCode, Json<Startup>) {
    let startup = control.started();
    probed(startup.started, startup)
}

pub(super) async fn readyz(State(control): Node) -> (StatusCode, Json<Readiness>) {
    let readiness = control.ready();
    probed(readiness.ready, readiness)
}

/// Waits no longer than [`Control::status`] does.
pub(super) async fn cluster_healthz(
    State(control): Node,
) -> Result<(StatusCode, Json<Health>), ControlError> {
    let health = Health::from(&control.status().await?);
    Ok(probed(health.healthy, health))
}

pub(super) async fn metrics(State(control): Node) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], control.metrics_text()).into_response()
}

pub(super) async fn status(State(control): Node) -> Reply<ClusterStatus> {
    control.status().await.map(Json)
}

pub(super) async fn init(State(control): Node) -> Reply<ClusterStatus> {
    to_the_end(control, |c| c.init()).await
}

pub(super) async fn token(State(control): Node, request: Body<TokenRequest>) -> Reply<JoinToken> {
    let TokenRequest { ttl_s } = body(request)?;
    if !TOKEN_TTL_S.contains(&ttl_s) {
        let (min, max) = TOKEN_TTL_S.into_inner();
        return invalid(format!("ttl_s must be from {min} to {max}"));
    }
    to_the_end(control, move |c| c.token(ttl_s)).await
}

pub(super) async fn join(State(control): Node, request: Body<JoinRequest>) -> Reply<ClusterStatus> {
    let JoinRequest { seeds, token } = body(request)?;
    if seeds.is_empty() {
        return invalid("seeds must name at least one peer address");
    }
    if let Some(error) = seeds.iter().find_map(|s| s.parse::<crate::config::HostPort>().err()) {
        return invalid(error);
    }
    to_the_end(control, move |c| c.join(seeds, token)).await
}

pub(super) async fn leave(State(control): Node) -> Reply<()> {
    to_the_end(control, |c| c.leave()).await
}

pub(super) async fn forget(State(control): Node, request: Body<ForgetRequest>) -> Reply<()> {
    let ForgetRequest { node, force } = body(request)?;
    to_the_end(control, move |c| c.forget(node, force)).await
}

pub(super) async fn transfer_leader(
    State(control): Node,
    request: Result<Option<Json<TransferRequest>>, JsonRejection>,
) -> Reply<NewLeader> {
    let to = request
        .map_err(|e| ControlError::new(ErrorKind::Invalid, e.body_text()))?
        .and_then(|Json(request)| request.to);
    to_the_end(control, move |c| c.transfer_leader(to)).await
}

pub(super) async fn ca(State(control): Node) -> Reply<CaStatus> {
    control.ca().await.map(Json)
}

pub(super) async fn rotate_ca(
    State(control): Node,
    request: Result<Option<Json<RotateRequest>>, JsonRejection>,
) -> Reply<CaStatus> {
    let force = request
        .map_err(|e| ControlError::new(ErrorKind::Invalid, e.body_text()))?
        .is_some_and(|Json(request)| request.force);
    to_the_end(control, move |c| c.rotate_ca(force)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Paging {
    pub cursor: Option<String>,
    pub limit: Option<usize>,
}

/// How many are asked for.
pub(super) fn page_limit(paging: &Paging) -> usize {
    paging.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE)
}

pub(super) async fn clients(
    State(control): Node,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Reply<ClientPage> {
    let Query(paging) = paging.map_err(|e| ControlError::new(ErrorKind::Invalid, e.body_text()))?;
    let limit = page_limit(&paging);
    control.clients(paging.cursor, limit).await.map(Json)
}

pub(super) async fn client(State(control): Node, Path(id): Path<String>) -> Reply<ClientInfo> {
    control.client(id).await.map(Json)
}

pub(super) async fn kick(State(control): Node, Path(id): Path<String>) -> Reply<()> {
    to_the_end(control, move |c| c.kick(id)).await
}
