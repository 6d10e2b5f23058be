//! Connections of the peer port whose handshake is not over. A peer begins it at once; whoever does
//! not, or speaks something else, must not keep a descriptor. And the cost of strangers' handshakes is
//! bounded, because they share two threads with heartbeats.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{AbortHandle, Abortable};
use futures::stream::FuturesUnordered;
use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_rustls::LazyConfigAcceptor;
use tracing::debug;

use super::connection::PeerStream;
use super::keyring::Keyring;

/// From the connection to the end of its handshake.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes that may be under way at a time; for one more the oldest is closed.
const WAITING_MAX: usize = 256;
/// And those from one address, so that it cannot crowd out the others.
const WAITING_PER_ADDRESS: usize = 64;
/// Handshakes in a second that are computed, a fraction of a millisecond each: a flood takes some
/// hundredths of one core, and members wait their turn for a fraction of a second.
const HANDSHAKES_PER_SECOND: usize = 200;
/// Those that may come at once, as after a network was down.
const HANDSHAKES_AT_ONCE: usize = 256;
const REFILL: Duration = Duration::from_millis(20);
const REFILLED: usize = HANDSHAKES_PER_SECOND * REFILL.as_millis() as usize / 1000;
/// Connections without a certificate, which can only join.
const UNPROVEN_MAX: usize = 64;

type Handshake = Pin<Box<dyn Future<Output = io::Result<PeerStream>> + Send>>;

/// Holds them until it is over.
pub(super) struct Greeting {
    keyring: Keyring,
    waiting: FuturesUnordered<Abortable<Handshake>>,
    /// The oldest first; some may be done.
    order: VecDeque<(IpAddr, AbortHandle)>,
    budget: Arc<Semaphore>,
    refill: Interval,
    unproven: Arc<Semaphore>,
}

impl Greeting {
    pub fn new(keyring: Keyring) -> Self {
        let mut refill = interval(REFILL);
        refill.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            keyring,
            waiting: FuturesUnordered::new(),
            order: VecDeque::new(),
            budget: Arc::new(Semaphore::new(HANDSHAKES_AT_ONCE)),
            refill,
            unproven: Arc::new(Semaphore::new(UNPROVEN_MAX)),
        }
    }

    pub fn push(&mut self, connection: TcpStream, from: SocketAddr) {
        let (handle, registration) = AbortHandle::new_pair();
        let (keyring, budget, unproven) = (self.keyring.clone(), self.budget.clone(), self.unproven.clone());
        let handshake = Box::pin(async move {
            let handshake = handshake(connection, from, &keyring, &budget, &unproven);
            tokio::time::timeout(TIMEOUT, handshake).await?
        });
        self.waiting.push(Abortable::new(handshake, registration));
        self.order.push_back((from.ip(), handle));
        self.make_room(from.ip());
    }

    fn make_room(&mut self, from: IpAddr) {
        if self.order.len() <= WAITING_PER_ADDRESS {
            return;
        }
        // Those that are done have set no flag; they are the oldest, and go as if they were aborted.
        let of_address = self.order.iter().filter(|(ip, _)| *ip == from).count();
        let oldest = if of_address > WAITING_PER_ADDRESS {
            self.order.iter().position(|(ip, _)| *ip == from)
        } else {
            (self.order.len() > WAITING_MAX).then_some(0)
        };
        if let Some((_, handle)) = oldest.and_then(|at| self.order.remove(at)) {
            handle.abort();
        }
    }

    /// The next whose handshake is over; none: it does not return.
    pub async fn next(&mut self) -> PeerStream {
        loop {
            let spent = self.budget.available_permits() < HANDSHAKES_AT_ONCE;
            tokio::select! {
                done = self.waiting.next(), if !self.waiting.is_empty() => match done {
                    Some(Ok(Ok(connection))) => return connection,
                    Some(Ok(Err(error))) => debug!("a connection to the peer port came to nothing: {error}"),
                    _ => {}
                },
                _ = self.refill.tick(), if spent => self.budget.add_permits(REFILLED),
                else => std::future::pending().await,
            }
        }
    }
}

async fn handshake(
    connection: TcpStream,
    from: SocketAddr,
    keyring: &Keyring,
    budget: &Semaphore,
    unproven: &Arc<Semaphore>,
) -> io::Result<PeerStream> {
    let hello = LazyConfigAcceptor::new(Acceptor::default(), connection).await?;
    // Up to here it has cost next to nothing.
    budget.acquire().await.map_err(io::Error::other)?.forget();
    let ready = keyring.ready();
    let stream = hello.into_stream(ready.server.clone()).await?;
    PeerStream::accepted(keyring, &ready, stream, from, || unproven.clone().try_acquire_owned().ok())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::peer::testing::identity;

    async fn pair(listener: &TcpListener) -> (TcpStream, TcpStream, SocketAddr) {
        let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connects");
        let (server, from) = listener.accept().await.expect("accepts");
        (client, server, from)
    }

    async fn is_closed(client: &mut TcpStream) -> bool {
        let mut sent = [0; 64];
        loop {
            match client.read(&mut sent).await {
                Ok(0) | Err(_) => return true,
                // An alert, perhaps.
                Ok(_) => {}
            }
        }
    }

    #[tokio::test]
    async fn a_member_passes_however_many_are_silent_or_speak_something_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let mut greeting = Greeting::new(identity(1, "a:1").keyring);
        let mut wrong = Vec::new();
        for begun in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"GET / HTTP/1.1\r\n\r\n"] {
            let (mut client, server, from) = pair(&listener).await;
            greeting.push(server, from);
            client.write_all(begun).await.expect("sent");
            wrong.push(client);
        }
        let mut silent = Vec::new();
        for _ in 0..=WAITING_PER_ADDRESS {
            let (client, server, from) = pair(&listener).await;
            greeting.push(server, from);
            silent.push(client);
        }
        let address = listener.local_addr().expect("bound");
        let caller = identity(2, "b:1").keyring;
        let uri = format!("http://{address}").parse().expect("a URI");
        let dialling = tokio::spawn(async move { PeerStream::dial(&caller, uri, 1).await });
        let (server, from) = listener.accept().await.expect("accepts");
        greeting.push(server, from);
        let passed = greeting.next().await;
        let caller = tonic::transport::server::Connected::connect_info(&passed).expect("one that called");
        assert_eq!(caller.proven.map(|proven| proven.node), Some(2));
        dialling.await.expect("runs").expect("is answered");
        for client in &mut wrong {
            assert!(is_closed(client).await);
        }
        // The oldest made room, long before its time-out.
        assert!(is_closed(&mut silent[0]).await);
    }

    #[tokio::test(start_paused = true)]
    async fn handshakes_beyond_the_budget_wait_for_it() {
        let mut greeting = Greeting::new(identity(1, "a:1").keyring);
        greeting.budget.acquire_many(HANDSHAKES_AT_ONCE as u32).await.expect("open").forget();
        let budget = greeting.budget.clone();
        let begun = tokio::time::Instant::now();
        let waited = tokio::select! {
            _ = greeting.next() => unreachable!("nobody came"),
            permit = budget.acquire_many(HANDSHAKES_PER_SECOND as u32) => {
                permit.expect("open").forget();
                begun.elapsed()
            }
        };
        let second = Duration::from_secs(1);
        assert!(waited > second - 2 * REFILL && waited < second + 2 * REFILL, "{waited:?}");
    }
}
