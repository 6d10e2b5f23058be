//! Connections that do nothing, to see what one costs.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::frames::{Frame, connect_frame, split};

/// CONNECTs on their way at a time.
const BATCH: usize = 64;

/// Connections per source address; beyond some thousands the kernel searches long for a free port.
const PER_SOURCE: usize = 4_000;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Connected clients without a subscription; they end when this is dropped.
pub struct Idle {
    pub connections: Vec<TcpStream>,
}

impl Idle {
    /// Connects `count` clients and waits for their CONNACKs.
    ///
    /// # Errors
    /// When one is refused or gets no answer.
    pub fn connect(broker: SocketAddr, count: usize) -> io::Result<Self> {
        let mut connections: Vec<TcpStream> = Vec::with_capacity(count);
        while connections.len() < count {
            let start = connections.len();
            for i in start..(start + BATCH).min(count) {
                let mut stream = open(broker, i)?;
                stream.write_all(&connect_frame(&format!("idle-{i}")))?;
                connections.push(stream);
            }
            connections[start..].iter().try_for_each(granted)?;
        }
        Ok(Idle { connections })
    }
}

/// Connects from a loopback address that depends on `i`.
fn open(broker: SocketAddr, i: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let source = Ipv4Addr::new(127, 0, 1, 1 + (i / PER_SOURCE) as u8);
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect_timeout(&broker.into(), ANSWER_TIMEOUT)?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(socket.into())
}

fn granted(mut stream: &TcpStream) -> io::Result<()> {
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    match split(&answer) {
        Some((Frame::Answer(0), _)) => Ok(()),
        other => Err(io::Error::other(format!("CONNECT was answered with {other:?}"))),
    }
}
