//! Everything a deterministic simulation has to replace: clock, randomness, task spawning and
//! the network. Nothing else in the node names `Instant::now`, a random generator,
//! `tokio::spawn` or a socket address lookup.
//!
//! Time is asked from tokio, whose clock a simulation pauses and advances by itself; outside a
//! runtime (the event loop threads) it is the system's monotonic clock.

#[cfg(feature = "simulation")]
pub mod simulated;

use std::cell::RefCell;
use std::future::Future;

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

pub use tokio::time::Instant;

thread_local! {
    static RNG: RefCell<StdRng> = RefCell::new(StdRng::from_os_rng());
}

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds on a clock that never goes back and that runs on while the machine is suspended.
/// Comparable only on this node and until it restarts. Leases are measured with it: a node that
/// slept through its lease must know when it wakes up.
#[cfg(not(feature = "simulation"))]
pub fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Milliseconds on the simulated machine's clock.
#[cfg(feature = "simulation")]
pub fn boot_ms() -> u64 {
    simulated::boot_ms()
}

/// Milliseconds of wall time since the Unix epoch. Only for what leaves the node (token expiry,
/// timestamps) or spans its restarts (how long all nodes were down); never for measuring a duration.
#[cfg(not(feature = "simulation"))]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn wall_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Wall time that begins with the simulation.
#[cfg(feature = "simulation")]
pub fn wall_ms() -> u64 {
    1_800_000_000_000 + boot_ms()
}

/// Fixes this thread's randomness, for a simulation that must replay from a seed.
pub fn seed(seed: u64) {
    RNG.with(|r| *r.borrow_mut() = StdRng::seed_from_u64(seed));
}

/// 64 random bits. Not for secrets: those come from `auth`'s cryptographic generator.
pub fn random_u64() -> u64 {
    RNG.with(|r| r.borrow_mut().next_u64())
}

/// A number in `0..bound`; 0 when `bound` is 0.
pub fn random_below(bound: u64) -> u64 {
    if bound == 0 { 0 } else { RNG.with(|r| r.borrow_mut().random_range(0..bound)) }
}

/// Starts a task on the current runtime.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}

/// Runs blocking work where it delays nobody; in a simulation, here and now.
///
/// # Panics
/// With the work's own panic.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    if cfg!(feature = "simulation") {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
