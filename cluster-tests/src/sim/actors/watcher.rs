//! A clean subscriber: whatever is published while it is there has to reach it.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::receiver::Receiver;
use super::{Phase, Stage};
use crate::mqtt::{self, Ack, AckKind, Options, Packet, Props, Version};
use crate::sim::client::{Client, Parting};
use crate::sim::history::Event;

/// Runs until the scenario is over.
pub async fn run(name: &'static str, filter: &'static str, mut stage: Stage) -> turmoil::Result {
    loop {
        let node = stage.any_node();
        if let Some(mut client) = Client::connect(name, node, &Options::v5(name), None, &stage).await {
            let how = watch(&mut client, filter, &mut stage).await;
            client.end(how).await;
        }
        stage.pause(20, 500).await;
    }
}

async fn watch(client: &mut Client, filter: &'static str, stage: &mut Stage) -> io::Result<Parting> {
    let mut receiver = Receiver::default();
    client.send(&mqtt::subscribe(Version::V5, 1, &[(filter, 1)], &Props::default())).await?;
    // Long enough to be judged, as a rule: see the invariant about SUBACK.
    let stay_ms = if stage.rng.chance(30) { (100, 2_000) } else { (4_000, 15_000) };
    let leave_at = Instant::now() + Duration::from_millis(stage.rng.between(stay_ms.0, stay_ms.1));
    let parting = if stage.rng.chance(50) { Parting::Abrupt } else { Parting::Polite };
    loop {
        if stage.phases.now() == Phase::Faults && Instant::now() >= leave_at {
            return Ok(parting);
        }
        match client.packet(Duration::from_millis(50)).await? {
            None => {}
            Some(Packet::SubAck { codes, .. }) if codes == [1] => client.note(Event::Subscribed { filter }),
            Some(Packet::Publish(message)) => receiver.take(client, message).await?,
            Some(Packet::Ack(Ack { kind: AckKind::PubRel, id, .. })) => receiver.release(client, id).await?,
            Some(other) => return Err(io::Error::other(format!("{other:?} for a clean subscriber"))),
        }
    }
}
