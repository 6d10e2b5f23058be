//! What the proposer holds: commands that wait to be sent, already packed, and packs that were
//! sent and not yet applied. Without I/O and without a clock of its own.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::{Done, Stored};
use crate::env::Instant;
use crate::state::{Command, Epoch, NodeId, Pack};

/// Packs on their way at the same time. More would only make them smaller.
pub const WINDOW: usize = 2;
/// Most commands in one pack.
pub const MAX_PACK_COMMANDS: usize = 512;
/// Most bytes in one pack; a single larger command goes alone.
pub const MAX_PACK_BYTES: usize = 64 * 1024;
/// Most bytes of a command in one pack; what is larger goes in parts of this size. A message of the
/// default largest packet still goes in one.
pub const MAX_PART_BYTES: usize = (1 << 20) + (128 << 10);
/// While the previous pack was busy, the next waits this long to fill up.
pub const LINGER: Duration = Duration::from_millis(2);
/// A pack with at least this many commands was busy.
const BUSY_COMMANDS: usize = 4;
/// With packs on their way and none applied for this long, all are sent again.
pub const STALL: Duration = Duration::from_millis(1500);
/// More commands waiting than this is congestion.
pub const MAX_WAITING_COMMANDS: usize = 64 * 1024;
/// More bytes waiting than this, the command being sent apart, is congestion.
pub const MAX_WAITING_BYTES: usize = 64 << 20;
/// Varints of origin, epoch, sequence and count.
const HEADER_BYTES: usize = 40;

/// Whether packs have to be sent again at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resend {
    Now,
    No,
}

pub struct Backlog {
    origin: NodeId,
    /// `None`: no life of this node is open.
    epoch: Option<Epoch>,
    next_seq: u64,
    queue: VecDeque<Filling>,
    unapplied: VecDeque<Sent>,
    /// How many of `unapplied`, from the front, were handed to the present route.
    sent: usize,
    commands: usize,
    bytes: usize,
    last_busy: bool,
    last_sealed: Option<Instant>,
    last_progress: Option<Instant>,
}

/// Commands that will be one pack.
struct Filling {
    encoded: Vec<u8>,
    /// How many bytes of a command in parts are on their way.
    parted: usize,
    waiters: Vec<Done>,
    stored: Vec<Stored>,
    closed: bool,
}

struct Sent {
    seq: u64,
    pack: Bytes,
    /// Of the commands alone.
    bytes: usize,
    waiters: Vec<Done>,
    stored: Vec<Stored>,
}

impl Backlog {
    pub fn new(origin: NodeId) -> Self {
        Self {
            origin,
            epoch: None,
            next_seq: 0,
            queue: VecDeque::new(),
            unapplied: VecDeque::new(),
            sent: 0,
            commands: 0,
            bytes: 0,
            last_busy: false,
            last_sealed: None,
            last_progress: None,
        }
    }

    /// Ends the present life. Returns all who still wait, oldest first.
    pub fn close(&mut self) -> Vec<Done> {
        let mut waiters = Vec::with_capacity(self.commands);
        waiters.extend(self.unapplied.drain(..).flat_map(|s| s.waiters));
        waiters.extend(self.queue.drain(..).flat_map(|f| f.waiters));
        *self = Self::new(self.origin);
        waiters
    }

    /// Begins a life with a pack of this one encoded command. Returns all who waited in the old one.
    pub fn reopen(&mut self, epoch: Epoch, first: Vec<u8>, done: Done) -> Vec<Done> {
        let waiters = self.close();
        self.epoch = Some(epoch);
        self.add(first, None, done);
        if let Some(first) = self.queue.back_mut() {
            first.closed = true;
        }
        waiters
    }

    /// Queues an encoded command. `true`: the sender should look.
    ///
    /// # Errors
    /// No life is open; the waiter is handed back.
    pub fn push(&mut self, encoded: Vec<u8>, stored: Option<Stored>, done: Done) -> Result<bool, Done> {
        if self.epoch.is_none() { Err(done) } else { Ok(self.add(encoded, stored, done)) }
    }

