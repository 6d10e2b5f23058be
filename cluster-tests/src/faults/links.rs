//! Links between the nodes' peer ports. Each node tells the others an address of ours, and what
//! they say to it passes here, each direction between two nodes by itself.
//!
//! A cut is silent, as a broken network is: nothing arrives, nobody is told, connections can still
//! be opened and lead nowhere. What was sent before or during a cut arrives after it, as TCP would
//! send it again.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::caller::Callers;

/// Bytes that pass at once.
const CHUNK_BYTES: usize = 16 << 10;
/// Chunks on their way in one direction of one connection, beyond which its sender has to wait.
const UNDER_WAY: usize = 256;

/// How one node's bytes reach another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub open: bool,
    /// From being sent to arriving.
    pub delay: Duration,
    /// Most bytes in a second, on each connection.
    pub rate: Option<u32>,
}

impl Default for Way {
    fn default() -> Self {
        Way { open: true, delay: Duration::ZERO, rate: None }
    }
}

/// All ways between the nodes of one cluster, which are numbered from 1.
#[derive(Debug)]
pub struct Links {
    fronts: Vec<SocketAddr>,
    ways: Arc<Ways>,
    /// Carries everything; ends with this.
    runtime: Option<Runtime>,
}

#[derive(Debug)]
struct Ways {
    /// By who sends, then by who is sent to.
    ways: Vec<Vec<watch::Sender<Way>>>,
}

impl Ways {
    fn follow(&self, from: usize, to: usize) -> watch::Receiver<Way> {
        self.ways[from - 1][to - 1].subscribe()
    }
}

impl Links {
    /// In front of each of `peers`, at the address beside it. All ways are open.
    ///
    /// # Panics
    /// When an address is in use.
    pub fn start(dir: &Path, peers: &[(SocketAddr, SocketAddr)]) -> Self {
        let to_all = || peers.iter().map(|_| watch::Sender::new(Way::default())).collect();
        let ways = Arc::new(Ways { ways: peers.iter().map(|_| to_all()).collect() });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime for the links");
        for (at, (front, peer)) in peers.iter().enumerate() {
            let listener = runtime.block_on(TcpListener::bind(front)).expect("a free port of this test");
            let callers = Callers::new(dir).expect("the kernel tells about sockets (CONFIG_INET_DIAG)");
            runtime.spawn(serve(listener, at + 1, *peer, callers, ways.clone()));
        }
        let fronts = peers.iter().map(|(front, _)| *front).collect();
        Links { fronts, ways, runtime: Some(runtime) }
    }

    /// The address that node `i` is to be called at.
    pub fn front(&self, i: usize) -> SocketAddr {
        self.fronts[i - 1]
    }

    fn nodes(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.fronts.len()
    }

    /// Changes how what `from` sends reaches `to`.
    pub fn set(&self, from: usize, to: usize, way: Way) {
        self.ways.ways[from - 1][to - 1].send_replace(way);
    }

    /// Nothing of what `from` says to `to` arrives any more.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        self.set(from, to, Way { open: false, ..Way::default() });
    }

    /// Nothing arrives between the two.
    pub fn cut(&self, a: usize, b: usize) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Nothing arrives between node `i` and any other.
    pub fn isolate(&self, i: usize) {
        self.nodes().filter(|other| *other != i).for_each(|other| self.cut(i, other));
    }

    /// Every way as `way`.
    pub fn set_all(&self, way: Way) {
        for from in self.nodes() {
            self.nodes().for_each(|to| self.set(from, to, way));
        }
    }

    /// Every way is open and as fast as it can be.
    pub fn heal(&self) {
        self.set_all(Way::default());
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: TcpListener, to: usize, peer: SocketAddr, mut callers: Callers, ways: Arc<Ways>) {
    let front = listener.local_addr().expect("a bound listener");
    loop {
        let (called, from_address) = listener.accept().await.expect("room for a connection");
        // Before the caller is known nothing may pass; one who is gone needs nothing.
        let Some(from) = callers.node_of(from_address, front) else { continue };
        let (there, back) = (ways.follow(from, to), ways.follow(to, from));
        tokio::spawn(async move {
            // The node may be down: the caller sees the end of its connection.
            let Ok(reached) = TcpStream::connect(peer).await else { return };
            // Without it the far side would be late by its own waiting; a failure costs only that.
            let _ = (called.set_nodelay(true), reached.set_nodelay(true));
            let ((from_caller, to_caller), (from_node, to_node)) =
                (called.into_split(), reached.into_split());
            tokio::join!(carry(from_caller, to_node, there), carry(from_node, to_caller, back));
        });
    }
}

/// Carries one direction of a connection until it ends.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: watch::Receiver<Way>) {
    let (sent, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let read = async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        // An error ends the connection as its end does.
        while let Ok(count @ 1..) = from.read(&mut chunk).await {
            if sent.send((Instant::now(), chunk[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((at, bytes)) = under_way.recv().await {
            let Some(Way { delay, rate, .. }) = opened(&mut way).await else { return };
            sleep_until(at + delay).await;
            if let Some(rate) = rate {
                sleep_until(Instant::now() + Duration::from_secs(1) * bytes.len() as u32 / rate).await;
            }
            // It may have been cut meanwhile.
            if opened(&mut way).await.is_none() || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // The end of the stream travels as what was in it.
        if opened(&mut way).await.is_some() {
            let _ = to.shutdown().await;
        }
    };
    tokio::join!(read, write);
}

/// How the way is, once it is open; `None`: the test is over.
async fn opened(way: &mut watch::Receiver<Way>) -> Option<Way> {
    way.wait_for(|way| way.open).await.ok().map(|way| *way)
}
