//! A clean subscriber: whatever is published while it is there has to reach it.

use super::Stage;
use super::attendance::Attendance;
use crate::mqtt::Options;
use crate::sim::client::{Client, Parting};

/// Runs until the scenario is over.
pub async fn run(name: &'static str, filter: &'static str, mut stage: Stage) -> turmoil::Result {
    let mut attendance = Attendance::new(filter, 1);
    loop {
        let node = stage.any_node();
        if let Some(mut client) = Client::connect(name, node, &Options::v5(name), None, &stage).await {
            // Long enough to be judged, as a rule: see the invariant about SUBACK.
            let stay_ms = if stage.rng.chance(30) { (100, 2_000) } else { (4_000, 15_000) };
            let stay_ms = stage.rng.between(stay_ms.0, stay_ms.1);
            let parting = if stage.rng.chance(50) { Parting::Abrupt } else { Parting::Polite };
            let how = attendance.attend(&mut client, stay_ms, parting, &stage).await;
            client.end(how).await;
        }
        stage.pause(20, 500).await;
    }
}
