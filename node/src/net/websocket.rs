//! MQTT in WebSocket: a transformer of bytes around tungstenite, without a socket of its own.

use std::io::{self, Read, Write};
use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderValue, StatusCode};
use parking_lot::Mutex;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::server::{
    Callback, ErrorResponse, Request, Response, ServerHandshake,
};
use tokio_tungstenite::tungstenite::handshake::{HandshakeError, MidHandshake};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig, WebSocketContext};

use crate::session::{Conn, Flow, Inbound, Limits, pool};

/// Where MQTT is served.
const PATH: &str = "/mqtt";
/// Subprotocols that are understood, by preference [MQTT-6.0.0-4].
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
/// Read ahead of tungstenite; its default would cost 128 KiB per connection.
const READ_BUFFER_BYTES: usize = 1024;
/// A message may hold packets up to this beyond the largest one.
const MESSAGE_SLACK_BYTES: usize = 64 << 10;

/// Close frames with the status for what is wrong.
const CLOSE_PROTOCOL: [u8; 4] = [0x88, 2, 0x03, 0xEA];
const CLOSE_UNSUPPORTED: [u8; 4] = [0x88, 2, 0x03, 0xEB];
const CLOSE_INVALID: [u8; 4] = [0x88, 2, 0x03, 0xEF];
const CLOSE_TOO_BIG: [u8; 4] = [0x88, 2, 0x03, 0xF1];

const UPGRADE_REQUIRED: &[u8] =
    b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: close\r\n\
    Sec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n";
const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// The WebSocket side of one connection.
pub(super) struct WebSocket {
    state: State,
    config: WebSocketConfig,
}

enum State {
    Handshake(Box<Handshake>),
    Open(Box<WebSocketContext>),
    Over,
}

struct Handshake {
    machine: MidHandshake<ServerHandshake<Shared, Upgrade>>,
    /// The other end of what the machine reads and writes: it keeps its stream when it fails.
    bytes: Arc<Mutex<Bytes>>,
}

/// What was read and not yet consumed, and what is to be written.
#[derive(Default)]
struct Bytes {
    input: Vec<u8>,
    used: usize,
    output: Vec<u8>,
}

impl Read for Bytes {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let rest = &self.input[self.used..];
        if rest.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        self.used += n;
        Ok(n)
    }
}

impl Write for Bytes {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Shared(Arc<Mutex<Bytes>>);

impl Read for Shared {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.lock().read(buf)
    }
}

impl Write for Shared {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.lock().write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decides over the upgrade request.
struct Upgrade;

impl Callback for Upgrade {
    fn on_request(self, request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
        if request.uri().path() != PATH {
            return Err(refusal(StatusCode::NOT_FOUND));
        }
        let offers = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL);
        let offered: Vec<&str> = offers
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|v| v.split(','))
            .map(str::trim)
            .collect();
        let Some(chosen) = SUBPROTOCOLS.into_iter().find(|known| offered.contains(known)) else {
            return Err(refusal(StatusCode::BAD_REQUEST));
        };
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen));
        Ok(response)
    }
}

fn refusal(status: StatusCode) -> ErrorResponse {
    let mut response = ErrorResponse::new(None);
    *response.status_mut() = status;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}

