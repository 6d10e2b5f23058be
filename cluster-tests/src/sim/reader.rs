//! A client that asks, again and again and on any node, what is retained.

use std::io;
use std::time::Duration;

use super::actors::{Phase, RETAINING_PUBLISHER, Stage, topic_of};
use super::client::Client;
use super::history::{Event, MessageId};
use crate::mqtt::{self, Options, Packet, Props, Version};

/// A retained message that has not come so long after the SUBACK is taken for none.
const RETAINED_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs until the scenario is over.
pub async fn run(name: &'static str, mut stage: Stage) -> turmoil::Result {
    while stage.phases.now() < Phase::Over {
        let node = stage.any_node();
        if let Some(mut client) = Client::connect(node, &Options::v5(name), &stage.history).await {
            let why = match read(&mut client).await {
                Ok(()) => "done".to_owned(),
                Err(error) => error.to_string(),
            };
            client.note(Event::Closed { why });
        }
        stage.pause(20, 200).await;
    }
    Ok(())
}

async fn read(client: &mut Client) -> io::Result<()> {
    let asked_ms = super::now_ms();
    let filter = topic_of(RETAINING_PUBLISHER);
    client.send(&mqtt::subscribe(Version::V5, 1, &[(&filter, 0)], &Props::default())).await?;
    let mut granted = false;
    loop {
        match client.packet(RETAINED_TIMEOUT).await? {
            Some(Packet::SubAck { codes, .. }) if codes == [0] => granted = true,
            Some(Packet::Publish(message)) if message.retain => {
                let message = MessageId::parse(&message.payload).map_err(io::Error::other)?;
                client.note(Event::Read { message: Some(message), asked_ms });
                return client.send(&mqtt::disconnect(Version::V5, 0)).await;
            }
            Some(Packet::Publish(_)) => {}
            None if granted => {
                client.note(Event::Read { message: None, asked_ms });
                return Ok(());
            }
            other => return Err(io::Error::other(format!("{other:?} for a SUBACK"))),
        }
    }
}
