//! A cluster of real processes on this machine.

pub mod cli;
mod node;
mod ports;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

pub use cli::{Said, Status, binary, rookery};
pub use node::{Node, signal};
pub use ports::{PortBlock, Ports};

use crate::wait::eventually;
use crate::{http, tls};

/// For the cluster to agree about something: an election, a membership change.
pub const AGREE_TIMEOUT: Duration = Duration::from_secs(30);

/// Nodes are numbered from 1 and named `n1`, `n2`, ….
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    ports: PortBlock,
    dir: Option<TempDir>,
}

impl Cluster {
    /// `count` nodes that serve; the first formed the cluster, the others joined it by token.
    pub fn start(count: usize) -> Self {
        Cluster::start_with(count, "")
    }

    /// As [`start`](Self::start), with more configuration for every node, as TOML.
    pub fn start_with(count: usize, toml: &str) -> Self {
        let mut cluster = Cluster::spawned(count, toml);
        cli::init(cluster.api(1));
        cluster.node(1).wait_ready();
        for i in 2..=count {
            let token = cli::token(cluster.api(1));
            cli::join(cluster.api(i), cluster.node(1).ports.peer, &token);
        }
        for i in 1..=count {
            cluster.node(i).wait_ready();
        }
        let voters = count.min(3);
        eventually("every node a voter", AGREE_TIMEOUT, || {
            cluster.status().filter(|s| s.voters() >= voters && s.leader.is_some())
        });
        cluster
    }

    /// Processes that run and belong to no cluster yet.
    pub fn spawned(count: usize, toml: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("rookery-test-").tempdir().expect("a temporary directory");
        let mut ports = PortBlock::reserve();
        let nodes = (1..=count)
            .map(|i| {
                let mut node = Node::new(&format!("n{i}"), dir.path(), ports.node());
                node.configure(toml);
                node.spawn();
                node
            })
            .collect();
        let mut cluster = Cluster { nodes, ports, dir: Some(dir) };
        cluster.nodes.iter_mut().for_each(Node::wait_live);
        cluster
    }

    /// Starts one more process that belongs to no cluster; its number.
    pub fn spawn_another(&mut self) -> usize {
        let name = format!("n{}", self.nodes.len() + 1);
        let ports = self.ports.node();
        let mut node = Node::new(&name, self.path(), ports);
        node.spawn();
        node.wait_live();
        self.nodes.push(node);
        self.nodes.len()
    }

    /// Starts one more node and joins it through node `via`; its number. It serves.
    pub fn add(&mut self, via: usize) -> usize {
        let i = self.spawn_another();
        let token = cli::token(self.api(via));
        cli::join(self.api(i), self.node(via).ports.peer, &token);
        self.node(i).wait_ready();
        i
    }

    /// Where the nodes keep their data and logs.
    pub fn path(&self) -> &Path {
        self.dir.as_ref().map(TempDir::path).expect("kept until the end")
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether all nodes serve.
    pub fn is_ready(&self) -> bool {
        self.nodes.iter().all(|node| node.answers("/readyz"))
    }

    pub fn node(&mut self, i: usize) -> &mut Node {
        &mut self.nodes[i - 1]
    }

    /// The process id of a node that runs.
    pub fn pid(&self, i: usize) -> u32 {
        self.nodes[i - 1].pid()
    }

    pub fn mqtt(&self, i: usize) -> SocketAddr {
        self.nodes[i - 1].ports.mqtt
    }

    /// The MQTT addresses of all nodes.
    pub fn mqtt_all(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.ports.mqtt).collect()
    }

    pub fn ws(&self, i: usize) -> SocketAddr {
        self.nodes[i - 1].ports.ws
    }

    pub fn tls(&self, i: usize) -> SocketAddr {
        self.nodes[i - 1].ports.tls
    }

    pub fn wss(&self, i: usize) -> SocketAddr {
        self.nodes[i - 1].ports.wss
    }

    /// The authority that signed the nodes' certificates, PEM.
    pub fn ca_file(&self) -> PathBuf {
        self.path().join(tls::CA_FILE)
    }

