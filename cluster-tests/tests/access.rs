//! Who is let in and what they may do: users, rules and bans of the cluster.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cluster_tests::cluster::cli::operate;
use cluster_tests::cluster::{AGREE_TIMEOUT, Cluster, PATIENT, Said};
use cluster_tests::fresh;
use cluster_tests::http;
use cluster_tests::login::{BAD_PASSWORD, BANNED, NOT_AUTHORIZED, RATE_EXCEEDED, assert_refused, connect};
use cluster_tests::mqtt::{Client, Error, Options, VERSIONS, Version, Will};
use cluster_tests::wait::eventually;
use serde_json::{Value, json};

/// For a message on its way, and for the end of a connection.
const COMES: Duration = Duration::from_secs(10);

const ADMINISTRATIVE: u8 = 0x98;

/// Of "password"; cheap to try, from the tests of Argon2's reference implementation.
const CHEAP: &str = "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc";

#[track_caller]
fn done(said: &Said) -> Value {
    assert_eq!(said.code, Some(0), "{said:?}");
    serde_json::from_str(&said.stdout).unwrap_or(Value::Null)
}

/// A cluster that lets nobody in unseen, and answers wrong passwords at once.
fn closed(nodes: usize, more: &str) -> Cluster {
    Cluster::start_with(
        nodes,
        &format!("{PATIENT}[auth]\nrequired = true\nfailed_login_delay_ms = 0\n{more}"),
    )
}

fn put(api: SocketAddr, path: &str, body: &Value) {
    let (status, answer) = http::put(api, path, &body.to_string()).expect("an answer");
    assert_eq!(status, 200, "{path}: {answer}");
}

fn add_user(api: SocketAddr, name: &str) {
    put(api, &format!("/api/v1/users/{name}"), &json!({ "password_hash": CHEAP }));
}

fn set_rules(api: SocketAddr, rules: &[&str]) {
    put(api, "/api/v1/rules", &json!({ "rules": rules }));
}

fn as_user(version: Version, id: &str, user: &str, password: &str) -> Options {
    Options::new(version, id).user(user, password)
}

/// A client of version 5.0.
#[track_caller]
fn refused(result: Result<Client, Error>, code: u8) {
    assert_refused(result, Version::V5, code);
}

/// By a ban of its address: nothing is said to it.
#[track_caller]
fn is_shut_out(result: Result<Client, Error>) {
    match result.map(drop) {
        Err(Error::Closed | Error::Io(_)) => {}
        other => panic!("{other:?} for the end of the stream"),
    }
}

#[test]
fn passwords_over_every_transport_and_version() {
    let mut cluster = closed(1, "failed_logins_burst = 1000\n");
    let api = cluster.api(1);
    done(&operate(api, &["users", "add", "ann"], "correct horse\n"));
    set_rules(api, &["allow user ann any #"]);
    for to in cluster.transports(1) {
        for version in VERSIONS {
            let options = |user: &str, password: &str| as_user(version, &fresh("c"), user, password);
            let mut client = connect(to, &options("ann", "correct horse")).expect("let in");
            client.ping().expect("served");
            assert_refused(connect(to, &options("ann", "wrong horse")), version, BAD_PASSWORD);
            assert_refused(connect(to, &options("bob", "correct horse")), version, BAD_PASSWORD);
            assert_refused(connect(to, &Options::new(version, &fresh("c"))), version, NOT_AUTHORIZED);
        }
    }
    assert!(cluster.metric(1, "rookery_authentication_failures_total") >= 36.0);
    let log = cluster.node(1).log();
    let line = log.lines().find(|line| line.contains("event=\"login\"") && line.contains("user=\"ann\""));
    let line = line.expect("an audit line");
    for part in ["audit", "outcome=\"refused\"", "address=\"127.0.0.1:", "a wrong user name or password"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!log.contains("horse"), "a password in the log");
    assert!(log.contains("event=\"user_set\"") && log.contains("by=\"api from 127.0.0.1"), "who did it");
    let listed = done(&operate(api, &["users", "ls"], ""));
    assert_eq!(listed, json!([{ "name": "ann", "password": "argon2id", "scram": true }]));
    // The same password serves the mechanism that never sends it.
    let scram = Client::connect_user(cluster.mqtt(1), &Options::v5(&fresh("c")), "ann", "correct horse");
    scram.expect("let in").disconnect().expect("leaves");
    let wrong = Client::connect_user(cluster.mqtt(1), &Options::v5(&fresh("c")), "ann", "wrong horse");
    refused(wrong, NOT_AUTHORIZED);
}

