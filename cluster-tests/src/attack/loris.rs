//! Clients that send a byte now and then, in every place where the broker waits for the rest.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::crowd::{has_ended, push};
use super::{Crowd, Plan, malformed};
use crate::mqtt::{Options, connect};
use crate::wait;

/// Keep-alive of those that connect before they dawdle, seconds.
const KEEP_ALIVE_S: u16 = 2;
/// Beyond the time-outs, for a busy machine.
const GRACE: Duration = Duration::from_secs(10);
/// Rounds of 10 ms between two bytes of one client.
const ROUNDS_PER_BYTE: usize = 5;
/// What one of them may cost at most, kB: a read buffer that was lent to it.
const EACH_KB: u64 = 16;
const SPARE_KB: u64 = 8 << 10;

struct Slow {
    stream: TcpStream,
    script: Vec<u8>,
    sent: usize,
}

/// All of them until the broker has ended the last one.
///
/// # Panics
/// When one is not ended in time, or they cost the broker memory.
pub fn run(plan: &Plan, connect_timeout: Duration) {
    let before_kb = plan.process.memory_kb();
    let count = plan.size(400, 4_000);
    let mut crowd = Crowd::default();
    let mut slow: Vec<Slow> = (0..count).map(|i| dawdler(plan, &mut crowd, i)).collect();
    let keep_alive = Duration::from_millis(u64::from(KEEP_ALIVE_S) * 1_500);
    let deadline = Instant::now() + connect_timeout.max(keep_alive) + GRACE;
    let mut peak_kb = before_kb;
    for round in 0_usize.. {
        if round.is_multiple_of(ROUNDS_PER_BYTE) {
            slow.retain_mut(|client| {
                let next = client.script.get(client.sent).copied().unwrap_or(b'x');
                client.sent += 1;
                push(&mut client.stream, &[next]) && !has_ended(&mut client.stream)
            });
            peak_kb = peak_kb.max(plan.process.memory_kb());
        }
        if slow.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{} of {count} slow clients are still connected", slow.len());
        wait::pause();
    }
    let bound_kb = before_kb + count as u64 * EACH_KB + SPARE_KB;
    assert!(peak_kb <= bound_kb, "{count} slow clients cost {} kB", peak_kb - before_kb);
}

/// One client; where it dawdles depends on its number.
fn dawdler(plan: &Plan, crowd: &mut Crowd, i: usize) -> Slow {
    let mut rng = plan.rng(i as u64);
    let connect = connect(&Options::v311(&format!("attack-slow-{i}")).keep_alive_s(KEEP_ALIVE_S));
    let (to, at_once, script) = match i % 6 {
        // The fixed header: a length that goes on.
        0 => (plan.mqtt, vec![], vec![0x10, 0xff, 0xff, 0x3f]),
        // A CONNECT that is longer than the time it has.
        1 => (plan.mqtt, vec![0x10, 0xff, 0x7f], connect[2..].to_vec()),
        // A PUBLISH of a MiB.
        2 => (plan.mqtt, [&connect[..], &[0x30, 0xf0, 0xff, 0x3f, 0, 1, b'a']].concat(), vec![]),
        3 => (plan.ws, vec![], malformed::upgrade()),
        // A frame that is said to hold a MiB.
        4 => {
            let header = [0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 1, 2, 3, 4];
            (plan.ws, malformed::upgrade(), header.to_vec())
        }
        // CONNECT in frames of a byte; the last byte never comes.
        _ => {
            let all_but_one = &connect[..connect.len() - 1];
            let frames = all_but_one.iter().flat_map(|byte| malformed::frame(0x82, &[*byte], &mut rng));
            (plan.ws, malformed::upgrade(), frames.collect())
        }
    };
    let stream = crowd.open(to).expect("a connection");
    push(stream, &at_once);
    let stream = crowd.members.pop().expect("just opened");
    Slow { stream, script, sent: 0 }
}
