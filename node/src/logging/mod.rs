//! Log lines to stderr, and what a panic looks like.

mod filter;

use std::io::Write as _;
use std::sync::OnceLock;

pub use filter::{FILTER_MAX_BYTES, FOR_MAX_S, Filter, FilterError, InForce};

use crate::config::{LogConfig, LogFormat};

/// Of this process, once [`init`] has started logging.
static FILTER: OnceLock<Filter> = OnceLock::new();

/// Starts logging. `log.level` decides, unless `RUST_LOG` is set, which developers expect to win.
pub fn init(config: &LogConfig) {
    let (configured, directives) = std::env::var("RUST_LOG")
        .ok()
        .and_then(|text| tracing_subscriber::EnvFilter::try_new(&text).ok().map(|filter| (text, filter)))
        .unwrap_or_else(|| filter::of_level(&config.level));
    let builder = tracing_subscriber::fmt().with_env_filter(directives).with_writer(std::io::stderr);
    let (apply, started) = match config.format {
        LogFormat::Text => {
            let builder = builder.with_ansi(false).with_filter_reloading();
            (filter::applier(builder.reload_handle()), builder.try_init())
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            (filter::applier(builder.reload_handle()), builder.try_init())
        }
    };
    if started.is_err() || FILTER.set(Filter::new(configured, apply)).is_err() {
        tracing::debug!("logging was started before");
    }
}

/// What is logged; `None` before [`init`].
pub fn filter() -> Option<&'static Filter> {
    FILTER.get()
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