/// What one client of user `ann` and id `c1` may do.
struct Case {
    rules: &'static [&'static str],
    publish: &'static [(&'static str, bool)],
    subscribe: &'static [(&'static str, bool)],
}

const CASES: &[Case] = &[
    // Nobody said anything: nothing is allowed.
    Case { rules: &[], publish: &[("a", false)], subscribe: &[("a", false), ("#", false)] },
    Case {
        rules: &["allow publish out/#", "allow subscribe in/+"],
        publish: &[("out", true), ("out/x/y", true), ("in/x", false), ("outer", false)],
        subscribe: &[
            ("in/x", true),
            ("in/+", true),
            ("in/#", false),
            ("+/x", false),
            ("$share/g/in/x", true),
        ],
    },
    Case {
        rules: &["deny any secret/#", "allow any #"],
        publish: &[("secret", false), ("secret/x", false), ("open", true)],
        subscribe: &[("#", false), ("secret/+", false), ("+/x", false), ("open/#", true)],
    },
    Case {
        rules: &["allow any user/%u/%c/#", "allow user bob any bobs/#", "allow client c1 publish ids/%c"],
        publish: &[("user/ann/c1/x", true), ("user/bob/c1/x", false), ("bobs/x", false), ("ids/c1", true)],
        subscribe: &[("user/ann/c1/#", true), ("user/+/c1/#", false), ("user/#", false)],
    },
    Case {
        rules: &[
            "allow address 10.0.0.0/8 any far/#",
            "allow address 127.0.0.0/8 any near/#",
            "allow anonymous any #",
        ],
        publish: &[("far/x", false), ("near/x", true), ("x", false)],
        subscribe: &[("near/#", true), ("far/#", false)],
    },
    Case {
        // Messages are published at QoS 1, and asked for at QoS 1.
        rules: &["allow any qos=0,2 two/#", "allow any qos=1 one/#"],
        publish: &[("two/x", false), ("one/x", true)],
        subscribe: &[("two/x", false), ("one/x", true)],
    },
];

#[test]
fn rules_over_every_transport() {
    let mut cluster = closed(3, "");
    add_user(cluster.api(1), "ann");
    add_user(cluster.api(1), "god");
    let denied = |cluster: &Cluster| {
        let of = |name| cluster.metric(1, &format!("rookery_{name}_denied_total"));
        (of("publishes"), of("subscriptions"))
    };
    for (index, to) in cluster.transports(1).into_iter().enumerate() {
        for case in CASES {
            let rules: Vec<&str> =
                std::iter::once("allow user god any #").chain(case.rules.iter().copied()).collect();
            // What is set on one node is in force on the other.
            set_rules(cluster.api(2), &rules);
            let mut god = connect(cluster.mqtt(2), &as_user(Version::V5, &fresh("g"), "god", "password"))
                .expect("let in");
            assert_eq!(god.subscribe(&[("#", 1)]).expect("a SUBACK"), [1]);
            for version in [Version::V5, Version::V311] {
                let mut ann = connect(to, &as_user(version, "c1", "ann", "password")).expect("let in");
                for (topic, allowed) in case.publish {
                    let before = denied(&cluster).0;
                    let code = ann.publish(topic, "x", 1).expect("a PUBACK");
                    match (version, allowed) {
                        (_, true) => {
                            assert_eq!(code, 0, "{topic} {:?}", case.rules);
                            assert_eq!(god.recv(COMES).expect("a message").topic, *topic);
                        }
                        (Version::V5, false) => assert_eq!(code, NOT_AUTHORIZED, "{topic} {:?}", case.rules),
                        // 3.1.1 cannot say no: it is acknowledged and goes nowhere.
                        (_, false) => assert_eq!(code, 0, "{topic}"),
                    }
                    assert_eq!(denied(&cluster).0 > before, !allowed, "{topic} is counted");
                }
                for (filter, allowed) in case.subscribe {
                    let code = ann.subscribe(&[(filter, 1)]).expect("a SUBACK")[0];
                    let expected = match (version, allowed) {
                        (_, true) => 1,
                        (Version::V5, false) => NOT_AUTHORIZED,
                        (_, false) => 0x80,
                    };
                    assert_eq!(code, expected, "{filter} {:?} over transport {index}", case.rules);
                }
                // Whatever was denied did not come.
                god.publish("last", "", 0).expect("sent");
                assert_eq!(god.recv(COMES).expect("a message").topic, "last", "{:?}", case.rules);
                ann.disconnect().expect("leaves");
            }
        }
    }
    assert!(denied(&cluster).1 > 0.0);
    let log = cluster.node(1).log();
    for (event, topic) in [("publish", "secret/x"), ("subscribe", "in/#")] {
        let line = log.lines().find(|line| {
            line.contains(&format!("event=\"{event}\"")) && line.contains(&format!("topic=\"{topic}\""))
        });
        assert!(
            line.is_some_and(|line| line.contains("user=\"ann\"") && line.contains("client=\"c1\"")),
            "{event}"
        );
    }
}

