//! Who gets a message that goes through the log, and which messages must.

use std::collections::BTreeMap;

use super::*;

/// A connected persistent session on node 1 with these subscriptions.
fn subscribed(rig: &mut Rig, node: NodeId, client: &str, subs: &[Subscription]) -> Incarnation {
    let (inc, _) = rig.claim(node, persistent(client));
    rig.subscribe(node, client, inc, subs);
    inc
}

fn with_id(id: u32, s: Subscription) -> Subscription {
    Subscription { id, ..s }
}

#[test]
fn effective_qos_is_the_lower_of_publish_and_subscription() {
    for published in 0..3 {
        for granted in 0..3 {
            let mut rig = Rig::new(1);
            subscribed(&mut rig, 1, "c", &[sub("a", granted)]);
            let effective = published.min(granted);
            let matched = rig.publish(1, message("a", "x", published));
            assert_eq!(matched, u32::from(effective > 0));
            let qos: Vec<_> = rig.stored("c").iter().map(|s| s.qos).collect();
            assert_eq!(qos, if effective > 0 { vec![QOS[effective]] } else { vec![] });
            assert_eq!(rig.delivered(), ["a"], "always, for clean subscribers");
        }
    }
}

#[test]
fn overlapping_subscriptions_give_one_copy_with_the_highest_qos_and_all_ids() {
    let mut rig = Rig::new(1);
    let subs = [with_id(9, sub("a/#", 1)), with_id(3, sub("a/b", 2)), sub("+/b", 0), with_id(4, sub("x", 2))];
    subscribed(&mut rig, 1, "c", &subs);
    assert_eq!(rig.publish(1, message("a/b", "x", 2)), 1);
    let stored = rig.stored("c");
    assert_eq!(stored.len(), 1);
    assert_eq!((stored[0].qos, &stored[0].subscription_ids[..]), (QoS::ExactlyOnce, &[3, 9][..]));
    assert_eq!(rig.woken(), ["c"]);
}

#[test]
fn no_local_keeps_a_publishers_message_from_itself() {
    let mut rig = Rig::new(1);
    let mut s = sub("a", 1);
    s.options.no_local = true;
    for client in ["publisher", "other"] {
        subscribed(&mut rig, 1, client, &[s.clone()]);
    }
    assert_eq!(rig.publish(1, message("a", "x", 1)), 1);
    assert!(rig.stored("publisher").is_empty());
    // The publishing node's question has the same answer.
    assert!(matched(&rig.state, "a", 1).must_log);
    rig.claim(1, Claim { clean_start: true, ..clean("other") });
    assert!(!matched(&rig.state, "a", 1).must_log);
}

#[test]
fn retain_is_kept_as_published_only_if_asked_for() {
    let mut rig = Rig::new(1);
    let mut s = sub("a", 1);
    subscribed(&mut rig, 1, "plain", &[s.clone()]);
    s.options.retain_as_published = true;
    subscribed(&mut rig, 1, "asked", &[s]);
    rig.publish(1, message("a", "1", 1));
    rig.publish(1, retained("a", "2", 1));
    let flags = |c| rig.stored(c).iter().map(|s| s.retain).collect::<Vec<_>>();
    assert_eq!((flags("plain"), flags("asked")), (vec![false, false], vec![false, true]));
}

#[test]
fn offline_sessions_queue_without_a_wake() {
    let mut rig = Rig::new(2);
    let inc = subscribed(&mut rig, 1, "released", &[sub("a", 1)]);
    subscribed(&mut rig, 2, "lost", &[sub("a", 1)]);
    rig.release(1, "released", inc, WillFate::Discard);
    rig.down(1, 2);
    assert_eq!(rig.publish(1, message("a", "x", 1)), 2);
    assert!(rig.woken().is_empty());
    assert!(rig.stored("lost").is_empty(), "nothing is reserved without an owner");
    for client in ["released", "lost"] {
        rig.claim(1, persistent(client));
        assert_eq!(rig.payloads(client), ["x"]);
    }
}

// QoS 2 of a persistent publisher.

#[test]
fn exactly_once_publishes_a_packet_id_once_until_it_is_forgotten() {
    let mut rig = Rig::new(2);
    let (inc, _) = rig.claim(1, persistent("p"));
    subscribed(&mut rig, 1, "c", &[sub("a", 2)]);
    let publish = |inc| Command::Publish {
        message: Arc::new(Message { publisher: "p".into(), ..message("a", "x", 2) }),
        exactly_once: Some((inc, 7)),
        or_refuse: false,
    };
    assert_eq!(rig.run(1, publish(inc)), Outcome::Published { matched: 1, duplicate: false });
    assert_eq!(rig.run(1, publish(inc)), Outcome::Published { matched: 0, duplicate: true });
    assert!(rig.effects.is_empty());
    // The set belongs to the session: it outlives a takeover.
    let (new, _) = rig.claim(2, persistent("p"));
    assert_eq!(rig.run(1, publish(inc)), Outcome::Stale);
    assert_eq!(rig.run(2, publish(new)), Outcome::Published { matched: 0, duplicate: true });
    let forget = || Command::Forget { client: "p".into(), incarnation: new, packet_id: 7 };
    assert_eq!(rig.run(2, forget()), Outcome::Forgotten { known: true });
    assert_eq!(rig.run(2, forget()), Outcome::Forgotten { known: false });
    assert_eq!(rig.run(2, publish(new)), Outcome::Published { matched: 1, duplicate: false });
    assert_eq!(rig.stored("c").len(), 2);
}

