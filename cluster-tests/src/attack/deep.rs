//! Topics, filters, properties and names as large as the wire format lets them be.

use super::Plan;
use crate::mqtt::{Client, Error, Options, Prop, Props, Publish, Version, prop, publish, subscribe};
use std::time::Duration;

const ENDS: Duration = Duration::from_secs(15);
const TOPIC_NAME_INVALID: u8 = 0x90;
const TOPIC_FILTER_INVALID: u8 = 0x8f;

/// Levels of the deepest topic: every byte a separator.
pub const DEEPEST: usize = 65_535;

/// A topic of empty levels.
pub fn deepest() -> String {
    "/".repeat(DEEPEST - 1)
}

/// Topics and filters beyond the bound are refused with a reason.
///
/// # Panics
/// When they are not.
pub fn refused(plan: &Plan) {
    let topic = deepest();
    let mut client =
        Client::connect(plan.mqtt, &Options::v5(&crate::fresh("attack-deep"))).expect("connects");
    let codes = client.subscribe(&[(&topic, 0), ("attack/shallow", 0)]).expect("an answer");
    assert_eq!(codes, [TOPIC_FILTER_INVALID, 0]);
    let message =
        Publish { topic, payload: vec![], qos: 0, retain: false, dup: false, id: 0, props: Props::default() };
    client.send_publish(&message).expect("sent");
    let ended = client.ending(ENDS);
    assert!(matches!(ended, Ok(Error::Disconnected(TOPIC_NAME_INVALID))), "{ended:?}");

    let mut long = Client::open(plan.mqtt, Version::V5).expect("opens");
    long.send(&crate::mqtt::connect(&Options::v5(&"i".repeat(65_535)))).expect("sent");
    let ended = long.ending(ENDS);
    assert!(matches!(ended, Ok(Error::Refused(0x85))), "a client id of 64 KiB: {ended:?}");
}

/// The most that `max_user_properties` can allow.
pub const USER_PROPERTIES: usize = 65_535;

/// As many user properties as a node can be told to allow, back to the sender.
///
/// # Panics
/// When they do not come back.
pub fn properties(plan: &Plan) {
    let mut client =
        Client::connect(plan.mqtt, &Options::v5(&crate::fresh("attack-props"))).expect("connects");
    let pair = (prop::USER_PROPERTY, Prop::Pair(String::new(), String::new()));
    for _ in 0..plan.size(3, 30) {
        let topic = crate::fresh("attack/props");
        client.subscribe(&[(&topic, 0)]).expect("an answer");
        let props = Props(vec![pair.clone(); USER_PROPERTIES]);
        client.publish_with(&topic, "", 1, false, props).expect("acknowledged");
        let back = client.recv(ENDS).expect("it comes back");
        assert_eq!(back.props.0.len(), USER_PROPERTIES);
    }
}

/// Filters whose branches multiply at every level, and publishes that follow all of them.
///
/// # Panics
/// When a publish does not arrive.
pub fn branches(plan: &Plan) {
    let levels = plan.size(10, 12);
    let mut client =
        Client::connect(plan.mqtt, &Options::v5(&crate::fresh("attack-wide"))).expect("connects");
    let mut filters: Vec<String> = (0..1_usize << levels)
        .map(|bits| {
            let level = |at: usize| if bits >> at & 1 == 1 { "+" } else { "a" };
            let mut all: Vec<&str> = (0..levels).map(level).collect();
            all[0] = "attack";
            all.join("/")
        })
        .collect();
    filters.extend((1..120).map(|depth| format!("attack/{}#", "+/".repeat(depth))));
    for some in filters.chunks(500) {
        let asked: Vec<(&str, u8)> = some.iter().map(|f| (f.as_str(), 0)).collect();
        client.send(&subscribe(Version::V5, 9, &asked, &Props::default())).expect("sent");
        client.await_suback(9).expect("an answer to SUBSCRIBE");
    }
    let topic = format!("attack/{}", vec!["a"; levels - 1].join("/"));
    let deep = format!("attack/{}", vec!["a"; 127].join("/"));
    let message = |topic: &str| Publish {
        topic: topic.into(),
        payload: b"x".to_vec(),
        qos: 0,
        retain: false,
        dup: false,
        id: 0,
        props: Props::default(),
    };
    let both = [publish(Version::V5, &message(&topic)), publish(Version::V5, &message(&deep))].concat();
    let pairs_per_burst = 100;
    let burst = both.repeat(pairs_per_burst);
    for _ in 0..plan.size(20, 400) {
        client.send(&burst).expect("sent");
        for _ in 0..2 * pairs_per_burst {
            client.recv(ENDS).expect("one copy of each");
        }
    }
    drop(client);
}
