//! The bytes below the packets: plain TCP, or binary frames of a WebSocket.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

/// How to reach a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp(SocketAddr),
    /// `ws://address/mqtt` with the subprotocol `mqtt`.
    Ws(SocketAddr),
}

impl From<SocketAddr> for Transport {
    fn from(address: SocketAddr) -> Self {
        Transport::Tcp(address)
    }
}

/// Time-out for reaching a listener of this machine, the WebSocket upgrade included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// A blocked write means a peer that stopped reading; no test here wants to wait longer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) enum Stream {
    Tcp(TcpStream),
    Ws(Box<WebSocket<TcpStream>>),
}

fn refused(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(ErrorKind::ConnectionRefused, error.to_string())
}

impl Stream {
    pub fn open(transport: Transport) -> io::Result<Self> {
        let (Transport::Tcp(address) | Transport::Ws(address)) = transport;
        let tcp = TcpStream::connect_timeout(&address, OPEN_TIMEOUT)?;
        tcp.set_nodelay(true)?;
        tcp.set_write_timeout(Some(WRITE_TIMEOUT))?;
        if let Transport::Tcp(_) = transport {
            return Ok(Stream::Tcp(tcp));
        }
        tcp.set_read_timeout(Some(OPEN_TIMEOUT))?;
        let mut request = format!("ws://{address}/mqtt").into_client_request().map_err(refused)?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mqtt"));
        let (socket, response) = tungstenite::client(request, tcp).map_err(refused)?;
        match response.headers().get("Sec-WebSocket-Protocol") {
            Some(chosen) if chosen == "mqtt" => Ok(Stream::Ws(Box::new(socket))),
            other => Err(refused(format!("subprotocol {other:?}"))),
        }
    }

    pub fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Stream::Tcp(tcp) => tcp.write_all(data),
            Stream::Ws(socket) => socket.send(Message::binary(data.to_vec())).map_err(io_error),
        }
    }

    /// A WebSocket frame of text, which MQTT forbids [MQTT-6.0.0-1].
    pub fn write_text_frame(&mut self, text: &str) -> io::Result<()> {
        match self {
            Stream::Tcp(_) => Err(io::Error::other("no frames on TCP")),
            Stream::Ws(socket) => socket.send(Message::text(text)).map_err(io_error),
        }
    }

    /// Appends what has arrived; waits up to `timeout`. 0: the peer closed. `TimedOut`: nothing came.
    pub fn read(&mut self, into: &mut Vec<u8>, timeout: Duration) -> io::Result<usize> {
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        let result = match self {
            Stream::Tcp(tcp) => {
                tcp.set_read_timeout(timeout)?;
                let mut chunk = [0; 16 * 1024];
                tcp.read(&mut chunk).inspect(|&length| into.extend_from_slice(&chunk[..length]))
            }
            Stream::Ws(socket) => {
                socket.get_ref().set_read_timeout(timeout)?;
                match socket.read() {
                    Ok(Message::Binary(data)) => {
                        into.extend_from_slice(&data);
                        Ok(data.len())
                    }
                    Ok(Message::Close(_)) => Ok(0),
                    Ok(Message::Ping(_) | Message::Pong(_)) => Err(ErrorKind::TimedOut.into()),
                    Ok(other) => Err(io::Error::other(format!("WebSocket frame {other:?}"))),
                    Err(error) => Err(io_error(error)),
                }
            }
        };
        result.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
            _ => error,
        })
    }
}

fn io_error(error: tungstenite::Error) -> io::Error {
    use tungstenite::error::ProtocolError;
    match error {
        tungstenite::Error::Io(error) => error,
        tungstenite::Error::ConnectionClosed
        | tungstenite::Error::AlreadyClosed
        | tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            ErrorKind::ConnectionReset.into()
        }
        other => io::Error::other(other.to_string()),
    }
}
