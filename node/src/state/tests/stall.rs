//! A snapshot does not hold `apply` up, however large the state is.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::*;

const FEW: usize = 32_000;
const MANY: usize = 8 * FEW;
/// Commands of a pack, all of different sessions.
const PACK: usize = 512;
const FREEZES: usize = 7;
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

/// What it takes to apply a pack of takeovers all over a state of so many sessions, and what more
/// it takes after a freeze; the medians.
fn costs(sessions: usize) -> (Duration, Duration) {
    let mut rig = Rig::new(1);
    for first in (0..sessions).step_by(PACK) {
        let pack = rig.pack(1, claims(first..(first + PACK).min(sessions)));
        rig.apply(&pack);
    }
    let mut turn = 0;
    let mut visit = |rig: &mut Rig| {
        let pack = rig.pack(1, claims((0..PACK).map(|i| (turn * PACK + i) * 7_919 % sessions)));
        turn += 1;
        let begun = cpu_time();
        rig.apply(&pack);
        cpu_time() - begun
    };
    let (mut quiet, mut frozen) = (Vec::new(), Vec::new());
    for _ in 0..FREEZES {
        quiet.push(visit(&mut rig));
        let view = rig.state.freeze();
        frozen.push(visit(&mut rig));
        drop(view);
    }
    quiet.sort_unstable();
    frozen.sort_unstable();
    (quiet[FREEZES / 2], frozen[FREEZES / 2].saturating_sub(quiet[FREEZES / 2]))
}

#[test]
fn a_snapshot_does_not_hold_apply_up() {
    let (few, more_of_few) = costs(FEW);
    let (many, more_of_many) = costs(MANY);
    println!("{FEW} sessions: {few:?}, after a freeze {more_of_few:?} more");
    println!("{MANY} sessions: {many:?}, after a freeze {more_of_many:?} more");
    assert!(more_of_many < BOUND, "{more_of_many:?} more after a freeze");
    // Eight times the state: the caches miss more often, but no more is copied.
    assert!(more_of_many < more_of_few * 5, "{more_of_many:?} of {MANY} sessions, {more_of_few:?} of {FEW}");
}
