//! Shared subscriptions.

use std::collections::BTreeSet;

use cluster_tests::conformance::{Case, Outcome, Site, case};
use cluster_tests::mqtt::{Client, Error, Options, Prop, Props, prop, subscribe};
use cluster_tests::wait::eventually;

use crate::messages::SOON;

pub const CASES: &[Case] = &[
    case("a share needs a name without wildcards and a filter", bad_shares).v5(&["4.8.2-1", "4.8.2-2"]),
    case("no local on a shared subscription is an error", no_local).v5(&["3.8.3-4"]),
    case("each message goes to one member", one_member).v5(&[]),
    case("every member of every share has work", every_member).v5(&[]),
    case("each share gets its own copy, as other subscriptions do", each_share).v5(&["4.5.0-1"]),
    case("a member gets no more than its granted QoS", granted_qos).v5(&["4.8.2-3"]),
    case("a shared subscription is sent no retained messages", no_retained).v5(&[]),
    case("retain as published holds for shared subscriptions", retain_as_published)
        .v5(&["3.3.1-12", "3.3.1-13"]),
    case("a subscription identifier of a share comes with its messages", identifier).v5(&["3.3.4-3"]),
    case("UNSUBSCRIBE leaves the share, and only that", unsubscribe).v5(&["3.10.4-1", "3.10.4-2"]),
    case("QoS 2 is finished with the member that began it", qos_2_finished).v5(&["4.8.2-4"]),
    case("QoS 2 of a member whose session ends goes to nobody else", qos_2_of_ended).v5(&["4.8.2-5"]),
    case("an error acknowledgement discards the message", error_discards).v5(&["4.8.2-6", "4.4.0-2"]),
    case("messages go on to who is left when a member leaves", member_leaves).v5(&["4.5.0-1"]),
];

fn bad_shares(at: &Site) -> Outcome {
    for filter in [
        "$share/",
        "$share//t",
        "$share/g",
        "$share/g/",
        "$share/+/t",
        "$share/#/t",
        "$share/a+/t",
        "$share/g/a#",
    ] {
        let mut client = at.client()?;
        client.send(&subscribe(at.version, 1, &[(filter, 1)], &Props::default()))?;
        match client.await_suback(1) {
            Ok(codes) => assert_eq!(codes, [0x8f], "{filter:?}"),
            Err(Error::Disconnected(0x82 | 0x8f)) => {}
            Err(other) => panic!("{filter:?}: {other}"),
        }
    }
    Ok(())
}

fn no_local(at: &Site) -> Outcome {
    let mut client = at.client()?;
    client.send(&subscribe(at.version, 1, &[("$share/g/t", 0x05)], &Props::default()))?;
    at.assert_ends(client, &[0x82])?;
    Ok(())
}

/// Members at alternating ends.
fn members(at: &Site, share: &str, qos: u8, count: usize) -> Result<Vec<Client>, Error> {
    let member = |i: usize| {
        let end = if i.is_multiple_of(2) { at.far() } else { at.near() };
        let mut client = Client::connect(end, &at.options())?;
        assert_eq!(client.subscribe(&[(share, qos)])?, [qos]);
        Ok(client)
    };
    (0..count).map(member).collect()
}

fn one_member(at: &Site) -> Outcome {
    const COUNT: usize = 60;
    for qos in 0..=2 {
        let topic = at.topic();
        let mut members = members(at, &format!("$share/{qos}/{topic}/+"), qos, 3)?;
        let mut publisher = at.client()?;
        for i in 0..COUNT {
            publisher.publish(&format!("{topic}/{}", i % 7), i.to_string(), qos)?;
        }
        let mut found = BTreeSet::new();
        for member in &mut members {
            let got = at.received(&mut publisher, member)?;
            for message in got {
                assert!(found.insert(message.text()), "{} twice at QoS {qos}", message.text());
                assert_eq!(message.qos, qos);
            }
        }
        assert_eq!(found.len(), COUNT, "QoS {qos}");
    }
    Ok(())
}

fn every_member(at: &Site) -> Outcome {
    for qos in 0..=1 {
        let topic = at.topic();
        let mut all = members(at, &format!("$share/a/{topic}"), qos, 2)?;
        all.extend(members(at, &format!("$share/b/{topic}"), qos, 3)?);
        let mut publisher = at.client()?;
        for i in 0..120 {
            publisher.publish(&topic, i.to_string(), qos)?;
        }
        let mut work = Vec::new();
        for member in &mut all {
            work.push(at.received(&mut publisher, member)?.len());
        }
        // Nodes are drawn; were there no turns, this would hold for all but one run in 10⁶.
        assert!(work.iter().all(|messages| *messages >= 10), "QoS {qos}: {work:?}");
    }
    Ok(())
}

fn each_share(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut both = at.far_client()?;
    both.subscribe(&[(&format!("$share/a/{topic}"), 1), (&topic, 1)])?;
    let mut other = at.subscriber(&format!("$share/b/{topic}"), 1)?;
    let mut plain = at.subscriber(&topic, 1)?;
    let mut publisher = at.client()?;
    publisher.publish(&topic, "x", 1)?;
    assert_eq!(at.received(&mut publisher, &mut other)?.len(), 1);
    assert_eq!(at.received(&mut publisher, &mut plain)?.len(), 1);
    // A member that has subscribed by itself too gets a copy for each.
    assert_eq!(at.received(&mut publisher, &mut both)?.len(), 2);
    Ok(())
}

