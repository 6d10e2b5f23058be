//! A member of a group that shares what is published.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::cast::{MEMBERS, SHARED_FILTER};
use super::receiver::Receiver;
use super::{Phase, Stage};
use crate::mqtt::{self, Ack, AckKind, Options, Packet, Props, Version};
use crate::sim::client::{Client, Parting};
use crate::sim::history::Event;

/// Runs until the scenario is over. The first of the members keeps its session.
pub async fn run(name: &'static str, mut stage: Stage) -> turmoil::Result {
    let keeps = name == MEMBERS[0];
    let options = if keeps { Options::v5(name).persistent() } else { Options::v5(name) };
    let (mut receiver, mut subscribed) = (Receiver::default(), false);
    loop {
        let node = stage.any_node();
        if let Some(mut client) = Client::connect(name, node, &options, None, &stage).await {
            if !client.session_present {
                (receiver, subscribed) = (Receiver::default(), false);
            }
            let how = share(&mut client, &mut receiver, &mut subscribed, &mut stage).await;
            client.end(how).await;
        }
        stage.pause(20, 1500).await;
    }
}

async fn share(
    client: &mut Client,
    receiver: &mut Receiver,
    subscribed: &mut bool,
    stage: &mut Stage,
) -> io::Result<Parting> {
    if !*subscribed {
        client.send(&mqtt::subscribe(Version::V5, 1, &[(SHARED_FILTER, 2)], &Props::default())).await?;
    }
    let leave_at = Instant::now() + Duration::from_millis(stage.rng.between(100, 8_000));
    let parting = if stage.rng.chance(60) { Parting::Abrupt } else { Parting::Polite };
    loop {
        if stage.phases.now() == Phase::Faults && Instant::now() >= leave_at {
            return Ok(parting);
        }
        match client.packet(Duration::from_millis(50)).await? {
            None => {}
            Some(Packet::SubAck { codes, .. }) if codes == [2] => {
                *subscribed = true;
                client.note(Event::Subscribed { filter: SHARED_FILTER });
            }
            Some(Packet::Publish(message)) => receiver.take(client, message).await?,
            Some(Packet::Ack(Ack { kind: AckKind::PubRel, id, .. })) => receiver.release(client, id).await?,
            Some(other) => return Err(io::Error::other(format!("{other:?} for a member"))),
        }
    }
}
