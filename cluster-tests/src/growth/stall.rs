//! The state by itself: what a snapshot costs those who wait for `apply`.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rookery::mqtt::{QoS, SubOptions};
use rookery::raft::MAX_PACK_COMMANDS;
use rookery::state::{Claim, Command, NodeInfo, Outcome, Pack, State, Subscription, WillFate};
use rustix::time::{ClockId, clock_gettime};

use crate::attack::Process;

const NODE: u64 = 1;
const TERM: u64 = 1;

/// A state of persistent sessions with one subscription each, none of them connected, and the log
/// that leads on from it.
struct Rig {
    state: State,
    index: u64,
    seq: u64,
    sessions: usize,
    /// For picking sessions far apart.
    next: usize,
    applied: Applied,
}

fn client(number: usize) -> Arc<str> {
    format!("device-{number}").into()
}

/// CPU time of the calling thread: what others do on the same core is not in it.
fn cpu_time() -> Duration {
    let at = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(at.tv_sec.unsigned_abs(), at.tv_nsec as u32)
}

fn claims(numbers: impl Iterator<Item = usize>) -> Vec<Command> {
    let claim = |number| {
        let (client, will) = (client(number), None);
        Command::Claim(Claim { client, clean_start: false, expiry_s: 86_400, will, receive_maximum: 100 })
    };
    numbers.map(claim).collect()
}

fn releases(numbers: impl Iterator<Item = usize>, claimed: &[Outcome]) -> Vec<Command> {
    let release = |(number, outcome): (usize, &Outcome)| {
        let Outcome::Claimed { incarnation, .. } = outcome else { panic!("{outcome:?}") };
        let (client, incarnation, will) = (client(number), *incarnation, WillFate::Discard);
        Command::Release { client, incarnation, will, expiry_s: None, sent: None }
    };
    numbers.zip(claimed).map(release).collect()
}

impl Rig {
    fn new(sessions: usize) -> Self {
        let mut rig = Self {
            state: State::default(),
            index: 0,
            seq: 0,
            sessions: 0,
            next: 0,
            applied: Applied::default(),
        };
        rig.apply(vec![Command::NodeUp { info: NodeInfo::default() }]);
        while rig.sessions < sessions {
            let upto = (rig.sessions + MAX_PACK_COMMANDS).min(sessions);
            rig.add(rig.sessions..upto);
            rig.sessions = upto;
        }
        rig
    }

    fn apply(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        self.index += 1;
        let pack = Pack { origin: NODE, epoch: 1, seq: self.seq, commands };
        self.seq += 1;
        // As from the log: the state keeps what it decoded.
        let pack = Pack::decode(&pack.encode()).expect("what was encoded");
        let mut effects = Vec::new();
        let (wall, cpu) = (Instant::now(), cpu_time());
        let applied = self.state.apply(self.index, TERM, &pack, &mut effects);
        self.applied.cpu.push(cpu_time() - cpu);
        self.applied.wall.push(wall.elapsed());
        applied.expect("commands that are known").expect("in sequence")
    }

    fn add(&mut self, numbers: std::ops::Range<usize>) {
        let claimed = self.apply(claims(numbers.clone()));
        let subscribe = |(number, outcome): (usize, &Outcome)| {
            let Outcome::Claimed { incarnation, .. } = outcome else { panic!("{outcome:?}") };
            let options = SubOptions { qos: QoS::AtLeastOnce, ..SubOptions::default() };
            let filter = format!("devices/{number}/commands").into();
            Command::Subscribe {
                client: client(number),
                incarnation: *incarnation,
                subscriptions: vec![Subscription { filter, options, id: 0 }],
            }
        };
        let subscribes = numbers.clone().zip(&claimed).map(subscribe).collect();
        self.apply(subscribes);
        self.apply(releases(numbers, &claimed));
        self.apply(vec![Command::Tick { elapsed_ms: 1 }]);
    }

    /// Two of the largest packs there can be: sessions all over the state come and go.
    fn visit(&mut self) {
        let numbers: Vec<usize> = (0..MAX_PACK_COMMANDS)
            .map(|_| {
                // A step prime to every count of sessions that is used here.
                self.next = (self.next + 7_368_787) % self.sessions;
                self.next
            })
            .collect();
        let claimed = self.apply(claims(numbers.iter().copied()));
        self.apply(releases(numbers.into_iter(), &claimed));
    }

    fn take_applied(&mut self) -> Applied {
        std::mem::take(&mut self.applied)
    }
}

/// How long packs took to apply.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    pub wall: Vec<Duration>,
    /// CPU time of the applying thread.
    pub cpu: Vec<Duration>,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Stall {
    pub sessions: usize,
    /// Resident memory that a session adds.
    pub session_bytes: u64,
    /// While the state was built.
    pub growing: Applied,
    /// Without a snapshot.
    pub quiet: Applied,
    /// While a snapshot was being written.
    pub frozen: Applied,
    /// To take the view that is written out.
    pub freeze: Duration,
    pub snapshot_bytes: u64,
    pub write: Duration,
    pub read: Duration,
    /// To free the whole state.
    pub free: Duration,
}

/// Packs applied without a snapshot, for comparison.
const QUIET_ROUNDS: usize = 200;

/// Builds a state of `sessions` and writes a snapshot of it, through the file system, while packs
/// go on being applied.
///
/// # Errors
/// Those of the file.
pub fn stall(sessions: usize) -> io::Result<Stall> {
    let own = Process(std::process::id());
    let before_kb = own.memory_kb();
    let mut rig = Rig::new(sessions);
    let session_bytes = (own.memory_kb() - before_kb) * 1024 / sessions as u64;
    let growing = rig.take_applied();
    for _ in 0..QUIET_ROUNDS {
        rig.visit();
    }
    let quiet = rig.take_applied();

    let file = tempfile::NamedTempFile::new()?;
    let begun = Instant::now();
    let view = rig.state.freeze();
    let freeze = begun.elapsed();
    let done = AtomicBool::new(false);
    let write = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let begun = Instant::now();
            let mut to = BufWriter::with_capacity(256 << 10, file.as_file());
            let written = view.write(&mut to).and_then(|()| to.flush());
            let written = written.and_then(|()| file.as_file().sync_all());
            drop(view);
            done.store(true, Ordering::Release);
            written.map(|()| begun.elapsed())
        });
        while !done.load(Ordering::Acquire) {
            rig.visit();
        }
        writer.join().expect("the writer ends")
    })?;
    let frozen = rig.take_applied();
    let snapshot_bytes = file.as_file().metadata()?.len();
    let begun = Instant::now();
    let read =
        State::read(&mut BufReader::with_capacity(256 << 10, File::open(file.path())?), Arc::default())?;
    let read_time = begun.elapsed();
    assert_eq!(read.counts().persistent_sessions, sessions);
    let begun = Instant::now();
    drop(read);
    let free = begun.elapsed();
    Ok(Stall {
        sessions,
        session_bytes,
        growing,
        quiet,
        frozen,
        freeze,
        snapshot_bytes,
        write,
        read: read_time,
        free,
    })
}
