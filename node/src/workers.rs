//! Threads for work that takes a core for a while: outside the event loops, and of low priority, so that
//! clients that are in do not wait for those that want to be.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use parking_lot::Mutex;

/// Of 19: what is left when nobody else wants it, and a little more.
const NICENESS: i32 = 10;

/// Does jobs, the oldest first. Its threads end when it is dropped.
pub struct Workers<J>(SyncSender<J>);

impl<J: Send + 'static> Workers<J> {
    /// Starts `count` threads, named `name-0` and so on, that give each job to `work`. At most
    /// `waiting_max` jobs wait.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn start(name: &str, count: usize, waiting_max: usize, work: fn(J)) -> io::Result<Self> {
        let (sender, jobs) = sync_channel(waiting_max);
        let jobs = Arc::new(Mutex::new(jobs));
        for index in 0..count {
            let jobs = jobs.clone();
            let thread = std::thread::Builder::new().name(format!("{name}-{index}"));
            thread.spawn(move || run(&jobs, work))?;
        }
        Ok(Self(sender))
    }

    /// Does the job soon.
    ///
    /// # Errors
    /// Too many wait; gives it back.
    pub fn give(&self, job: J) -> Result<(), J> {
        self.0.try_send(job).map_err(|error| match error {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
        })
    }
}

/// Until the [`Workers`] are gone.
fn run<J>(jobs: &Mutex<Receiver<J>>, work: fn(J)) {
    // Of this thread alone, on Linux. Without the right to it, it goes on as it is.
    let _ = rustix::process::nice(NICENESS);
    loop {
        let next = jobs.lock().recv();
        let Ok(job) = next else { return };
        work(job);
        // Others need not wait until its share of time is used up.
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    type Job = (u32, Receiver<()>, Sender<u32>);

    #[test]
    fn jobs_are_done_in_their_order_and_only_so_many_wait() {
        let workers = Workers::start("test", 1, 2, |(number, may, done): Job| {
            may.recv().expect("the test goes on");
            done.send(number).expect("the test waits");
        })
        .expect("a thread");
        let (done, numbers) = channel();
        let mut gates = Vec::new();
        let mut give = |number| {
            let (gate, may) = channel();
            let taken = workers.give((number, may, done.clone())).is_ok();
            gates.push(gate);
            taken
        };
        let taken = (0..10).filter(|number| give(*number)).count();
        assert!(taken == 2 || taken == 3, "{taken}: two wait, and one may be at work");
        for gate in &gates {
            let _ = gate.send(());
        }
        let order: Vec<_> = (0..taken).map(|_| numbers.recv().expect("all are done")).collect();
        assert_eq!(order, (0..taken as u32).collect::<Vec<_>>());
    }
}
