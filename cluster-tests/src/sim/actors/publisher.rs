//! Clients that publish numbered messages and repeat each until it is acknowledged.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::cast::{EXPIRING_PUBLISHER, FLOODING_PUBLISHER, MESSAGE_EXPIRY_S, RETAINING_PUBLISHER, topic_of};
use super::{Phase, Stage};
use crate::mqtt::{self, Ack, AckKind, Options, Packet, Prop, Props, Publish, Version, prop};
use crate::sim::client::{Client, Parting};
use crate::sim::history::{Event, MessageId};
use crate::sim::now_ms;

/// Messages at QoS 1 that may be open.
const WINDOW: usize = 8;
const FLOOD_WINDOW: usize = 32;
/// Between two messages of one publisher, milliseconds.
const PACE_MS: (u64, u64) = (10, 150);
const FLOOD_PACE_MS: (u64, u64) = (1, 10);

/// A message as its publisher sends it.
pub fn publish(message: MessageId, qos: u8, id: u16, dup: bool) -> Publish {
    let topic = topic_of(message.publisher);
    let retain = message.publisher == RETAINING_PUBLISHER;
    let mut props = Props::default();
    if message.publisher == EXPIRING_PUBLISHER {
        props = props.with(prop::MESSAGE_EXPIRY_S, Prop::U32(MESSAGE_EXPIRY_S));
    }
    Publish { topic, payload: message.payload(), qos, retain, dup, id, props }
}

/// The packet id of a message.
fn id_of(number: u64) -> u16 {
    1 + (number % 60_000) as u16
}

/// A message that was sent on this connection and not acknowledged.
struct Sent {
    number: u64,
    at_ms: u64,
    /// It had been sent on an earlier connection.
    again: bool,
}

/// QoS 1 in a clean session: all that is open is sent again, in order, on the next connection.
pub async fn qos1(name: &'static str, mut stage: Stage) -> turmoil::Result {
    stage.begin().await;
    let options = Options::v5(name);
    let (mut next, mut open) = (0, VecDeque::new());
    while stage.phases.now() == Phase::Faults || !open.is_empty() {
        let node = stage.any_node();
        let Some(mut client) = Client::connect(name, node, &options, None, &stage).await else {
            stage.pause(50, 500).await;
            continue;
        };
        let how = publish_window(name, &mut client, &mut stage, &mut next, &mut open).await;
        client.end(how).await;
        stage.pause(20, 300).await;
    }
    stage.finish();
    Ok(())
}

async fn publish_window(
    name: &'static str,
    client: &mut Client,
    stage: &mut Stage,
    next: &mut u64,
    open: &mut VecDeque<u64>,
) -> io::Result<Parting> {
    let message = |number| MessageId { publisher: name, number };
    let packet = |number| mqtt::publish(Version::V5, &publish(message(number), 1, id_of(number), false));
    let flood = name == FLOODING_PUBLISHER;
    let (window, pace_ms) = if flood { (FLOOD_WINDOW, FLOOD_PACE_MS) } else { (WINDOW, PACE_MS) };
    let mut sent: VecDeque<Sent> = VecDeque::new();
    for number in open.iter().copied() {
        client.send(&packet(number)).await?;
        sent.push_back(Sent { number, at_ms: now_ms(), again: true });
    }
    loop {
        let faults = stage.phases.now() == Phase::Faults;
        if open.is_empty() && !faults {
            return Ok(Parting::Polite);
        }
        if open.len() < window && faults {
            let number = *next;
            client.send(&packet(number)).await?;
            *next += 1;
            open.push_back(number);
            sent.push_back(Sent { number, at_ms: now_ms(), again: false });
        }
        let pause = Duration::from_millis(stage.rng.between(pace_ms.0, pace_ms.1));
        let send_at = Instant::now() + pause;
        while let Some(packet) = client.packet(send_at.saturating_duration_since(Instant::now())).await? {
            let Packet::Ack(Ack { kind: AckKind::PubAck, id, code, .. }) = packet else {
                return Err(io::Error::other(format!("{packet:?} for a PUBACK")));
            };
            let Some(at) = sent.iter().position(|sent| id_of(sent.number) == id) else {
                return Err(io::Error::other(format!("a PUBACK for {id}, which is not open")));
            };
            let Some(Sent { number, at_ms: sent_ms, again }) = sent.remove(at) else { continue };
            if code >= 0x80 {
                // Only a new connection repeats it, together with what came after it, which may have
                // been refused as well.
                for number in std::iter::once(number).chain(sent.iter().map(|sent| sent.number)) {
                    client.note(Event::Refused { message: message(number), code });
                }
                return Err(io::Error::other(format!("PUBACK {code:#04x}")));
            }
            open.retain(|open| *open != number);
            let latest_ms = stage.world.latest_ms();
            client.note(Event::Acknowledged { message: message(number), qos: 1, sent_ms, again, latest_ms });
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
    stage.begin().await;
    let options = Options::v5(name).persistent();
    let (mut number, mut step) = (0, Step::Fresh);
    while stage.phases.now() == Phase::Faults || step != Step::Fresh {
        let node = stage.any_node();
        let Some(mut client) = Client::connect(name, node, &options, None, &stage).await else {
            stage.pause(50, 500).await;
            continue;
        };
        let how = handshakes(name, &mut client, &mut stage, &mut number, &mut step).await;
        client.end(how).await;
        stage.pause(20, 300).await;
    }
    stage.finish();
    Ok(())
}

async fn handshakes(
    publisher: &'static str,
    client: &mut Client,
    stage: &mut Stage,
    number: &mut u64,
    step: &mut Step,
) -> io::Result<Parting> {
    loop {
        let id = id_of(*number);
        let message = MessageId { publisher, number: *number };
        let sent_ms = now_ms();
        if *step == Step::Fresh && stage.phases.now() > Phase::Faults {
            return Ok(Parting::Polite);
        }
        if *step != Step::Released {
            let again = *step == Step::Sent;
            client.send(&mqtt::publish(Version::V5, &publish(message, 2, id, again))).await?;
            *step = Step::Sent;
            let code = answer(client, AckKind::PubRec, id).await?;
            if code >= 0x80 {
                // The handshake is over, unsuccessfully: the next attempt is a new message.
                *step = Step::Fresh;
                client.note(Event::Refused { message, code });
                return Err(io::Error::other(format!("PUBREC {code:#04x}")));
            }
            let latest_ms = stage.world.latest_ms();
            client.note(Event::Acknowledged { message, qos: 2, sent_ms, again, latest_ms });
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
