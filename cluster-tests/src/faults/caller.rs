//! Which node a connection of this machine comes from. All nodes call from the same address, so
//! the kernel has to tell.
//!
//! Nodes that are cut off call again and again, so an answer must cost less than a call does: the
//! kernel is asked for the one socket, as its whole table takes 20 ms to read on a large machine.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as NetlinkAddr};

/// An answer about one socket, with whatever the kernel says beside.
const ANSWER_BYTES: usize = 4096;

/// Tells the nodes of one cluster apart.
pub struct Callers {
    /// Where the nodes have their files.
    dir: PathBuf,
    /// Processes that are or were nodes, with the node's number.
    runs: HashMap<PathBuf, usize>,
    kernel: Socket,
}

impl Callers {
    /// # Errors
    /// When the kernel does not tell about sockets.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let mut kernel = Socket::new(NETLINK_SOCK_DIAG)?;
        kernel.bind_auto()?;
        kernel.connect(&NetlinkAddr::new(0, 0))?;
        Ok(Callers { dir: dir.to_owned(), runs: HashMap::new(), kernel })
    }

    /// The number of the node that called `listener` from `from`; `None`: it is not there any
    /// more, or no node.
    pub fn node_of(&mut self, from: SocketAddr, listener: SocketAddr) -> Option<usize> {
        let socket = PathBuf::from(format!("socket:[{}]", self.inode_of(from, listener)?));
        self.holder_of(&socket).or_else(|| {
            self.look_for_nodes();
            self.holder_of(&socket)
        })
    }

    fn holder_of(&self, socket: &Path) -> Option<usize> {
        self.runs.iter().find(|(process, _)| holds(process, socket)).map(|(_, node)| *node)
    }

    /// Nodes start and end while a test runs.
    fn look_for_nodes(&mut self) {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
        let dir = &self.dir;
        self.runs = processes
            .filter_map(|run| Some((node_run_by(dir, &run)?, run)))
            .map(|(node, run)| (run, node))
            .collect();
    }

    /// The inode of the socket with these two addresses.
    fn inode_of(&self, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
        let socket_id = SocketId {
            source_port: local.port(),
            destination_port: remote.port(),
            source_address: local.ip(),
            destination_address: remote.ip(),
            interface_id: 0,
            cookie: [0xff; 8],
        };
        let request = SockDiagMessage::InetRequest(InetRequest {
            family: AF_INET,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::all(),
            socket_id,
        });
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        let mut question = NetlinkMessage::new(header, NetlinkPayload::from(request));
        question.finalize();
        let mut bytes = vec![0; question.buffer_len()];
        question.serialize(&mut bytes);
        self.kernel.send(&bytes, 0).expect("the kernel listens");
        let mut answer = Vec::with_capacity(ANSWER_BYTES);
        self.kernel.recv(&mut answer, 0).expect("the kernel answers");
        match NetlinkMessage::<SockDiagMessage>::deserialize(&answer).expect("a message").payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(socket)) => Some(socket.header.inode),
            _ => None,
        }
    }
}

fn holds(process: &Path, socket: &Path) -> bool {
    let mut descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    descriptors.any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == socket))
}

/// The node that this process runs, by the configuration file it was given.
fn node_run_by(dir: &Path, process: &Path) -> Option<usize> {
    let command = fs::read(process.join("cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).into_owned();
    let config = command.split('\0').map(Path::new).find(|argument| argument.starts_with(dir))?;
    let node = config.strip_prefix(dir).ok()?.iter().next()?.to_str()?;
    node.strip_prefix('n')?.parse().ok()
}
