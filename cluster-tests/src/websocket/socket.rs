//! A TCP connection to a WebSocket listener.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{Frame, opcode};
use crate::mqtt::{Options, Packet, Version, connect, decode};

/// For the broker to answer, on a machine that runs other tests.
const ANSWER: Duration = Duration::from_secs(20);

/// An HTTP response without its body.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// The header fields as they came, in lower case.
    pub fields: String,
}

impl Response {
    /// The value of a field, in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ending {
    /// What came before the Close frame.
    pub packets: Vec<Packet>,
    /// Pongs that came before the Close frame.
    pub pongs: usize,
    /// The Close frame; `None`: the stream ended without.
    pub close: Option<Frame>,
}

impl Ending {
    /// The status of the Close frame.
    pub fn status(&self) -> Option<u16> {
        self.close.as_ref().and_then(Frame::status)
    }
}

/// Whatever goes wrong below MQTT, a reset included, is a panic: the broker may not cause it.
#[derive(Debug)]
pub struct RawSocket {
    tcp: TcpStream,
    version: Version,
    /// Bytes that came and are not yet looked at.
    bytes: Vec<u8>,
    /// Payloads of binary frames, likewise.
    mqtt: Vec<u8>,
}

impl RawSocket {
    /// A connection on which nothing was said.
    pub fn dial(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).expect("the listener accepts");
        tcp.set_nodelay(true).expect("an option");
        tcp.set_write_timeout(Some(ANSWER)).expect("an option");
        tcp.set_read_timeout(Some(ANSWER)).expect("an option");
        RawSocket { tcp, version: Version::V5, bytes: Vec::new(), mqtt: Vec::new() }
    }

    /// The request that every listener has to accept, with these header fields more.
    pub fn request(fields: &str) -> String {
        format!(
            "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
        )
    }

    /// An open WebSocket without an MQTT client.
    pub fn open(address: SocketAddr) -> Self {
        let mut socket = RawSocket::dial(address);
        socket.write(RawSocket::request("Sec-WebSocket-Protocol: mqtt\r\n"));
        assert_eq!(socket.response().status, 101);
        socket
    }

    /// A connected MQTT client.
    pub fn connect(address: SocketAddr, options: &Options) -> Self {
        let mut socket = RawSocket::open(address);
        socket.version = options.version;
        socket.send(&Frame::binary(connect(options)));
        let answer = socket.packet();
        assert!(matches!(answer, Packet::ConnAck { code: 0, .. }), "{answer:?}");
        socket
    }

    /// What packets are decoded as, for a CONNECT sent by hand.
    pub fn speak(&mut self, version: Version) {
        self.version = version;
    }

    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.tcp.write_all(bytes.as_ref()).expect("the broker reads");
    }

    /// In writes of so many bytes each.
    pub fn write_in(&mut self, bytes: &[u8], size: usize) {
        bytes.chunks(size).for_each(|piece| self.write(piece));
    }

    pub fn send(&mut self, frame: &Frame) {
        self.write(frame.bytes());
    }

    /// All in one write.
    pub fn send_all(&mut self, frames: &[Frame]) {
        self.write(frames.iter().flat_map(Frame::bytes).collect::<Vec<_>>());
    }

    /// Reads more; false: the stream has ended.
    fn read(&mut self) -> bool {
        let mut chunk = [0; 64 << 10];
        loop {
            match self.tcp.read(&mut chunk) {
                Ok(length) => {
                    self.bytes.extend_from_slice(&chunk[..length]);
                    return length > 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}; before it came {:x?}", self.bytes),
            }
        }
    }

    /// Whether nothing comes for so long, not even the end.
    pub fn is_silent(&mut self, time: Duration) -> bool {
        if !self.bytes.is_empty() {
            return false;
        }
        self.tcp.set_read_timeout(Some(time)).expect("an option");
        let peeked = self.tcp.peek(&mut [0]);
        self.tcp.set_read_timeout(Some(ANSWER)).expect("an option");
        peeked.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// The header of the response; what follows it is kept.
    pub fn response(&mut self) -> Response {
        loop {
            if let Some(end) = self.bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                let header = String::from_utf8(self.bytes.drain(..end + 4).collect()).expect("text");
                let (line, fields) = header.split_once("\r\n").expect("a status line");
                let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
                let status = status.unwrap_or_else(|| panic!("{line}"));
                return Response { status, fields: fields.to_lowercase() };
            }
            assert!(self.read(), "the stream ended in the response: {:?}", self.bytes.escape_ascii());
        }
    }

    /// What comes until the end of the stream, as text.
    pub fn text_to_end(&mut self) -> String {
        while self.read() {}
        String::from_utf8(std::mem::take(&mut self.bytes)).expect("text")
    }

    /// The next frame; `None`: the stream has ended.
    pub fn frame(&mut self) -> Option<Frame> {
        loop {
            match Frame::of_server(&self.bytes) {
                Ok(Some((frame, length))) => {
                    self.bytes.drain(..length);
                    return Some(frame);
                }
                Ok(None) if self.read() => {}
                Ok(None) => {
                    assert!(self.bytes.is_empty(), "the stream ended in a frame: {:x?}", self.bytes);
                    return None;
                }
                Err(what) => panic!("the broker sent {what}"),
            }
        }
    }

    /// The next frame, a pong; its payload.
    pub fn pong(&mut self) -> Vec<u8> {
        let frame = self.frame().expect("a pong");
        assert_eq!(frame.opcode(), opcode::PONG, "{frame:x?}");
        frame.payload
    }

    fn take_packet(&mut self) -> Option<Packet> {
        let (packet, length) = decode(self.version, &self.mqtt).expect("a packet that a broker sends")?;
        self.mqtt.drain(..length);
        Some(packet)
    }

    /// The next packet; nothing but binary frames may come before it.
    pub fn packet(&mut self) -> Packet {
        loop {
            if let Some(packet) = self.take_packet() {
                return packet;
            }
            let frame = self.frame().expect("a packet, not the end");
            assert_eq!(frame.opcode(), opcode::BINARY, "{frame:x?}");
            self.mqtt.extend(frame.payload);
        }
    }

    /// Reads to the end of the stream. Answers no Close frame; nothing may follow the broker's.
    pub fn ending(&mut self) -> Ending {
        let mut ending = Ending { packets: Vec::new(), pongs: 0, close: None };
        while let Some(frame) = self.frame() {
            assert!(ending.close.is_none(), "{frame:x?} after {:x?}", ending.close);
            match frame.opcode() {
                opcode::BINARY => self.mqtt.extend(frame.payload),
                opcode::PONG => ending.pongs += 1,
                opcode::CLOSE => ending.close = Some(frame),
                _ => panic!("the broker sent {frame:x?}"),
            }
            while let Some(packet) = self.take_packet() {
                ending.packets.push(packet);
            }
        }
        ending
    }
}