    fn add(&mut self, encoded: Vec<u8>, stored: Option<Stored>, done: Done) -> bool {
        self.commands += 1;
        self.bytes += encoded.len();
        if let Some(last) = self.queue.back_mut()
            && !last.closed
            && last.waiters.len() < MAX_PACK_COMMANDS
            && last.encoded.len() + encoded.len() + HEADER_BYTES <= MAX_PACK_BYTES
        {
            last.encoded.extend_from_slice(&encoded);
            last.waiters.push(done);
            last.stored.extend(stored);
            return false;
        }
        let closed = encoded.len() > MAX_PART_BYTES;
        let (waiters, stored) = (vec![done], stored.into_iter().collect());
        self.queue.push_back(Filling { encoded, parted: 0, waiters, stored, closed });
        true
    }

    pub fn commands(&self) -> usize {
        self.commands
    }

    pub fn is_congested(&self) -> bool {
        let first = self.queue.front().map_or(0, |f| f.encoded.len() - f.parted);
        self.commands > MAX_WAITING_COMMANDS || self.bytes - first > MAX_WAITING_BYTES
    }

    /// What waits as a part of what may, by commands or by bytes.
    pub fn congestion(&self) -> f64 {
        let commands = self.commands as f64 / MAX_WAITING_COMMANDS as f64;
        commands.max(self.bytes as f64 / MAX_WAITING_BYTES as f64)
    }

    /// Whether the sender could do something now.
    pub fn has_more(&self) -> bool {
        self.sent < self.unapplied.len() || (!self.queue.is_empty() && self.unapplied.len() < WINDOW)
    }

    /// The packs to send now, and when to look again if nothing happens until then.
    pub fn next_packs(&mut self, now: Instant) -> (Vec<Bytes>, Option<Instant>) {
        let mut linger_until = None;
        while self.unapplied.len() < WINDOW && !self.queue.is_empty() {
            let full = self.queue.len() > 1 || self.queue.front().is_some_and(|f| f.closed);
            if let Some(sealed) = self.last_sealed
                && self.last_busy
                && !full
                && now < sealed + LINGER
            {
                linger_until = Some(sealed + LINGER);
                break;
            }
            self.seal(now);
        }
        if self.sent < self.unapplied.len() && self.last_progress.is_none() {
            self.last_progress = Some(now);
        }
        let packs = self.unapplied.iter().skip(self.sent).map(|s| s.pack.clone()).collect();
        self.sent = self.unapplied.len();
        let stall_at = self.last_progress.map(|at| at + STALL);
        (packs, linger_until.into_iter().chain(stall_at).min())
    }

    fn seal(&mut self, now: Instant) {
        let (Some(front), Some(epoch)) = (self.queue.front_mut(), self.epoch) else { return };
        let seq = self.next_seq;
        self.next_seq += 1;
        if front.encoded.len() > MAX_PART_BYTES {
            let (part, bytes) = front.next_part();
            let (waiters, stored) = if front.parted == front.encoded.len() {
                self.queue.pop_front().map_or_else(Default::default, |f| (f.waiters, f.stored))
            } else {
                // Nobody waits for it, but it counts as a command of its own.
                self.commands += 1;
                (vec![Box::new(|_| {}) as Done], Vec::new())
            };
            let pack = encode(self.origin, epoch, seq, 1, &part);
            self.last_busy = false;
            self.last_sealed = Some(now);
            return self.unapplied.push_back(Sent { seq, pack, bytes, waiters, stored });
        }
        let Some(filled) = self.queue.pop_front() else { return };
        self.last_busy = filled.waiters.len() >= BUSY_COMMANDS;
        self.last_sealed = Some(now);
        let pack = encode(self.origin, epoch, seq, filled.waiters.len(), &filled.encoded);
        let Filling { encoded, waiters, stored, .. } = filled;
        self.unapplied.push_back(Sent { seq, pack, bytes: encoded.len(), waiters, stored });
    }

    /// A route was lost or changed: everything unapplied has to be sent again.
    pub fn send_all_again(&mut self, now: Instant) {
        self.sent = 0;
        self.last_progress = if self.unapplied.is_empty() { None } else { Some(now) };
    }

    /// Whether packs are on their way and none was applied for too long.
    pub fn stalled(&self, now: Instant) -> bool {
        self.sent > 0 && self.last_progress.is_some_and(|at| now >= at + STALL)
    }