#[test]
fn retained_messages_wills_and_qos_0() {
    let cluster = closed(1, "");
    let (api, to) = (cluster.api(1), cluster.mqtt(1));
    add_user(api, "ann");
    set_rules(api, &["allow publish,subscribe a/#", "allow retain a/kept"]);
    let options = |version| as_user(version, &fresh("c"), "ann", "password");
    let mut ann = connect(to, &options(Version::V5)).expect("let in");
    assert_eq!(ann.subscribe(&[("a/#", 1)]).expect("a SUBACK"), [1]);
    assert_eq!(ann.retain("a/x", "no", 1).expect("a PUBACK"), NOT_AUTHORIZED);
    assert_eq!(ann.retain("a/kept", "yes", 1).expect("a PUBACK"), 0);
    // At QoS 0 there is nothing to say no by, and the connection goes on.
    ann.publish("b", "lost", 0).expect("sent");
    ann.publish("a/x", "last", 0).expect("sent");
    assert_eq!(ann.texts(2, COMES).expect("messages"), ["yes", "last"]);
    for (topic, retain, allowed) in [("a/will", false, true), ("b", false, false), ("a/will", true, false)] {
        let mut will = Will::new(topic, "gone", 1);
        will.retain = retain;
        for version in VERSIONS {
            let result = connect(to, &options(version).will(will.clone()));
            if allowed {
                result.expect("let in").disconnect().expect("leaves");
            } else {
                assert_refused(result, version, NOT_AUTHORIZED);
            }
        }
    }
}

#[test]
fn a_denied_publish_may_end_the_connection() {
    let cluster = closed(1, "denied = \"disconnect\"\n");
    add_user(cluster.api(1), "ann");
    for version in VERSIONS {
        for qos in [0, 1, 2] {
            let options = as_user(version, &fresh("c"), "ann", "password");
            let mut client = connect(cluster.mqtt(1), &options).expect("let in");
            if version == Version::V5 && qos > 0 {
                assert_eq!(client.publish("a", "x", qos).expect("an answer"), NOT_AUTHORIZED);
                client.ping().expect("goes on: the client was told");
                continue;
            }
            // The end may come before all is sent.
            let _ = client.publish("a", "x", qos);
            let ended = client.ending(COMES).expect("ends");
            match version {
                Version::V5 => assert!(matches!(ended, Error::Disconnected(NOT_AUTHORIZED)), "{ended}"),
                _ => assert!(matches!(ended, Error::Closed), "{ended}"),
            }
        }
    }
}

