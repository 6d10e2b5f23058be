//! Clients that publish numbered messages and repeat each until it is acknowledged.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::actors::{Phase, Stage};
use super::client::Client;
use super::history::{Event, MessageId};
use super::subscriber::publish;
use crate::mqtt::{self, Ack, AckKind, Options, Packet, Version};

/// Messages at QoS 1 that may be open.
const WINDOW: usize = 8;
/// Between two messages of one publisher, milliseconds.
const PACE_MS: (u64, u64) = (10, 150);

async fn begin(stage: &Stage) {
    while stage.phases.now() == Phase::Forming {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// QoS 1 in a clean session: all that is open is sent again, in order, on the next connection.
pub async fn qos1(name: &'static str, mut stage: Stage) -> turmoil::Result {
    begin(&stage).await;
    let options = Options::v5(name);
    let (mut next, mut open) = (0, VecDeque::new());
    while stage.phases.now() == Phase::Faults || (stage.phases.now() == Phase::Calm && !open.is_empty()) {
        let node = stage.any_node();
        let Some(mut client) = Client::connect(node, &options, &stage.history).await else {
            stage.pause(50, 500).await;
            continue;
        };
        let why = match publish_window(name, &mut client, &mut stage, &mut next, &mut open).await {
            Ok(()) => "done".to_owned(),
            Err(error) => error.to_string(),
        };
        client.note(Event::Closed { why });
        drop(client);
        stage.pause(20, 300).await;
    }
    stage.finish();
    Ok(())
}

async fn publish_window(
    name: &str,
    client: &mut Client,
    stage: &mut Stage,
    next: &mut u64,
    open: &mut VecDeque<u64>,
) -> io::Result<()> {
    let id_of = |number: u64| 1 + (number % 60_000) as u16;
    let message = |number| MessageId { publisher: name.to_owned(), number };
    let mut sent: VecDeque<(u64, u64)> = VecDeque::new();
    for number in open.iter().copied() {
        client.send(&mqtt::publish(Version::V5, &publish(&message(number), 1, id_of(number), false))).await?;
        sent.push_back((number, super::now_ms()));
    }
    loop {
        let faults = stage.phases.now() == Phase::Faults;
        if open.is_empty() && !faults {
            return client.send(&mqtt::disconnect(Version::V5, 0)).await;
        }
        if open.len() < WINDOW && faults {
            let number = *next;
            client
                .send(&mqtt::publish(Version::V5, &publish(&message(number), 1, id_of(number), false)))
                .await?;
            *next += 1;
            open.push_back(number);
            sent.push_back((number, super::now_ms()));
        }
        let pause = Duration::from_millis(stage.rng.between(PACE_MS.0, PACE_MS.1));
        let send_at = Instant::now() + pause;
        while let Some(packet) = client.packet(send_at.saturating_duration_since(Instant::now())).await? {
            let Packet::Ack(Ack { kind: AckKind::PubAck, id, code, .. }) = packet else {
                return Err(io::Error::other(format!("{packet:?} for a PUBACK")));
            };
            let Some(at) = sent.iter().position(|(number, _)| id_of(*number) == id) else {
                return Err(io::Error::other(format!("a PUBACK for {id}, which is not open")));
            };
            let Some((number, sent_ms)) = sent.remove(at) else { continue };
            if code >= 0x80 {
                // Only a new connection repeats it, together with what came after it.
                client.note(Event::Refused { message: message(number), code });
                return Err(io::Error::other(format!("PUBACK {code:#04x}")));
            }
            open.retain(|open| *open != number);
            client.note(Event::Acknowledged { message: message(number), qos: 1, sent_ms });
        }
    }
}

/// Where an exactly-once handshake is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Fresh,
    Sent,
    Released,
}

/// QoS 2 in a persistent session, one message at a time; the handshake goes on where it was.
pub async fn qos2(name: &'static str, mut stage: Stage) -> turmoil::Result {
    begin(&stage).await;
    let options = Options::v5(name).persistent();
    let (mut number, mut step) = (0, Step::Fresh);
    while stage.phases.now() == Phase::Faults || (stage.phases.now() == Phase::Calm && step != Step::Fresh) {
        let node = stage.any_node();
        let Some(mut client) = Client::connect(node, &options, &stage.history).await else {
            stage.pause(50, 500).await;
            continue;
        };
        let why = match handshakes(name, &mut client, &mut stage, &mut number, &mut step).await {
            Ok(()) => "done".to_owned(),
            Err(error) => error.to_string(),
        };
        client.note(Event::Closed { why });
        drop(client);
        stage.pause(20, 300).await;
    }
    stage.finish();
    Ok(())
}

async fn handshakes(
    name: &str,
    client: &mut Client,
    stage: &mut Stage,
    number: &mut u64,
    step: &mut Step,
) -> io::Result<()> {
    loop {
        let id = 1 + (*number % 60_000) as u16;
        let message = MessageId { publisher: name.to_owned(), number: *number };
        let sent_ms = super::now_ms();
        if *step == Step::Fresh && stage.phases.now() > Phase::Faults {
            return client.send(&mqtt::disconnect(Version::V5, 0)).await;
        }
        if *step != Step::Released {
            let dup = *step == Step::Sent;
            client.send(&mqtt::publish(Version::V5, &publish(&message, 2, id, dup))).await?;
            *step = Step::Sent;
            let code = answer(client, AckKind::PubRec, id).await?;
            if code >= 0x80 {
                // The handshake is over, unsuccessfully: the next attempt is a new message.
                *step = Step::Fresh;
                client.note(Event::Refused { message, code });
                return Err(io::Error::other(format!("PUBREC {code:#04x}")));
            }
            client.note(Event::Acknowledged { message, qos: 2, sent_ms });
            *step = Step::Released;
        }
        client.send(&mqtt::ack(AckKind::PubRel, id)).await?;
        answer(client, AckKind::PubComp, id).await?;
        *number += 1;
        *step = Step::Fresh;
        stage.pause(PACE_MS.0, PACE_MS.1).await;
    }
}

/// Waits for the acknowledgement; its reason code.
async fn answer(client: &mut Client, kind: AckKind, id: u16) -> io::Result<u8> {
    const PATIENCE: Duration = Duration::from_secs(6);
    match client.packet(PATIENCE).await? {
        Some(Packet::Ack(ack)) if ack.kind == kind && ack.id == id => Ok(ack.code),
        Some(other) => Err(io::Error::other(format!("{other:?} for a {kind:?} of {id}"))),
        None => Err(io::ErrorKind::TimedOut.into()),
    }
}
