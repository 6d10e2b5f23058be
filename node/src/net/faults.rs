//! Says why connections were closed for what their clients sent, without filling the log.

use crate::mqtt::DecodeError;
use crate::session::Conn;

/// Lines per loop and second.
const LINES_PER_SECOND: u32 = 5;

#[derive(Debug, Default)]
pub(super) struct Faults {
    second: u64,
    lines: u32,
    suppressed: u64,
}

impl Faults {
    pub fn log(&mut self, conn: &Conn, fault: &DecodeError, now_ms: u64) {
        let Some(suppressed) = self.may_log(now_ms) else { return };
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
        let Some(suppressed) = self.may_log(now_ms) else { return };
        tracing::info!(
            peer = conn.peer(),
            client = conn.client(),
            suppressed,
            "closed a connection: TLS: {error}"
        );
    }

    /// Whether one more line may be written now, and how many were not since the last one.
    fn may_log(&mut self, now_ms: u64) -> Option<u64> {
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
