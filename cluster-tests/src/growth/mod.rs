//! How a node fares as its state grows: how long `apply` is held up by a snapshot, how long a
//! restart takes, and whether memory comes back when sessions go.

mod churn;
mod restart;
mod stall;
mod trend;

pub use churn::{Arenas, Churn, Sample, churn};
pub use restart::{Grown, Latency, Restarted};
pub use stall::{Applied, Stall, stall};
pub use trend::slope;

use std::time::Duration;

/// The time that a share (0 to 1) of all are below.
///
/// # Panics
/// When there are none.
pub fn quantile(times: &[Duration], share: f64) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share) as usize]
}