#[test]
fn client_ids_belong_to_users() {
    let cluster = closed(1, "client_ids = \"user_prefix\"\n");
    add_user(cluster.api(1), "ann");
    add_user(cluster.api(1), "bob");
    let log_in = |id: &str, user: &str| connect(cluster.mqtt(1), &as_user(Version::V5, id, user, "password"));
    log_in("ann", "ann").expect("let in");
    let mut first = log_in("ann:1", "ann").expect("let in");
    for id in ["ann:1", "ann", "bobby", ""] {
        refused(log_in(id, "bob"), 0x85);
    }
    first.ping().expect("nobody took its session");
}

/// Every change that an operator makes on one node is in force on the others when it is answered:
/// a thousand of them, none early.
#[test]
fn changes_are_in_force_everywhere_when_they_are_answered() {
    const ROUNDS: usize = 200;
    let cluster = closed(3, "failed_logins_burst = 1000000\n");
    add_user(cluster.api(1), "god");
    set_rules(cluster.api(1), &["allow user god any #"]);
    let mut publishers: Vec<Client> = (1..=3)
        .map(|node| {
            let options = as_user(Version::V5, &fresh("g"), "god", "password");
            connect(cluster.mqtt(node), &options).expect("let in")
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for round in 0..ROUNDS {
        let (here, there) = (round % 3 + 1, (round + 1 + round / 3 % 2) % 3 + 1);
        assert_ne!(here, there);
        let api = cluster.api(here);
        let mut timed = |change: &dyn Fn()| {
            let began = Instant::now();
            change();
            slowest = slowest.max(began.elapsed());
        };
        let user = format!("u{round}");
        let log_in = || connect(cluster.mqtt(there), &as_user(Version::V5, &fresh("c"), &user, "password"));
        timed(&|| add_user(api, &user));
        drop(log_in().unwrap_or_else(|error| panic!("round {round}: {error} after the user was added")));
        timed(&|| put(api, &format!("/api/v1/bans/user/{user}"), &json!({ "reason": "test" })));
        refused(log_in(), BANNED);
        timed(&|| {
            let (status, answer) =
                http::delete(api, &format!("/api/v1/bans/user/{user}")).expect("an answer");
            assert_eq!(status, 200, "{answer}");
        });
        drop(log_in().unwrap_or_else(|error| panic!("round {round}: {error} after the ban was lifted")));
        timed(&|| {
            let (status, answer) = http::delete(api, &format!("/api/v1/users/{user}")).expect("an answer");
            assert_eq!(status, 200, "{answer}");
        });
        refused(log_in(), BAD_PASSWORD);
        // Each time otherwise than before.
        let allowed = round % 2 == 1;
        let rule = if allowed { "allow user god any #" } else { "deny user god any t" };
        timed(&|| set_rules(api, &[rule]));
        let code = publishers[there - 1].publish("t", "x", 1).expect("a PUBACK");
        // 0x10: allowed, and nobody wants it.
        assert_eq!(code, if allowed { 0x10 } else { NOT_AUTHORIZED }, "round {round}: {rule}");
    }
    eprintln!("{} changes, the slowest answered after {slowest:?}", ROUNDS * 5);
}

#[test]
fn who_is_banned_or_removed_has_to_go() {
    let cluster = closed(3, "");
    let api = cluster.api(1);
    set_rules(api, &["allow any #"]);
    for name in ["ann", "bob", "eve"] {
        add_user(api, name);
    }
    let log_in = |id: &str, user: &str| connect(cluster.mqtt(2), &as_user(Version::V5, id, user, "password"));
    let mut bystander = log_in("bystander", "bob").expect("let in");
    let mut ends = |mut client: Client, code: u8| {
        let ended = client.ending(COMES).expect("ends");
        assert!(matches!(ended, Error::Disconnected(got) if got == code), "{ended}");
        bystander.ping().expect("not meant");
    };

    let client = log_in("c1", "ann").expect("let in");
    done(&operate(api, &["ban", "add", "client", "c1", "--reason", "noise", "--for", "1h"], ""));
    ends(client, ADMINISTRATIVE);
    refused(log_in("c1", "ann"), BANNED);
    let bans = done(&operate(api, &["ban", "ls"], ""));
    assert_eq!(
        (&bans[0]["kind"], &bans[0]["value"], &bans[0]["reason"]),
        (&json!("client"), &json!("c1"), &json!("noise"))
    );
    assert!(bans[0]["ends_in_s"].as_u64().is_some_and(|s| (3_500..=3_600).contains(&s)), "{bans}");
    let client = log_in("c2", "ann").expect("another client of the same user");
    done(&operate(api, &["ban", "add", "user", "ann"], ""));
    ends(client, ADMINISTRATIVE);
    refused(log_in("c3", "ann"), BANNED);
    done(&operate(api, &["ban", "rm", "user", "ann"], ""));

    let client = log_in("c4", "ann").expect("let in again");
    done(&operate(api, &["users", "rm", "ann"], ""));
    ends(client, NOT_AUTHORIZED);
    refused(log_in("c5", "ann"), BAD_PASSWORD);

    let client = log_in("c6", "eve").expect("let in");
    done(&operate(api, &["users", "add", "eve"], "another"));
    ends(client, NOT_AUTHORIZED);
    refused(log_in("c7", "eve"), BAD_PASSWORD);
    drop(connect(cluster.mqtt(2), &as_user(Version::V5, "c8", "eve", "another")).expect("let in"));

    // A ban that ends by itself.
    done(&operate(api, &["ban", "add", "client", "c9", "--for", "5s"], ""));
    refused(log_in("c9", "eve"), BANNED);
    eventually("the ban is over", AGREE_TIMEOUT, || {
        match connect(cluster.mqtt(2), &as_user(Version::V5, "c9", "eve", "another")) {
            Err(Error::Refused(BANNED)) => None,
            other => Some(other.expect("let in")),
        }
    });

    done(&operate(api, &["ban", "add", "address", "127.0.0.0/8"], ""));
    let ended = bystander.ending(COMES).expect("ends");
    assert!(matches!(ended, Error::Disconnected(ADMINISTRATIVE)), "{ended}");
    is_shut_out(Client::connect(cluster.mqtt(2), &Options::v5("c10")));
    done(&operate(api, &["ban", "rm", "address", "127.0.0.0/8"], ""));
    drop(log_in("c11", "bob").expect("let in"));
}

/// Who guesses passwords is slowed down and then not listened to; who was let in before still is.
#[test]
fn failed_log_ins_are_slowed_and_bannable() {
    let toml = "[auth]\nrequired = true\nfailed_login_delay_ms = 100\nfailed_logins_burst = 4\n\
                failed_login_forgiven_ms = 3600000\nban_after_failed_logins = 8\nban_s = 3600\n";
    let mut cluster = Cluster::start_with(1, toml);
    let (api, to) = (cluster.api(1), cluster.mqtt(1));
    add_user(api, "ann");
    add_user(api, "bob");
    let log_in = |user: &str, password: &str| connect(to, &as_user(Version::V5, &fresh("c"), user, password));
    drop(log_in("ann", "password").expect("let in"));
    for failed in 1..=4u32 {
        let began = Instant::now();
        refused(log_in("ann", "guess"), BAD_PASSWORD);
        assert!(
            began.elapsed() >= Duration::from_millis(100) * failed,
            "the {failed}th was answered too soon"
        );
    }
    drop(log_in("ann", "password").expect("known, and let in"));
    refused(log_in("bob", "password"), RATE_EXCEEDED);
    for _ in 0..2 {
        refused(log_in("ann", "guess"), RATE_EXCEEDED);
    }
    refused(log_in("ann", "guess"), RATE_EXCEEDED);
    is_shut_out(log_in("ann", "password"));
    let bans = done(&operate(api, &["ban", "ls"], ""));
    assert_eq!((&bans[0]["kind"], &bans[0]["value"]), (&json!("address"), &json!("127.0.0.1")));
    assert!(cluster.node(1).log().contains("too many failed log-ins from this address"));
    done(&operate(api, &["ban", "rm", "address", "127.0.0.1"], ""));
    drop(log_in("ann", "password").expect("let in"));
}

#[test]
fn rules_as_operators_write_them() {
    let cluster = closed(1, "");
    let api = cluster.api(1);
    let listed = |said: &Said| done(said)["rules"].clone();
    let added = operate(api, &["rules", "add", "allow", "user", "bob smith", "publish,subscribe", "a/#"], "");
    assert_eq!(listed(&added), json!(["allow user \"bob smith\" publish,subscribe a/#"]));
    operate(api, &["rules", "add", "--at", "1", "deny any a/secret"], "");
    assert_eq!(
        listed(&operate(api, &["rules", "ls"], "")),
        json!(["deny any a/secret", "allow user \"bob smith\" publish,subscribe a/#"])
    );
    let check = |args: &[&str]| {
        let said = operate(api, &[&["acl", "check", "-u", "bob smith"], args].concat(), "");
        let answer: Value = serde_json::from_str(&said.stdout).expect("JSON");
        assert_eq!(said.code, Some(if answer["allowed"] == true { 0 } else { 7 }), "{said:?}");
        answer
    };
    assert_eq!(check(&["publish", "a/b"])["rule"], "allow user \"bob smith\" publish,subscribe a/#");
    assert_eq!(check(&["subscribe", "a/+"]), json!({ "allowed": false, "rule": "deny any a/secret" }));
    assert_eq!(check(&["publish", "b"]), json!({ "allowed": false, "rule": null }));
    let wrong = operate(api, &["rules", "set", "-"], "# rules\nallow any a\nallow nothing b\n");
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(wrong.stderr.contains("rule 2: "), "{wrong:?}");
    assert_eq!(
        listed(&operate(api, &["rules", "ls"], "")).as_array().map(Vec::len),
        Some(2),
        "nothing was lost"
    );
    assert_eq!(operate(api, &["rules", "rm", "3"], "").code, Some(3));
    assert_eq!(listed(&operate(api, &["rules", "rm", "1"], "")).as_array().map(Vec::len), Some(1));
    assert_eq!(operate(api, &["users", "rm", "nobody"], "").code, Some(3));
    let old = json!({ "rules": [], "revision": 1 }).to_string();
    assert_eq!(http::put(api, "/api/v1/rules", &old).expect("an answer").0, 409);
}

#[test]
fn files_of_mosquitto() {
    let cluster = closed(1, "");
    let api = cluster.api(1);
    let dir = tempfile::tempdir().expect("a folder");
    let (passwords, acl) = (dir.path().join("passwd"), dir.path().join("acl"));
    for (index, (name, password)) in [("ann", "secret one"), ("bob", "secret two")].into_iter().enumerate() {
        let flags: &[&str] = if index == 0 { &["-c", "-b"] } else { &["-b"] };
        let mut command = std::process::Command::new("mosquitto_passwd");
        let status = command.args(flags).arg(&passwords).args([name, password]).status().expect("runs");
        assert!(status.success());
    }
    std::fs::write(&acl, "user ann\ntopic readwrite home/#\ntopic deny home/safe\npattern write up/%u\n")
        .expect("written");
    done(&operate(api, &["users", "import", passwords.to_str().expect("a path")], ""));
    let rules = done(&operate(api, &["rules", "import", acl.to_str().expect("a path")], ""));
    assert_eq!(
        rules["rules"],
        json!(["deny user ann any home/safe", "allow user ann any home/#", "allow publish,retain up/%u"])
    );
    let log_in = |user: &str, password: &str| {
        connect(cluster.mqtt(1), &as_user(Version::V311, &fresh("c"), user, password))
    };
    assert_refused(log_in("ann", "secret two"), Version::V311, BAD_PASSWORD);
    let mut ann = log_in("ann", "secret one").expect("let in");
    let mut bob = log_in("bob", "secret two").expect("let in");
    assert_eq!(ann.subscribe(&[("home/hall", 1), ("home/safe", 1)]).expect("a SUBACK"), [1, 0x80]);
    bob.publish("home/hall", "not allowed", 1).expect("acknowledged all the same");
    ann.publish("home/hall", "hello", 1).expect("a PUBACK");
    assert_eq!(ann.recv(COMES).expect("a message").text(), "hello");
}
