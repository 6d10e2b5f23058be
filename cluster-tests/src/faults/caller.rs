//! Which node a connection of this machine comes from. All nodes call from the same address, so
//! the kernel's tables have to tell.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

const SOCKETS: &str = "/proc/net/tcp";

/// The number of the node below `dir` that called `listener` from `from`; `None`: it is not there
/// any more, or no node.
pub fn node_of(dir: &Path, from: SocketAddr, listener: SocketAddr) -> Option<usize> {
    let wanted = format!("socket:[{}]", inode_of(from, listener)?);
    let processes = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    processes.filter_map(|process| Some((node_run_by(dir, &process)?, process))).find_map(
        |(node, process)| {
            let mut descriptors = fs::read_dir(process.join("fd")).ok()?.flatten();
            let holds = |fd: PathBuf| fs::read_link(fd).is_ok_and(|to| to.to_string_lossy() == wanted);
            descriptors.any(|fd| holds(fd.path())).then_some(node)
        },
    )
}

/// The node that this process runs, by the configuration file it was given.
fn node_run_by(dir: &Path, process: &Path) -> Option<usize> {
    let command = fs::read(process.join("cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).into_owned();
    let config = command.split('\0').map(Path::new).find(|argument| argument.starts_with(dir))?;
    let node = config.strip_prefix(dir).ok()?.iter().next()?.to_str()?;
    node.strip_prefix('n')?.parse().ok()
}

/// The inode of the socket with these two addresses.
fn inode_of(local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let table = fs::read_to_string(SOCKETS).ok()?;
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (of_local, of_remote) = (fields.next()?, fields.next()?);
        let matches = port_of(of_local)? == local.port() && port_of(of_remote)? == remote.port();
        // State, queues, timer, retransmissions, user and time-out come before it.
        if matches { fields.nth(6)?.parse().ok() } else { None }
    })
}

fn port_of(address: &str) -> Option<u16> {
    u16::from_str_radix(address.split_once(':')?.1, 16).ok()
}
