//! MQTT over WebSocket, as far as MQTT itself has rules for it.

use cluster_tests::conformance::{Case, Outcome, Site, case};
use cluster_tests::mqtt::{Client, Packet, Prop, connect, prop, publish};

use crate::messages::{SOON, message};

pub const CASES: &[Case] = &[
    case("a text frame ends the connection", text).v3(&["6.0.0-1"]).v5(&["6.0.0-1"]).only_websocket(),
    case("packets may share frames and span them", frames).v3(&["6.0.0-2"]).v5(&["6.0.0-2"]).only_websocket(),
    case("the subprotocol mqtt is chosen, and the broker's frames are binary", subprotocol)
        .v3(&["6.0.0-4", "6.0.0-3", "6.0.0-1"])
        .v5(&["6.0.0-4", "6.0.0-3", "6.0.0-1"])
        .only_websocket(),
];

fn text(at: &Site) -> Outcome {
    let mut client = at.client()?;
    client.send_text_frame("\u{c0}\0")?;
    client.ending(SOON)?;
    let mut client = at.open()?;
    client.send_text_frame("MQTT")?;
    client.ending(SOON)?;
    Ok(())
}

fn frames(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 0)?;
    let publish = publish(at.version, &message(&topic, "payload", 0, 0));
    let all = [&connect(&at.options())[..], &publish, &[0xc0, 0], &publish, &publish, &[0xc0, 0]].concat();
    // Each call of `send` is a frame.
    for size in [1, 2, 3, 7, 16, 64, all.len()] {
        let mut client = at.open()?;
        for chunk in all.chunks(size) {
            client.send(chunk)?;
        }
        client.await_connack()?;
        assert_eq!(client.packet(SOON)?, Packet::PingResp);
        assert_eq!(client.packet(SOON)?, Packet::PingResp);
        assert_eq!(at.received(&mut client, &mut subscriber)?.len(), 3, "in frames of {size} bytes");
    }
    Ok(())
}

fn subprotocol(at: &Site) -> Outcome {
    // The client here offers `mqtt`, insists on it in the answer and takes nothing but binary frames.
    let mut client = Client::connect(at.near(), &at.options().prop(prop::RECEIVE_MAXIMUM, Prop::U16(5)))?;
    client.publish(&at.topic(), "x", 2)?;
    client.ping()?;
    Ok(())
}
