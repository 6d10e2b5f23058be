//! The front end for any stream: one task drives the same core that the event loops drive. For
//! simulation, in-memory pipes, and streams that cannot be polled by a loop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use super::faults::Faults;
use crate::env;
use crate::session::{Conn, Context, Flow, Inbound, Link, Metric, turn};

/// Bytes handed over and not yet written.
const PIPE_MAX_BYTES: usize = 64 << 10;
const READ_BYTES: usize = 16 << 10;

struct PipeLink {
    context: Arc<Context>,
    peer: String,
    bytes: Mutex<Vec<u8>>,
    finished: AtomicBool,
    /// Something to write, to attend to, or to end.
    changed: Notify,
}

impl Link for PipeLink {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut waiting = self.bytes.lock();
        let room = PIPE_MAX_BYTES - waiting.len();
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = room.min(bytes.len());
        waiting.extend_from_slice(&bytes[..taken]);
        self.changed.notify_one();
        Ok(taken)
    }

    fn finish(&self) {
        self.finished.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    fn wake(&self) {
        self.changed.notify_one();
    }

    fn context(&self) -> &Context {
        &self.context
    }

    fn peer(&self) -> String {
        self.peer.clone()
    }
}

/// Serves one client on `stream` until either side is done. `peer` names it in logs.
pub async fn serve<S>(stream: S, peer: String, context: Arc<Context>)
where
    S: AsyncRead + AsyncWrite + Send,
{
    let link = Arc::new(PipeLink {
        context: context.clone(),
        peer,
        bytes: Mutex::default(),
        finished: AtomicBool::new(false),
        changed: Notify::new(),
    });
    context.counters.increment(Metric::SocketsAccepted);
    context.counters.increment(Metric::Sockets);
    let conn = Conn::new(link.clone());
    // Ends the connection also when this task is cancelled.
    let mut owner = Owner { inbound: Inbound::new(0), conn, context };
    drive(stream, &link, &mut owner).await;
}

struct Owner {
    inbound: Inbound,
    conn: Arc<Conn>,
    context: Arc<Context>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.inbound.end(&self.conn);
        self.conn.cut();
        self.context.counters.decrement(Metric::Sockets);
    }
}

async fn drive<S>(stream: S, link: &PipeLink, owner: &mut Owner)
where
    S: AsyncRead + AsyncWrite + Send,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let Owner { inbound, conn, .. } = owner;
    let began = env::now();
    let now_ms = || u64::try_from(env::now().duration_since(began).as_millis()).unwrap_or(u64::MAX);
    let mut buf = vec![0; READ_BYTES];
    let mut writing = Vec::new();
    let mut written = 0;
    let mut flow = Flow::Open;
    loop {
        while flow == Flow::Yield {
            tokio::task::yield_now().await;
            inbound.begin_turn();
            flow = turn(|| inbound.feed(conn, &[], now_ms()));
        }
        if matches!(flow, Flow::Over | Flow::Broken(_)) {
            if let Flow::Broken(fault) = flow {
                Faults::default().log(conn, &fault, 0);
            }
            inbound.end(conn);
            conn.flush();
            let linger = Duration::from_millis(u64::from(link.context.limits.linger_ms));
            let last = write_last(&mut writer, &writing[written..], link, conn);
            if tokio::time::timeout(linger, last).await.is_err() {
                tracing::debug!(peer = link.peer, "the client did not take the last bytes");
            }
            return;
        }
        let Some(check_ms) = turn(|| inbound.check(conn, now_ms())) else {
            flow = Flow::Over;
            continue;
        };
        if written == writing.len() {
            writing = std::mem::take(&mut *link.bytes.lock());
            written = 0;
            if !writing.is_empty() {
                turn(|| conn.writable());
            }
        }
        let check_at = began + Duration::from_millis(check_ms);
        tokio::select! {
            read = reader.read(&mut buf), if flow == Flow::Open => match read {
                Ok(0) | Err(_) => {
                    flow = Flow::Over;
                }
                Ok(read) => {
                    inbound.begin_turn();
                    flow = turn(|| inbound.feed(conn, &buf[..read], now_ms()));
                }
            },
            wrote = writer.write(&writing[written..]), if written < writing.len() => match wrote {
                Ok(0) | Err(_) => flow = Flow::Over,
                Ok(wrote) => written += wrote,
            },
            () = link.changed.notified() => flow = turn(|| inbound.attend(conn, now_ms())),
            () = tokio::time::sleep_until(check_at) => {}
        }
    }
}

/// Writes what is left of a connection that is over, to its end.
async fn write_last<W>(writer: &mut W, rest: &[u8], link: &PipeLink, conn: &Conn) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    writer.write_all(rest).await?;
    loop {
        let more = std::mem::take(&mut *link.bytes.lock());
        if !more.is_empty() {
            writer.write_all(&more).await?;
            conn.writable();
        } else if link.finished.load(Ordering::Acquire) {
            return writer.shutdown().await;
        } else {
            link.changed.notified().await;
        }
    }
}
