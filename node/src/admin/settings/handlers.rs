//! One function per route of users, rules and bans.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};

use super::super::handlers::{Body, From, Node, Paging, Reply, body, by, page_limit, to_the_end};
use super::{BanPage, BanRequest, CheckRequest, Checked, RuleList, RulesRequest, UserPage, UserRequest};
use crate::admin::{ControlError, ErrorKind};

fn paging(paging: Result<Query<Paging>, QueryRejection>) -> Result<(Option<String>, usize), ControlError> {
    let Query(paging) = paging.map_err(|e| ControlError::new(ErrorKind::Invalid, e.body_text()))?;
    Ok((paging.cursor.clone(), page_limit(&paging)))
}

pub(in crate::admin) async fn users(
    State(control): Node,
    page: Result<Query<Paging>, QueryRejection>,
) -> Reply<UserPage> {
    let (cursor, limit) = paging(page)?;
    control.users(cursor, limit).await.map(Json)
}

pub(in crate::admin) async fn set_user(
    State(control): Node,
    from: From,
    Path(name): Path<String>,
    request: Body<UserRequest>,
) -> Reply<()> {
    let user = body(request)?;
    to_the_end(control, move |c| c.set_user(by(from), name, user)).await
}

pub(in crate::admin) async fn remove_user(
    State(control): Node,
    from: From,
    Path(name): Path<String>,
) -> Reply<()> {
    to_the_end(control, move |c| c.remove_user(by(from), name)).await
}

pub(in crate::admin) async fn rules(State(control): Node) -> Reply<RuleList> {
    control.rules().await.map(Json)
}

pub(in crate::admin) async fn set_rules(
    State(control): Node,
    from: From,
    request: Body<RulesRequest>,
) -> Reply<RuleList> {
    let rules = body(request)?;
    to_the_end(control, move |c| c.set_rules(by(from), rules)).await
}

pub(in crate::admin) async fn bans(
    State(control): Node,
    page: Result<Query<Paging>, QueryRejection>,
) -> Reply<BanPage> {
    let (cursor, limit) = paging(page)?;
    control.bans(cursor, limit).await.map(Json)
}

pub(in crate::admin) async fn ban(
    State(control): Node,
    from: From,
    Path((kind, value)): Path<(String, String)>,
    request: Body<BanRequest>,
) -> Reply<()> {
    let ban = body(request)?;
    to_the_end(control, move |c| c.ban(by(from), kind, value, ban)).await
}

pub(in crate::admin) async fn lift_ban(
    State(control): Node,
    from: From,
    Path((kind, value)): Path<(String, String)>,
) -> Reply<()> {
    to_the_end(control, move |c| c.lift_ban(by(from), kind, value)).await
}

pub(in crate::admin) async fn check(State(control): Node, request: Body<CheckRequest>) -> Reply<Checked> {
    control.check(body(request)?).await.map(Json)
}
