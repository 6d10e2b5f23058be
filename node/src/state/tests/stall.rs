//! A snapshot does not hold `apply` up, however large the state is.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::*;

const FEW: usize = 16_000;
const MANY: usize = 16 * FEW;
/// Commands of a pack, all of different sessions.
const PACK: usize = 512;
const FREEZES: usize = 7;
/// Sessions with long queues, and the messages in each.
const QUEUES: usize = 100;
const QUEUED: usize = 20_000;
/// The longest that a snapshot may hold `apply` up.
const BOUND: Duration = Duration::from_millis(50);

/// CPU time of this thread: how busy the machine is besides does not matter.
fn cpu_time() -> Duration {
    let at = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(at.tv_sec.unsigned_abs(), at.tv_nsec as u32)
}

fn claims(numbers: impl Iterator<Item = usize>) -> Vec<Command> {
    numbers.map(|i| Command::Claim(persistent(&format!("device-{i}")))).collect()
}

/// What `change` takes, and what more it takes after a freeze: the least of several times each, as
/// whatever else runs only adds to it.
fn costs(rig: &mut Rig, mut change: impl FnMut(&mut Rig)) -> (Duration, Duration) {
    let mut timed = |rig: &mut Rig| {
        let begun = cpu_time();
        change(rig);
        cpu_time() - begun
    };
    let (mut quiet, mut frozen) = (Duration::MAX, Duration::MAX);
    for _ in 0..FREEZES {
        quiet = quiet.min(timed(rig));
        let view = rig.state.freeze();
        frozen = frozen.min(timed(rig));
        drop(view);
    }
    (quiet, frozen.saturating_sub(quiet))
}

/// The costs of a pack of takeovers all over a state of so many sessions.
fn of_takeovers(sessions: usize) -> (Duration, Duration) {
    let mut rig = Rig::new(1);
    for first in (0..sessions).step_by(PACK) {
        let pack = rig.pack(1, claims(first..(first + PACK).min(sessions)));
        rig.apply(&pack);
    }
    let mut turn = 0;
    costs(&mut rig, |rig| {
        let pack = rig.pack(1, claims((0..PACK).map(|i| (turn * PACK + i) * 7_919 % sessions)));
        turn += 1;
        rig.apply(&pack);
    })
}

#[test]
fn a_snapshot_does_not_hold_apply_up() {
    let (few, more_of_few) = of_takeovers(FEW);
    let (many, more_of_many) = of_takeovers(MANY);
    println!("{FEW} sessions: {few:?}, after a freeze {more_of_few:?} more");
    println!("{MANY} sessions: {many:?}, after a freeze {more_of_many:?} more");
    assert!(more_of_many < BOUND, "{more_of_many:?} more after a freeze");
    // Sixteen times the state: the caches miss more often, but hardly more is copied.
    assert!(more_of_many < more_of_few * 8, "{more_of_many:?} of {MANY} sessions, {more_of_few:?} of {FEW}");
}

#[test]
fn a_snapshot_of_long_queues_does_not_hold_apply_up() {
    let mut rig = Rig::new(1);
    for i in 0..QUEUES {
        let client = format!("device-{i}");
        let (incarnation, _) = rig.claim(1, persistent(&client));
        rig.subscribe(1, &client, incarnation, &[sub("all", 1)]);
        rig.release(1, &client, incarnation, WillFate::Discard);
    }
    for _ in 0..QUEUED {
        rig.publish(1, message("all", "x", 1));
    }
    let (publish, more) = costs(&mut rig, |rig| {
        rig.publish(1, message("all", "y", 1));
    });
    println!("a publish to {QUEUES} queues of {QUEUED}: {publish:?}, after a freeze {more:?} more");
    assert!(more < BOUND, "{more:?} more after a freeze");
}
