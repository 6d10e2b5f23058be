//! Two replicas fed the same log agree, and so does one that was restored in between.

use proptest::prelude::*;

use super::parcels::Cupboard;
use super::*;
use crate::sharing;
use crate::state::limits::QueueLimits;

#[derive(Clone, Debug)]
enum Step {
    Up(sharing::Strategy),
    Down(NodeId),
    /// A duplicate of the pack before, or one out of sequence.
    Noise(u64),
    Commands(Vec<Draft>),
}

/// A command before the incarnation is known: `stale` takes a wrong one.
#[derive(Clone, Debug)]
enum Draft {
    Plain(Command),
    Session { client: u8, stale: bool, what: What },
}

#[derive(Clone, Debug)]
enum What {
    Release { fire: bool, expiry_s: Option<u32>, sent: Option<u64> },
    Subscribe(Vec<Subscription>),
    Unsubscribe(Vec<Box<str>>),
    Progress(Vec<(u64, DeliveryStep)>),
    ExactlyOnce(u16, Message),
    Forget(u16),
    Replay,
}

fn client_id(i: u8) -> String {
    format!("c{i}")
}

fn topic() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "a/b", "b/c", "$x/a"]).prop_map(str::to_owned)
}

fn filter() -> impl Strategy<Value = Box<str>> {
    let all = vec!["a", "a/b", "a/+", "#", "+/c", "$x/#", "$share/g/a", "$share/g/#", "$share/h/a"];
    prop::sample::select(all).prop_map(Box::from)
}

fn any_message() -> impl Strategy<Value = Message> {
    let expires = prop_oneof![4 => Just(0u64), 1 => 1..200_000u64];
    (topic(), "[xy]{0,3}", 0..3usize, any::<bool>(), expires, 0..6u8).prop_map(
        |(topic, payload, qos, retain, expires_at_ms, publisher)| Message {
            retain,
            expires_at_ms,
            publisher: client_id(publisher).into(),
            ..message(&topic, &payload, qos)
        },
    )
}

fn subscription() -> impl Strategy<Value = Subscription> {
    (filter(), 0..3usize, any::<bool>(), any::<bool>(), 0..3u8, 0..3u32).prop_map(
        |(filter, qos, no_local, retain_as_published, retain_handling, id)| {
            let options = SubOptions { qos: QOS[qos], no_local, retain_as_published, retain_handling };
            Subscription { filter, options, id }
        },
    )
}

fn any_claim() -> impl Strategy<Value = Command> {
    let will = (any_message(), prop::option::of(0..50u32), prop::sample::select(vec![0, 5, 500]))
        .prop_map(|(m, expiry_s, delay_s)| Will { message: Arc::new(m), expiry_s, delay_s });
    let expiry = prop::sample::select(vec![0, 0, 10, 100, u32::MAX]);
    (0..6u8, any::<bool>(), expiry, prop::option::of(will), 1..5u16).prop_map(
        |(client, clean_start, expiry_s, will, receive_maximum)| {
            let client = client_id(client).into();
            Command::Claim(Claim { client, clean_start, expiry_s, will, receive_maximum })
        },
    )
}

fn what() -> impl Strategy<Value = What> {
    let steps = [DeliveryStep::Received, DeliveryStep::Done, DeliveryStep::Done, DeliveryStep::Refused];
    let step = prop::sample::select(steps.to_vec());
    prop_oneof![
        (any::<bool>(), prop::option::of(0..20u32), prop::option::of(0..6u64))
            .prop_map(|(fire, expiry_s, sent)| What::Release { fire, expiry_s, sent }),
        prop::collection::vec(subscription(), 1..4).prop_map(What::Subscribe),
        prop::collection::vec(filter(), 1..3).prop_map(What::Unsubscribe),
        prop::collection::vec((0..8u64, step), 1..5).prop_map(What::Progress),
        (1..4u16, any_message()).prop_map(|(id, m)| What::ExactlyOnce(id, m)),
        (1..4u16).prop_map(What::Forget),
        Just(What::Replay),
    ]
}

fn draft() -> impl Strategy<Value = Draft> {
    let sweep = (prop::collection::vec(0..6u8, 0..4), prop::collection::vec(filter(), 0..3));
    prop_oneof![
        4 => any_claim().prop_map(Draft::Plain),
        6 => (0..6u8, prop::bool::weighted(0.1), what())
            .prop_map(|(client, stale, what)| Draft::Session { client, stale, what }),
        4 => any_message().prop_map(|m| {
            Draft::Plain(Command::Publish { message: Arc::new(m), exactly_once: None, or_refuse: false })
        }),
        1 => Just(Draft::Plain(Command::Part { bytes: "part".into(), last: false })),
        1 => filter().prop_map(|filter| Draft::Plain(Command::RouteAdd { filter })),
        1 => filter().prop_map(|filter| Draft::Plain(Command::RouteRemove { filter })),
        1 => (filter(), 0..5u32)
            .prop_map(|(filter, members)| Draft::Plain(Command::SharedMembers { filter, members })),
        1 => (filter(), 0..3u32).prop_map(|(filter, max)| Draft::Plain(Command::Draw { filter, max })),
        1 => (filter(), any_message(), 0..11u8).prop_map(|(filter, m, moves)| {
            Draft::Plain(Command::Redeliver { filter, message: Arc::new(m), moves })
        }),
        1 => (0..20_000u64).prop_map(|elapsed_ms| Draft::Plain(Command::Tick { elapsed_ms })),
        1 => sweep.prop_map(|(clients, routes)| {
            let clients = clients.into_iter().map(|c| client_id(c).into()).collect();
            Draft::Plain(Command::Sweep { clients, routes })
        }),
    ]
}