impl WebSocket {
    pub fn new(limits: &Limits) -> Self {
        let message_max = limits.packet_max_bytes as usize + MESSAGE_SLACK_BYTES;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(message_max))
            .max_frame_size(Some(message_max));
        let bytes = Arc::<Mutex<Bytes>>::default();
        let machine = ServerHandshake::start(Shared(bytes.clone()), Upgrade, Some(config));
        Self { state: State::Handshake(Box::new(Handshake { machine, bytes })), config }
    }

    /// Takes what was read from the socket; MQTT goes to `inbound`, what WebSocket itself answers
    /// to the outbox.
    pub fn feed(&mut self, conn: &Arc<Conn>, inbound: &mut Inbound, bytes: &[u8], now_ms: u64) -> Flow {
        let mut pipe = Bytes { input: pool::take(), ..Bytes::default() };
        pipe.input.extend_from_slice(bytes);
        if matches!(self.state, State::Handshake(_)) && !self.shake_hands(conn, &mut pipe) {
            pool::give(pipe.input);
            // Over, or waiting for more of the request.
            return inbound.feed(conn, &[], now_ms);
        }
        let flow = self.unwrap(conn, inbound, &mut pipe, now_ms);
        pool::give(pipe.input);
        flow
    }

    /// Whether the upgrade is complete. Input beyond it is left in `pipe`.
    fn shake_hands(&mut self, conn: &Arc<Conn>, pipe: &mut Bytes) -> bool {
        let State::Handshake(handshake) = std::mem::replace(&mut self.state, State::Over) else {
            return false;
        };
        let Handshake { machine, bytes } = *handshake;
        bytes.lock().input.extend_from_slice(&pipe.input);
        let result = machine.handshake();
        let mut shared = bytes.lock();
        let output = std::mem::take(&mut shared.output);
        match result {
            Ok(_) => {
                pipe.input.clear();
                pipe.input.extend_from_slice(&shared.input[shared.used..]);
                conn.append_raw(&output);
                conn.set_framed();
                self.state = State::Open(Box::new(WebSocketContext::new(Role::Server, Some(self.config))));
                true
            }
            Err(HandshakeError::Interrupted(machine)) => {
                drop(shared);
                self.state = State::Handshake(Box::new(Handshake { machine, bytes }));
                false
            }
            Err(HandshakeError::Failure(error)) => {
                conn.close_raw(match error {
                    _ if !output.is_empty() => &output,
                    Error::Protocol(
                        ProtocolError::MissingConnectionUpgradeHeader
                        | ProtocolError::MissingUpgradeWebSocketHeader
                        | ProtocolError::MissingSecWebSocketVersionHeader,
                    ) => UPGRADE_REQUIRED,
                    _ => BAD_REQUEST,
                });
                false
            }
        }
    }

    /// Takes the packets out of the frames. A packet may span frames and frames may share one
    /// [MQTT-6.0.0-2].
    fn unwrap(&mut self, conn: &Arc<Conn>, inbound: &mut Inbound, pipe: &mut Bytes, now_ms: u64) -> Flow {
        let State::Open(context) = &mut self.state else { return inbound.feed(conn, &[], now_ms) };
        let mut flow = Flow::Open;
        loop {
            let message = context.read(pipe);
            let output = std::mem::take(&mut pipe.output);
            let last: &[u8] = match message {
                Ok(Message::Binary(payload)) => {
                    flow = inbound.feed(conn, &payload, now_ms);
                    if matches!(flow, Flow::Over | Flow::Broken(_)) {
                        return flow;
                    }
                    continue;
                }
                // [MQTT-6.0.0-1]
                Ok(Message::Text(_)) => &CLOSE_UNSUPPORTED,
                // Tungstenite answers, at its next read.
                Ok(_) => {
                    if !output.is_empty() {
                        conn.append_raw(&output);
                    }
                    continue;
                }
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                    if !output.is_empty() {
                        conn.append_raw(&output);
                    }
                    if flow == Flow::Open && inbound.is_handshake() {
                        // Held, unless CONNECT is still to come.
                        flow = inbound.feed(conn, &[], now_ms);
                    }
                    return flow;
                }
                Err(Error::ConnectionClosed) => &output,
                Err(Error::Capacity(_)) => &CLOSE_TOO_BIG,
                Err(Error::Utf8(_)) => &CLOSE_INVALID,
                Err(_) => &CLOSE_PROTOCOL,
            };
            conn.close_raw(last);
            return inbound.feed(conn, &[], now_ms);
        }
    }
}
