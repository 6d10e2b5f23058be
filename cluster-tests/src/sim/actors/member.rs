//! A member of a group that shares what is published.

use super::Stage;
use super::attendance::Attendance;
use super::cast::{MEMBERS, SHARED_FILTER};
use crate::mqtt::Options;
use crate::sim::client::{Client, Parting};

/// Runs until the scenario is over. The first of the members keeps its session.
pub async fn run(name: &'static str, mut stage: Stage) -> turmoil::Result {
    let keeps = name == MEMBERS[0];
    let options = if keeps { Options::v5(name).persistent() } else { Options::v5(name) };
    let mut attendance = Attendance::new(SHARED_FILTER, 2);
    loop {
        let node = stage.any_node();
        if let Some(mut client) = Client::connect(name, node, &options, None, &stage).await {
            let stay_ms = stage.rng.between(100, 8_000);
            let parting = if stage.rng.chance(60) { Parting::Abrupt } else { Parting::Polite };
            let how = attendance.attend(&mut client, stay_ms, parting, &stage).await;
            client.end(how).await;
        }
        stage.pause(20, 1500).await;
    }
}
