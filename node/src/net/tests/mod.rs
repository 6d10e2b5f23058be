//! The front ends, with real sockets and in-memory pipes.

mod accepting;
mod client_certificates;
mod over_pipes;
mod over_proxies;
mod over_tcp;
mod over_tls;
mod over_websocket;

use std::sync::Arc;
use std::time::Duration;

use super::{Acceptor, Bound, Kind, ListenerOptions, Server};
use crate::env;
use crate::session::testing::FakeService;
use crate::session::{Context, Limits};

struct Running {
    server: Server,
    service: Arc<FakeService>,
    context: Arc<Context>,
    address: std::net::SocketAddr,
}

fn start(kind: Kind, limits: Limits, loops: usize) -> Running {
    start_with(kind, limits, loops, None)
}

fn start_with(kind: Kind, limits: Limits, loops: usize, acceptor: Option<Arc<Acceptor>>) -> Running {
    listen(ListenerOptions { acceptor, ..ListenerOptions::new(kind) }, limits, loops)
}

fn listen(options: ListenerOptions, limits: Limits, loops: usize) -> Running {
    let service = Arc::new(FakeService::default());
    let context = Context::new(limits, service.clone());
    let server = Server::start(&context, loops).expect("threads");
    let bound = Bound::new("127.0.0.1:0".parse().expect("an address"), options, "listeners.tcp.bind", loops)
        .expect("a free port");
    let address = bound.address();
    server.open(bound).expect("listens");
    Running { server, service, context, address }
}

impl Running {
    /// Waits until the condition holds; for what the loops do in their own time.
    fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = env::now() + Duration::from_secs(10);
        while !condition(self) {
            assert!(env::now() < deadline, "{what}: {:?}", self.service.calls.lock());
            std::thread::yield_now();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.drain(Duration::ZERO);
    }
}
