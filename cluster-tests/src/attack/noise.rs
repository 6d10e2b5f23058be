//! How late the machine itself is: two threads of the test's own that pass a byte to and fro, as
//! the clients do with the broker in between. Whatever else runs here holds them up alike.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::bystanders::Row;
use crate::wait;

/// Passes bytes until it is told to stop.
///
/// # Errors
/// The system has no socket for it.
pub(super) fn measure(row: &Row, stop: &AtomicBool) -> Result<(), String> {
    let fail = |e: std::io::Error| e.to_string();
    let listener = TcpListener::bind("127.0.0.1:0").map_err(fail)?;
    let mut here = TcpStream::connect(listener.local_addr().map_err(fail)?).map_err(fail)?;
    let (mut there, _) = listener.accept().map_err(fail)?;
    here.set_nodelay(true).and_then(|()| there.set_nodelay(true)).map_err(fail)?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut byte = [0];
            // The end of the stream ends the echo.
            while there.read_exact(&mut byte).is_ok() && there.write_all(&byte).is_ok() {}
        });
        while !stop.load(Ordering::Relaxed) {
            let sent = Instant::now();
            here.write_all(&[0]).and_then(|()| here.read_exact(&mut [0])).map_err(fail)?;
            row.record(sent.elapsed());
            wait::pause();
        }
        here.shutdown(std::net::Shutdown::Both).map_err(fail)
    })
}
