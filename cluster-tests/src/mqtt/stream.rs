//! The bytes below the packets: a socket, plain or encrypted, and on it the bare stream or binary
//! frames of a WebSocket.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

/// How to reach a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp(SocketAddr),
    /// `ws://address/mqtt` with the subprotocol `mqtt`.
    Ws(SocketAddr),
    Tls(SocketAddr),
    /// `wss://address/mqtt` with the subprotocol `mqtt`.
    Wss(SocketAddr),
}

impl Transport {
    pub fn address(self) -> SocketAddr {
        let (Transport::Tcp(address)
        | Transport::Ws(address)
        | Transport::Tls(address)
        | Transport::Wss(address)) = self;
        address
    }
}

impl From<SocketAddr> for Transport {
    fn from(address: SocketAddr) -> Self {
        Transport::Tcp(address)
    }
}

/// Time-out for reaching a listener of this machine, with the handshakes of TLS and WebSocket.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// A blocked write means a peer that stopped reading; no test here wants to wait longer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) enum Stream {
    Bare(Socket),
    Ws(Box<WebSocket<Socket>>),
}

pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    fn tcp(&mut self) -> &mut TcpStream {
        match self {
            Socket::Plain(tcp) => tcp,
            Socket::Tls(tls) => &mut tls.sock,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Plain(tcp) => tcp.read(buf),
            Socket::Tls(tls) => tls.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Plain(tcp) => tcp.write(buf),
            Socket::Tls(tls) => tls.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Socket::Plain(tcp) => tcp.flush(),
            Socket::Tls(tls) => tls.flush(),
        }
    }
}

fn refused(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(ErrorKind::ConnectionRefused, error.to_string())
}

impl Stream {
    /// `config` is for the encrypted transports.
    pub fn open(transport: Transport, config: Arc<ClientConfig>) -> io::Result<Self> {
        let tcp = TcpStream::connect_timeout(&transport.address(), OPEN_TIMEOUT)?;
        Stream::open_over(tcp, transport, config)
    }

    /// As [`open`](Self::open), over a connection on which nothing of the transport was said.
    pub fn open_over(
        mut tcp: TcpStream,
        transport: Transport,
        config: Arc<ClientConfig>,
    ) -> io::Result<Self> {
        let address = transport.address();
        tcp.set_nodelay(true)?;
        tcp.set_write_timeout(Some(WRITE_TIMEOUT))?;
        tcp.set_read_timeout(Some(OPEN_TIMEOUT))?;
        let socket = match transport {
            Transport::Tcp(_) | Transport::Ws(_) => Socket::Plain(tcp),
            Transport::Tls(_) | Transport::Wss(_) => {
                let mut tls = ClientConnection::new(config, address.ip().into()).map_err(refused)?;
                while tls.is_handshaking() {
                    tls.complete_io(&mut tcp)?;
                }
                Socket::Tls(Box::new(StreamOwned::new(tls, tcp)))
            }
        };
        let scheme = match transport {
            Transport::Tcp(_) | Transport::Tls(_) => return Ok(Stream::Bare(socket)),
            Transport::Ws(_) => "ws",
            Transport::Wss(_) => "wss",
        };
        let mut request = format!("{scheme}://{address}/mqtt").into_client_request().map_err(refused)?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mqtt"));
        let (socket, response) = tungstenite::client(request, socket).map_err(refused)?;
        match response.headers().get("Sec-WebSocket-Protocol") {
            Some(chosen) if chosen == "mqtt" => Ok(Stream::Ws(Box::new(socket))),
            other => Err(refused(format!("subprotocol {other:?}"))),
        }
    }

    fn socket(&mut self) -> &mut Socket {
        match self {
            Stream::Bare(socket) => socket,
            Stream::Ws(websocket) => websocket.get_mut(),
        }
    }

    pub fn tls(&self) -> Option<&ClientConnection> {
        let socket = match self {
            Stream::Bare(socket) => socket,
            Stream::Ws(websocket) => websocket.get_ref(),
        };
        match socket {
            Socket::Plain(_) => None,
            Socket::Tls(tls) => Some(&tls.conn),
        }
    }

    pub fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Stream::Bare(socket) => socket.write_all(data).and_then(|()| socket.flush()),
            Stream::Ws(socket) => socket.send(Message::binary(data.to_vec())).map_err(io_error),
        }
    }

    pub fn close_notify(&mut self) -> io::Result<()> {
        if let Socket::Tls(tls) = self.socket() {
            tls.conn.send_close_notify();
            tls.flush()?;
        }
        Ok(())
    }

    /// Writes to the TCP connection itself.
    pub fn write_past_tls(&mut self, data: &[u8]) -> io::Result<()> {
        self.socket().tcp().write_all(data)
    }

    /// A WebSocket frame of text, which MQTT forbids [MQTT-6.0.0-1].
    pub fn write_text_frame(&mut self, text: &str) -> io::Result<()> {
        match self {
            Stream::Bare(_) => Err(io::Error::other("no frames on the bare stream")),
            Stream::Ws(socket) => socket.send(Message::text(text)).map_err(io_error),
        }
    }

    /// Appends what has arrived; waits up to `timeout`. 0: the peer closed. `TimedOut`: nothing came.
    pub fn read(&mut self, into: &mut Vec<u8>, timeout: Duration) -> io::Result<usize> {
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        self.socket().tcp().set_read_timeout(timeout)?;
        let result = match self {
            Stream::Bare(socket) => {
                let mut chunk = [0; 16 * 1024];
                socket.read(&mut chunk).inspect(|&length| into.extend_from_slice(&chunk[..length]))
            }
            Stream::Ws(socket) => match socket.read() {
                Ok(Message::Binary(data)) => {
                    into.extend_from_slice(&data);
                    Ok(data.len())
                }
                Ok(Message::Close(_)) => Ok(0),
                Ok(Message::Ping(_) | Message::Pong(_)) => Err(ErrorKind::TimedOut.into()),
                Ok(other) => Err(io::Error::other(format!("WebSocket frame {other:?}"))),
                Err(error) => Err(io_error(error)),
            },
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
