//! `rookery node …`

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use serde_json::json;

use super::args::{Format, NodeCommand};
use super::client::{Api, escape};
use super::cluster::word;
use super::exit::{Exit, Failure};
use super::out;
use crate::admin::nodes::{DecommissionRequest, DrainRequest, NodeInfo, NodeList, SELF};
use crate::env;

const POLL: Duration = Duration::from_millis(200);
/// What may come on top of the time that a node's clients have.
const GRACE: Duration = Duration::from_secs(60);

pub async fn run(command: NodeCommand, format: Format) -> Result<(), Failure> {
    match command {
        NodeCommand::Ls(api) => {
            let NodeList { nodes } = Api::new(api.api).get("/api/v1/nodes").await?;
            out::show(format, &nodes, |nodes| table(nodes))
        }
        NodeCommand::Drain { api, node, rate, timeout, wait } => {
            let api = Api::new(api.api);
            let request = DrainRequest { rate_per_s: rate };
            let mut info: NodeInfo = api.post(&path(&named(node), "/drain"), &request).await?;
            let name = out::printable(&info.name);
            let rate_per_s = info.draining.map_or(0, |drain| drain.rate_per_s);
            out::say(&format!("{name} lets its {} clients go, {rate_per_s} a second", info.clients));
            if wait {
                info = until_gone(&api, info, timeout).await?;
                out::say(&format!("{name} has no clients"));
            }
            out::show(format, &info, |info| table(std::slice::from_ref(info)))
        }
        NodeCommand::Undrain { api, node } => {
            let info: NodeInfo = Api::new(api.api).post(&path(&named(node), "/undrain"), &json!({})).await?;
            out::say(&format!("{} lets clients in", out::printable(&info.name)));
            out::show(format, &info, |info| table(std::slice::from_ref(info)))
        }
        NodeCommand::Decommission { api, node, rate, timeout, yes } => {
            let info: NodeInfo = Api::new(api.api.clone()).get(&path(&node, "")).await?;
            let name = out::printable(&info.name);
            out::confirm(
                &format!(
                    "Take {name} out of the cluster for good, and have its {} clients go?",
                    info.clients
                ),
                yes,
            )?;
            decommission(&api.api, &info, rate, timeout).await?;
            out::say(&format!("{name} is no longer a member"));
            out::show(format, &json!({ "decommissioned": info.name }), |_| String::new())
        }
    }
}

fn named(node: Option<String>) -> String {
    node.unwrap_or_else(|| SELF.to_owned())
}

fn path(node: &str, verb: &str) -> String {
    let node = if node == SELF { node.to_owned() } else { escape(node) };
    format!("/api/v1/nodes/{node}{verb}")
}

/// Waits until the node has no clients; what is known of it then.
async fn until_gone(api: &Api, mut info: NodeInfo, timeout: Duration) -> Result<NodeInfo, Failure> {
    let deadline = env::now() + timeout;
    let mut progress = Progress::new(&info);
    while info.clients > 0 {
        if info.draining.is_none() {
            let message = format!(
                "{} keeps its clients: it was told so meanwhile, or has started again",
                out::printable(&info.name)
            );
            return Err(Failure::new(Exit::Error, message));
        }
        if env::now() >= deadline {
            let message = format!(
                "{} still has {} clients after {} s, and goes on letting them go; `rookery node undrain` has \
                 it keep them",
                out::printable(&info.name),
                info.clients,
                timeout.as_secs()
            );
            return Err(Failure::new(Exit::Timeout, message));
        }
        tokio::time::sleep(POLL.min(deadline.saturating_duration_since(env::now()))).await;
        info = api.get(&path(&info.id, "")).await?;
        progress.tell(info.clients);
    }
    Ok(info)
}

/// Has it taken out, and tells how far its clients are meanwhile.
async fn decommission(
    address: &str,
    info: &NodeInfo,
    rate_per_s: Option<u32>,
    timeout: Duration,
) -> Result<(), Failure> {
    let api = Api::new(address).with_timeout(timeout + GRACE);
    let request = DecommissionRequest { rate_per_s, timeout_s: timeout.as_secs() };
    let path_of = path(&info.id, "/decommission");
    let asked = api.post(&path_of, &request);
    let mut progress = Progress::new(info);
    let watched = async {
        let api = Api::new(address);
        loop {
            tokio::time::sleep(POLL).await;
            // Only to tell about it; what became of it the other request says.
            if let Ok(now) = api.get::<NodeInfo>(&path(&info.id, "")).await {
                progress.tell(now.clients);
            }
        }
    };
    tokio::select! {
        answer = asked => answer,
        () = watched => unreachable!("it ends with the other"),
    }
}

/// A line about how many clients are left, for a person who watches.
struct Progress {
    name: String,
    at_first: u64,
    shown: bool,
    is_terminal: bool,
}

impl Progress {
    fn new(info: &NodeInfo) -> Self {
        Self {
            name: out::printable(&info.name),
            at_first: info.clients,
            shown: false,
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    fn tell(&mut self, clients: u64) {
        if self.is_terminal {
            self.shown = true;
            // With stderr gone there is nobody left to tell.
            let _ = write!(
                std::io::stderr(),
                "\r\x1b[K{}: {clients} of {} clients left",
                self.name,
                self.at_first
            );
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = writeln!(std::io::stderr());
        }
    }
}

fn table(nodes: &[NodeInfo]) -> String {
    let rows = nodes.iter().map(|node| {
        let state = match node.draining {
            Some(drain) if drain.for_good => "leaving".to_owned(),
            Some(_) => "draining".to_owned(),
            None => word(&node.state),
        };
        [
            node.name.clone(),
            if node.leader { "leader".to_owned() } else { word(&node.role) },
            state,
            node.clients.to_string(),
            node.mqtt_addr.clone(),
            node.server_reference.clone(),
            node.version.clone(),
            node.id.clone(),
        ]
    });
    out::table(["NAME", "ROLE", "STATE", "CLIENTS", "MQTT", "REFERENCE", "VERSION", "ID"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::nodes::DrainInfo;
    use crate::admin::{MemberState, Role};

    fn node(name: &str, draining: Option<bool>) -> NodeInfo {
        NodeInfo {
            id: "00000000000000aa".to_owned(),
            name: name.to_owned(),
            role: Role::Voter,
            state: MemberState::Up,
            leader: name == "n1",
            draining: draining.map(|for_good| DrainInfo { rate_per_s: 1_000, for_good }),
            clients: 7,
            mqtt_addr: "127.0.0.1:1883".to_owned(),
            api_addr: String::new(),
            server_reference: String::new(),
            version: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn the_table_says_who_lets_clients_go() {
        let text = table(&[node("n1", None), node("n2", Some(false)), node("n3", Some(true))]);
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        let begin: Vec<_> = lines[1..].iter().map(|line| line[..4].join(" ")).collect();
        assert_eq!(begin, ["n1 leader up 7", "n2 voter draining 7", "n3 voter leaving 7"]);
        assert!(lines.iter().all(|line| line.len() == 8), "{text}");
    }

    #[test]
    fn a_node_is_named_in_the_path() {
        assert_eq!(path(SELF, "/drain"), "/api/v1/nodes/@self/drain");
        assert_eq!(path("a/b", ""), "/api/v1/nodes/a%2Fb");
        assert_eq!(named(Some("n1".to_owned())), "n1");
    }
}
