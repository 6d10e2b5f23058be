//! `rookery mqtt …`: enough of a client to try a broker out and to check that it works.

mod session;
pub mod wire;

#[cfg(test)]
mod tests;

use std::io::Read as _;
use std::time::Duration;

use serde::Serialize;

use super::args::{Format, MqttArgs, MqttCommand};
use super::exit::{Exit, Failure};
use super::out;
use super::serve::stop_signal;
use crate::mqtt::{Message, QoS, topic};
use session::{Delivery, Session};

/// Largest message read from stdin, bytes: what one packet can carry.
const MAX_STDIN_BYTES: u64 = 268_435_455;

pub async fn run(command: MqttCommand, format: Format) -> Result<(), Failure> {
    match command {
        MqttCommand::Pub { connection, topic, message, retain } => {
            topic::valid_name(&topic, usize::MAX)
                .map_err(|e| Failure::new(Exit::Usage, format!("{topic:?}: {}", e.what())))?;
            let payload = match message {
                Some(text) => text.into_bytes(),
                None => read_stdin()?,
            };
            let message = Message {
                topic: topic.into(),
                payload: payload.into(),
                properties: Box::default(),
                qos: qos(&connection),
                retain,
                expires_at_ms: 0,
                publisher: "".into(),
            };
            let mut session = Session::connect(&connection).await?;
            session.publish(&message.borrow()).await?;
            session.disconnect().await
        }
        MqttCommand::Sub { connection, filters, count, within } => {
            for filter in &filters {
                topic::valid_filter(filter, usize::MAX)
                    .map_err(|e| Failure::new(Exit::Usage, format!("{filter:?}: {}", e.what())))?;
            }
            let stop = stop_signal()?;
            let mut session = Session::connect(&connection).await?;
            session.subscribe(&filters, qos(&connection)).await?;
            out::say("subscribed");
            let result = tokio::select! {
                result = print_messages(&mut session, count, format) => result,
                () = stop => Ok(()),
                () = after(within) => Err(Failure::new(Exit::Timeout, "the messages did not come in time")),
            };
            // What went wrong before is what there is to tell.
            let goodbye = session.disconnect().await;
            result.and(goodbye)
        }
    }
}

async fn after(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

async fn print_messages(session: &mut Session, count: Option<u64>, format: Format) -> Result<(), Failure> {
    let mut left = count;
    while left != Some(0) {
        let delivery = session.next_message().await?;
        print(&delivery, format)?;
        left = left.map(|left| left - 1);
    }
    Ok(())
}

fn qos(args: &MqttArgs) -> QoS {
    QoS::from_u8(args.qos).unwrap_or_default()
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut payload = Vec::new();
    std::io::stdin().lock().take(MAX_STDIN_BYTES).read_to_end(&mut payload)?;
    Ok(payload)
}

/// A message as JSON. A payload is either text or, in hexadecimal, anything.
#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
    qos: u8,
    retain: bool,
    dup: bool,
}

fn print(delivery: &Delivery, format: Format) -> Result<(), Failure> {
    let message = &delivery.message;
    let text = std::str::from_utf8(&message.payload).ok();
    let line = Line {
        topic: &message.topic,
        payload: text,
        payload_hex: text.is_none().then(|| message.payload.iter().map(|b| format!("{b:02x}")).collect()),
        qos: message.qos as u8,
        retain: message.retain,
        dup: delivery.dup,
    };
    out::show(format, &line, |line| {
        let payload = String::from_utf8_lossy(&message.payload);
        format!("{} {}\n", out::escaped(line.topic), out::escaped(&payload))
    })
}
