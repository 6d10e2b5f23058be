//! Ports for the nodes of one cluster.
//!
//! Tests run in parallel, each in a process of its own, and nodes come back on the ports they
//! had. So a cluster reserves a whole block for as long as it lives, by listening on the block's
//! first port, and takes blocks from below the range that the kernel hands out to connections.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

const FIRST: u16 = 10_000;
const BLOCKS: u16 = 340;
const BLOCK: u16 = 64;

/// The listeners of one node.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub mqtt: SocketAddr,
    pub ws: SocketAddr,
    pub tls: SocketAddr,
    pub wss: SocketAddr,
    pub api: SocketAddr,
    pub peer: SocketAddr,
}

/// A block of ports that no other test uses.
#[derive(Debug)]
pub struct PortBlock {
    _guard: TcpListener,
    next: u16,
    end: u16,
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

impl PortBlock {
    /// # Panics
    /// When every block of this machine is in use.
    pub fn reserve() -> Self {
        let start = std::process::id() as u16;
        for turn in 0..BLOCKS {
            let block = start.wrapping_add(turn) % BLOCKS;
            let base = FIRST + block * BLOCK;
            if let Ok(guard) = TcpListener::bind(loopback(base)) {
                return PortBlock { _guard: guard, next: base + 1, end: base + BLOCK };
            }
        }
        panic!("no free block of ports in {FIRST}..{}", FIRST + BLOCKS * BLOCK);
    }

    /// A port that is free now and that nobody but this block's owner will take.
    ///
    /// # Panics
    /// When the block is used up.
    pub fn port(&mut self) -> u16 {
        self.run(1)
    }

    /// The same as an address.
    pub fn address(&mut self) -> SocketAddr {
        loopback(self.port())
    }

    /// The first of `count` consecutive free ports.
    ///
    /// # Panics
    /// When the block is used up.
    pub fn run(&mut self, count: u16) -> u16 {
        while self.next + count <= self.end {
            let first = self.next;
            let in_use =
                (first..first + count).rev().find(|&port| TcpListener::bind(loopback(port)).is_err());
            match in_use {
                Some(port) => self.next = port + 1,
                None => {
                    self.next = first + count;
                    return first;
                }
            }
        }
        panic!("the test's block of {BLOCK} ports is used up");
    }

    /// Ports for one node.
    pub fn node(&mut self) -> Ports {
        let [mqtt, ws, tls, wss, api, peer] = std::array::from_fn(|_| loopback(self.port()));
        Ports { mqtt, ws, tls, wss, api, peer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_do_not_overlap_and_skip_ports_in_use() {
        let (mut one, mut two) = (PortBlock::reserve(), PortBlock::reserve());
        assert!(one.next >= two.end || two.next >= one.end, "{one:?} {two:?}");
        let taken = TcpListener::bind(loopback(one.next + 1)).expect("free");
        let first = one.run(3);
        assert!(first > taken.local_addr().expect("bound").port());
        assert_ne!(one.port(), two.port());
    }
}
