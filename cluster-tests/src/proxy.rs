//! What a proxy says before its client's bytes: headers of the PROXY protocol, made by hand, from
//! any address of this machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

const TIMEOUT: Duration = Duration::from_secs(20);
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A connection that comes from `from`, an address of this machine.
pub fn dial(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((from, 0)).into()).expect("an address of this machine");
    socket.connect_timeout(&to.into(), TIMEOUT).expect("listens");
    socket.set_read_timeout(Some(TIMEOUT)).expect("an option");
    socket.set_tcp_nodelay(true).expect("an option");
    socket.into()
}

/// Version 1 for a client at `source`.
pub fn text(source: SocketAddr) -> Vec<u8> {
    let (family, to) = if source.is_ipv4() { (4, "192.0.2.1") } else { (6, "2001:db8::1") };
    format!("PROXY TCP{family} {} {to} {} 1883\r\n", source.ip(), source.port()).into_bytes()
}

/// Version 2 for a client at `source`.
pub fn binary(source: SocketAddr) -> Vec<u8> {
    let (family, block) = addresses(source);
    header(1, family, &block)
}

/// Version 2 for the proxy's own connection, as its health checks have.
pub fn local() -> Vec<u8> {
    header(0, 0, &[])
}

/// As [`binary`], with a checksum of it all.
pub fn checked(source: SocketAddr) -> Vec<u8> {
    let (family, mut block) = addresses(source);
    block.extend([0x03, 0, 4, 0, 0, 0, 0]);
    let mut bytes = header(1, family, &block);
    let sum = crc32c(&bytes).to_be_bytes();
    let at = bytes.len() - sum.len();
    bytes[at..].copy_from_slice(&sum);
    bytes
}

fn header(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = (block.len() as u16).to_be_bytes();
    [SIGNATURE, &[0x20 | command, family], &length, block].concat()
}

fn addresses(source: SocketAddr) -> (u8, Vec<u8>) {
    let (port, to_port) = (source.port().to_be_bytes(), 1883_u16.to_be_bytes());
    match source.ip() {
        IpAddr::V4(ip) => (0x11, [&ip.octets()[..], &[192, 0, 2, 1], &port, &to_port].concat()),
        IpAddr::V6(ip) => (0x21, [&ip.octets()[..], &[0; 16], &port, &to_port].concat()),
    }
}

/// Castagnoli's, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |sum: u32, _| if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), bit))
}
