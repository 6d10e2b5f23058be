//! The way into consensus from tasks that it did not start itself.

use std::future::Future;

/// Wraps every call into openraft from our own tasks: a simulation gives each its own seed of
/// randomness here.
#[cfg(not(feature = "simulation"))]
pub fn scoped<F: Future>(future: F) -> F {
    future
}

/// Gives the call a seed of its own, taken from the thread's seeded generator.
#[cfg(feature = "simulation")]
pub fn scoped<F: Future>(future: F) -> impl Future<Output = F::Output> {
    super::types::Runtime::scope(crate::env::random_u64(), future)
}