    /// `apply` took the pack. Returns who waited for its commands.
    pub fn applied(&mut self, epoch: Epoch, seq: u64, now: Instant) -> Option<Vec<Done>> {
        if self.epoch != Some(epoch) || self.unapplied.front().is_none_or(|s| s.seq != seq) {
            return None;
        }
        let sent = self.unapplied.pop_front()?;
        self.sent = self.sent.saturating_sub(1);
        self.last_progress = if self.unapplied.is_empty() { None } else { Some(now) };
        self.commands -= sent.waiters.len();
        self.bytes -= sent.bytes;
        Some(sent.waiters)
    }

    /// This pack, and so those before it, is on this node's disk. Returns who is to be told.
    pub fn stored(&mut self, epoch: Epoch, seq: u64) -> Vec<Stored> {
        if self.epoch != Some(epoch) {
            return Vec::new();
        }
        let packs = self.unapplied.iter_mut().take_while(|sent| sent.seq <= seq);
        packs.flat_map(|sent| std::mem::take(&mut sent.stored)).collect()
    }

    /// `apply` did not take the pack. One after a gap says that an earlier one was lost; one
    /// from before the oldest unapplied is a harmless repetition; the oldest itself is refused
    /// only when this life of the node has ended, of which its owner learns elsewhere.
    pub fn refused(&mut self, epoch: Epoch, seq: u64) -> Resend {
        if self.epoch != Some(epoch) || self.unapplied.front().is_none_or(|s| seq <= s.seq) {
            return Resend::No;
        }
        self.sent = 0;
        Resend::Now
    }
}

impl Filling {
    /// The next part of the command, encoded, and how many of its bytes that is.
    fn next_part(&mut self) -> (Vec<u8>, usize) {
        let rest = &self.encoded[self.parted..];
        let bytes = rest.len().min(MAX_PART_BYTES);
        let last = bytes == rest.len();
        let part = Command::Part { bytes: Bytes::copy_from_slice(&rest[..bytes]), last };
        self.parted += bytes;
        (postcard::to_stdvec(&part).expect("a run of bytes is encodable"), bytes)
    }
}

