//! Says why connections were closed for what their clients sent, without filling the log.

use super::refused::Refused;
use crate::mqtt::DecodeError;
use crate::session::Conn;

/// Lines of a kind per loop and second.
const LINES_PER_SECOND: u32 = 5;

#[derive(Debug, Default)]
pub(super) struct Faults {
    faults: Lines,
    /// Apart, so that noise does not keep them out of the audit log.
    refusals: Lines,
}

#[derive(Debug, Default)]
struct Lines {
    second: u64,
    lines: u32,
    suppressed: u64,
}

impl Faults {
    pub fn log(&mut self, conn: &Conn, fault: &DecodeError, now_ms: u64) {
        let Some(suppressed) = self.faults.next(now_ms) else { return };
        tracing::info!(
            peer = conn.peer(),
            client = conn.client(),
            reason = %fault.reason,
            suppressed,
            "closed a connection: {}",
            fault.what
        );
    }

    pub fn log_tls(&mut self, conn: &Conn, error: &rustls::Error, now_ms: u64) {
        let Some(suppressed) = self.faults.next(now_ms) else { return };
        tracing::info!(
            peer = conn.peer(),
            client = conn.client(),
            suppressed,
            "closed a connection: TLS: {error}"
        );
    }

    /// `address`: of the client, or of the proxy whose header is refused.
    pub fn log_refusal(&mut self, address: &str, refused: &Refused, now_ms: u64) {
        let Some(suppressed) = self.refusals.next(now_ms) else { return };
        tracing::info!(
            target: "audit",
            event = refused.event(),
            address,
            reason = %refused,
            suppressed,
            "turned a client away"
        );
    }
}

impl Lines {
    /// Whether one more may be written now, and how many were not since the last one.
    fn next(&mut self, now_ms: u64) -> Option<u64> {
        let second = now_ms / 1000;
        if self.second != second {
            self.second = second;
            self.lines = 0;
        }
        if self.lines == LINES_PER_SECOND {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}
