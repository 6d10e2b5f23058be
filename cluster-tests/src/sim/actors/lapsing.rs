//! A subscriber whose session expires, to messages that expire: it is away for long enough, again
//! and again.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::cast::{EXPIRY_FILTER, SESSION_EXPIRY_S};
use super::receiver::Receiver;
use super::{Phase, Stage};
use crate::mqtt::{self, Ack, AckKind, Options, Packet, Prop, Props, Version, prop};
use crate::sim::client::{Client, Parting};
use crate::sim::history::Event;

/// Runs until the scenario is over.
pub async fn run(name: &'static str, mut stage: Stage) -> turmoil::Result {
    let mut options = Options::v5(name).prop(prop::SESSION_EXPIRY_S, Prop::U32(SESSION_EXPIRY_S));
    options.clean_start = false;
    let (mut receiver, mut subscribed) = (Receiver::default(), false);
    loop {
        let node = stage.any_node();
        if let Some(mut client) = Client::connect(name, node, &options, None, &stage).await {
            if !client.session_present {
                (receiver, subscribed) = (Receiver::default(), false);
            }
            let how = attend(&mut client, &mut receiver, &mut subscribed, &mut stage).await;
            client.end(how).await;
        }
        stage.pause(1_000, 2_000 * u64::from(SESSION_EXPIRY_S)).await;
    }
}

async fn attend(
    client: &mut Client,
    receiver: &mut Receiver,
    subscribed: &mut bool,
    stage: &mut Stage,
) -> io::Result<Parting> {
    if !*subscribed {
        client.send(&mqtt::subscribe(Version::V5, 1, &[(EXPIRY_FILTER, 1)], &Props::default())).await?;
    }
    let leave_at = Instant::now() + Duration::from_millis(stage.rng.between(200, 1_500));
    loop {
        if stage.phases.now() == Phase::Faults && Instant::now() >= leave_at {
            return Ok(Parting::Polite);
        }
        match client.packet(Duration::from_millis(50)).await? {
            None => {}
            Some(Packet::SubAck { codes, .. }) if codes == [1] => {
                *subscribed = true;
                client.note(Event::Subscribed { filter: EXPIRY_FILTER });
            }
            Some(Packet::Publish(message)) => receiver.take(client, message).await?,
            Some(Packet::Ack(Ack { kind: AckKind::PubRel, id, .. })) => receiver.release(client, id).await?,
            Some(other) => return Err(io::Error::other(format!("{other:?} for a subscriber"))),
        }
    }
}
