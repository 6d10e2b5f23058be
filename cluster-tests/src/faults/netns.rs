//! A network namespace for each node: real sockets, real packets, and a switch between them that
//! loses what it is told to lose. Made with iproute2, removed with this.

use std::fs::File;
use std::net::Ipv4Addr;
use std::panic::resume_unwind;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` keeps them.
const NAMED: &str = "/run/netns";
/// What ours are called, followed by the process id of the test.
const PREFIX: &str = "rookery-";
/// The interface of a node's namespace towards the others.
const INTERFACE: &str = "peers";
/// A hardware address that nobody has.
const NOBODY: &str = "02:00:00:00:ff:ff";

/// Namespaces of the nodes of one cluster, numbered from 1. A node's own sockets on the loopback
/// interface are reached from within its namespace only: see [`Namespaces::enter`].
#[derive(Debug)]
pub struct Namespaces {
    count: usize,
    tag: String,
}

fn ip(args: &str) -> Result<(), String> {
    let output = Command::new("ip").args(args.split(' ')).output().map_err(|e| format!("ip: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {args}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Removes what tests left that were killed.
fn sweep() {
    for entry in std::fs::read_dir(NAMED).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists()) {
            // Another test may be sweeping too.
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

impl Namespaces {
    /// Namespaces for `count` nodes that all reach each other.
    ///
    /// # Errors
    /// Why there can be none here: not root, no iproute2, a system that has no namespaces.
    pub fn create(count: usize) -> Result<Self, String> {
        if !super::is_root() {
            return Err("network namespaces need root".into());
        }
        sweep();
        let this = Namespaces { count, tag: crate::fresh(PREFIX.trim_end_matches('-')) };
        let switch = this.switch();
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link add switch type bridge"))?;
        ip(&format!("-n {switch} link set switch up"))?;
        for i in 1..=count {
            let (name, port) = (this.name(i), format!("port{i}"));
            ip(&format!("netns add {name}"))?;
            ip(&format!("-n {name} link set lo up"))?;
            let mac = mac(i);
            ip(&format!(
                "-n {name} link add {INTERFACE} address {mac} type veth peer name {port} netns {switch}"
            ))?;
            ip(&format!("-n {name} addr add {}/24 dev {INTERFACE}", this.address(i)))?;
            ip(&format!("-n {name} link set {INTERFACE} up"))?;
            ip(&format!("-n {switch} link set {port} master switch up"))?;
        }
        this.heal();
        Ok(this)
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.tag)
    }

    fn name(&self, i: usize) -> String {
        format!("{}-n{i}", self.tag)
    }

    /// The address at which the others reach node `i`.
    ///
    /// # Panics
    /// Beyond the 254th.
    pub fn address(&self, i: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, u8::try_from(i).expect("few nodes"))
    }

    /// Runs `work` within the namespace of node `i`: what it connects to, and what programs it
    /// starts, is and stays there.
    pub fn enter<T: Send>(&self, i: usize, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("{NAMED}/{}", self.name(i))).expect("the node's namespace");
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                use std::os::fd::AsFd;
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root enters the namespace");
                work()
            });
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// The packets of `from` to `to` are lost.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        self.point(from, to, NOBODY);
    }

    /// No packet passes between the two.
    pub fn cut(&self, a: usize, b: usize) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// No packet passes between node `i` and any other.
    pub fn isolate(&self, i: usize) {
        (1..=self.count).filter(|other| *other != i).for_each(|other| self.cut(i, other));
    }

    /// All packets pass.
    pub fn heal(&self) {
        for from in 1..=self.count {
            (1..=self.count).filter(|to| *to != from).for_each(|to| self.point(from, to, &mac(to)));
        }
    }

    /// Where `from` sends its packets for `to`.
    fn point(&self, from: usize, to: usize, mac: &str) {
        let (name, address) = (self.name(from), self.address(to));
        let said =
            ip(&format!("-n {name} neigh replace {address} lladdr {mac} dev {INTERFACE} nud permanent"));
        said.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// The hardware address of node `i`.
fn mac(i: usize) -> String {
    format!("02:00:00:00:00:{i:02x}")
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // Not all of them need to have been made; their interfaces go with them.
        for i in 1..=self.count {
            let _ = ip(&format!("netns del {}", self.name(i)));
        }
        let _ = ip(&format!("netns del {}", self.switch()));
    }
}
