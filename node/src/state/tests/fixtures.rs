//! Packs and snapshots as the first release writes them; see [`crate::fixture`].

use super::*;
use crate::auth::{Banned, Rules, User};
use crate::fixture::first_format;
use crate::sharing::Sharing;
use DeliveryStep::{Done, Received, Refused};

fn user() -> User {
    let password = "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc";
    User { password: Some(password.parse().expect("a hash")), scram: Some("scram".into()) }
}

/// Of every kind but the first, which is among the commands.
fn settings() -> Vec<(String, Change)> {
    let banned = |kind, value| Banned::parse(kind, value).expect("a ban");
    let rules = Rules(Arc::new(["allow user u publish qos=1 a/%c/#".parse().expect("a rule")]));
    let all = [
        Change::RemoveUser { name: "user".into() },
        Change::SetRules { rules, expected: Some(3) },
        Change::Ban { banned: banned("client", "c"), reason: "why".into(), for_ms: Some(9) },
        Change::Ban { banned: banned("user", "u"), reason: "".into(), for_ms: None },
        Change::Ban { banned: banned("address", "10.0.0.0/8"), reason: "".into(), for_ms: None },
        Change::LiftBan { banned: banned("address", "2001:db8::/32") },
    ];
    all.into_iter().enumerate().map(|(i, change)| (format!("{i}"), change)).collect()
}

/// One of every kind, in the order of kinds.
fn commands() -> Vec<Command> {
    let client: Arc<str> = "client".into();
    let filter: Box<str> = "$share/group/a/+".into();
    let info = NodeInfo {
        name: "n1".into(),
        peer_addr: "host:17883".into(),
        api_addr: "host:18083".into(),
        mqtt_addr: "host:1883".into(),
        ws_addr: "host:8083".into(),
        version: "0.1.0".into(),
        feature_level: 1,
        limits: NodeLimits::default(),
        sharing: Sharing::default(),
        server_reference: "mqtt.example:1883".into(),
        connections_max: 100_000,
    };
    let full = Message {
        properties: b"\x01\x01".as_slice().into(),
        expires_at_ms: 5_000,
        ..retained("a/b", "payload", 2)
    };
    let message = Arc::new(full);
    let will = Will { message: message.clone(), expiry_s: Some(60), delay_s: 5 };
    vec![
        Command::NodeUp { info },
        Command::NodeDown { node: 2, epoch: 3, term: 4 },
        Command::Tick { elapsed_ms: 250 },
        Command::Claim(Claim { will: Some(will), receive_maximum: 20, ..persistent("client") }),
        Command::Release {
            client: client.clone(),
            incarnation: 7,
            will: WillFate::Fire,
            expiry_s: Some(9),
            sent: Some(3),
        },
        Command::RouteAdd { filter: filter.clone() },
        Command::RouteRemove { filter: filter.clone() },
        Command::Subscribe {
            client: client.clone(),
            incarnation: 7,
            subscriptions: vec![sub("a/#", 1), Subscription { id: 300, ..sub("b", 2) }],
        },
        Command::Unsubscribe { client: client.clone(), incarnation: 7, filters: vec!["a/#".into()] },
        Command::Publish { message: message.clone(), exactly_once: Some((7, 65_535)), or_refuse: true },
        Command::Forget { client: client.clone(), incarnation: 7, packet_id: 65_535 },
        Command::Progress {
            client: client.clone(),
            incarnation: 7,
            steps: vec![(1, Received), (2, Done), (3, Refused)],
        },
        Command::Sweep { clients: vec![client.clone()], routes: vec!["x/#".into()] },
        Command::Farewell,
        Command::Part { bytes: bytes::Bytes::from_static(b"part"), last: false },
        Command::Replay { client, incarnation: 7 },
        Command::Raise { level: 1 },
        Command::WallClock { wall_ms: 1_800_000_000_000 },
        Command::SharedMembers { filter: filter.clone(), members: 12 },
        Command::Redeliver { filter: filter.clone(), message, moves: 1 },
        Command::Draw { filter, max: 64 },
        Command::Settings(Change::SetUser { name: "user".into(), user: user() }),
        Command::Drain { node: 2, drain: Some(Drain { rate_per_s: 1_000, for_good: true }) },
    ]
}

