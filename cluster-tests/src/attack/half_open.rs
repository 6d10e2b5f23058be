//! Connections that never send CONNECT, nor begin what comes before it on their listener.

use super::{Crowd, Plan};

/// Connections opened between two looks at the broker's bound.
const WAVE: usize = 250;

/// Opens `count` in waves and holds up to `held` of them open, the youngest; how often the
/// broker ended one first.
///
/// # Panics
/// When the broker holds more of them than `bound` at a time.
pub fn run(plan: &Plan, count: usize, held: usize, bound: usize) -> usize {
    let mut crowd = Crowd::default();
    let mut ended = 0;
    for _ in 0..count / WAVE {
        for listener in plan.listeners.iter().cycle().take(WAVE) {
            crowd.open(*listener).expect("the system opens a connection");
        }
        let before = crowd.members.len();
        ended += before - crowd.sift();
        let over = crowd.members.len().saturating_sub(held);
        crowd.members.drain(..over);
        let handshakes = plan.metric("rookery_handshakes") as usize;
        assert!(handshakes <= bound, "{handshakes} half-open connections, the bound is {bound}");
    }
    ended
}
