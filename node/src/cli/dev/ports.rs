//! Which ports the nodes get, and whether they are free.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener};

use serde::{Deserialize, Serialize};

use super::super::args::DevArgs;
use super::super::exit::{Exit, Failure};
use crate::env;

/// Free ports are looked for here: below the range from which Linux takes the ports of outgoing
/// connections, so that none of those sits on a node's port when the node is restarted.
const FREE_RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A node's name and where it listens on 127.0.0.1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    pub name: String,
    pub mqtt: u16,
    pub ws: u16,
    pub api: u16,
    pub peer: u16,
}

/// Node i listens on each base port + i - 1. A base of 0 takes any free ports, those of an
/// earlier run on the same data (`remembered`) first.
///
/// # Errors
/// Ports that overlap, do not exist, or are in use: all of them in one message.
pub fn plan(args: &DevArgs, remembered: &[Ports]) -> Result<Vec<Ports>, Failure> {
    let mut taken = Taken::default();
    let mut nodes = Vec::new();
    for index in 0..args.nodes {
        let name = format!("n{}", index + 1);
        let earlier = remembered.iter().find(|ports| ports.name == name);
        let mut port = |what: &'static str, base: u16, earlier: Option<u16>| {
            let label = format!("{name} {what}");
            match (base, earlier) {
                (0, None) => taken.any(label),
                (0, Some(port)) => taken.exactly(port, label),
                (base, _) => match base.checked_add(index) {
                    Some(port) => taken.exactly(port, label),
                    None => {
                        let message = format!("--{what}-port {base} leaves no room for {} nodes", args.nodes);
                        Err(Failure::new(Exit::Usage, message))
                    }
                },
            }
        };
        nodes.push(Ports {
            mqtt: port("mqtt", args.mqtt_port, earlier.map(|e| e.mqtt))?,
            ws: port("ws", args.ws_port, earlier.map(|e| e.ws))?,
            api: port("api", args.api_port, earlier.map(|e| e.api))?,
            peer: port("peer", args.peer_port, earlier.map(|e| e.peer))?,
            name,
        });
    }
    taken.finish()?;
    Ok(nodes)
}

/// Ports that were given out, held until all are known so that none is given out twice.
#[derive(Default)]
struct Taken {
    owners: HashMap<u16, String>,
    held: Vec<TcpListener>,
    in_use: Vec<String>,
}

impl Taken {
    fn exactly(&mut self, port: u16, label: String) -> Result<u16, Failure> {
        if let Some(other) = self.owners.get(&port) {
            return Err(Failure::new(
                Exit::Usage,
                format!("port {port} is wanted for {other} and for {label}"),
            ));
        }
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => self.held.push(listener),
            Err(error) => self.in_use.push(format!("{port} ({label}: {error})")),
        }
        self.owners.insert(port, label);
        Ok(port)
    }

    fn any(&mut self, label: String) -> Result<u16, Failure> {
        let size = FREE_RANGE.end - FREE_RANGE.start;
        let start = env::random_below(size.into()) as u16;
        for step in 0..size {
            let port = FREE_RANGE.start + (start + step) % size;
            if self.owners.contains_key(&port) {
                continue;
            }
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                self.held.push(listener);
                self.owners.insert(port, label);
                return Ok(port);
            }
        }
        Err(Failure::new(Exit::Error, "there is no free port"))
    }

    fn finish(self) -> Result<(), Failure> {
        if self.in_use.is_empty() {
            return Ok(());
        }
        let message = format!(
            "cannot listen on port {}\nchoose others with --mqtt-port, --ws-port, --api-port and --peer-port; \
             0 takes any free ports",
            self.in_use.join(", ")
        );
        Err(Failure::new(Exit::Error, message))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn args(line: &str) -> DevArgs {
        let words = ["rookery", "dev"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).expect("parses").command {
            Command::Dev(args) => args,
            other => panic!("{other:?}"),
        }
    }

    /// `count` ports in a row that are free at present.
    fn free_row(count: u16) -> u16 {
        let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        let start = 10_000 + env::random_below(8_000) as u16;
        (start..19_000).find(|base| (0..count).all(|i| free(base + i))).expect("a free row")
    }

    #[test]
    fn node_i_listens_on_the_base_ports_plus_i_minus_1() {
        let base = free_row(12);
        let line = format!(
            "--nodes 3 --mqtt-port {base} --ws-port {} --api-port {} --peer-port {}",
            base + 3,
            base + 6,
            base + 9
        );
        let nodes = plan(&args(&line), &[]).expect("free");
        let last =
            Ports { name: "n3".to_owned(), mqtt: base + 2, ws: base + 5, api: base + 8, peer: base + 11 };
        assert_eq!((nodes.len(), &nodes[2]), (3, &last));
    }

    #[test]
    fn base_zero_takes_free_ports_and_an_earlier_runs_ports_again() {
        let line = "--nodes 2 --mqtt-port 0 --ws-port 0 --api-port 0 --peer-port 0";
        let nodes = plan(&args(line), &[]).expect("free");
        let mut ports: Vec<u16> = nodes.iter().flat_map(|n| [n.mqtt, n.ws, n.api, n.peer]).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8);
        assert_eq!(plan(&args(line), &nodes).expect("still free"), nodes);
    }

    #[test]
    fn ports_in_use_are_all_named() {
        let a = TcpListener::bind("127.0.0.1:0").expect("a port");
        let b = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (a, b) = (a.local_addr().map(|l| (l.port(), a)), b.local_addr().map(|l| (l.port(), b)));
        let ((a, _a), (b, _b)) = (a.expect("bound"), b.expect("bound"));
        let line = format!("--nodes 1 --mqtt-port {a} --ws-port {b} --api-port 0 --peer-port 0");
        let failure = plan(&args(&line), &[]).expect_err("in use");
        assert_eq!(failure.exit, Exit::Error);
        assert!(failure.message.contains(&format!("{a} (n1 mqtt")), "{failure}");
        assert!(failure.message.contains(&format!("{b} (n1 ws")), "{failure}");
    }

    #[test]
    fn overlapping_and_impossible_ports_are_usage_errors() {
        let rest = "--ws-port 0 --api-port 0 --peer-port 0";
        for line in [
            format!("--nodes 3 --mqtt-port 65534 {rest}"),
            format!("--nodes 3 --mqtt-port {0} --ws-port {0} --api-port 0 --peer-port 0", free_row(3)),
        ] {
            assert_eq!(plan(&args(&line), &[]).expect_err("refused").exit, Exit::Usage, "{line}");
        }
    }
}