#[test]
fn packs_are_read_as_the_first_release_wrote_them() {
    let packs: Vec<(String, Pack)> = commands()
        .into_iter()
        .map(|command| {
            let name = format!("{command:?}");
            let name = name.split(['(', ' ']).next().unwrap_or_default().to_owned();
            (name, Pack { origin: 0x0123_4567_89ab_cdef, epoch: 2, seq: 300, commands: vec![command] })
        })
        .collect();
    let last = postcard::to_stdvec(&packs[packs.len() - 1].1.commands[0]).expect("encodable");
    assert_eq!(usize::from(last[0]) + 1, packs.len(), "a kind is missing");
    let now: Vec<_> = packs.iter().map(|(name, pack)| (name.clone(), pack.encode())).collect();
    for ((name, bytes), (_, pack)) in first_format("packs.hex", &now).iter().zip(packs) {
        assert_eq!(Pack::decode(bytes).as_ref(), Ok(&pack), "{name}");
    }
}

#[test]
fn changes_of_settings_are_read_as_the_first_release_wrote_them() {
    let now: Vec<_> = settings()
        .into_iter()
        .map(|(name, change)| (name, postcard::to_stdvec(&change).expect("encodable")))
        .collect();
    for ((name, bytes), (_, change)) in first_format("settings.hex", &now).iter().zip(settings()) {
        assert_eq!(postcard::from_bytes(bytes), Ok(change), "{name}");
    }
}

/// A state with something of everything that snapshots hold.
fn everything() -> State {
    let mut rig = Rig::new(3);
    rig.tick(1_000);
    rig.run(1, Command::Raise { level: 0 });
    rig.run(2, Command::WallClock { wall_ms: 1_800_000_000_000 });
    let will = Will { message: Arc::new(message("will", "gone", 1)), expiry_s: Some(60), delay_s: 5 };
    let (inc, _) = rig.claim(1, Claim { will: Some(will), receive_maximum: 2, ..persistent("c") });
    let subscriptions = [sub("a/+", 1), Subscription { id: 7, ..sub("b/#", 2) }, sub("$share/g/jobs", 1)];
    rig.subscribe(1, "c", inc, &subscriptions);
    rig.publish(2, retained("a/b", "kept", 1));
    rig.publish(2, Message { expires_at_ms: 90_000, ..retained("b/c", "kept for a while", 2) });
    for i in 0..3 {
        rig.publish(2, message("a/b", &i.to_string(), 1));
        rig.publish(2, message("jobs", &i.to_string(), 1));
    }
    rig.publish(2, message("b/d", "exactly once", 2));
    rig.progress(1, "c", inc, &[(0, Done), (1, Received)]);
    let exactly_once = Some((inc, 9));
    let own = Arc::new(Message { publisher: "c".into(), ..message("x", "own", 2) });
    rig.run(1, Command::Publish { message: own, exactly_once, or_refuse: false });
    rig.release(1, "c", inc, WillFate::Fire);
    rig.claim(2, clean("d"));
    rig.run(2, Command::RouteAdd { filter: "x/#".into() });
    rig.run(2, Command::RouteAdd { filter: "$share/g/x".into() });
    rig.run(2, Command::SharedMembers { filter: "$share/g/x".into(), members: 12 });
    rig.run(3, Command::Part { bytes: bytes::Bytes::from_static(b"half a command"), last: false });
    rig.claim(3, clean("e"));
    rig.run(1, Command::Settings(Change::SetUser { name: "user".into(), user: user() }));
    for (_, change) in settings().into_iter().skip(2) {
        rig.run(1, Command::Settings(change));
    }
    let rules = Rules(Arc::new(["allow user u publish qos=1 a/%c/#".parse().expect("a rule")]));
    rig.run(1, Command::Settings(Change::SetRules { rules, expected: None }));
    rig.run(1, Command::Drain { node: 2, drain: Some(Drain { rate_per_s: 500, for_good: false }) });
    rig.down(1, 3);
    rig.state
}

#[test]
fn a_snapshot_is_read_as_the_first_release_wrote_it() {
    let now = bytes(&everything());
    for (_, kept) in first_format("state.hex", &[("state".to_owned(), now)]) {
        let read = State::read(&mut kept.as_slice(), Arc::default()).expect("a snapshot");
        assert!(bytes(&read) == bytes(&everything()));
        let client = read.client("c").expect("the session");
        assert_eq!((client.subscriptions, client.dropped), (3, 0));
        assert_eq!(read.retained_get("a/b").map(|m| text(m)), Some("kept".to_owned()));
        assert_eq!(read.owner("d").map(|(node, ..)| node), Some(2));
    }
}
