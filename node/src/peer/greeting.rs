//! Connections of the peer port that have not said anything yet. A peer begins to speak at once;
//! whoever does not, or speaks something else, must not keep a descriptor.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{AbortHandle, Abortable};
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;

/// How every HTTP/2 connection begins (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// From the connection to the whole preface.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks at a preface that is not whole; one comes whole from everybody but an attacker.
const PAUSE: Duration = Duration::from_millis(50);
/// Connections that may be silent at a time; for one more the oldest is closed.
const WAITING_MAX: usize = 256;

type Checked = Pin<Box<dyn Future<Output = Option<TcpStream>> + Send>>;

/// Holds them until they have begun as a peer does.
#[derive(Default)]
pub(super) struct Greeting {
    waiting: FuturesUnordered<Abortable<Checked>>,
    /// The oldest first; some may be done.
    order: VecDeque<AbortHandle>,
}

impl Greeting {
    pub fn push(&mut self, connection: TcpStream) {
        let (handle, registration) = AbortHandle::new_pair();
        self.waiting.push(Abortable::new(Box::pin(checked(connection)), registration));
        self.order.push_back(handle);
        while self.order.len() > WAITING_MAX {
            if let Some(oldest) = self.order.pop_front() {
                oldest.abort();
            }
        }
    }

    /// The next that has begun as a peer does; none: it does not return.
    pub async fn next(&mut self) -> TcpStream {
        loop {
            match self.waiting.next().await {
                Some(Ok(Some(connection))) => return connection,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// The connection, if it begins with the preface in time.
async fn checked(connection: TcpStream) -> Option<TcpStream> {
    let begins_right = async {
        let mut seen = [0; PREFACE.len()];
        loop {
            match connection.peek(&mut seen).await {
                Ok(length) if length > 0 && seen[..length] == PREFACE[..length] => {
                    if length == PREFACE.len() {
                        return true;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                _ => return false,
            }
        }
    };
    let right = tokio::time::timeout(TIMEOUT, begins_right).await;
    right.is_ok_and(|right| right).then_some(connection)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connects");
        (client, listener.accept().await.expect("accepts").0)
    }

    async fn is_closed(client: &mut TcpStream) -> bool {
        matches!(client.read(&mut [0; 1]).await, Ok(0) | Err(_))
    }

    #[tokio::test]
    async fn who_speaks_like_a_peer_passes_however_many_are_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let mut greeting = Greeting::default();
        let (mut wrong, server) = pair(&listener).await;
        greeting.push(server);
        wrong.write_all(b"GET / HTTP/1.1").await.expect("sent");
        let mut silent = Vec::new();
        for _ in 0..=WAITING_MAX {
            let (client, server) = pair(&listener).await;
            greeting.push(server);
            silent.push(client);
        }
        let (mut peer, server) = pair(&listener).await;
        greeting.push(server);
        peer.write_all(PREFACE).await.expect("sent");
        let mut passed = greeting.next().await;
        let mut first = [0; PREFACE.len()];
        passed.read_exact(&mut first).await.expect("nothing was taken away");
        assert_eq!(first, PREFACE);
        assert!(is_closed(&mut wrong).await);
        // The oldest made room, long before its time-out.
        assert!(is_closed(&mut silent[0]).await);
    }
}
