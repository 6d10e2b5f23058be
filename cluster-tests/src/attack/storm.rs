//! Clients that come and go.

use std::time::Duration;

use super::Plan;
use crate::mqtt::{Client, Options, VERSIONS, Will};
use crate::wait::eventually;

const WORKERS: usize = 6;
const GONE: Duration = Duration::from_secs(60);

/// Everybody wants the same client id, and has a will.
///
/// # Panics
/// When the last one is not let in.
pub fn takeovers(plan: &Plan) {
    let (count, id) = (plan.size(250, 10_000), crate::fresh("attack-same"));
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let id = &id;
            scope.spawn(move || {
                let mut rng = plan.rng(worker as u64);
                for turn in 0..count {
                    let version = *rng.pick(&VERSIONS);
                    let mut options = Options::new(version, id).will(Will::new("attack/will", "gone", 1));
                    if rng.chance(30) {
                        options = options.persistent();
                    }
                    // Others take it over at any moment, before CONNACK too.
                    let _ = Client::connect(plan.mqtt, &options);
                    if turn % 8 == worker {
                        let _ = Client::connect(plan.mqtt, &options).map(Client::disconnect);
                    }
                }
            });
        }
    });
    let mut last = Client::connect(plan.mqtt, &Options::v5(&id)).expect("the last one is let in");
    last.ping().expect("and served");
    last.disconnect().expect("leaves");
}

/// New client ids with wills, which fire since nobody says goodbye.
///
/// # Panics
/// When sessions remain.
pub fn strangers(plan: &Plan) {
    let count = plan.size(300, 10_000);
    let sessions = plan.metric("rookery_sessions");
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            scope.spawn(move || {
                let mut rng = plan.rng(100 + worker as u64);
                for turn in 0..count {
                    let id = format!("attack-new-{worker}-{turn}");
                    let will = Will::new("attack/will", &"x".repeat(rng.below(500)), rng.below(3) as u8);
                    let options = Options::new(*rng.pick(&VERSIONS), &id).will(will);
                    Client::connect(plan.mqtt, &options).expect("let in");
                }
            });
        }
    });
    eventually("the strangers' sessions end", GONE, || {
        // A visitor may be there.
        (plan.metric("rookery_sessions") <= sessions + 2.0).then_some(())
    });
}