fn granted_qos(at: &Site) -> Outcome {
    let topic = at.topic();
    let share = format!("$share/g/{topic}");
    let mut low = at.subscriber(&share, 0)?;
    let mut high = at.subscriber(&share, 2)?;
    let mut publisher = at.client()?;
    for i in 0..40 {
        publisher.publish(&topic, i.to_string(), 2)?;
    }
    let (low, high) = (at.received(&mut publisher, &mut low)?, at.received(&mut publisher, &mut high)?);
    assert_eq!(low.len() + high.len(), 40);
    assert!(low.iter().all(|m| m.qos == 0) && high.iter().all(|m| m.qos == 2));
    Ok(())
}

fn no_retained(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut publisher = at.client()?;
    publisher.retain(&topic, "kept", 1)?;
    let mut member = at.subscriber(&format!("$share/g/{topic}"), 1)?;
    assert_eq!(at.received(&mut publisher, &mut member)?, []);
    publisher.retain(&topic, "", 1)?;
    Ok(())
}

fn retain_as_published(at: &Site) -> Outcome {
    for (options, flag) in [(0x01, false), (0x09, true)] {
        let topic = at.topic();
        let mut member = at.far_client()?;
        member.subscribe(&[(&format!("$share/g/{topic}"), options)])?;
        let mut publisher = at.client()?;
        publisher.retain(&topic, "live", 1)?;
        assert_eq!(at.recv(&mut member)?.retain, flag);
        publisher.retain(&topic, "", 1)?;
    }
    Ok(())
}

fn identifier(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut member = at.far_client()?;
    let props = Props::default().with(prop::SUBSCRIPTION_ID, Prop::Varint(99));
    member.subscribe_with(&[(&format!("$share/g/{topic}"), 1)], &props)?;
    at.client()?.publish(&topic, "x", 1)?;
    assert_eq!(at.recv(&mut member)?.props.numbers(prop::SUBSCRIPTION_ID), [99]);
    Ok(())
}

fn unsubscribe(at: &Site) -> Outcome {
    let topic = at.topic();
    let share = format!("$share/g/{topic}");
    let mut client = at.far_client()?;
    client.subscribe(&[(&share, 1), (&topic, 1)])?;
    assert_eq!(client.unsubscribe(&[&format!("$share/other/{topic}"), &share])?, [0x11, 0]);
    let mut publisher = at.client()?;
    publisher.publish(&topic, "x", 1)?;
    assert_eq!(at.received(&mut publisher, &mut client)?.len(), 1);
    Ok(())
}

/// Two members, the messages of one of which are left open: that one with a first message, and
/// the other, which acknowledges.
fn with_open_delivery(
    at: &Site,
    options: &Options,
    topic: &str,
    qos: u8,
) -> Result<(Client, cluster_tests::mqtt::Publish, Client), Error> {
    let share = format!("$share/g/{topic}");
    let mut holder = Client::connect(at.far(), options)?;
    holder.auto_ack = false;
    holder.subscribe(&[(&share, qos)])?;
    // Alone in the share, it is chosen.
    at.client()?.publish(topic, "open", qos)?;
    let open = holder.recv(SOON)?;
    let mut other = Client::connect(at.near(), &at.options())?;
    other.subscribe(&[(&share, qos)])?;
    Ok((holder, open, other))
}

fn qos_2_finished(at: &Site) -> Outcome {
    let (options, topic) = (at.persistent(), at.topic());
    let (holder, open, mut other) = with_open_delivery(at, &options, &topic, 2)?;
    holder.crash();
    assert_eq!(at.received(&mut at.client()?, &mut other)?, []);
    let mut back = Client::connect(at.near(), &options)?;
    let again = at.recv(&mut back)?;
    assert_eq!((again.text(), again.id, again.dup), (open.text(), open.id, true));
    assert_eq!(at.received(&mut at.client()?, &mut other)?, []);
    back.disconnect()?;
    at.forget(&options)?;
    Ok(())
}

fn qos_2_of_ended(at: &Site) -> Outcome {
    for options in [at.options(), at.persistent()] {
        let topic = at.topic();
        let (holder, _, mut other) = with_open_delivery(at, &options, &topic, 2)?;
        holder.crash();
        at.forget(&options)?;
        assert_eq!(at.received(&mut at.client()?, &mut other)?, []);
    }
    Ok(())
}

fn error_discards(at: &Site) -> Outcome {
    for (qos, refusal) in [(1, 0x40), (2, 0x50)] {
        let (options, topic) = (at.options(), at.topic());
        let (mut holder, open, mut other) = with_open_delivery(at, &options, &topic, qos)?;
        let [high, low] = open.id.to_be_bytes();
        holder.send(&[refusal, 3, high, low, 0x83])?;
        holder.ping()?;
        assert_eq!(at.received(&mut at.client()?, &mut other)?, []);
        // The holder is rid of it too.
        holder.auto_ack = true;
        other.disconnect()?;
        let mut publisher = at.client()?;
        publisher.publish(&topic, "next", qos)?;
        assert_eq!(at.recv(&mut holder)?.text(), "next");
    }
    Ok(())
}

fn member_leaves(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut members = members(at, &format!("$share/g/{topic}"), 1, 2)?;
    let mut publisher = at.client()?;
    let leaver = members.pop().expect("two members");
    leaver.disconnect()?;
    let mut stays = members.pop().expect("one left");
    let mut got = BTreeSet::new();
    // Whoever publishes elsewhere learns of it a moment later; nothing may be lost from then on.
    let mut sent = 0;
    eventually("ten in a row to who stays", SOON, || {
        let batch: Vec<_> = (0..10).map(|i| format!("{sent}-{i}")).collect();
        sent += 1;
        for payload in &batch {
            publisher.publish(&topic, payload, 1).expect("a publish");
        }
        got.extend(at.received(&mut publisher, &mut stays).expect("the batch").iter().map(|m| m.text()));
        batch.iter().all(|payload| got.contains(payload)).then_some(())
    });
    Ok(())
}
