//! A client with a will, which ends its connections in every way there is. Each connection has a
//! will of its own.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::cast::topic_of;
use super::{Phase, Stage};
use crate::mqtt::{Options, Prop, Will, prop};
use crate::sim::client::{Client, Parting};
use crate::sim::history::{MessageId, Testament};

/// So that the broker notices within three seconds when nothing is heard of it any more.
const KEEP_ALIVE_S: u16 = 2;

/// Dies until the faults end.
pub async fn run(name: &'static str, mut stage: Stage) -> turmoil::Result {
    stage.begin().await;
    let mut number = 0;
    while stage.phases.now() == Phase::Faults {
        let message = MessageId { publisher: name, number };
        number += 1;
        let (options, delay_s) = life(name, message, &mut stage);
        let will = Testament { message, delay_ms: u64::from(delay_s) * 1000 };
        let node = stage.any_node();
        if let Some(mut client) = Client::connect(name, node, &options, Some(will), &stage).await {
            let how = live(&mut client, &mut stage).await;
            client.end(how).await;
            // Sometimes before a delayed will is due, sometimes after.
            stage.pause(10, if delay_s > 0 { 4_000 } else { 800 }).await;
        } else {
            stage.pause(50, 500).await;
        }
    }
    stage.finish();
    Ok(())
}

/// A connection's session and will, and the will's effective delay in seconds.
fn life(name: &'static str, message: MessageId, stage: &mut Stage) -> (Options, u32) {
    let mut will = Will::new(&topic_of(name), &message.to_string(), 2);
    let options = Options::v5(name).keep_alive_s(KEEP_ALIVE_S);
    if stage.rng.chance(40) {
        // Whatever the delay, the will of a session that ends is due.
        will.delay_s = stage.rng.between(0, 2) as u32 * 3;
        return (options.will(will), 0);
    }
    let expiry_s = stage.rng.between(1, 6) as u32;
    will.delay_s = stage.rng.between(0, 4) as u32;
    let delay_s = will.delay_s.min(expiry_s);
    let mut options = options.will(will).prop(prop::SESSION_EXPIRY_S, Prop::U32(expiry_s));
    options.clean_start = stage.rng.chance(10);
    (options, delay_s)
}

async fn live(client: &mut Client, stage: &mut Stage) -> io::Result<Parting> {
    let parting = match stage.rng.between(0, 10) {
        0..3 => Parting::Polite,
        3 => Parting::WithWill,
        _ => Parting::Abrupt,
    };
    let end_at = Instant::now() + Duration::from_millis(stage.rng.between(20, 3_000));
    while stage.phases.now() == Phase::Faults && Instant::now() < end_at {
        if let Some(packet) = client.packet(Duration::from_millis(50)).await? {
            return Err(io::Error::other(format!("{packet:?} without a subscription")));
        }
    }
    Ok(parting)
}