fn step() -> impl Strategy<Value = (NodeId, Step)> {
    let step = prop_oneof![
        1 => prop::sample::select(&sharing::Strategy::ALL[..]).prop_map(Step::Up),
        1 => (1..4u64).prop_map(Step::Down),
        1 => (0..3u64).prop_map(Step::Noise),
        12 => prop::collection::vec(draft(), 1..8).prop_map(Step::Commands),
    ];
    (1..4u64, step)
}

fn command(draft: Draft, state: &State) -> Command {
    let (client, stale, what) = match draft {
        Draft::Plain(command) => return command,
        Draft::Session { client, stale, what } => (client_id(client), stale, what),
    };
    let present = state.client(&client).map_or(0, |c| c.incarnation);
    let incarnation = if stale { present ^ 1 } else { present };
    let client: Arc<str> = client.into();
    match what {
        What::Release { fire, expiry_s, sent } => {
            let will = if fire { WillFate::Fire } else { WillFate::Discard };
            Command::Release { client, incarnation, will, expiry_s, sent }
        }
        What::Subscribe(subscriptions) => Command::Subscribe { client, incarnation, subscriptions },
        What::Unsubscribe(filters) => Command::Unsubscribe { client, incarnation, filters },
        What::Progress(steps) => {
            let head = state.queue_head(&client).unwrap_or(0);
            let steps = steps.into_iter().map(|(s, d)| (head + s, d)).collect();
            Command::Progress { client, incarnation, steps }
        }
        What::ExactlyOnce(id, message) => {
            let message = Arc::new(Message { publisher: client.as_ref().into(), ..message });
            Command::Publish { message, exactly_once: Some((incarnation, id)), or_refuse: false }
        }
        What::Forget(packet_id) => Command::Forget { client, incarnation, packet_id },
        What::Replay => Command::Replay { client, incarnation },
    }
}

/// Everything the queries say that is derived and so not in the snapshot.
fn derived(state: &State) -> String {
    let mut seen = format!("{:?}", state.counts());
    for topic in ["a", "a/b", "b/c", "$x/a"] {
        for qos in QOS {
            let mut out = PublishMatch::default();
            state.match_publish(topic, "c1", qos, &mut out);
            seen += &format!("{:?} {:?} {:?};", out.must_log, out.nodes, out.shared);
        }
    }
    let mut due = state.due(state.clock_ms(), &mut SweepCursor::default(), 100);
    due.clients.sort();
    due.routes.sort();
    seen += &format!("{due:?} {:?}", state.waiting_shared(100));
    for filter in ["$share/g/a", "$share/g/#", "$share/h/a"] {
        seen += &format!("{:?}", state.shared_nodes(filter, QoS::AtMostOnce));
    }
    seen + &format!("{:?}", state.clients(None, 100))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn replicas_agree_with_or_without_a_restore(
        steps in prop::collection::vec((step(), prop::bool::weighted(0.2)), 1..40),
    ) {
        let mut rig = Rig::new(2);
        // Where so little is queued, retained messages often wait.
        let queue = QueueLimits { messages: 3, ..QueueLimits::default() };
        rig.up_with(3, NodeLimits { queue, ..NodeLimits::default() });
        // It holds nothing in memory between two commands.
        let stock = Arc::new(Stock::on(Arc::new(Cupboard), 0));
        let read = |bytes: &[u8]| State::read(&mut &*bytes, Arc::clone(&stock)).expect("a snapshot");
        let mut twin = read(&bytes(&rig.state));
        let mut last: Option<Pack> = None;
        for ((node, step), restore) in steps {
            let pack = match step {
                Step::Up(strategy) => {
                    let epoch = rig.epoch(node) + 1;
                    rig.origins.insert(node, (epoch, 1));
                    let sharing = sharing::Sharing { strategy, ..Default::default() };
                    let info = NodeInfo { sharing, ..NodeInfo::default() };
                    Pack { origin: node, epoch, seq: 0, commands: vec![Command::NodeUp { info }] }
                }
                Step::Down(other) => {
                    let epoch = rig.epoch(other);
                    rig.pack(node, vec![Command::NodeDown { node: other, epoch, term: TERM }])
                }
                Step::Noise(ahead) => match last.clone() {
                    Some(pack) => Pack { seq: pack.seq + if ahead == 1 { 2 } else { 0 }, ..pack },
                    None => continue,
                },
                Step::Commands(drafts) => {
                    let commands = drafts.into_iter().map(|d| command(d, &rig.state)).collect();
                    rig.pack(node, commands)
                }
            };
            let outcomes = rig.apply(&pack);
            let mut effects = Vec::new();
            stock.put_away(stock.take_surplus()).expect("a cupboard takes everything");
            let copy = Pack::decode(&pack.encode()).expect("what was encoded");
            let frozen = twin.freeze();
            let before = bytes(&twin);
            prop_assert_eq!(twin.apply(rig.index, TERM, &copy, &mut effects), Ok(outcomes));
            prop_assert_eq!(&effects, &rig.effects);
            let mut still = Vec::new();
            frozen.write(&mut still).expect("a Vec takes everything");
            prop_assert!(still == before, "a frozen state changed");
            if restore {
                twin = read(&bytes(&twin));
            }
            prop_assert!(bytes(&twin) == bytes(&rig.state), "snapshots differ");
            prop_assert_eq!(derived(&twin), derived(&rig.state));
            last = Some(pack);
        }
    }
}

