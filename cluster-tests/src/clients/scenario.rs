//! What every client has to get through.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Client, Driver, Lack, Transport, Version};
use crate::cluster::Cluster;
use crate::{fresh, http, wait};

/// Seconds that a message with an expiry has; long, as none is to expire here.
const EXPIRY_S: u64 = 600;

/// For a client that has said DISCONNECT to be known as gone.
const LEAVES: Duration = Duration::from_secs(30);

/// What the client chooses as identifier of its subscription.
const IDENTIFIER: u64 = 7;

type Outcome = Result<(), String>;

/// Connects, delivers between all nodes at all QoS, keeps and clears a retained message, dies and
/// has a will, leaves and comes back to its session; with 5.0, hands properties through. `turn`
/// says on which node it begins.
///
/// # Errors
/// The first step that did not do as it should.
pub fn play(
    cluster: &Cluster,
    client: &Client,
    version: Version,
    transport: Transport,
    turn: usize,
) -> Outcome {
    let nodes = cluster.len();
    let node = |i: usize| 1 + (turn + i) % nodes;
    let driver = client.driver(cluster)?;
    let mut scene = Scene { cluster, client, version, transport, driver, prefix: fresh("größe/µ") };
    for i in 1..=nodes {
        scene.connect_fresh(i)?;
    }
    let (from, to, third) = (node(0), node(1), node(2));
    in_step("delivery", scene.delivery())?;
    in_step("retained", scene.retained(from, to, third))?;
    in_step("will", scene.will(from, to))?;
    in_step("session", scene.session(from, to, third))?;
    if version == Version::V5 {
        in_step("properties", scene.properties(from, to))?;
        in_step("alias", scene.alias(from, to))?;
    }
    in_step("end", scene.end())
}

fn in_step(step: &str, outcome: Outcome) -> Outcome {
    outcome.map_err(|error| format!("{step}: {error}"))
}

/// The clients `n1`, `n2`, …, each connected to the node of that name, and what they talk about.
struct Scene<'a> {
    cluster: &'a Cluster,
    client: &'a Client,
    version: Version,
    transport: Transport,
    driver: Driver,
    /// Of all topics; not ASCII only.
    prefix: String,
}

