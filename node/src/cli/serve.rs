//! `rookery serve`

use std::future::Future;
use std::io::{self, Read as _};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::args::ServeArgs;
use super::config;
use super::exit::{Exit, Failure};
use crate::{logging, server};

/// How long a node whose parent is gone may take to stop before it is ended.
const ORPHAN_GRACE: Duration = Duration::from_secs(15);

pub fn run(args: ServeArgs) -> Result<(), Failure> {
    let config = config::load(args.config.as_deref(), &args.set)?;
    logging::init(&config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let signals = stop_signal()?;
        let parent = if args.stop_on_stdin_close { Some(stdin_closed()?) } else { None };
        let shutdown = async move {
            match parent {
                None => signals.await,
                Some(parent) => tokio::select! {
                    () = signals => {}
                    // An error means that the watching thread is gone: nobody would tell any more.
                    _ = parent => tracing::info!("the parent process closed stdin, stopping"),
                },
            }
        };
        server::run(config, shutdown).await.map_err(|error| Failure::new(Exit::Error, error.to_string()))
    })
}

/// Completes at SIGTERM or SIGINT.
pub fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Completes when stdin is closed. The thread that watches it also ends a node that does not
/// manage to stop by itself then: it must not outlive its parent.
fn stdin_closed() -> io::Result<oneshot::Receiver<()>> {
    let (closed, receiver) = oneshot::channel();
    #[expect(
        clippy::disallowed_methods,
        reason = "a thread of its own that nothing waits for, and a last resort"
    )]
    std::thread::Builder::new().name("parent".to_owned()).spawn(move || {
        let mut buffer = [0; 64];
        let mut stdin = io::stdin().lock();
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if error.kind() != io::ErrorKind::Interrupted => break,
                _ => {}
            }
        }
        drop(closed);
        std::thread::sleep(ORPHAN_GRACE);
        std::process::exit(Exit::Timeout as i32);
    })?;
    Ok(receiver)
}
