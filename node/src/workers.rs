//! Threads for work that takes a core for a while: outside the event loops, and with a small share of
//! the cores, so that clients that are in do not wait for those that want to be.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};

use crate::env::{self, Instant};

/// Of 19: what is left when nobody else wants it, and a little more.
const NICENESS: i32 = 10;
/// How long a job waits for a core that nobody wants, before it gets a small share of one.
const PATIENCE: Duration = Duration::from_millis(250);

/// What the threads get of the cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Little of a core that others want too. Someone who wakes up there may have to wait until the
    /// present thread has had its turn, some milliseconds.
    Low,
    /// Nothing of a core that others want, and they take it at once; for jobs of milliseconds, as a
    /// longer one that is interrupted could take for ever. What has waited for a quarter of a second is
    /// done by one more thread with [`Share::Low`].
    Idle,
}

/// Does jobs, the oldest first. Its threads end when it is dropped.
pub struct Workers<J>(Arc<Queue<J>>);

struct Queue<J> {
    waiting: Mutex<Waiting<J>>,
    waiting_max: usize,
    /// There is a job.
    some: Condvar,
    /// There is one which might have to be helped.
    first: Condvar,
    work: fn(J),
}

struct Waiting<J> {
    /// With when they came.
    jobs: VecDeque<(Instant, J)>,
    /// Nobody looks whether one waits for too long.
    unwatched: bool,
    over: bool,
}

impl<J: Send + 'static> Workers<J> {
    /// Starts `count` threads, named `name-0` and so on, that give each job to `work`. At most
    /// `waiting_max` jobs wait.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn start(
        name: &str,
        count: usize,
        share: Share,
        waiting_max: usize,
        work: fn(J),
    ) -> io::Result<Self> {
        let waiting = Waiting { jobs: VecDeque::new(), unwatched: share == Share::Idle, over: false };
        let (some, first) = (Condvar::new(), Condvar::new());
        let workers = Self(Arc::new(Queue { waiting: Mutex::new(waiting), waiting_max, some, first, work }));
        let spawn = |index: usize, run: fn(&Queue<J>)| {
            let queue = workers.0.clone();
            std::thread::Builder::new().name(format!("{name}-{index}")).spawn(move || run(&queue))
        };
        for index in 0..count {
            match share {
                Share::Low => spawn(index, |queue| {
                    take_low_share();
                    queue.serve();
                })?,
                Share::Idle => spawn(index, |queue| {
                    take_idle_share();
                    queue.serve();
                })?,
            };
        }
        if share == Share::Idle {
            spawn(count, |queue| {
                take_low_share();
                queue.help();
            })?;
        }
        Ok(workers)
    }
}

impl<J> Workers<J> {
    /// Does the job soon.
    ///
    /// # Errors
    /// Too many wait; gives it back.
    pub fn give(&self, job: J) -> Result<(), J> {
        let mut waiting = self.0.waiting.lock();
        if waiting.jobs.len() >= self.0.waiting_max {
            return Err(job);
        }
        waiting.jobs.push_back((env::now(), job));
        let unwatched = std::mem::take(&mut waiting.unwatched);
        drop(waiting);
        self.0.some.notify_one();
        if unwatched {
            self.0.first.notify_one();
        }
        Ok(())
    }
}

impl<J> Drop for Workers<J> {
    fn drop(&mut self) {
        self.0.waiting.lock().over = true;
        self.0.some.notify_all();
        self.0.first.notify_all();
    }
}

impl<J> Queue<J> {
    /// Does what comes, until the [`Workers`] are gone and nothing waits.
    fn serve(&self) {
        let mut waiting = self.waiting.lock();
        loop {
            if let Some((_, job)) = waiting.jobs.pop_front() {
                drop(waiting);
                (self.work)(job);
                // Others need not wait until its share of time is used up.
                std::thread::yield_now();
                waiting = self.waiting.lock();
            } else if waiting.over {
                return;
            } else {
                self.some.wait(&mut waiting);
            }
        }
    }

    /// Does what has waited for too long. Wakes up only while there are jobs.
    fn help(&self) {
        let mut waiting = self.waiting.lock();
        while !waiting.over {
            let waited = waiting.jobs.front().map(|(since, _)| env::now().duration_since(*since));
            match waited {
                None => {
                    waiting.unwatched = true;
                    self.first.wait(&mut waiting);
                }
                Some(waited) if waited < PATIENCE => {
                    self.first.wait_for(&mut waiting, PATIENCE - waited);
                }
                Some(_) => {
                    let job = waiting.jobs.pop_front();
                    drop(waiting);
                    job.into_iter().for_each(|(_, job)| (self.work)(job));
                    std::thread::yield_now();
                    waiting = self.waiting.lock();
                }
            }
        }
    }
}

/// Of this thread alone, on Linux. Without the right to it, it goes on as it is.
fn take_low_share() {
    let _ = rustix::process::nice(NICENESS);
}

/// As above: SCHED_IDLE, of which the scheduler takes the core for whoever wakes up. That niceness does
/// not do: a nice thread keeps the core until its slice is over.
fn take_idle_share() {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let this = thread_priority::thread_native_id();
    if thread_priority::set_thread_priority_and_policy(this, ThreadPriority::Min, idle).is_err() {
        take_low_share();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    type Job = (u32, Receiver<()>, Sender<u32>);

    #[test]
    fn jobs_are_done_in_their_order_and_only_so_many_wait() {
        let workers = Workers::start("test", 1, Share::Low, 2, |(number, may, done): Job| {
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

    #[test]
    fn what_waits_for_an_idle_core_for_too_long_is_helped() {
        let workers = Workers::start("idle", 1, Share::Idle, 8, |(number, may, done): Job| {
            may.recv().expect("the test goes on");
            done.send(number).expect("the test waits");
        })
        .expect("threads");
        let (done, numbers) = channel();
        let (first_gate, may) = channel();
        assert!(workers.give((0, may, done.clone())).is_ok());
        while !workers.0.waiting.lock().jobs.is_empty() {
            std::thread::yield_now();
        }
        // A thread is held up; what comes next is not.
        let (second_gate, may) = channel();
        assert!(workers.give((1, may, done)).is_ok());
        second_gate.send(()).expect("it waits");
        assert_eq!(numbers.recv().expect("the helper does it"), 1);
        first_gate.send(()).expect("it waits");
        assert_eq!(numbers.recv().expect("the thread goes on"), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_idle_thread_has_the_policy_for_it() {
        type Told = Sender<(bool, ThreadSchedulePolicy)>;
        let workers = Workers::start("policy", 1, Share::Idle, 1, |told: Told| {
            let is_helper = std::thread::current().name() == Some("policy-1");
            let policy = thread_priority::thread_schedule_policy().expect("this system tells");
            told.send((is_helper, policy)).expect("the test waits");
        })
        .expect("threads");
        // On a busy machine the helper may be first.
        loop {
            let (told, policies) = channel();
            assert!(workers.give(told).is_ok());
            let (is_helper, policy) = policies.recv().expect("told");
            let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
            assert_eq!(policy == idle, !is_helper);
            if !is_helper {
                return;
            }
        }
    }
}