// Shared subscriptions.

/// Who got each of `n` publishes: a session's id, or "node N".
fn turns(rig: &mut Rig, clients: &[&str], n: usize) -> Vec<String> {
    let mut seen: BTreeMap<&str, usize> = clients.iter().map(|c| (*c, queued(rig, c))).collect();
    let mut got = Vec::new();
    for _ in 0..n {
        rig.publish(1, message("a", "x", 1));
        let before = got.len();
        for client in clients {
            let now = queued(rig, client);
            if now > seen[client] {
                got.push((*client).to_owned());
                seen.insert(client, now);
            }
        }
        for effect in &rig.effects {
            if let Effect::DeliverShared { node, filter, .. } = effect {
                assert_eq!(&**filter, "$share/g/a");
                got.push(format!("node {node}"));
            }
        }
        assert_eq!(got.len(), before + 1, "exactly one");
    }
    got
}

fn queued(rig: &Rig, client: &str) -> usize {
    rig.state.client(client).map_or(0, |c| c.queued)
}

#[test]
fn a_shared_group_takes_turns_among_members_and_nodes() {
    let mut rig = Rig::new(3);
    subscribed(&mut rig, 1, "p", &[sub("$share/g/a", 1)]);
    subscribed(&mut rig, 1, "q", &[sub("$share/g/a", 1)]);
    rig.run(3, Command::RouteAdd { filter: "$share/g/a".into() });
    assert_eq!(turns(&mut rig, &["p", "q"], 6), ["p", "q", "node 3", "p", "q", "node 3"]);
}

#[test]
fn a_shared_group_that_ended_leaves_no_turn_behind() {
    let mut rig = Rig::new(1);
    let before = bytes(&rig.state).len();
    rig.run(1, Command::RouteAdd { filter: "$share/g/a".into() });
    rig.publish(1, message("a", "x", 1));
    assert!(bytes(&rig.state).len() > before);
    rig.run(1, Command::RouteRemove { filter: "$share/g/a".into() });
    assert_eq!(bytes(&rig.state).len(), before);
}

#[test]
fn a_shared_group_prefers_who_is_online() {
    let mut rig = Rig::new(3);
    let p = subscribed(&mut rig, 1, "p", &[sub("$share/g/a", 1)]);
    subscribed(&mut rig, 2, "q", &[sub("$share/g/a", 1)]);
    rig.run(3, Command::RouteAdd { filter: "$share/g/a".into() });
    rig.release(1, "p", p, WillFate::Discard);
    assert_eq!(turns(&mut rig, &["p", "q"], 4), ["q", "node 3", "q", "node 3"]);
    rig.down(1, 3);
    assert_eq!(turns(&mut rig, &["p", "q"], 2), ["q", "q"]);
    rig.down(1, 2);
    rig.publish(1, message("a", "waits", 1));
    assert_eq!((queued(&rig, "p"), queued(&rig, "q")), (0, 4), "nobody online: it is nobody's yet");
    assert_eq!(rig.state.counts().shared_waiting, 1);
}

#[test]
fn each_shared_group_gets_its_own_copy() {
    let mut rig = Rig::new(1);
    subscribed(&mut rig, 1, "p", &[sub("$share/g/a", 1), sub("$share/h/+", 2), sub("a", 1)]);
    assert_eq!(rig.publish(1, message("a", "x", 2)), 3);
    assert_eq!(rig.stored("p").len(), 3);
}

#[test]
fn a_shared_member_at_qos_0_is_served_by_its_node() {
    let mut rig = Rig::new(2);
    let p = subscribed(&mut rig, 2, "p", &[with_id(4, sub("$share/g/a", 0))]);
    assert_eq!(turns(&mut rig, &["p"], 1), ["node 2"]);
    let mut members = Vec::new();
    rig.state
        .online_shared_qos0("$share/g/a", 2, QoS::AtLeastOnce, |c, id, _| members.push((c.to_string(), id)));
    assert_eq!(members, [("p".to_owned(), 4)]);
    rig.release(2, "p", p, WillFate::Discard);
    rig.publish(1, message("a", "x", 1));
    assert!(!rig.effects.iter().any(|e| matches!(e, Effect::DeliverShared { .. })), "nobody to serve it");
}

