//! Retained messages as operators see and remove them, and messages that they publish: whichever node
//! is asked, all others agree.

use std::net::SocketAddr;
use std::time::Duration;

use cluster_tests::cluster::cli::operate;
use cluster_tests::cluster::{Cluster, PATIENT, Said};
use cluster_tests::mqtt::{Client, Options, Prop, Props, prop};
use cluster_tests::{fresh, http};
use serde_json::{Value, json};

/// For a message on its way.
const COMES: Duration = Duration::from_secs(20);
const TOPICS: usize = 35;

const OK: Option<i32> = Some(0);
const WRONG: Option<i32> = Some(2);
const NOT_FOUND: Option<i32> = Some(3);

fn topic(i: usize) -> String {
    format!("shelf/{i:02}")
}

fn topics(without: &[usize]) -> Vec<String> {
    (0..TOPICS).filter(|i| !without.contains(i)).map(topic).collect()
}

fn connect(cluster: &Cluster, node: usize, options: &Options) -> Client {
    Client::connect(cluster.mqtt(node), options).expect("connects")
}

fn retained(cluster: &Cluster, node: usize, args: &[&str]) -> Said {
    operate(cluster.api(node), &[&["retained"], args].concat(), "")
}

#[track_caller]
fn done(said: &Said) -> Value {
    assert_eq!(said.code, OK, "{said:?}");
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

#[track_caller]
fn get(api: SocketAddr, path: &str) -> (u16, Value) {
    let (status, body) = http::get(api, path).expect("an answer");
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

fn names(messages: &Value) -> Vec<String> {
    let messages = messages.as_array().expect("a list").iter();
    messages.map(|message| message["topic"].as_str().expect("a topic").to_owned()).collect()
}

#[track_caller]
fn listed(cluster: &Cluster, node: usize, filter: &str) -> Vec<String> {
    names(&done(&retained(cluster, node, &["ls", "--filter", filter])))
}

/// What a new subscriber of the shelf gets at once, in the order of the topics.
fn replayed(cluster: &Cluster, node: usize, count: usize) -> Vec<String> {
    let mut client = connect(cluster, node, &Options::v5(&fresh("new")));
    assert_eq!(client.subscribe(&[("shelf/#", 1)]).expect("SUBACK"), [1]);
    let mut topics: Vec<String> = (0..count).map(|_| client.recv(COMES).expect("retained").topic).collect();
    assert!(client.quiet().expect("served"), "more than {count}");
    topics.sort();
    topics
}

/// Three nodes, with a message on each topic and one on a topic that begins with `$`.
fn shelf() -> Cluster {
    let cluster = Cluster::start_with(3, PATIENT);
    let mut client = connect(&cluster, 1, &Options::v5(&fresh("keeper")));
    for i in (0..TOPICS).rev() {
        assert_eq!(client.retain(&topic(i), format!("number {i}"), (i % 3) as u8).expect("acknowledged"), 0);
    }
    // Acknowledged after those at QoS 0, in the order of the log.
    assert_eq!(client.retain("$stock/count", "35", 1).expect("acknowledged"), 0);
    cluster
}

#[test]
fn they_are_listed_shown_and_removed_on_any_node() {
    let mut cluster = shelf();

    let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), Vec::new());
    loop {
        let (status, page) = get(cluster.api(2), &format!("/api/v1/retained?limit=10{cursor}"));
        assert_eq!(status, 200, "{page}");
        let names = names(&page["messages"]);
        pages.push(names.len());
        seen.extend(names);
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={}", next.replace('/', "%2F"));
    }
    assert_eq!((seen, pages), (topics(&[]), vec![10, 10, 10, 5]));

    assert_eq!(listed(&cluster, 3, "#"), topics(&[]), "none that begin with $");
    assert_eq!(listed(&cluster, 3, "$stock/#"), ["$stock/count"]);
    assert_eq!(listed(&cluster, 3, "+/07"), ["shelf/07"]);
    assert_eq!(listed(&cluster, 3, "shelf/08"), ["shelf/08"]);
    assert!(listed(&cluster, 3, "nothing/#").is_empty());
    let first = done(&retained(&cluster, 3, &["ls", "--limit", "1"]));
    assert_eq!(first, json!([{ "topic": "shelf/00", "bytes": 8, "qos": 0, "expires_in_s": null }]));
    for filter in ["shelf/#/x", "$share/g/shelf/#", ""] {
        let said = retained(&cluster, 3, &["ls", "--filter", filter]);
        assert_eq!(said.code, WRONG, "{filter:?} {said:?}");
    }
    let (status, why) = get(cluster.api(3), "/api/v1/retained?filter=a%23");
    assert_eq!(status, 400);
    assert!(why["error"]["message"].as_str().is_some_and(|m| m.contains("# is not its whole last")), "{why}");

    let mut keeper = connect(&cluster, 1, &Options::v5("keeper-2"));
    let props = Props::default()
        .with(prop::MESSAGE_EXPIRY_S, Prop::U32(600))
        .with(prop::CONTENT_TYPE, Prop::Str("text/plain".to_owned()))
        .with(prop::USER_PROPERTY, Prop::Pair("aisle".to_owned(), "4".to_owned()));
    assert_eq!(keeper.publish_with("shelf/05", "changed", 2, true, props).expect("acknowledged"), 0);
    let shown = done(&retained(&cluster, 2, &["show", "shelf/05"]));
    let expires_in_s = shown["expires_in_s"].as_u64().expect("it expires");
    assert!((1..=600).contains(&expires_in_s), "{shown}");
    let expected = json!({
        "topic": "shelf/05", "bytes": 7, "qos": 2, "expires_in_s": expires_in_s, "publisher": "keeper-2",
        "content_type": "text/plain", "user_properties": [["aisle", "4"]], "payload_base64": "Y2hhbmdlZA==",
    });
    assert_eq!(shown, expected);
    let raw = retained(&cluster, 2, &["show", "shelf/05", "--raw"]);
    assert_eq!((raw.code, raw.stdout.as_str()), (OK, "changed"));
    assert_eq!(get(cluster.api(2), "/api/v1/retained/shelf/05").1["payload_base64"], "Y2hhbmdlZA==");

    let mut subscriber = connect(&cluster, 3, &Options::v5(&fresh("old")));
    assert_eq!(subscriber.subscribe(&[("shelf/11", 1)]).expect("SUBACK"), [1]);
    assert_eq!(subscriber.recv(COMES).expect("retained").text(), "number 11");
    assert_eq!(done(&retained(&cluster, 2, &["rm", "shelf/11"])), json!({ "removed": "shelf/11" }));
    // No node has it once that is answered, and those who follow the topic are told.
    assert_eq!(replayed(&cluster, 3, TOPICS - 1), topics(&[11]));
    let told = subscriber.recv(COMES).expect("told");
    assert_eq!((told.topic.as_str(), told.payload.len()), ("shelf/11", 0));
    for node in 1..=3 {
        assert_eq!(listed(&cluster, node, "#"), topics(&[11]), "node {node}");
        assert_eq!(retained(&cluster, node, &["show", "shelf/11"]).code, NOT_FOUND);
        assert_eq!(retained(&cluster, node, &["rm", "shelf/11"]).code, NOT_FOUND);
    }
    let log = cluster.node(2).log();
    let line = log.lines().find(|line| line.contains("event=\"retained_removed\""));
    let line = line.expect("an audit line");
    for part in ["outcome=\"done\"", "by=\"api from 127.0.0.1:", "shelf/11"] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[track_caller]
fn publish(api: SocketAddr, body: &Value) -> (u16, Value) {
    let (status, answer) = http::post(api, "/api/v1/publish", &body.to_string()).expect("an answer");
    (status, serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

fn result(matched: bool, code: u8, reason: &str) -> Value {
    json!({ "matched": matched, "code": code, "reason": reason })
}

#[test]
fn what_operators_publish_reaches_everybody_once_and_in_order() {
    let cluster = Cluster::start_with(3, PATIENT);
    let away = Options::v5(&fresh("away")).persistent();
    let mut client = connect(&cluster, 1, &away);
    assert_eq!(client.subscribe(&[("news/#", 2)]).expect("SUBACK"), [2]);
    client.disconnect().expect("leaves");
    let mut clean = connect(&cluster, 2, &Options::v5(&fresh("clean")));
    assert_eq!(clean.subscribe(&[("news/#", 2), ("talk", 0)]).expect("SUBACK"), [2, 0]);

    let api = cluster.api(3);
    let (status, answer) = publish(api, &json!({ "topic": "talk", "payload": "hello" }));
    assert_eq!((status, answer), (200, json!({ "results": [result(true, 0, "Success")] })));
    assert_eq!(clean.recv(COMES).expect("a message").text(), "hello");

    let several: Vec<Value> =
        (0..1_000).map(|i| json!({ "topic": "news/x", "payload": i.to_string(), "qos": 1 })).collect();
    let (status, answer) = publish(api, &json!(several));
    assert_eq!((status, &answer["results"]), (200, &json!(vec![result(true, 0, "Success"); 1_000])));
    let numbers: Vec<String> = (0..1_000).map(|i| i.to_string()).collect();
    assert_eq!(clean.texts(1_000, COMES).expect("all"), numbers);
    let mut back = connect(&cluster, 3, &away);
    assert_eq!(back.texts(1_000, COMES).expect("all that was queued"), numbers);

    let mixed = json!([
        { "topic": "empty/room", "payload": "x", "qos": 1 },
        { "topic": "kept", "payload_base64": "/wA=", "qos": 2, "retain": true },
        { "topic": "$SYS/x", "payload": "x" },
    ]);
    let expected = json!([
        result(false, 16, "No matching subscribers"),
        result(false, 0, "Success"),
        result(false, 135, "Not authorized"),
    ]);
    assert_eq!(publish(api, &mixed), (200, json!({ "results": expected })));
    let kept = done(&retained(&cluster, 1, &["show", "kept"]));
    assert_eq!((&kept["payload_base64"], &kept["publisher"]), (&json!("/wA="), &json!("")), "{kept}");

    // With one that makes no sense, none is published.
    for wrong in [
        json!({ "topic": "news/+", "payload": "x" }),
        json!({ "topic": "news/x", "qos": 3 }),
        json!({ "topic": "news/x", "payload": "x", "payload_base64": "eA==" }),
        json!({ "topic": "news/x", "payload_base64": "?" }),
    ] {
        let (status, why) = publish(api, &json!([{ "topic": "news/x", "payload": "x" }, wrong]));
        assert_eq!(status, 400, "{why}");
        assert!(why["error"]["message"].as_str().is_some_and(|m| m.starts_with("message 2: ")), "{why}");
    }
    assert_eq!(publish(api, &json!({ "topic": "news/last", "payload": "end" })).0, 200);
    assert_eq!(clean.recv(COMES).expect("a message").topic, "news/last");
}
