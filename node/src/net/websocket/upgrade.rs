//! The HTTP request that opens a WebSocket, and its answer: no I/O.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::Authority;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::Request;

use super::OriginPolicy;

/// Where MQTT is served.
const PATH: &str = "/mqtt";
/// Subprotocols that are understood, by preference: the standard's [MQTT-6.0.0-4], and the one in
/// use before there was a standard.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
const VERSION: &str = "13";
const KEY_BYTES: usize = 16;
/// The request with all its header fields. Browsers send their cookies.
pub(super) const REQUEST_MAX_BYTES: usize = 8 << 10;
const END: &[u8] = b"\r\n\r\n";
/// Of an Origin, for log lines.
const SHOWN_ORIGIN_MAX: usize = 256;

/// Why there will be no WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status line without the HTTP version.
    pub status: &'static str,
    /// Header fields of this status, each with its line end.
    fields: &'static str,
    /// For people.
    pub text: &'static str,
}

impl Refusal {
    pub(super) const TOO_LARGE: Self = Self::new(
        "431 Request Header Fields Too Large",
        "The request has too many or too large header fields.",
    );
    pub(super) const NOT_HTTP: Self =
        Self::bad("This is not an HTTP/1.1 request. MQTT over plain TCP has another port.");
    pub(super) const ORIGIN: Self = Self::new(
        "403 Forbidden",
        "This page may not talk to the broker: its origin is neither the host that the request is for nor \
         listed in listeners.ws.allowed_origins (over TLS, listeners.wss.allowed_origins).",
    );
    const METHOD: Self = Self {
        fields: "Allow: GET\r\n",
        ..Self::new("405 Method Not Allowed", "A WebSocket is opened by GET.")
    };
    const PATH: Self = Self::new("404 Not Found", "MQTT over WebSocket is served at /mqtt.");
    const NO_UPGRADE: Self = Self {
        fields: "Upgrade: websocket\r\n",
        ..Self::new("426 Upgrade Required", "This is a WebSocket for MQTT clients, and nothing else.")
    };
    const VERSION: Self = Self {
        fields: "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        ..Self::new("426 Upgrade Required", "Only version 13 of the WebSocket protocol is spoken.")
    };

    const fn new(status: &'static str, text: &'static str) -> Self {
        Self { status, fields: "", text }
    }

    const fn bad(text: &'static str) -> Self {
        Self::new("400 Bad Request", text)
    }

    /// The whole HTTP response to `request`; to HEAD it has no content [RFC 9110, 9.3.2].
    pub fn response(&self, request: &[u8]) -> String {
        let Self { status, fields, text } = self;
        let upgrade = if fields.contains("Upgrade:") { "Upgrade, " } else { "" };
        let content = if request.starts_with(b"HEAD ") { "" } else { text };
        let end = if content.is_empty() { "" } else { "\n" };
        format!(
            "HTTP/1.1 {status}\r\nConnection: {upgrade}close\r\n{fields}Content-Type: text/plain\r\n\
             Content-Length: {}\r\n\r\n{content}{end}",
            text.len() + 1
        )
    }
}

/// Where the request in `bytes` ends, of which `searched` bytes are known not to hold the end.
pub(super) fn end_of(bytes: &[u8], searched: usize) -> Option<usize> {
    let from = searched.saturating_sub(END.len() - 1);
    let at = bytes[from..].windows(END.len()).position(|window| window == END)?;
    Some(from + at + END.len())
}

/// The response to a whole request, to its blank line, that opens the WebSocket. Extensions are
/// not accepted, whatever is offered. A request without Origin is not of a browser, and passes
/// `origins`.
///
/// # Errors
/// It is not opened; the refusal has the response instead.
pub fn answer(request: &[u8], origins: &OriginPolicy) -> Result<String, Refusal> {
    let request = match Request::try_parse(request) {
        Ok(Some((used, parsed))) if used == request.len() => parsed,
        Err(Error::Protocol(ProtocolError::WrongHttpMethod)) => return Err(Refusal::METHOD),
        Err(Error::Capacity(CapacityError::TooManyHeaders)) => return Err(Refusal::TOO_LARGE),
        _ => return Err(Refusal::NOT_HTTP),
    };
    let fields = request.headers();
    if request.uri().path() != PATH {
        return Err(Refusal::PATH);
    }
    let Some(host) = only(fields, HOST).filter(|host| is_host(host)) else {
        return Err(Refusal::bad("The request has to name one Host."));
    };
    let mut lengths = fields.get_all(CONTENT_LENGTH).into_iter();
    if fields.contains_key(TRANSFER_ENCODING) || lengths.any(|length| length != "0") {
        return Err(Refusal::bad("The request must not have a body."));
    }
    let has = |name, token: &str| tokens(fields, name).any(|t| t.eq_ignore_ascii_case(token));
    if !has(CONNECTION, "upgrade") || !has(UPGRADE, "websocket") {
        return Err(Refusal::NO_UPGRADE);
    }
    if only(fields, SEC_WEBSOCKET_VERSION) != Some(VERSION) {
        return Err(Refusal::VERSION);
    }
    let key = only(fields, SEC_WEBSOCKET_KEY).filter(|key| is_key(key));
    let Some(key) = key else {
        return Err(Refusal::bad("Sec-WebSocket-Key has to be there once: 16 bytes in base64."));
    };
    if !fields.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        // The client has to offer it [MQTT-6.0.0-3].
        return Err(Refusal::bad("Sec-WebSocket-Protocol is missing; an MQTT client offers mqtt."));
    }
    let is_offered = |known: &&str| tokens(fields, SEC_WEBSOCKET_PROTOCOL).any(|offered| offered == *known);
    let Some(chosen) = SUBPROTOCOLS.into_iter().find(is_offered) else {
        return Err(Refusal::bad("None of the offered subprotocols is mqtt or mqttv3.1."));
    };
    if fields.contains_key(ORIGIN) && !only(fields, ORIGIN).is_some_and(|origin| origins.admits(origin, host))
    {
        return Err(Refusal::ORIGIN);
    }
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {chosen}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    ))
}

/// What a request says of its origin, for a log line.
pub(super) fn shown_origin(request: &[u8]) -> String {
    let Ok(Some((_, request))) = Request::try_parse(request) else { return String::new() };
    let values = request.headers().get_all(ORIGIN).into_iter();
    let shown: Vec<_> = values.map(|value| value.as_bytes().escape_ascii().to_string()).collect();
    shown.join(" ").chars().take(SHOWN_ORIGIN_MAX).collect()
}

/// The elements of a field that is a list, over all its lines.
fn tokens(fields: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = fields.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// The value of a field that is there once.
fn only(fields: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = fields.get_all(name).into_iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

/// A host with or without a port, or nothing [RFC 9112, 3.2].
fn is_host(host: &str) -> bool {
    host.is_empty() || (!host.contains('@') && host.parse::<Authority>().is_ok())
}

fn is_key(key: &str) -> bool {
    STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == KEY_BYTES)
}
