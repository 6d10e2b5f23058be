//! Many bare connections of one thread.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Connections per source address: with many, the kernel searches long for a free port, and holds up
/// others meanwhile.
const PER_SOURCE: usize = 500;
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that are written and read without waiting.
#[derive(Debug, Default)]
pub struct Crowd {
    pub members: Vec<TcpStream>,
    opened: usize,
}

impl Crowd {
    /// Opens one more; the system's answer is waited for, the broker's is not.
    ///
    /// # Errors
    /// The system refuses.
    pub fn open(&mut self, to: SocketAddr) -> io::Result<&mut TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let source = Ipv4Addr::new(127, 0, 2, 1 + (self.opened / PER_SOURCE % 200) as u8);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.connect_timeout(&to.into(), OPEN_TIMEOUT)?;
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        self.opened += 1;
        self.members.push(stream);
        Ok(self.members.last_mut().expect("just pushed"))
    }

    /// As [`sift`](Self::sift), a part of them at a time: each once in so many calls.
    pub fn sift_part(&mut self, parts: usize) {
        let part = self.members.len().div_ceil(parts.max(1));
        let mut looked_at = self.members.split_off(self.members.len() - part);
        looked_at.retain_mut(|stream| !has_ended(stream));
        // The others are next.
        looked_at.append(&mut self.members);
        self.members = looked_at;
    }

    /// Drops those that the other side has ended, throwing away what it sent; how many are left.
    pub fn sift(&mut self) -> usize {
        self.members.retain_mut(|stream| !has_ended(stream));
        self.members.len()
    }
}

/// Whether the other side has ended the connection; what it sent is thrown away.
pub fn has_ended(stream: &mut TcpStream) -> bool {
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
}

/// Writes what the system takes at once; false: only a part of it, or the connection is over.
pub fn push(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    match stream.write(bytes) {
        Ok(written) => written == bytes.len(),
        Err(e) => matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}