/// The wire form of a [`Pack`] whose commands are encoded already.
fn encode(origin: NodeId, epoch: Epoch, seq: u64, count: usize, commands: &[u8]) -> Bytes {
    let mut pack = Pack::encode_header(origin, epoch, seq, count as u32);
    pack.extend_from_slice(commands);
    pack.into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::state::Command;

    fn tick(elapsed_ms: u64) -> Vec<u8> {
        postcard::to_stdvec(&Command::Tick { elapsed_ms }).expect("encodes")
    }

    fn ignore() -> Done {
        Box::new(|_| {})
    }

    fn opened(now: Instant) -> Backlog {
        let mut backlog = Backlog::new(7);
        backlog.reopen(3, tick(0), ignore());
        assert_eq!(decode(&backlog.next_packs(now).0).len(), 1);
        assert_eq!(backlog.applied(3, 0, now).map(|w| w.len()), Some(1));
        backlog
    }

    fn decode(packs: &[Bytes]) -> Vec<Pack> {
        packs.iter().map(|p| Pack::decode(p).expect("a pack")).collect()
    }

    fn push(backlog: &mut Backlog, n: u64) {
        assert!(backlog.push(tick(n), None, ignore()).is_ok());
    }

    #[test]
    fn an_epoch_begins_with_a_pack_of_its_own() {
        let now = Instant::now();
        let mut backlog = Backlog::new(u64::MAX);
        assert!(backlog.push(tick(9), None, ignore()).is_err());
        backlog.reopen(3, tick(1), ignore());
        push(&mut backlog, 2);
        let packs = decode(&backlog.next_packs(now).0);
        assert_eq!(
            packs,
            [
                Pack { origin: u64::MAX, epoch: 3, seq: 0, commands: vec![Command::Tick { elapsed_ms: 1 }] },
                Pack { origin: u64::MAX, epoch: 3, seq: 1, commands: vec![Command::Tick { elapsed_ms: 2 }] },
            ]
        );
    }

    #[test]
    fn at_most_two_packs_are_under_way_and_each_is_bounded() {
        let now = Instant::now();
        let mut backlog = opened(now);
        for n in 0..2000 {
            push(&mut backlog, n);
        }
        let packs = decode(&backlog.next_packs(now).0);
        assert_eq!(packs.iter().map(|p| (p.seq, p.commands.len())).collect::<Vec<_>>(), [(1, 512), (2, 512)]);
        assert!(backlog.next_packs(now).0.is_empty());
        assert_eq!(backlog.applied(3, 1, now).map(|w| w.len()), Some(512));
        assert_eq!(decode(&backlog.next_packs(now).0)[0].seq, 3);
    }

    #[test]
    fn a_command_larger_than_a_pack_goes_alone() {
        let now = Instant::now();
        let mut backlog = opened(now);
        let large =
            postcard::to_stdvec(&Command::RouteAdd { filter: "x".repeat(100_000).into() }).expect("encodes");
        push(&mut backlog, 1);
        assert!(backlog.push(large, None, ignore()).is_ok());
        push(&mut backlog, 2);
        let first = decode(&backlog.next_packs(now).0);
        assert_eq!(first.iter().map(|p| p.commands.len()).collect::<Vec<_>>(), [1, 1]);
        backlog.applied(3, 1, now);
        assert_eq!(decode(&backlog.next_packs(now).0)[0].commands, [Command::Tick { elapsed_ms: 2 }]);
    }

    #[test]
    fn a_huge_command_goes_in_parts_and_in_its_place() {
        let now = Instant::now();
        let mut backlog = opened(now);
        let huge = Command::RouteAdd { filter: "x".repeat(3 * MAX_PART_BYTES).into() };
        let done = Arc::new(AtomicUsize::new(0));
        let count = done.clone();
        let waiter: Done = Box::new(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        push(&mut backlog, 1);
        assert!(backlog.push(postcard::to_stdvec(&huge).expect("encodes"), None, waiter).is_ok());
        push(&mut backlog, 2);
        let (mut whole, mut ticks, mut seq) = (Vec::new(), Vec::new(), 1);
        loop {
            let packs = backlog.next_packs(now + LINGER).0;
            if packs.is_empty() {
                break;
            }
            assert!(packs.len() <= WINDOW && packs.iter().all(|p| p.len() < MAX_PART_BYTES + 100));
            for pack in decode(&packs) {
                assert_eq!(pack.seq, seq);
                match &pack.commands[..] {
                    [Command::Part { bytes, last }] => {
                        assert_eq!((ticks.as_slice(), done.load(Ordering::Relaxed)), ([1].as_slice(), 0));
                        whole.extend_from_slice(bytes);
                        assert_eq!(*last, whole.len() > 3 * MAX_PART_BYTES);
                    }
                    [Command::Tick { elapsed_ms }] => ticks.push(*elapsed_ms),
                    other => panic!("{other:?}"),
                }
                for waiter in backlog.applied(3, seq, now).expect("the oldest") {
                    waiter(Err(super::super::Abandoned));
                }
                seq += 1;
            }
        }
        assert_eq!(postcard::from_bytes(&whole), Ok(huge));
        assert_eq!((ticks.as_slice(), done.load(Ordering::Relaxed)), ([1, 2].as_slice(), 1));
        assert_eq!((backlog.commands, backlog.bytes), (0, 0));
    }

    #[test]
    fn only_what_waits_behind_the_command_being_sent_is_congestion() {
        let now = Instant::now();
        let mut backlog = opened(now);
        let huge = vec![0; MAX_WAITING_BYTES + 1];
        assert!(backlog.push(huge.clone(), None, ignore()).is_ok());
        assert!(!backlog.is_congested());
        backlog.next_packs(now);
        assert!(!backlog.is_congested());
        assert!(backlog.push(huge, None, ignore()).is_ok());
        assert!(backlog.is_congested());
    }

    #[test]
    fn only_a_busy_proposer_lingers() {
        let now = Instant::now();
        let mut backlog = opened(now);
        push(&mut backlog, 1);
        assert_eq!(backlog.next_packs(now).0.len(), 1, "the previous pack was not busy");
        backlog.applied(3, 1, now);
        for n in 0..4 {
            push(&mut backlog, n);
        }
        assert_eq!(backlog.next_packs(now).0.len(), 1, "nor was that one");
        push(&mut backlog, 9);
        let (packs, until) = backlog.next_packs(now);
        assert!(packs.is_empty());
        assert_eq!(until, Some(now + LINGER));
        assert_eq!(backlog.next_packs(now + LINGER).0.len(), 1);
    }

    #[test]
    fn everything_unapplied_is_sent_again_in_order() {
        let now = Instant::now();
        let mut backlog = opened(now);
        push(&mut backlog, 1);
        let first = backlog.next_packs(now).0;
        push(&mut backlog, 2);
        let second = backlog.next_packs(now).0;
        backlog.send_all_again(now);
        assert_eq!(backlog.next_packs(now).0, [first, second].concat());
        assert!(!backlog.stalled(now));
        assert!(backlog.stalled(now + STALL));
        assert_eq!(backlog.refused(3, 0), Resend::No, "a repetition");
        assert_eq!(backlog.refused(3, 1), Resend::No, "the life has ended");
        assert_eq!(backlog.refused(2, 9), Resend::No, "another life");
        assert_eq!(backlog.refused(3, 2), Resend::Now, "a gap");
        assert_eq!(backlog.next_packs(now).0.len(), 2);
    }

    #[test]
    fn a_new_life_abandons_everything() {
        let now = Instant::now();
        let mut backlog = opened(now);
        let abandoned = Arc::new(AtomicUsize::new(0));
        for n in 0..600 {
            let abandoned = abandoned.clone();
            let done: Done = Box::new(move |r| {
                assert!(r.is_err());
                abandoned.fetch_add(1, Ordering::Relaxed);
            });
            assert!(backlog.push(tick(n), None, done).is_ok());
        }
        backlog.next_packs(now);
        for done in backlog.reopen(4, tick(0), ignore()) {
            done(Err(super::super::Abandoned));
        }
        assert_eq!(abandoned.load(Ordering::Relaxed), 600);
        assert_eq!(backlog.commands(), 1);
        assert!(backlog.applied(3, 1, now).is_none());
        assert_eq!(decode(&backlog.next_packs(now).0)[0].epoch, 4);
    }

    #[test]
    fn congestion_is_told_and_ends() {
        let now = Instant::now();
        let mut backlog = opened(now);
        for n in 0..=MAX_WAITING_COMMANDS as u64 {
            assert!(!backlog.is_congested());
            push(&mut backlog, n);
        }
        assert!(backlog.is_congested());
        for seq in 1u32.. {
            backlog.next_packs(now + LINGER * seq);
            if backlog.applied(3, seq.into(), now).is_none() {
                break;
            }
            assert!(!backlog.is_congested());
        }
        assert_eq!((backlog.commands, backlog.bytes), (0, 0));
    }

    #[test]
    fn who_asks_is_told_once_of_what_is_stored_and_not_after_it_is_applied() {
        let now = Instant::now();
        let mut backlog = opened(now);
        let told = Arc::new(AtomicUsize::new(0));
        let tell = || -> Stored {
            let told = told.clone();
            Box::new(move || _ = told.fetch_add(1, Ordering::Relaxed))
        };
        let push = |backlog: &mut Backlog| {
            assert!(backlog.push(tick(1), Some(tell()), ignore()).is_ok());
            backlog.next_packs(now);
        };
        push(&mut backlog);
        push(&mut backlog);
        assert!(backlog.stored(2, 9).is_empty(), "of another life");
        assert_eq!(backlog.stored(3, 1).len(), 1);
        assert!(backlog.stored(3, 1).is_empty());
        assert_eq!(backlog.applied(3, 1, now).map(|w| w.len()), Some(1));
        push(&mut backlog);
        // What was stored later covers what was before.
        backlog.stored(3, 3).into_iter().for_each(|stored| stored());
        assert_eq!(told.load(Ordering::Relaxed), 2);
        backlog.applied(3, 2, now);
        backlog.applied(3, 3, now);
        assert!(backlog.stored(3, 3).is_empty());
    }
}
