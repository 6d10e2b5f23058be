//! Where passwords are tried: on few threads, since each takes a core and megabytes.

use std::io;

use crate::auth::Judge;
use crate::workers::{Share, Workers};

/// Log-ins that wait for a thread; it takes seconds to come to the last of them.
const WAITING_MAX: usize = 512;

type Job = (Judge, Box<dyn FnOnce(Judge) + Send>);

/// Runs slow work for log-ins.
pub struct Hasher(Workers<Job>);

impl Hasher {
    /// # Errors
    /// The system gives no threads.
    pub fn start() -> io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        Ok(Self(Workers::start("passwords", threads, Share::Low, WAITING_MAX, |(judge, work): Job| {
            work(judge)
        })?))
    }

    /// Does the work soon.
    ///
    /// # Errors
    /// Too much of it waits; gives `judge` back.
    pub fn run(&self, judge: Judge, work: impl FnOnce(Judge) + Send + 'static) -> Result<(), Judge> {
        self.0.give((judge, Box::new(work))).map_err(|(judge, _)| judge)
    }
}
