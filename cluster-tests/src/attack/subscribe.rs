//! One client with very many subscriptions.

use std::time::Duration;

use super::Plan;
use crate::mqtt::{Client, Options, Packet, Props, Version, subscribe};
use crate::wait::eventually;

/// Filters of one SUBSCRIBE.
const PER_PACKET: usize = 1_000;
/// A broker that bounds the subscriptions of a client says so.
const QUOTA_EXCEEDED: u8 = 0x97;
const ANSWERS: Duration = Duration::from_secs(60);
/// For all of them to be removed, everywhere.
const REMOVED: Duration = Duration::from_secs(120);
/// SUBSCRIBEs whose answers are not awaited one by one.
const AHEAD: usize = 8;

/// How the client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its clean session ends with the connection.
    Clean,
    /// Its persistent session is ended by the next connection.
    Persistent,
    /// It takes back every subscription first.
    Unsubscribes,
}

/// Distinct filters: exact ones, and such with wildcards at different levels.
fn filter(i: usize) -> String {
    match i % 4 {
        0 | 1 => format!("attack/exact/{i}"),
        2 => format!("attack/{i}/+/wild"),
        _ => format!("attack/deep/{i}/#"),
    }
}

/// Subscribes to `count` filters and goes; how many were granted.
///
/// # Panics
/// When something remains of them.
pub fn run(plan: &Plan, count: usize, end: End) -> usize {
    let routes = plan.metric("rookery_routes");
    let sessions = plan.metric("rookery_persistent_sessions");
    let id = crate::fresh("attack-subs");
    let options = Options::v5(&id);
    let options = if end == End::Persistent { options.persistent() } else { options };
    let mut client = Client::connect(plan.mqtt, &options).expect("connects");
    let filters: Vec<String> = (0..count).map(filter).collect();
    let packets: Vec<&[String]> = filters.chunks(PER_PACKET).collect();
    let mut granted = 0;
    for ahead in packets.chunks(AHEAD) {
        for packet in ahead {
            let asked: Vec<(&str, u8)> = packet.iter().map(|f| (f.as_str(), 1)).collect();
            let id = client.take_id();
            client.send(&subscribe(Version::V5, id, &asked, &Props::default())).expect("sent");
        }
        for _ in ahead {
            // Their order is not promised.
            let codes = match client.packet(ANSWERS) {
                Ok(Packet::SubAck { codes, .. }) => codes,
                other => panic!("{other:?} for a SUBACK"),
            };
            granted += codes.iter().filter(|code| **code < 0x80).count();
            let refused = codes.iter().find(|code| **code >= 0x80 && **code != QUOTA_EXCEEDED);
            assert_eq!(refused, None, "a filter was refused");
        }
    }
    assert!(granted > 0, "no subscription was granted");
    match end {
        End::Clean => drop(client),
        End::Persistent => {
            drop(client);
            let again = Client::connect(plan.mqtt, &Options::v5(&id)).expect("ends its session");
            again.disconnect().expect("leaves");
        }
        End::Unsubscribes => {
            for packet in packets {
                let asked: Vec<&str> = packet.iter().map(String::as_str).collect();
                client.unsubscribe(&asked).expect("an answer to UNSUBSCRIBE");
            }
            client.disconnect().expect("leaves");
        }
    }
    eventually("every route is withdrawn", REMOVED, || {
        let left = plan.metric("rookery_routes") <= routes + 1.0;
        (left && plan.metric("rookery_persistent_sessions") <= sessions).then_some(())
    });
    granted
}
