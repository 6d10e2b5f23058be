//! The peer listener.

use std::future::Future;
use std::io;
use std::time::Duration;

use futures::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::auth::RateLimit;
use super::channel::{CONNECTION_WINDOW_BYTES, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, STREAM_WINDOW_BYTES};
use super::connection::PeerStream;
use super::greeting::Greeting;
use super::keyring::Keyring;

/// Streams that one peer connection may have open.
const MAX_STREAMS: u32 = 1024;
/// Pause after a connection could not be accepted, as when descriptors have run out.
const ACCEPT_PAUSE_MS: u64 = 20;
const ACCEPT_LOG_INTERVAL_MS: u64 = 10_000;

/// Serves `routes` to the connections of `incoming` until `stop` resolves.
///
/// # Errors
/// `incoming` failed.
pub async fn serve<I, IO, E>(
    routes: Routes,
    incoming: I,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error>
where
    I: Stream<Item = Result<IO, E>>,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop)
        .await
}

/// The connections that come in at `listener`, encrypted. Failures to accept are logged and survived;
/// who does not go through with the handshake is closed, see [`Greeting`].
pub fn incoming(
    listener: TcpListener,
    keyring: Keyring,
) -> impl Stream<Item = io::Result<PeerStream>> + Send {
    let log = RateLimit::new(ACCEPT_LOG_INTERVAL_MS);
    // Made where it is polled: it has a timer.
    let begun = (listener, log, None);
    stream::unfold(begun, move |(listener, log, greeting)| {
        let mut greeting = greeting.unwrap_or_else(|| Greeting::new(keyring.clone()));
        async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    connection = greeting.next() => return Some((Ok(connection), (listener, log, Some(greeting)))),
                };
                match accepted {
                    Ok((connection, from)) => match connection.set_nodelay(true) {
                        Ok(()) => greeting.push(connection, from),
                        Err(e) => debug!("connection from {from} ended at once: {e}"),
                    },
                    Err(e) => {
                        if let Some(suppressed) = log.permit() {
                            warn!(suppressed, "cannot accept a peer's connection: {e}");
                        }
                        tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                    }
                }
            }
        }
    })
}

/// How the peer listener is bound: a name is looked up, the first address that works is taken.
///
/// # Errors
/// No address could be bound.
pub async fn listen(addr: &str) -> io::Result<TcpListener> {
    TcpListener::bind(addr).await
}
