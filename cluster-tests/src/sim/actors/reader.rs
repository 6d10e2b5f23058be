//! A client that asks, again and again and on any node, what is retained.

use std::io;
use std::time::Duration;

use super::Stage;
use super::cast::{RETAINING_PUBLISHER, topic_of};
use crate::mqtt::{self, Options, Packet, Props, Version};
use crate::sim::client::{Client, Parting};
use crate::sim::history::{Event, MessageId};
use crate::sim::now_ms;

/// A retained message that has not come so long after the SUBACK is taken for none.
const RETAINED_TIMEOUT: Duration = Duration::from_secs(3);

/// How often it asks on one connection, at most.
const READS_MAX: u64 = 40;

/// Runs until the scenario is over.
pub async fn run(name: &'static str, mut stage: Stage) -> turmoil::Result {
    loop {
        let node = stage.any_node();
        if let Some(mut client) = Client::connect(name, node, &Options::v5(name), None, &stage).await {
            let mut how = Ok(Parting::Polite);
            // A subscription that is renewed brings what is retained again [MQTT-3.8.4-3].
            for id in 1..=stage.rng.between(1, READS_MAX) as u16 {
                how = read(&mut client, id).await;
                if !matches!(how, Ok(Parting::Polite)) {
                    break;
                }
                stage.pause(1, 60).await;
            }
            client.end(how).await;
        }
        stage.pause(20, 200).await;
    }
}

async fn read(client: &mut Client, id: u16) -> io::Result<Parting> {
    let asked_ms = now_ms();
    let filter = topic_of(RETAINING_PUBLISHER);
    client.send(&mqtt::subscribe(Version::V5, id, &[(&filter, 0)], &Props::default())).await?;
    let mut granted = false;
    loop {
        match client.packet(RETAINED_TIMEOUT).await? {
            Some(Packet::SubAck { codes, .. }) if codes == [0] => granted = true,
            Some(Packet::Publish(message)) if message.retain => {
                let message = MessageId::parse(&message.payload).map_err(io::Error::other)?;
                client.note(Event::Read { message: Some(message), asked_ms });
                return Ok(Parting::Polite);
            }
            Some(Packet::Publish(_)) => {}
            None if granted => {
                client.note(Event::Read { message: None, asked_ms });
                return Ok(Parting::Abrupt);
            }
            other => return Err(io::Error::other(format!("{other:?} for a SUBACK"))),
        }
    }
}