#[test]
fn shared_deliveries_of_an_ended_session_go_to_another_member() {
    let mut rig = Rig::new(1);
    let (p, _) = rig.claim(1, Claim { receive_maximum: 1, ..persistent("p") });
    rig.subscribe(1, "p", p, &[sub("$share/g/a", 2), sub("own", 1)]);
    rig.publish(1, message("a", "one", 1));
    rig.publish(1, message("a", "two", 2));
    rig.publish(1, message("own", "mine", 1));
    let (q, _) = rig.claim(1, persistent("q"));
    rig.subscribe(1, "q", q, &[sub("$share/g/a", 2)]);
    rig.claim(1, clean("p"));
    assert_eq!(rig.payloads("q"), ["one"], "QoS 2 that may have been sent is not sent to another");
    assert_eq!(rig.woken(), ["q"]);
}

// What the publishing node asks.

#[test]
fn a_publish_must_be_logged_if_a_persistent_session_would_queue_it() {
    let mut rig = Rig::new(2);
    assert!(!matched(&rig.state, "a", 2).must_log);
    let inc = subscribed(&mut rig, 2, "c", &[sub("a", 1), sub("zero", 0)]);
    assert!(matched(&rig.state, "a", 1).must_log);
    let qos0 = matched(&rig.state, "a", 0);
    assert_eq!((qos0.must_log, qos0.nodes.as_slice()), (false, &[2][..]));
    let zero = matched(&rig.state, "zero", 2);
    assert_eq!((zero.must_log, zero.nodes.as_slice()), (false, &[2][..]));
    rig.release(2, "c", inc, WillFate::Discard);
    assert!(matched(&rig.state, "a", 1).must_log, "offline too");
    assert!(matched(&rig.state, "a", 0).nodes.is_empty());
}

#[test]
fn a_shared_group_with_a_persistent_member_must_be_logged() {
    let mut rig = Rig::new(3);
    for node in [2, 3] {
        rig.run(node, Command::RouteAdd { filter: "$share/g/a".into() });
    }
    let out = matched(&rig.state, "a", 1);
    assert!(!out.must_log && out.nodes.is_empty());
    assert_eq!(
        (&*out.shared[0].filter, out.shared[0].nodes.as_slice()),
        ("$share/g/a", &[(2, 1), (3, 1)][..])
    );
    subscribed(&mut rig, 1, "p", &[sub("$share/g/a", 1)]);
    assert!(matched(&rig.state, "a", 1).must_log);
    let out = matched(&rig.state, "a", 0);
    assert!(!out.must_log);
    let mut nodes = out.shared[0].nodes.clone();
    nodes.sort_unstable();
    assert_eq!(nodes.as_slice(), [(1, 1), (2, 1), (3, 1)], "at QoS 0 the member's node may serve it");
}

#[test]
fn online_qos_0_names_only_sessions_that_queue_nothing() {
    let mut rig = Rig::new(2);
    subscribed(&mut rig, 1, "both", &[sub("a", 0), sub("+", 1)]);
    subscribed(&mut rig, 1, "zero", &[with_id(1, sub("a", 0)), with_id(2, sub("#", 0))]);
    subscribed(&mut rig, 2, "elsewhere", &[sub("a", 0)]);
    let offline = subscribed(&mut rig, 1, "offline", &[sub("a", 0)]);
    rig.release(1, "offline", offline, WillFate::Discard);
    let ask = |qos| {
        let mut seen = Vec::new();
        rig.state.online_qos0("a", 1, "publisher", qos, |c, ids, _| seen.push((c.to_string(), ids.to_vec())));
        seen
    };
    assert_eq!(ask(QoS::AtLeastOnce), [("zero".to_owned(), vec![1, 2])]);
    assert_eq!(ask(QoS::AtMostOnce).len(), 2);
}

#[test]
fn many_subscribers_of_one_filter_are_told_apart() {
    let mut rig = Rig::new(2);
    for i in 0..200 {
        let inc = subscribed(&mut rig, 1, &format!("c{i}"), &[sub("a", usize::from(i == 7))]);
        rig.release(1, &format!("c{i}"), inc, WillFate::Discard);
    }
    assert!(matched(&rig.state, "a", 1).must_log);
    assert_eq!(rig.publish(1, message("a", "x", 1)), 1);
    rig.claim(1, clean("c7"));
    let inc = rig.claim(1, Claim { clean_start: true, ..clean("c7") }).0;
    rig.release(1, "c7", inc, WillFate::Discard);
    assert!(!matched(&rig.state, "a", 1).must_log);
    assert!(matched(&rig.state, "a", 0).nodes.is_empty(), "no node owns anything");
    rig.claim(2, clean("unrelated"));
    assert_eq!(matched(&rig.state, "a", 0).nodes.as_slice(), [2], "possibly");
}
