//! What a subscriber does on each of its connections: it subscribes if its session does not know that
//! yet, takes what comes, and leaves.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::receiver::Receiver;
use super::{Phase, Stage};
use crate::mqtt::{self, Ack, AckKind, Packet, Props, Version};
use crate::sim::client::{Client, Parting};
use crate::sim::history::Event;

/// A client's one subscription, and what it knows of its session.
pub struct Attendance {
    filter: &'static str,
    qos: u8,
    receiver: Receiver,
    subscribed: bool,
}

impl Attendance {
    pub fn new(filter: &'static str, qos: u8) -> Self {
        Self { filter, qos, receiver: Receiver::default(), subscribed: false }
    }

    /// Stays for so long at least; before the faults and after them, nobody leaves.
    ///
    /// # Errors
    /// The connection is over, or something came that has no place here.
    pub async fn attend(
        &mut self,
        client: &mut Client,
        stay_ms: u64,
        parting: Parting,
        stage: &Stage,
    ) -> io::Result<Parting> {
        if !client.session_present {
            (self.receiver, self.subscribed) = (Receiver::default(), false);
        }
        let Self { filter, qos, receiver, subscribed } = self;
        if !*subscribed {
            client.send(&mqtt::subscribe(Version::V5, 1, &[(filter, *qos)], &Props::default())).await?;
        }
        let leave_at = Instant::now() + Duration::from_millis(stay_ms);
        loop {
            if stage.phases.now() == Phase::Faults && Instant::now() >= leave_at {
                return Ok(parting);
            }
            match client.packet(Duration::from_millis(50)).await? {
                None => {}
                Some(Packet::SubAck { codes, .. }) if codes == [*qos] => {
                    *subscribed = true;
                    client.note(Event::Subscribed { filter });
                }
                Some(Packet::Publish(message)) => receiver.take(client, message).await?,
                Some(Packet::Ack(Ack { kind: AckKind::PubRel, id, .. })) => {
                    receiver.release(client, id).await?;
                }
                Some(other) => return Err(io::Error::other(format!("{other:?} for a subscriber"))),
            }
        }
    }
}
