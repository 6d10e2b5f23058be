//! What a client does with the messages it gets.

use std::collections::BTreeSet;
use std::io;

use crate::mqtt::{self, AckKind, Publish};
use crate::sim::client::Client;
use crate::sim::history::MessageId;

/// The receiving half of a session.
#[derive(Default)]
pub struct Receiver {
    /// QoS 2 publishes received and not yet released.
    received: BTreeSet<u16>,
}

impl Receiver {
    /// Notes and acknowledges a message.
    ///
    /// # Errors
    /// The connection is over, or nobody published the message.
    pub async fn take(&mut self, client: &mut Client, message: Publish) -> io::Result<()> {
        let Publish { payload, qos, dup, id, .. } = message;
        let message = MessageId::parse(&payload).map_err(io::Error::other)?;
        // Method A of [MQTT-4.3.3-10]: what was received and not released is not new.
        let new = qos < 2 || self.received.insert(id);
        client.note_delivered(message, qos, dup, new);
        match qos {
            0 => Ok(()),
            1 => client.send(&mqtt::ack(AckKind::PubAck, id)).await,
            _ => client.send(&mqtt::ack(AckKind::PubRec, id)).await,
        }
    }

    /// The broker has released a message.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn release(&mut self, client: &mut Client, id: u16) -> io::Result<()> {
        self.received.remove(&id);
        client.send(&mqtt::ack(AckKind::PubComp, id)).await
    }
}
