//! What must hold between keys before a node may start.

use std::net::SocketAddr;

use super::error::{Place, Problem};
use super::{AuthMethod, Config, ListenersConfig, TlsConfig};
use crate::auth::http::HttpCallback;
use crate::auth::jwt::Jwt;
use crate::auth::{BadSetting, UserTable};
use crate::net::Acceptor;
use crate::peer::lease::{LeaseTimes, SWEEP_MS};

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    check_exposure(config, problems);
    check_users(config, problems);
    check_authenticators(config, problems);
    check_chain(config, problems);
    check_advertised(config, problems);
    check_timing(config, problems);
    check_ports(config, problems);
    check_certificates(config, problems);
    check_proxies(config, problems);
    check_origins(config, problems);
    if config.cluster.expect > 0 {
        problems.push(Problem::new(
            Place::Key("cluster.expect"),
            "is not supported yet: form the cluster with `rookery cluster init` on one node, and let the \
             others join through cluster.seeds with cluster.token_file",
        ));
    }
}

/// What listens beyond this machine must know whom it talks to, or say that it need not.
fn check_exposure(config: &Config, problems: &mut Vec<Problem>) {
    const ASK: &str = ", or set auth.required = true to let in only clients that prove who they are, as \
                       users that `rookery users add` makes";
    // A listener that insists on clients' certificates does know.
    let open = |tls: &TlsConfig| tls.bind.filter(|_| !tls.require_client_cert);
    let (tcp, ws) = (&config.listeners.tcp, &config.listeners.ws);
    let (tls, wss) = (&config.listeners.tls, &config.listeners.wss);
    let listeners: [(&'static str, Option<SocketAddr>, bool, bool); 5] = [
        ("listeners.tcp.bind", tcp.bind, true, tcp.proxy_protocol),
        ("listeners.ws.bind", ws.bind, true, ws.proxy_protocol),
        ("listeners.tls.bind", open(tls), true, tls.proxy_protocol),
        ("listeners.wss.bind", open(wss), true, wss.proxy_protocol),
        ("api.bind", Some(config.api.bind), false, false),
    ];
    for (key, bind, for_clients, proxied) in listeners {
        let Some(bind) = bind.filter(|b| proxied || !b.ip().to_canonical().is_loopback()) else { continue };
        let meant = config.auth.allow_anonymous || (for_clients && config.auth.required);
        if !meant {
            let here = if bind.is_ipv4() { "127.0.0.1" } else { "[::1]" };
            let keep = match proxied {
                true => format!("take {} away", key.replace("bind", "proxy_protocol")),
                false => format!("set {key} = \"{here}:{}\" to keep it on this machine", bind.port()),
            };
            let by = if proxied { " through a proxy" } else { "" };
            let ask = if for_clients { ASK } else { "" };
            let what = format!(
                "{bind} can be reached from other machines{by} and there is no authentication. Either \
                 {keep}{ask}, or set auth.allow_anonymous = true to let anyone in who can reach it"
            );
            problems.push(Problem::new(Place::Key(key), what));
        }
    }
}

/// The users must be readable.
fn check_users(config: &Config, problems: &mut Vec<Problem>) {
    let Some(path) = &config.auth.scram_users_file else { return };
    if let Err(error) = UserTable::load(path) {
        problems.push(match error.line {
            Some(line) => Problem::in_file(&error.path, line, error.what),
            None => Problem::new(Place::Key("auth.scram_users_file"), error.to_string()),
        });
    }
}

/// Keys, secrets and addresses of other servers.
fn check_authenticators(config: &Config, problems: &mut Vec<Problem>) {
    let jwt = config.auth_jwt.is_set().then(|| ("auth.jwt", Jwt::check(&config.auth_jwt)));
    let http = config.auth_http.url.is_some().then(|| ("auth.http", HttpCallback::check(&config.auth_http)));
    for (section, checked) in jwt.into_iter().chain(http) {
        if let Err(BadSetting { key, what }) = checked {
            problems.push(Problem::new(Place::KeyOf { section, key }, what));
        }
    }
}

/// What is set up is asked, and what is asked is set up.
fn check_chain(config: &Config, problems: &mut Vec<Problem>) {
    let has_client_ca = config.listeners.encrypted().any(|(.., tls)| tls.ca_file.is_some());
    for (method, name, is_set, section) in [
        (AuthMethod::Jwt, "jwt", config.auth_jwt.is_set(), "[auth.jwt] has no key"),
        (AuthMethod::Http, "http", config.auth_http.url.is_some(), "[auth.http] has no url"),
    ] {
        let is_asked = config.auth.chain.contains(&method);
        let what = match (is_asked, is_set) {
            (true, false) => format!("names {name}, but {section}"),
            (false, true) => {
                format!("does not name {name}, but [auth.{name}] is set: add it, or take that away")
            }
            _ => continue,
        };
        problems.push(Problem::new(Place::Key("auth.chain"), what));
    }
    let named = |method| config.auth.chain.iter().filter(|named| **named == method).count();
    let twice = config.auth.chain.iter().any(|method| named(*method) > 1);
    if twice {
        problems.push(Problem::new(Place::Key("auth.chain"), "names one of them twice"));
    }
    if config.auth.required && config.auth.chain.is_empty() && config.auth.scram_users_file.is_none() {
        let what = "lets nobody in while auth.chain is empty";
        problems.push(Problem::new(Place::Key("auth.required"), what));
    }
    if named(AuthMethod::Certificate) == config.auth.chain.len()
        && config.auth.required
        && !has_client_ca
        && config.auth.scram_users_file.is_none()
    {
        let what = "lets nobody in: auth.chain names certificate alone, and no listener has a ca_file";
        problems.push(Problem::new(Place::Key("auth.required"), what));
    }
}

fn check_advertised(config: &Config, problems: &mut Vec<Problem>) {
    match &config.cluster.advertise {
        None if config.cluster.bind.ip().is_unspecified() => problems.push(Problem::new(
            Place::Key("cluster.advertise"),
            format!(
                "is needed when cluster.bind is {}: the HOST:PORT at which other nodes reach this one",
                config.cluster.bind
            ),
        )),
        Some(address) if address.port == 0 => {
            problems.push(Problem::new(Place::Key("cluster.advertise"), "needs a port other than 0"));
        }
        _ => {}
    }
}

/// A dead node is declared down after its lease has run out at a leader that may have to be
/// elected first. This holds the promise that its wills fire in time.
fn check_timing(config: &Config, problems: &mut Vec<Problem>) {
    let cluster = &config.cluster;
    if cluster.election_min_ms < cluster.heartbeat_ms * 3 {
        problems.push(Problem::new(
            Place::Key("cluster.election_min_ms"),
            format!(
                "must be at least three heartbeats ({} ms), or one late heartbeat starts an election",
                cluster.heartbeat_ms * 3
            ),
        ));
    }
    if cluster.election_max_ms < cluster.election_min_ms + cluster.heartbeat_ms {
        problems.push(Problem::new(
            Place::Key("cluster.election_max_ms"),
            format!(
                "must be at least cluster.election_min_ms and a heartbeat ({} ms), or elections tie",
                cluster.election_min_ms + cluster.heartbeat_ms
            ),
        ));
    }
    let lease = LeaseTimes::default();
    let total = lease.worst_ms(config.worst_election_ms());
    if total > cluster.failover_promise_ms {
        problems.push(Problem::new(
            Place::Key("cluster.election_max_ms"),
            format!(
                "the worst election ({} ms), the new leader's first {} ms and {SWEEP_MS} ms add up to \
                 {total} ms, but cluster.failover_promise_ms is {}: lower election_max_ms or promise less",
                config.worst_election_ms(),
                lease.settle_ms,
                cluster.failover_promise_ms
            ),
        ));
    }
}

fn check_ports(config: &Config, problems: &mut Vec<Problem>) {
    let mut taken: Vec<(&'static str, SocketAddr)> = Vec::new();
    let all = [
        ("listeners.tcp.bind", config.listeners.tcp.bind),
        ("listeners.ws.bind", config.listeners.ws.bind),
        ("listeners.tls.bind", config.listeners.tls.bind),
        ("listeners.wss.bind", config.listeners.wss.bind),
        ("api.bind", Some(config.api.bind)),
        ("cluster.bind", Some(config.cluster.bind)),
    ];
    for (key, bind) in all.into_iter().filter_map(|(key, bind)| bind.map(|b| (key, b))) {
        let clash = taken.iter().find(|(_, other)| {
            let overlap =
                other.ip() == bind.ip() || other.ip().is_unspecified() || bind.ip().is_unspecified();
            bind.port() != 0 && other.port() == bind.port() && overlap
        });
        if let Some((other, _)) = clash {
            problems.push(Problem::new(Place::Key(key), format!("has the same port as {other}: {bind}")));
        }
        taken.push((key, bind));
    }
}

/// Certificates that cannot be used are found before a node starts.
fn check_certificates(config: &Config, problems: &mut Vec<Problem>) {
    for (_, section, _, kind, tls) in config.listeners.encrypted() {
        if let Err(error) = Acceptor::load(tls.files(section), kind) {
            problems.push(Problem::new(Place::KeyOf { section, key: error.key }, error.what));
        }
    }
}

/// A listener that believes what is said of its clients has to know whom it believes.
fn check_proxies(config: &Config, problems: &mut Vec<Problem>) {
    let ListenersConfig { tcp, ws, tls, wss } = &config.listeners;
    for (key, used, trusted) in [
        ("listeners.tcp.proxy_trusted", tcp.proxy_protocol, &tcp.proxy_trusted),
        ("listeners.ws.proxy_trusted", ws.proxy_protocol, &ws.proxy_trusted),
        ("listeners.tls.proxy_trusted", tls.proxy_protocol, &tls.proxy_trusted),
        ("listeners.wss.proxy_trusted", wss.proxy_protocol, &wss.proxy_trusted),
    ] {
        if used && trusted.is_empty() {
            problems.push(Problem::new(
                Place::Key(key),
                "is needed by proxy_protocol, or anybody could pretend to be anybody: list the addresses or \
                 networks of your proxies, such as [\"10.0.0.7\", \"fd00::/8\"]",
            ));
        }
    }
}

fn check_origins(config: &Config, problems: &mut Vec<Problem>) {
    if !config.listeners.tls.allowed_origins.is_empty() {
        problems.push(Problem::new(
            Place::Key("listeners.tls.allowed_origins"),
            "has no effect: browsers speak MQTT over WebSocket alone; set listeners.wss.allowed_origins",
        ));
    }
}
