//! Log lines to stderr, and what a panic looks like.

use std::io::Write as _;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Starts logging. `log.level` decides, unless `RUST_LOG` is set, which developers expect to win.
pub fn init(config: &LogConfig) {
    let filter = std::env::var("RUST_LOG")
        .ok()
        .and_then(|text| EnvFilter::try_new(text).ok())
        // openraft warns of every heartbeat that a dead peer misses; this node says it once.
        .unwrap_or_else(|| EnvFilter::new(format!("openraft=error,audit=info,{}", config.level)));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}

/// Makes a panic of any thread end the process: half a node that answers is worse than a node
/// that restarts.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let place = info.location().map_or_else(String::new, |l| format!(" at {}:{}", l.file(), l.line()));
        let message = info.payload_as_str().unwrap_or("no message");
        let backtrace = std::backtrace::Backtrace::capture();
        // There is nothing to be done about a stderr that cannot be written either.
        let _ = writeln!(
            std::io::stderr().lock(),
            "rookery {}: a bug: thread {:?} panicked{place}: {message}\n\
             This process stops now. Please report this.\n{backtrace}",
            env!("CARGO_PKG_VERSION"),
            thread.name().unwrap_or("unnamed"),
        );
        std::process::abort();
    }));
}
