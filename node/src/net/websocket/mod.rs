//! MQTT in WebSocket, between a socket's bytes and [`Inbound`]. The two pure parts, the opening
//! request and the frames, may be driven by anybody with any bytes.

mod frame;
mod origin;
mod upgrade;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use frame::{Control, Event, FrameReader};
pub use origin::{AllowedOrigin, Origin, OriginPolicy};
pub use upgrade::{Refusal, answer};

use crate::mqtt::{DecodeError, ReasonCode};
use crate::session::{Conn, Flow, Inbound, Limits, pool};

/// A message may hold packets up to this beyond the largest one.
const MESSAGE_SLACK_BYTES: u32 = 64 << 10;
const FIN: u8 = 0x80;

/// How a client broke the WebSocket protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Of the Close frame that says so.
    pub status: u16,
    /// The offence, fit for a log line.
    pub what: &'static str,
}

impl Violation {
    pub const PROTOCOL: u16 = 1002;
    pub const UNSUPPORTED: u16 = 1003;
    pub const NOT_UTF8: u16 = 1007;
    pub const TOO_BIG: u16 = 1009;

    pub(super) const fn new(status: u16, what: &'static str) -> Self {
        Self { status, what }
    }

    const fn protocol(what: &'static str) -> Self {
        Self::new(Self::PROTOCOL, what)
    }
}

/// The WebSocket side of one connection. Its front end hands it everything that is read, also
/// while the connection lingers.
#[derive(Debug)]
pub(crate) struct WebSocket {
    state: State,
    message_max: u32,
}

#[derive(Debug)]
enum State {
    /// The opening request as far as it has come, and the pages that may send one.
    Opening(Vec<u8>, Arc<OriginPolicy>),
    Open(FrameReader),
    /// The client's last word came while packets before it could not be processed yet.
    Leaving(Last),
    /// The page that this is from may not; its origin, if nobody has asked for it.
    Unwelcome(String),
    Over,
}

type Last = Result<Option<u16>, Violation>;

impl WebSocket {
    pub fn new(limits: &Limits, origins: Arc<OriginPolicy>) -> Self {
        let message_max = limits.packet_max_bytes.saturating_add(MESSAGE_SLACK_BYTES);
        Self { state: State::Opening(Vec::new(), origins), message_max }
    }

    /// The origin of the page that was refused, once.
    pub fn take_unwelcome(&mut self) -> Option<String> {
        let State::Unwelcome(origin) = &mut self.state else { return None };
        let origin = std::mem::take(origin);
        self.state = State::Over;
        Some(origin)
    }

    /// Takes what was read from the socket; MQTT goes to `inbound`, what WebSocket itself answers
    /// to the outbox.
    pub fn feed(
        &mut self,
        conn: &Arc<Conn>,
        inbound: &mut Inbound,
        mut bytes: &mut [u8],
        now_ms: u64,
    ) -> Flow {
        self.open(conn, &mut bytes);
        let State::Open(reader) = &mut self.state else { return inbound.feed(conn, &[], now_ms) };
        let mut flow = Flow::Open;
        let mut pinged = false;
        while let Some(event) = reader.next(&mut bytes) {
            let last = match event {
                Ok(Event::Data(piece)) => {
                    flow = inbound.feed(conn, piece, now_ms);
                    if matches!(flow, Flow::Over | Flow::Broken(_)) {
                        self.linger(conn, bytes);
                        return flow;
                    }
                    continue;
                }
                Ok(Event::Ping(ping)) => {
                    conn.append_raw(&control_frame(frame::PONG, ping.payload()));
                    pinged = true;
                    continue;
                }
                Ok(Event::Close(status)) => Ok(status),
                Err(violation) => Err(violation),
            };
            self.state = State::Leaving(last);
            return self.attended(conn, inbound, flow, now_ms);
        }
        if pinged && flow == Flow::Open { inbound.answered(conn, now_ms) } else { flow }
    }

    /// After `inbound` was attended to or fed what it had kept, which came to `flow`: lets the client go once all its
    /// packets are processed.
    pub fn attended(&mut self, conn: &Arc<Conn>, inbound: &mut Inbound, flow: Flow, now_ms: u64) -> Flow {
        let State::Leaving(last) = &self.state else { return flow };
        let last = *last;
        if matches!(flow, Flow::Held | Flow::Yield) {
            return flow;
        }
        self.state = State::Over;
        if flow != Flow::Open {
            conn.end_stream();
            return flow;
        }
        conn.close_raw(&close_frame(last.unwrap_or_else(|violation| Some(violation.status))));
        // It may have been closing, and have said so.
        conn.end_stream();
        let flow = inbound.feed(conn, &[], now_ms);
        let Err(violation) = last else { return flow };
        let reason = match violation.status {
            Violation::TOO_BIG => ReasonCode::PacketTooLarge,
            _ => ReasonCode::ProtocolError,
        };
        conn.context().counters.protocol_error(reason);
        Flow::Broken(DecodeError::new(reason, violation.what))
    }

    /// Takes what comes after this side has closed: nothing counts but the client's Close frame.
    pub fn linger(&mut self, conn: &Arc<Conn>, mut bytes: &mut [u8]) {
        let State::Open(reader) = &mut self.state else { return };
        while let Some(event) = reader.next(&mut bytes) {
            if matches!(event, Ok(Event::Close(_)) | Err(_)) {
                self.state = State::Over;
                conn.end_stream();
                return;
            }
        }
    }

    /// Answers the opening request once it is whole, and passes over it.
    fn open(&mut self, conn: &Arc<Conn>, bytes: &mut &mut [u8]) {
        let State::Opening(request, origins) = &mut self.state else { return };
        if request.capacity() == 0 {
            *request = pool::take();
        }
        let had = request.len();
        let taken = bytes.len().min(upgrade::REQUEST_MAX_BYTES - had);
        request.extend_from_slice(&bytes[..taken]);
        let answer = match upgrade::end_of(request, had) {
            // Whoever begins otherwise does not speak HTTP and might wait for us. A request may
            // follow an empty line [RFC 9112, 2.2].
            _ if request
                .first()
                .is_some_and(|byte| !byte.is_ascii_alphabetic() && !b"\r\n".contains(byte)) =>
            {
                Err(Refusal::NOT_HTTP)
            }
            Some(end) => {
                *bytes = &mut std::mem::take(bytes)[end - had..];
                answer(&request[..end], origins)
            }
            None if request.len() == upgrade::REQUEST_MAX_BYTES => Err(Refusal::TOO_LARGE),
            None => return,
        };
        let request = std::mem::take(request);
        match answer {
            Ok(response) => {
                conn.append_raw(response.as_bytes());
                conn.set_framed();
                self.state = State::Open(FrameReader::new(self.message_max));
            }
            Err(refusal) => {
                conn.close_raw(refusal.response(&request).as_bytes());
                self.state = match refusal {
                    Refusal::ORIGIN => State::Unwelcome(upgrade::shown_origin(&request)),
                    _ => State::Over,
                };
            }
        }
        pool::give(request);
    }
}

/// A control frame of a server; `payload`: at most 125 bytes.
fn control_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    debug_assert!(payload.len() <= frame::CONTROL_MAX);
    let mut bytes = Vec::with_capacity(2 + payload.len());
    bytes.extend([FIN | opcode, payload.len() as u8]);
    bytes.extend_from_slice(payload);
    bytes
}

fn close_frame(status: Option<u16>) -> Vec<u8> {
    control_frame(frame::CLOSE, status.map(u16::to_be_bytes).as_ref().map_or(&[], |bytes| bytes))
}
