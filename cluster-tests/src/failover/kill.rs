//! One kill -9, seen by clients of all kinds.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::figures::{Figure, Figures};
use super::probe::{Probe, Sink, granted};
use super::queue::Waiting;
use super::wills::Wills;
use crate::cluster::Cluster;
use crate::{fresh, wait};

/// Waits that end after a kill and begin so soon after it are put down to it: it is beyond every
/// time promised. Normal waits are taken from as long a time before it.
const WINDOW: Duration = Duration::from_secs(4);

pub fn measure(cluster: &mut Cluster, victim: usize, figures: &mut Figures) {
    let others: Vec<usize> = (1..=cluster.len()).filter(|i| *i != victim).collect();
    let (dead, [one, two]) = (cluster.mqtt(victim), [cluster.mqtt(others[0]), cluster.mqtt(others[1])]);
    let prefix = fresh("kill");
    let mut sinks = vec![
        Sink::start(dead, &format!("{prefix}/durable-dead"), true),
        Sink::start(dead, &format!("{prefix}/direct-dead"), false),
    ];
    for (number, node) in [one, two].into_iter().enumerate() {
        sinks.push(Sink::start(node, &format!("{prefix}/durable/{number}"), true));
        sinks.push(Sink::start(node, &format!("{prefix}/direct/{number}"), false));
    }
    let waiting = Waiting::prepare(dead, one);
    let wills = Wills::prepare(dead, two);
    let mut probes = Vec::new();
    for (number, node) in [one, two].into_iter().enumerate() {
        // Subscribers of these are on the other node that lives.
        let (durable, direct) =
            (format!("{prefix}/durable/{}", 1 - number), format!("{prefix}/direct/{}", 1 - number));
        probes.push((Figure::Durable, publishing(node, durable)));
        probes.push((Figure::Direct, publishing(node, direct)));
        probes.push((Figure::DurableDead, publishing(node, format!("{prefix}/durable-dead"))));
        probes.push((Figure::DirectDead, publishing(node, format!("{prefix}/direct-dead"))));
        let retained = format!("{prefix}/retained/{number}");
        let retain = Probe::start(node, move |client, number| {
            client.retain(&retained, number.to_string(), 1).and_then(granted)
        });
        probes.push((Figure::Retained, retain));
        let filter = format!("{prefix}/subscribed/{number}");
        let subscribe = Probe::start(node, move |client, number| {
            let codes = client.subscribe(&[(&format!("{filter}/{number}"), 1)])?;
            granted(codes.first().copied().unwrap_or(0x80))
        });
        probes.push((Figure::SubAck, subscribe));
    }
    wait::pass(WINDOW);

    let died = Instant::now();
    cluster.kill9(victim);
    let back = waiting.come_back(two);
    wait::pass(WINDOW);

    for (figure, probe) in probes {
        let answers = probe.stop();
        figures.errors += answers.errors;
        // A probe whose answer never came has waited to the end.
        let longest = answers.longest_touching(died, died + WINDOW).unwrap_or(died.elapsed());
        figures.add(figure, longest);
        let before = match figure {
            Figure::Durable => Figure::DurableBefore,
            Figure::Direct => Figure::DirectBefore,
            Figure::SubAck => Figure::SubAckBefore,
            Figure::Retained => Figure::RetainedBefore,
            _ => continue,
        };
        if let Some(longest) = answers.longest_within(died - WINDOW, died) {
            figures.add(before, longest);
        }
    }
    let back = back.join().expect("the client is back");
    figures.add(Figure::Back, back.connected.saturating_duration_since(died));
    figures.add(Figure::Queue, back.complete.saturating_duration_since(died));
    figures.queues_wrong += u64::from(!back.right);

    cluster.restart(victim);
    cluster.wait_up(victim, true);
    sinks.into_iter().for_each(Sink::stop);
    clear_retained(one, &prefix);
    for came in wills.came() {
        match came.first() {
            None => figures.wills_missing += 1,
            Some(first) => figures.add(Figure::Will, first.saturating_duration_since(died)),
        }
        figures.wills_twice += u64::from(came.len() > 1);
    }
}

fn publishing(node: SocketAddr, topic: String) -> Probe {
    Probe::start(node, move |client, number| client.publish(&topic, number.to_string(), 1).and_then(granted))
}

fn clear_retained(node: SocketAddr, prefix: &str) {
    use crate::mqtt::{Client, Options};
    let mut client = Client::connect(node, &Options::v5(&fresh("cleaner"))).expect("connects");
    for number in 0..2 {
        client.retain(&format!("{prefix}/retained/{number}"), "", 1).expect("cleared");
    }
    client.disconnect().expect("leaves");
}