fn n(i: usize) -> String {
    format!("n{i}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every byte there is, and what tells this payload from others.
fn binary(tag: &str) -> String {
    hex(&[&(0..=255).collect::<Vec<u8>>(), tag.as_bytes()].concat())
}

/// What is published.
#[derive(Clone)]
struct Message {
    topic: String,
    payload: String,
    qos: usize,
    retain: bool,
}

impl Message {
    fn command(&self, what: &str, client: &str) -> Value {
        json!({
            "do": what, "client": client, "topic": self.topic, "payload": self.payload,
            "qos": self.qos, "retain": self.retain,
        })
    }
}

impl Scene<'_> {
    fn topic(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    fn message(&self, name: &str, qos: usize) -> Message {
        Message { topic: self.topic(name), payload: binary(name), qos, retain: false }
    }

    fn connect(&self, client: &str, i: usize, id: &str, clean: bool, will: Option<&Message>) -> Value {
        let will = will.map(|m| json!({ "topic": m.topic, "payload": m.payload, "qos": m.qos }));
        json!({
            "do": "connect", "client": client, "url": self.transport.url(self.cluster, i),
            "version": self.version.to_string(), "id": id, "clean": clean, "will": will,
        })
    }

    fn connect_fresh(&mut self, i: usize) -> Outcome {
        let command = self.connect(&n(i), i, &fresh("client"), true, None);
        self.driver.ask(&command).map(|_| ())
    }

    fn disconnect(&mut self, client: &str) -> Outcome {
        self.driver.ask(&json!({ "do": "disconnect", "client": client })).map(|_| ())
    }

    fn subscribe(&mut self, client: &str, topic: &str, qos: usize, identifier: Option<u64>) -> Outcome {
        let answer = self.driver.ask(&json!({
            "do": "subscribe", "client": client, "topic": topic, "qos": qos, "identifier": identifier,
        }))?;
        check("granted", &answer["granted"], &json!(qos))
    }

    fn publish(&mut self, client: &str, message: &Message, properties: Option<&Value>) -> Outcome {
        let mut command = message.command("publish", client);
        command["properties"] = json!(properties);
        self.driver.ask(&command).map(|_| ())
    }

    /// The properties of the next message, which has to be this one.
    fn expect(&mut self, client: &str, want: &Message) -> Result<Value, String> {
        let mut got = self.driver.ask(&json!({ "do": "next", "client": client }))?;
        check("topic", &got["topic"], &json!(want.topic))?;
        check("payload", &got["payload"], &json!(want.payload))?;
        check("qos", &got["qos"], &json!(want.qos))?;
        check("retain", &got["retain"], &json!(want.retain))?;
        Ok(got["properties"].take())
    }

    /// Each node to each, itself too.
    fn delivery(&mut self) -> Outcome {
        let nodes = self.cluster.len();
        for to in 1..=nodes {
            for qos in 0..=2 {
                let filter = self.topic(&format!("an {to}/{qos}/+"));
                self.subscribe(&n(to), &filter, qos, None)?;
                for from in 1..=nodes {
                    let message = self.message(&format!("an {to}/{qos}/温度 {from}"), qos);
                    self.publish(&n(from), &message, None)?;
                    self.expect(&n(to), &message)?;
                }
            }
        }
        Ok(())
    }

    fn retained(&mut self, from: usize, to: usize, third: usize) -> Outcome {
        let kept = Message { retain: true, ..self.message("behalten", 1) };
        self.publish(&n(from), &kept, None)?;
        self.subscribe(&n(to), &kept.topic, 1, None)?;
        self.expect(&n(to), &kept)?;
        let cleared = Message { payload: String::new(), ..kept.clone() };
        self.publish(&n(from), &cleared, None)?;
        self.expect(&n(to), &Message { retain: false, ..cleared })?;
        // Who comes now gets what comes now and nothing else.
        self.subscribe(&n(third), &kept.topic, 1, None)?;
        let later = Message { retain: false, ..kept };
        self.publish(&n(from), &later, None)?;
        self.expect(&n(third), &later)?;
        self.expect(&n(to), &later).map(|_| ())
    }

    fn will(&mut self, from: usize, to: usize) -> Outcome {
        // In the arguments of a program, as some clients have it, there is no byte 0.
        let will = Message { payload: hex("leb wohl, µ".as_bytes()), ..self.message("nachlass", 1) };
        self.subscribe(&n(to), &will.topic, 1, None)?;
        let mut doomed = self.client.driver(self.cluster)?;
        doomed.ask(&self.connect("doomed", from, &fresh("doomed"), true, Some(&will)))?;
        // It is killed.
        drop(doomed);
        self.expect(&n(to), &will)?;

        let id = fresh("leaves");
        let leaves = self.connect("leaves", from, &id, true, Some(&will));
        self.driver.ask(&leaves)?;
        self.disconnect("leaves")?;
        // Another connection may be read first, and would take it over before it has left.
        let api = self.cluster.api(1);
        wait::eventually("it has left", LEAVES, || {
            let (status, _) = http::get(api, &format!("/api/v1/clients/{id}")).ok()?;
            (status == 404).then_some(())
        });
        // With the same id: what the first one left behind is settled once this one is connected.
        let again = self.connect("again", from, &id, true, None);
        self.driver.ask(&again)?;
        let instead = Message { payload: binary("no will"), ..will };
        self.publish("again", &instead, None)?;
        self.expect(&n(to), &instead)?;
        self.disconnect("again")
    }

    fn session(&mut self, from: usize, to: usize, third: usize) -> Outcome {
        let id = fresh("session");
        let present = |answer: &Value, want: bool| match &answer["session_present"] {
            Value::Null => Ok(()),
            got => check("session present", got, &json!(want)),
        };
        let connect = self.connect("session", to, &id, false, None);
        present(&self.driver.ask(&connect)?, false)?;
        let filter = self.topic("sitzung/#");
        self.subscribe("session", &filter, 2, None)?;
        self.disconnect("session")?;

        let mut missed = vec![self.message("sitzung/1", 1), self.message("sitzung/2", 2)];
        if self.client.lacks(Lack::Missed).is_some() {
            missed.clear();
        }
        for message in &missed {
            self.publish(&n(from), message, None)?;
        }
        let connect = self.connect("session", third, &id, false, None);
        present(&self.driver.ask(&connect)?, true)?;
        for message in &missed {
            self.expect("session", message)?;
        }
        let live = self.message("sitzung/jetzt", 2);
        self.publish(&n(from), &live, None)?;
        self.expect("session", &live)?;
        self.disconnect("session")?;

        let connect = self.connect("session", from, &id, true, None);
        present(&self.driver.ask(&connect)?, false)?;
        self.disconnect("session")
    }

    fn properties(&mut self, from: usize, to: usize) -> Outcome {
        let identifier = self.client.lacks(Lack::Identifiers).is_none().then_some(IDENTIFIER);
        let message = self.message("eigenschaften", 1);
        self.subscribe(&n(to), &message.topic, 1, identifier)?;
        let mut properties = json!({
            "user": { "größe": "5µm", "unit": "m" },
            "content_type": "application/x-größe",
            "response_topic": self.topic("antwort"),
            "correlation_data": "c0ffee",
            "message_expiry_s": EXPIRY_S,
        });
        self.publish(&n(from), &message, Some(&properties))?;
        let mut got = self.expect(&n(to), &message)?;
        let left = got["message_expiry_s"].take().as_u64().unwrap_or(0);
        if !(1..=EXPIRY_S).contains(&left) {
            return Err(format!("message expiry: {left} s left of {EXPIRY_S} s"));
        }
        properties["message_expiry_s"] = Value::Null;
        properties["identifiers"] = json!(identifier.map(|identifier| [identifier]));
        check("properties", &got, &properties)
    }

    fn alias(&mut self, from: usize, to: usize) -> Outcome {
        let message = self.message("alias", 1);
        self.subscribe(&n(to), &message.topic, 1, None)?;
        self.driver.ask(&message.command("publish_alias", &n(from)))?;
        self.expect(&n(to), &message)?;
        self.expect(&n(to), &message).map(|_| ())
    }

    /// Nothing has come twice: what comes next is what is published now.
    fn end(&mut self) -> Outcome {
        for i in 1..=self.cluster.len() {
            let last = self.message(&format!("an {i}/1/ende"), 1);
            self.publish(&n(i), &last, None)?;
            self.expect(&n(i), &last)?;
            self.disconnect(&n(i))?;
        }
        Ok(())
    }
}

fn check(what: &str, got: &Value, want: &Value) -> Outcome {
    if got == want { Ok(()) } else { Err(format!("{what}: {got} instead of {want}")) }
}
