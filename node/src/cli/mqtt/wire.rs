//! A connection that carries MQTT packets, over TCP or WebSocket.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use super::super::exit::{Exit, Failure};
use crate::mqtt::frame_len;

/// The largest packet there can be, bytes.
const MAX_PACKET: u32 = 268_435_460;

/// Where a broker is, parsed from `mqtt://HOST:PORT` or `ws://HOST:PORT/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Url {
    Tcp {
        /// HOST:PORT.
        address: String,
    },
    Ws {
        address: String,
        url: String,
    },
}

impl std::str::FromStr for Url {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("mqtt", text));
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let wrong = |what: &str| Err(Failure::new(Exit::Usage, format!("{text}: {what}")));
        if authority.is_empty() || authority.contains('@') {
            return wrong("expected mqtt://HOST:PORT or ws://HOST:PORT/mqtt");
        }
        let bare = authority.rsplit(']').next().unwrap_or(authority);
        let with_port = |port: u16| {
            if bare.contains(':') { authority.to_owned() } else { format!("{authority}:{port}") }
        };
        match scheme {
            "mqtt" | "tcp" if path.trim_matches('/').is_empty() => Ok(Self::Tcp { address: with_port(1883) }),
            "mqtt" | "tcp" => wrong("mqtt:// has no path"),
            "ws" => {
                let address = with_port(8083);
                let path = if path.is_empty() { "/mqtt" } else { path };
                Ok(Self::Ws { url: format!("ws://{address}{path}"), address })
            }
            "mqtts" | "ssl" | "tls" | "wss" => wrong("TLS is not supported yet"),
            _ => wrong("expected mqtt:// or ws://"),
        }
    }
}

/// A connection; what was received and not yet taken waits in it.
pub struct Wire {
    stream: Stream,
    received: BytesMut,
}

enum Stream {
    Tcp(TcpStream),
    Ws(Box<WebSocketStream<TcpStream>>),
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Unhealthy, format!("the connection broke: {error}"))
}

impl Wire {
    pub async fn open(url: &Url) -> Result<Self, Failure> {
        let (Url::Tcp { address } | Url::Ws { address, .. }) = url;
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| Failure::new(Exit::Unhealthy, format!("no connection to {address}: {error}")))?;
        stream.set_nodelay(true)?;
        let stream = match url {
            Url::Tcp { .. } => Stream::Tcp(stream),
            Url::Ws { url, .. } => {
                let mut request = url
                    .into_client_request()
                    .map_err(|e| Failure::new(Exit::Usage, format!("{url}: {e}")))?;
                let subprotocol = HeaderValue::from_static("mqtt");
                request.headers_mut().insert("sec-websocket-protocol", subprotocol);
                let (stream, _) = tokio_tungstenite::client_async(request, stream)
                    .await
                    .map_err(|e| Failure::new(Exit::Error, format!("no WebSocket at {url}: {e}")))?;
                Stream::Ws(Box::new(stream))
            }
        };
        Ok(Self { stream, received: BytesMut::new() })
    }

    pub async fn send(&mut self, packets: &[u8]) -> Result<(), Failure> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(packets).await.map_err(broken),
            Stream::Ws(stream) => stream.send(Message::binary(packets.to_vec())).await.map_err(broken),
        }
    }

    /// The next whole packet. Dropping the future loses nothing.
    pub async fn receive(&mut self) -> Result<BytesMut, Failure> {
        loop {
            let length = frame_len(&self.received, MAX_PACKET)
                .map_err(|e| Failure::new(Exit::Error, format!("the broker sent {e}")))?;
            match length {
                Some(length) if length <= self.received.len() => {
                    return Ok(self.received.split_to(length));
                }
                _ if self.read().await? == 0 => return Err(broken("the broker closed it")),
                _ => {}
            }
        }
    }

    /// Bytes read; 0: the broker has closed the connection.
    async fn read(&mut self) -> Result<usize, Failure> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read_buf(&mut self.received).await.map_err(broken),
            Stream::Ws(stream) => loop {
                match stream.next().await {
                    Some(Ok(Message::Binary(bytes))) if bytes.has_remaining() => {
                        self.received.extend_from_slice(&bytes);
                        return Ok(bytes.len());
                    }
                    None | Some(Ok(Message::Close(_))) => return Ok(0),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(broken(error)),
                }
            },
        }
    }

    /// Ends the connection after everything sent has reached the broker, which then closes its
    /// side; waits for that at most `grace`.
    pub async fn close(mut self, grace: Duration) {
        let closing = async {
            let said = match &mut self.stream {
                Stream::Tcp(stream) => stream.shutdown().await.is_ok(),
                Stream::Ws(stream) => SinkExt::close(stream).await.is_ok(),
            };
            while said && matches!(self.read().await, Ok(1..)) {
                self.received.clear();
            }
        };
        // A broker that does not close in time has had its chance.
        let _ = tokio::time::timeout(grace, closing).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_transport_and_a_broker() {
        let tcp = |address: &str| Url::Tcp { address: address.to_owned() };
        let ws = |address: &str, url: &str| Url::Ws { address: address.to_owned(), url: url.to_owned() };
        for (text, url) in [
            ("mqtt://h:1", tcp("h:1")),
            ("mqtt://h", tcp("h:1883")),
            ("h:7", tcp("h:7")),
            ("mqtt://[::1]/", tcp("[::1]:1883")),
            ("ws://h:1/mqtt", ws("h:1", "ws://h:1/mqtt")),
            ("ws://[::1]:5", ws("[::1]:5", "ws://[::1]:5/mqtt")),
            ("ws://h", ws("h:8083", "ws://h:8083/mqtt")),
        ] {
            assert_eq!(text.parse::<Url>().expect(text), url);
        }
        for text in ["", "mqtt://", "mqtt://h/x", "mqtts://h", "wss://h/mqtt", "http://h", "mqtt://u:p@h"] {
            assert_eq!(text.parse::<Url>().expect_err(text).exit, Exit::Usage, "{text}");
        }
    }
}