    pub fn api(&self, i: usize) -> SocketAddr {
        self.nodes[i - 1].ports.api
    }

    /// The cluster as the first node that runs and can tell sees it.
    pub fn status(&mut self) -> Option<Status> {
        self.nodes.iter_mut().find_map(|node| {
            let api = node.ports.api;
            node.running().then(|| cli::status(api)).flatten()
        })
    }

    /// The number of the leader, once there is one that runs.
    pub fn leader(&mut self) -> usize {
        eventually("a leader", AGREE_TIMEOUT, || {
            let name = self.status()?.leader?;
            let i = 1 + self.nodes.iter().position(|node| node.name == name)?;
            self.node(i).running().then_some(i)
        })
    }

    /// A node that is not the leader and none of `but`.
    pub fn follower(&mut self, but: &[usize]) -> usize {
        let leader = self.leader();
        let found = (1..=self.len()).find(|i| *i != leader && !but.contains(i) && self.node(*i).running());
        found.expect("a running follower")
    }

    /// The value of a metric on one node, summed over its labels; 0 when it has no sample yet.
    pub fn metric(&self, i: usize, name: &str) -> f64 {
        let (status, text) = http::get(self.api(i), "/metrics").expect("/metrics answers");
        assert_eq!(status, 200, "/metrics of n{i}");
        http::metric(&text, name).unwrap_or(0.0)
    }

    pub fn kill9(&mut self, i: usize) {
        self.node(i).kill9();
    }

    /// Starts a node that is down on what it has on its disk, and waits until it serves.
    pub fn restart(&mut self, i: usize) {
        self.node(i).spawn();
        self.node(i).wait_ready();
    }

    /// As [`restart`](Self::restart), on other ports.
    pub fn restart_elsewhere(&mut self, i: usize) {
        let ports = self.ports.node();
        self.node(i).ports = ports;
        self.restart(i);
    }

    /// SIGSTOP: the process is there and does nothing.
    pub fn freeze(&mut self, i: usize) {
        self.node(i).signal("STOP");
    }

    /// SIGCONT.
    pub fn thaw(&mut self, i: usize) {
        self.node(i).signal("CONT");
    }

    /// SIGTERM to all, and waits for their end.
    pub fn stop_all(&mut self) {
        let running: Vec<&mut Node> =
            self.nodes.iter_mut().filter_map(|n| n.running().then_some(n)).collect();
        running.iter().for_each(|node| node.signal("TERM"));
        for node in running {
            node.wait_exit();
        }
    }

    /// Starts all that are down, together: one alone has no quorum.
    pub fn start_all(&mut self) {
        for node in &mut self.nodes {
            if !node.running() {
                node.spawn();
            }
        }
        self.nodes.iter_mut().for_each(Node::wait_ready);
    }

    /// Waits until the cluster counts this node as up, or as down.
    pub fn wait_up(&mut self, i: usize, up: bool) {
        let name = self.node(i).name.clone();
        let what = format!("{name} up: {up}");
        eventually(&what, AGREE_TIMEOUT, || {
            let status = self.status()?;
            (status.member(&name).is_some_and(|member| member.up) == up).then_some(())
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.kill9();
        }
        if std::thread::panicking() {
            report(&self.nodes, self.dir.take().map(TempDir::keep));
        }
    }
}

/// What a person needs after a failure: the ends of the logs, where the rest is, how to run it again.
fn report(nodes: &[Node], kept: Option<PathBuf>) {
    for node in nodes {
        eprintln!("---- end of the log of {} ({})", node.name, node.log_file().display());
        eprintln!("{}", node.log_tail());
    }
    if let Some(path) = kept {
        eprintln!("---- data and logs are kept in {}", path.display());
    }
    let thread = std::thread::current();
    let file = std::env::current_exe().ok();
    let file = file.as_deref().and_then(Path::file_stem).map(|stem| stem.to_string_lossy().into_owned());
    let file = file.as_deref().and_then(|stem| stem.rsplit_once('-')).map_or("", |(name, _)| name);
    let test = thread.name().unwrap_or_default();
    eprintln!("---- again: cargo test -p cluster-tests --test {file} -- --exact {test} --nocapture");
}
