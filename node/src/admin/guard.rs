//! Who may use `/api/v1` as long as nobody has to say who they are: programs on this machine may
//! change things, everyone who reaches the port may look, and web pages of other origins may do
//! neither.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::control::{ControlError, ErrorKind};

/// What nobody else may look at either: who may log in and what they may do, and what clients have
/// said. Paths are those below `/api/v1`.
const PRIVATE: [&str; 5] = ["/users", "/rules", "/bans", "/acl", "/retained"];

/// Host names, besides IP addresses and `localhost`, under which this node answers. A page that
/// had its own name resolved to this node's address (DNS rebinding) sends that name as `Host`.
#[derive(Clone, Debug, Default)]
pub struct Hosts(pub Vec<String>);

impl Hosts {
    /// `host` is the value of a `Host` header, perhaps with a port.
    fn allows(&self, host: &str) -> bool {
        if host.parse::<SocketAddr>().is_ok() {
            return true;
        }
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if bare.parse::<IpAddr>().is_ok() {
            return true;
        }
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.parse::<u16>().is_ok() => name,
            Some(_) => return false,
            None => host,
        };
        name.eq_ignore_ascii_case("localhost") || self.0.iter().any(|h| h.eq_ignore_ascii_case(name))
    }
}

pub(super) async fn guard(
    State(hosts): State<Arc<Hosts>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    match check(&hosts, peer, request.method(), request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(message) => ControlError::new(ErrorKind::Unauthorized, message).into_response(),
    }
}

fn check(
    hosts: &Hosts,
    peer: SocketAddr,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<(), String> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(header::HOST).unwrap_or_default();
    if !hosts.allows(host) {
        return Err(format!("this node does not answer to the host name {host:?}"));
    }
    if let Some(origin) = text(header::ORIGIN) {
        let same = origin.split_once("://").is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(host));
        if !same {
            return Err(format!("requests from pages of {origin:?} are refused"));
        }
    }
    let is_public = !PRIVATE.iter().any(|private| path.starts_with(private));
    if is_public && matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    // Behind a proxy on this machine everyone would look local.
    let proxied = headers.contains_key(header::FORWARDED) || headers.contains_key("x-forwarded-for");
    if proxied || !peer.ip().to_canonical().is_loopback() {
        let what = if is_public { "changes are accepted" } else { "this is answered" };
        return Err(format!("{what} only from the machine that the node runs on"));
    }
    Ok(())
}
