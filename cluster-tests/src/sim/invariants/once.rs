//! **QoS 2 is delivered once.**
//!
//! What was published at QoS 2, by a client that goes on with its handshakes where they were, comes
//! to a QoS 2 subscription once, counted as the standard's receiver counts [MQTT-4.3.3-10]. A
//! broker that forgets a packet id it received, or gives a delivery another packet id after a
//! failover, delivers twice.

use std::collections::BTreeMap;

use crate::sim::actors;
use crate::sim::history::Log;

pub fn check(log: &Log) -> Vec<String> {
    let mut found = Vec::new();
    for (client, _) in actors::sessions().filter(|(_, qos)| *qos == 2) {
        let mut seen = BTreeMap::new();
        for (entry, message) in log.deliveries(client) {
            if !actors::QOS2_PUBLISHERS.contains(&message.publisher.as_str()) {
                continue;
            }
            if let Some(before_ms) = seen.insert(message, entry.at_ms) {
                found.push(format!(
                    "{client} got {message} at {before_ms} ms and again at {} ms",
                    entry.at_ms
                ));
            }
        }
    }
    found
}
