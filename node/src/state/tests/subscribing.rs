//! Subscriptions of persistent sessions, and the retained messages they bring.

use super::*;

fn subscribe(client: &str, incarnation: Incarnation, subscriptions: Vec<Subscription>) -> Command {
    Command::Subscribe { client: client.into(), incarnation, subscriptions }
}

#[test]
fn subscribe_says_which_are_new_and_replaces_the_others() {
    let mut rig = Rig::new(1);
    let (inc, _) = rig.claim(1, persistent("c"));
    let outcome = rig.run(1, subscribe("c", inc, vec![sub("a", 1), sub("b", 1), sub("a", 2)]));
    assert_eq!(outcome, Outcome::Subscribed { added: vec![Added::New, Added::New, Added::Replaced] });
    rig.run(1, subscribe("c", inc, vec![sub("b", 0)]));
    rig.publish(1, message("a", "1", 2));
    assert_eq!(rig.publish(1, message("b", "2", 2)), 0, "replaced by QoS 0");
    assert_eq!(rig.stored("c").iter().map(|s| s.qos).collect::<Vec<_>>(), [QoS::ExactlyOnce]);
}

#[test]
fn unsubscribe_says_which_existed() {
    let mut rig = Rig::new(1);
    let (inc, _) = rig.claim(1, persistent("c"));
    rig.subscribe(1, "c", inc, &[sub("a/+", 1), sub("$share/g/a/b", 1)]);
    let filters = vec!["a/+".into(), "x".into(), "$share/g/a/b".into()];
    let outcome = rig.run(1, Command::Unsubscribe { client: "c".into(), incarnation: inc, filters });
    assert_eq!(outcome, Outcome::Unsubscribed { existed: vec![true, false, true] });
    assert_eq!(rig.publish(1, message("a/b", "1", 1)), 0);
}

#[test]
fn commands_of_a_superseded_incarnation_are_stale() {
    let mut rig = Rig::new(1);
    let (old, _) = rig.claim(1, persistent("c"));
    rig.claim(1, persistent("c"));
    let client: Arc<str> = "c".into();
    let commands = vec![
        subscribe("c", old, vec![sub("a", 1)]),
        Command::Unsubscribe { client: client.clone(), incarnation: old, filters: vec![] },
        Command::Progress { client: client.clone(), incarnation: old, steps: vec![] },
        Command::Forget { client: client.clone(), incarnation: old, packet_id: 1 },
        Command::Publish {
            message: Arc::new(Message { publisher: "c".into(), ..message("a", "1", 2) }),
            exactly_once: Some((old, 1)),
            or_refuse: false,
        },
        subscribe("nobody", old, vec![sub("a", 1)]),
    ];
    for command in commands {
        assert_eq!(rig.run(1, command), Outcome::Stale);
        assert!(rig.effects.is_empty());
    }
    assert!(rig.state.subscriptions("c").is_empty());
}

#[test]
fn a_new_subscription_queues_the_retained_messages_in_topic_order() {
    let mut rig = Rig::new(1);
    for (topic, qos) in [("a/z", 1), ("a/b", 2), ("a/q", 0), ("b", 1)] {
        rig.publish(1, retained(topic, topic, qos));
    }
    let (inc, _) = rig.claim(1, persistent("c"));
    rig.subscribe(1, "c", inc, &[Subscription { id: 5, ..sub("a/+", 1) }]);
    assert_eq!(rig.woken(), ["c"]);
    let stored = rig.stored("c");
    let seen: Vec<_> = stored.iter().map(|s| (&*s.message.topic, s.seq, s.retain, s.dup)).collect();
    assert_eq!(seen, [("a/b", 0, true, false), ("a/z", 1, true, false)]);
    assert!(stored.iter().all(|s| s.qos == QoS::AtLeastOnce && s.subscription_ids == [5]));
    assert_eq!(rig.retained("a/+"), ["a/b", "a/q", "a/z"]);
    assert_eq!(
        rig.handed_over(),
        [("c".into(), 5, vec!["a/q".into()])],
        "the QoS 0 one is the broker's to send"
    );
}

#[test]
fn retained_messages_at_qos_0_are_those_of_the_moment_of_the_subscription() {
    let mut rig = Rig::new(1);
    for topic in ["a", "b"] {
        rig.publish(1, retained(topic, "old", 1));
    }
    let (inc, _) = rig.claim(1, persistent("c"));
    let publish = |topic, payload| {
        let message = Arc::new(retained(topic, payload, 1));
        Command::Publish { message, exactly_once: None, or_refuse: false }
    };
    // All in one entry of the log.
    let commands = vec![
        publish("a", "before"),
        publish("b", "before"),
        subscribe("c", inc, vec![sub("+", 0)]),
        publish("a", "after"),
        publish("d", "after"),
    ];
    let pack = rig.pack(1, commands);
    rig.apply(&pack);
    let live: Vec<_> = rig
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Deliver { message, online } if !online.is_empty() => Some(text(message)),
            _ => None,
        })
        .collect();
    assert_eq!(live, ["after", "after"]);
    // What "after" has replaced is not sent once more, nor what came later.
    assert_eq!(rig.handed_over(), [("c".into(), 0, vec!["b".into()])]);
}

#[test]
fn retain_handling_decides_what_a_repeated_subscription_gets() {
    for (retain_handling, queued) in [(0, 2), (1, 1), (2, 0)] {
        let mut rig = Rig::new(1);
        rig.publish(1, retained("a", "x", 1));
        let (inc, _) = rig.claim(1, persistent("c"));
        let mut s = sub("a", 1);
        s.options.retain_handling = retain_handling;
        rig.subscribe(1, "c", inc, &[s.clone()]);
        rig.subscribe(1, "c", inc, &[s]);
        assert_eq!(rig.stored("c").len(), queued, "retain handling {retain_handling}");
    }
}

#[test]
fn shared_and_expired_and_own_messages_are_not_retained_for_a_subscriber() {
    let mut rig = Rig::new(1);
    rig.publish(1, Message { publisher: "c".into(), ..retained("a", "own", 1) });
    rig.publish(1, Message { expires_at_ms: 10, ..retained("b", "old", 1) });
    rig.tick(10);
    let (inc, _) = rig.claim(1, persistent("c"));
    let mut no_local = sub("+", 1);
    no_local.options.no_local = true;
    rig.subscribe(1, "c", inc, &[no_local, sub("$share/g/a", 1)]);
    assert!(rig.stored("c").is_empty());
    let mut at_qos_0 = sub("+", 0);
    at_qos_0.options.no_local = true;
    rig.subscribe(1, "c", inc, &[at_qos_0, sub("$share/g/a", 0)]);
    assert!(rig.handed_over().is_empty());
}

#[test]
fn an_empty_retained_payload_clears_and_is_delivered() {
    let mut rig = Rig::new(1);
    let (inc, _) = rig.claim(1, persistent("c"));
    rig.publish(1, retained("a", "x", 1));
    assert!(rig.state.retained_get("a").is_some());
    rig.subscribe(1, "c", inc, &[sub("a", 1)]);
    assert_eq!(rig.publish(1, retained("a", "", 1)), 1);
    assert!(rig.state.retained_get("a").is_none());
    assert_eq!(rig.payloads("c"), ["x", ""]);
}
