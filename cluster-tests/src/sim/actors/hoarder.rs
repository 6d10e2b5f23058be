//! A client with a persistent session that is away most of the time: its queue overflows.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::cast::FLOOD_FILTER;
use super::receiver::Receiver;
use super::{Phase, Stage};
use crate::mqtt::{self, Options, Packet, Props, Version};
use crate::sim::client::{Client, Parting};
use crate::sim::history::Event;

/// Runs until the scenario is over.
pub async fn run(name: &'static str, mut stage: Stage) -> turmoil::Result {
    let options = Options::v5(name).persistent();
    let mut subscribed = false;
    loop {
        let node = stage.any_node();
        if let Some(mut client) = Client::connect(name, node, &options, None, &stage).await {
            let how = attend(&mut client, &mut subscribed, &mut stage).await;
            client.end(how).await;
        }
        let until = Instant::now() + Duration::from_millis(stage.rng.between(1_000, 8_000));
        while stage.phases.now() == Phase::Faults && Instant::now() < until {
            stage.pause(50, 100).await;
        }
        stage.pause(50, 100).await;
    }
}

async fn attend(client: &mut Client, subscribed: &mut bool, stage: &mut Stage) -> io::Result<Parting> {
    let mut receiver = Receiver::default();
    if !*subscribed {
        client.send(&mqtt::subscribe(Version::V5, 1, &[(FLOOD_FILTER, 1)], &Props::default())).await?;
    }
    let leave_at = Instant::now() + Duration::from_millis(stage.rng.between(50, 1_000));
    let parting = if stage.rng.chance(50) { Parting::Abrupt } else { Parting::Polite };
    loop {
        if *subscribed && stage.phases.now() == Phase::Faults && Instant::now() >= leave_at {
            return Ok(parting);
        }
        match client.packet(Duration::from_millis(50)).await? {
            None => {}
            Some(Packet::SubAck { codes, .. }) if codes == [1] => {
                *subscribed = true;
                client.note(Event::Subscribed { filter: FLOOD_FILTER });
            }
            Some(Packet::Publish(message)) => receiver.take(client, message).await?,
            Some(other) => return Err(io::Error::other(format!("{other:?} for a subscriber"))),
        }
    }
}
