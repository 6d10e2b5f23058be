//! What must hold between keys before a node may start.

use std::net::SocketAddr;

use super::error::{Place, Problem};
use super::{Config, TlsConfig};
use crate::auth::UserTable;
use crate::net::Acceptor;
use crate::peer::lease::{LeaseTimes, SWEEP_MS};

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    check_exposure(config, problems);
    check_users(config, problems);
    check_advertised(config, problems);
    check_timing(config, problems);
    check_ports(config, problems);
    check_certificates(config, problems);
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
    const SCRAM: &str = ", or set auth.required = true and auth.scram_users_file to let in clients that \
                         prove who they are";
    // A listener that insists on clients' certificates does know.
    let open = |tls: &TlsConfig| tls.bind.filter(|_| !tls.require_client_cert);
    let listeners: [(&'static str, Option<SocketAddr>, bool); 5] = [
        ("listeners.tcp.bind", config.listeners.tcp.bind, true),
        ("listeners.ws.bind", config.listeners.ws.bind, true),
        ("listeners.tls.bind", open(&config.listeners.tls), true),
        ("listeners.wss.bind", open(&config.listeners.wss), true),
        ("api.bind", Some(config.api.bind), false),
    ];
    for (key, bind, for_clients) in listeners {
        let Some(bind) = bind.filter(|b| !b.ip().to_canonical().is_loopback()) else { continue };
        let meant = config.auth.allow_anonymous || (for_clients && config.auth.required);
        if !meant {
            let what = format!(
                "{bind} can be reached from other machines and there is no authentication. Either \
                 set {key} = \"{}:{}\" to keep it on this machine{}, or set auth.allow_anonymous = true to \
                 let anyone in who can reach it",
                if bind.is_ipv4() { "127.0.0.1" } else { "[::1]" },
                bind.port(),
                if for_clients { SCRAM } else { "" }
            );
            problems.push(Problem::new(Place::Key(key), what));
        }
    }
}

/// The users must be readable, and there when nobody else is let in.
fn check_users(config: &Config, problems: &mut Vec<Problem>) {
    match &config.auth.scram_users_file {
        None if config.auth.required => problems.push(Problem::new(
            Place::Key("auth.required"),
            "lets nobody in without auth.scram_users_file; make lines for it with `rookery users scram NAME`",
        )),
        Some(path) => {
            if let Err(error) = UserTable::load(path) {
                problems.push(match error.line {
                    Some(line) => Problem::in_file(&error.path, line, error.what),
                    None => Problem::new(Place::Key("auth.scram_users_file"), error.to_string()),
                });
            }
        }
        None => {}
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
