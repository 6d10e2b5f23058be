//! A cluster of real processes on this machine.

pub mod cli;
mod node;
mod ports;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

pub use cli::{Said, Status, binary, rookery};
pub use node::{Node, signal};
pub use ports::{PortBlock, Ports};

use crate::faults::{Links, Namespaces, SmallDisk};
use crate::mqtt::Transport;
use crate::wait::eventually;
use crate::{http, tls};

/// For the cluster to agree about something: an election, a membership change.
pub const AGREE_TIMEOUT: Duration = Duration::from_secs(30);
/// Keys of `[cluster]`, which come first: a leader is not given up because a loaded machine does not
/// let it speak for a moment.
pub const PATIENT: &str = "election_min_ms = 1000\nelection_max_ms = 2000\nfailover_promise_ms = 10000\n";

/// Nodes are numbered from 1 and named `n1`, `n2`, ….
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    ports: PortBlock,
    links: Option<Links>,
    disks: Vec<SmallDisk>,
    namespaces: Option<Namespaces>,
    frozen: BTreeSet<usize>,
    dir: Option<TempDir>,
}

/// What a cluster has beside its nodes.
#[derive(Debug, Default)]
pub struct Setup {
    /// More configuration for every node, as TOML: keys of `[cluster]`, then tables of its own.
    pub toml: String,
    /// Between the nodes are links that can be cut and slowed down.
    pub linked: bool,
    /// Each node has a disk of its own, of so many bytes.
    pub disk_bytes: Option<u64>,
    /// Each node is in a network namespace of its own.
    pub namespaces: Option<Namespaces>,
    /// Clients can be sent to each node: it says how they reach it.
    pub referring: bool,
}

impl Cluster {
    /// `count` nodes that serve; the first formed the cluster, the others joined it by token.
    pub fn start(count: usize) -> Self {
        Cluster::start_with(count, "")
    }

    /// As [`start`](Self::start), with more configuration for every node, as TOML.
    pub fn start_with(count: usize, toml: &str) -> Self {
        Cluster::spawned(count, toml).formed()
    }

    /// As [`start`](Self::start), with more than nodes.
    ///
    /// # Errors
    /// Why this machine cannot have it.
    pub fn set_up(count: usize, setup: Setup) -> Result<Self, String> {
        Cluster::prepared(count, setup).map(Cluster::formed)
    }

    /// Three nodes with links between them.
    pub fn linked(toml: &str) -> Self {
        let setup = Setup { toml: toml.into(), linked: true, ..Setup::default() };
        Cluster::set_up(3, setup).expect("links need nothing of the machine")
    }

    /// The nodes as one cluster.
    fn formed(mut self) -> Self {
        let count = self.len();
        self.at(1, |cluster| {
            cli::init(cluster.api(1));
            cluster.node(1).wait_ready();
        });
        for i in 2..=count {
            let token = self.at(1, |cluster| cli::token(cluster.api(1)));
            self.at(i, |cluster| cli::join(cluster.api(i), cluster.node(1).peer(), &token));
        }
        for i in 1..=count {
            self.at(i, |cluster| cluster.node(i).wait_ready());
        }
        let voters = count.min(3);
        eventually("every node a voter", AGREE_TIMEOUT, || {
            self.status().filter(|s| s.voters() >= voters && s.leader.is_some())
        });
        self
    }

    /// Processes that run and belong to no cluster yet.
    pub fn spawned(count: usize, toml: &str) -> Self {
        let setup = Setup { toml: toml.into(), ..Setup::default() };
        Cluster::prepared(count, setup).expect("processes alone need nothing of the machine")
    }

    fn prepared(count: usize, setup: Setup) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("rookery-test-").tempdir().expect("a temporary directory");
        let mut ports = PortBlock::reserve();
        let mut nodes: Vec<Node> = (1..=count)
            .map(|i| {
                let mut node = Node::new(&format!("n{i}"), dir.path(), ports.node());
                node.configure(&setup.toml);
                if setup.referring {
                    let reference = node.ports.mqtt.to_string();
                    node.set_variable("ROOKERY__NODE__SERVER_REFERENCE", &reference);
                }
                node
            })
            .collect();
        let disks = match setup.disk_bytes {
            Some(bytes) => {
                let mounted = nodes.iter().map(|node| SmallDisk::mount(&node.data_dir(), bytes));
                mounted.collect::<Result<_, _>>()?
            }
            None => Vec::new(),
        };
        let links = setup.linked.then(|| {
            let fronts: Vec<_> = nodes.iter().map(|node| (ports.address(), node.ports.peer)).collect();
            Links::start(dir.path(), &fronts)
        });
        for (i, node) in (1..).zip(&mut nodes) {
            if let Some(links) = &links {
                node.advertise(links.front(i));
            }
            if let Some(namespaces) = &setup.namespaces {
                node.ports.peer.set_ip(namespaces.address(i).into());
            }
        }
        let namespaces = setup.namespaces;
        let mut cluster =
            Cluster { nodes, ports, links, disks, namespaces, frozen: BTreeSet::new(), dir: Some(dir) };
        for i in 1..=count {
            cluster.at(i, |cluster| cluster.node(i).spawn());
        }
        for i in 1..=count {
            cluster.at(i, |cluster| cluster.node(i).wait_live());
        }
        Ok(cluster)
    }

    /// Runs `work` where node `i` is: whatever speaks to a node of a cluster with namespaces is to
    /// be connected there.
    pub fn at<T: Send>(&mut self, i: usize, work: impl FnOnce(&mut Self) -> T + Send) -> T {
        match self.namespaces.take() {
            None => work(self),
            Some(namespaces) => {
                let done = namespaces.enter(i, || work(self));
                self.namespaces = Some(namespaces);
                done
            }
        }
    }

    /// The links between the nodes of a [`linked`](Self::linked) cluster.
    ///
    /// # Panics
    /// When it is none.
    pub fn links(&self) -> &Links {
        self.links.as_ref().expect("a cluster with links")
    }

    /// # Panics
    /// When the cluster was set up without.
    pub fn namespaces(&self) -> &Namespaces {
        self.namespaces.as_ref().expect("a cluster with namespaces")
    }

    /// The disk of node `i`.
    ///
    /// # Panics
    /// When the cluster was set up without.
    pub fn disk(&self, i: usize) -> &SmallDisk {
        &self.disks[i - 1]
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
        cli::join(self.api(i), self.node(via).peer(), &token);
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

    /// All ways for clients to a node.
    pub fn transports(&self, i: usize) -> [Transport; 4] {
        [
            Transport::Tcp(self.mqtt(i)),
            Transport::Ws(self.ws(i)),
            Transport::Tls(self.tls(i)),
            Transport::Wss(self.wss(i)),
        ]
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
        // One that is frozen takes long not to answer.
        (1..=self.len())
            .filter(|i| !self.frozen.contains(i))
            .collect::<Vec<_>>()
            .into_iter()
            .find_map(|i| self.status_of(i))
    }

    /// The cluster as node `i` sees it, if that runs and can tell.
    pub fn status_of(&mut self, i: usize) -> Option<Status> {
        self.at(i, |cluster| cluster.node(i).running().then(|| cli::status(cluster.api(i))).flatten())
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
        self.frozen.remove(&i);
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
        self.node(i).pause();
        self.frozen.insert(i);
    }

    /// SIGCONT.
    pub fn thaw(&mut self, i: usize) {
        self.node(i).signal("CONT");
        self.frozen.remove(&i);
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
