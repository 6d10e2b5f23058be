//! The simulated network as the nodes' gRPC sees it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, stream};
use hyper_util::rt::TokioIo;
use rookery::peer::Connector;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::Uri;
use tonic::transport::server::Connected;
use turmoil::net::{TcpListener, TcpStream};

/// A connection across a partition fails at once here, and each attempt costs a port for good; on
/// a real network it would take long.
const FAILED_DIAL_PAUSE: Duration = Duration::from_millis(100);

/// Dials the simulated network.
pub fn connector() -> Connector {
    Connector::plain(|endpoint| {
        // By default h2 forgets a stream that it has reset after a second of the real clock.
        let endpoint = endpoint.http2_reset_stream_duration(Duration::MAX);
        endpoint.connect_with_connector_lazy(tower::service_fn(|uri: Uri| async move {
            let host = uri.host().unwrap_or_default().to_owned();
            match TcpStream::connect((host, uri.port_u16().unwrap_or_default())).await {
                Ok(stream) => Ok(TokioIo::new(stream)),
                Err(error) => {
                    tokio::time::sleep(FAILED_DIAL_PAUSE).await;
                    Err(error)
                }
            }
        }))
    })
}

/// The connections that come in at `listener`.
pub fn incoming(listener: TcpListener) -> impl Stream<Item = io::Result<PeerStream>> + Send {
    stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| PeerStream(stream));
        Some((accepted, listener))
    })
}

/// A simulated connection that tonic's server takes.
pub struct PeerStream(TcpStream);

impl Connected for PeerStream {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