fn sample() -> State {
    let mut rig = Rig::new(2);
    let (inc, _) = rig.claim(1, Claim { will: will("w", 9), ..persistent("c") });
    rig.subscribe(1, "c", inc, &[sub("a/+", 1), sub("$share/g/a", 2)]);
    rig.publish(1, retained("a/b", "kept", 1));
    rig.claim(2, clean("d"));
    rig.run(2, Command::RouteAdd { filter: "x/#".into() });
    rig.state
}

#[test]
fn a_message_in_many_queues_is_written_once() {
    let mut rig = Rig::new(1);
    for i in 0..100 {
        let (inc, _) = rig.claim(1, persistent(&format!("c{i}")));
        rig.subscribe(1, &format!("c{i}"), inc, &[sub("a", 1)]);
    }
    let before = bytes(&rig.state).len();
    rig.publish(1, message("a", &"x".repeat(10_000), 1));
    assert!(bytes(&rig.state).len() < before + 12_000);
}

#[test]
fn every_damaged_byte_of_a_snapshot_is_noticed() {
    let good = bytes(&sample());
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(State::read(&mut bad.as_slice(), Arc::default()).is_err(), "byte {at}");
    }
}

#[test]
fn a_snapshot_cut_short_is_an_error() {
    let good = bytes(&sample());
    for len in 0..good.len() {
        assert!(State::read(&mut &good[..len], Arc::default()).is_err(), "{len} bytes");
    }
}

#[test]
fn a_newer_snapshot_format_is_named() {
    let mut newer = bytes(&sample());
    newer[8] = 2;
    let error = State::read(&mut newer.as_slice(), Arc::default()).expect_err("newer");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[test]
fn a_snapshot_is_read_to_its_end_and_not_beyond() {
    let mut more = bytes(&sample());
    more.extend(b"next");
    let mut from = more.as_slice();
    State::read(&mut from, Arc::default()).expect("a snapshot");
    assert_eq!(from, b"next");
}

/// A snapshot with its records of this kind twice; each must hold one item.
fn doubled(snapshot: &[u8], kind: u8) -> Vec<u8> {
    const HEAD: usize = 12;
    const END: u8 = 255;
    let mut out = snapshot[..HEAD].to_vec();
    let mut rest = &snapshot[HEAD..];
    let mut added = 0;
    while let Some((head, after)) = rest.split_first_chunk::<9>() {
        let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = after[..len].to_vec();
        rest = &after[len..];
        let twice = head[0] == kind;
        added += u64::from(twice);
        if head[0] == END {
            let (items, _) = postcard::take_from_bytes::<u64>(&body).expect("a count");
            body = postcard::to_stdvec(&(items + added)).expect("encodable");
        }
        let mut record = head[..5].to_vec();
        record[1..].copy_from_slice(&(body.len() as u32).to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&record), &body);
        record.extend_from_slice(&checksum.to_le_bytes());
        record.extend_from_slice(&body);
        out.extend_from_slice(&record.repeat(1 + usize::from(twice)));
    }
    assert_eq!(added, 1);
    out
}

#[test]
fn a_snapshot_that_says_something_twice_is_an_error() {
    const NODES: u8 = 2;
    const CLAIM: u8 = 6;
    let mut rig = Rig::new(2);
    rig.claim(2, persistent("c"));
    let good = bytes(&rig.state);
    for (kind, what) in [(NODES, "twice what nodes"), (CLAIM, "a client id twice")] {
        let error = State::read(&mut doubled(&good, kind).as_slice(), Arc::default()).expect_err(what);
        assert!(error.to_string().contains(what), "{error}");
    }
}
