//! Clients that prove who they are: SCRAM-SHA-256 over MQTT's enhanced authentication.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cluster_tests::cluster::{AGREE_TIMEOUT, Cluster, binary, rookery};
use cluster_tests::fresh;
use cluster_tests::login::{BAD_PASSWORD, NOT_AUTHORIZED, assert_refused, leased};
use cluster_tests::mqtt::{
    self, AGAIN, CONTINUE, Client, Error, Options, Packet, Prop, Props, Publish, SCRAM, Scram, Transport,
    VERSIONS, Version, proof, prop,
};
use cluster_tests::wait::eventually;

const ANN: (&str, &str) = ("ann", "correct horse");
const BOB: (&str, &str) = ("bob", "battery staple");

/// For the broker to end a connection that it has a reason to end.
const ENDS: Duration = Duration::from_secs(10);
/// For a message on its way.
const COMES: Duration = Duration::from_secs(10);

const PROTOCOL_ERROR: u8 = 0x82;
const BAD_METHOD: u8 = 0x8c;

/// A line of the users' file, as an operator makes it.
fn line((name, password): (&str, &str)) -> String {
    let mut child = Command::new(binary())
        .args(["users", "scram", name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("rookery runs");
    child.stdin.take().expect("a pipe").write_all(password.as_bytes()).expect("reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// A cluster with the users, and what the users' file says.
fn cluster(nodes: usize, more: &str) -> (Cluster, tempfile::NamedTempFile, String) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let users = format!("# users\n{}{}", line(ANN), line(BOB));
    file.write_all(users.as_bytes()).expect("written");
    // What they may do once they are in is another matter.
    let open = "no_match = \"allow\"\nfailed_login_delay_ms = 0";
    let toml = format!("[auth]\nscram_users_file = \"{}\"\n{open}\n{more}", file.path().display());
    (Cluster::start_with(nodes, &toml), file, users)
}

fn options() -> Options {
    Options::v5(&fresh("client"))
}

fn connect(cluster: &Cluster, (user, password): (&str, &str)) -> Client {
    Client::connect_user(cluster.mqtt(1), &options(), user, password).expect("authenticates itself")
}

/// Asks until the node does not refuse. One whose lease has run out, as on a machine that is busy
/// with other tests, says so by a code; what it accepts has to come true.
fn accepted(what: &str, mut ask: impl FnMut() -> u8) -> u8 {
    eventually(what, AGREE_TIMEOUT, || match ask() {
        code @ 0x80.. => {
            eprintln!("not {what}: {code:#04x}");
            None
        }
        code => Some(code),
    })
}

fn subscribe(client: &mut Client, filter: &str) {
    let code = accepted("subscribed", || client.subscribe(&[(filter, 1)]).expect("an answer")[0]);
    assert_eq!(code, 1);
}

fn publish(client: &mut Client, topic: &str, payload: &str) {
    let code = accepted("published", || client.publish(topic, payload, 1).expect("an answer"));
    assert_eq!(code, 0, "there is a subscriber");
}

/// CONNECT with an authentication method.
fn connect_with(props: Props) -> Vec<u8> {
    mqtt::connect(&Options { props, ..options() })
}

#[track_caller]
fn refused<T>(result: Result<T, Error>, code: u8) {
    assert_refused(result, Version::V5, code);
}

#[track_caller]
fn ends(client: &mut Client, expected: &Error) {
    let ended = client.ending(ENDS).expect("it ends");
    assert_eq!(format!("{ended:?}"), format!("{expected:?}"));
}

#[test]
fn on_every_node_and_transport() {
    let (mut cluster, _file, users) = cluster(3, "required = true\n");
    for node in 1..=3 {
        for transport in cluster.transports(node) {
            for (user, password) in [ANN, BOB] {
                let id = fresh("client");
                let log_in = || Client::connect_user(transport, &Options::v5(&id), user, password);
                let mut client = leased(Version::V5, log_in).expect("is let in");
                subscribe(&mut client, &id);
                publish(&mut client, &id, "x");
                assert_eq!(client.recv(COMES).expect("a message").text(), "x");
                let api = cluster.api(node).to_string();
                let shown = rookery(&["clients", "show", &id, "--api", &api, "-o", "json"]);
                assert!(shown.stdout.contains(&format!("\"username\":\"{user}\"")), "{shown:?}");
                client.disconnect().expect("leaves");
            }
            refused(Client::connect_user(transport, &options(), ANN.0, BOB.1), NOT_AUTHORIZED);
            refused(Client::connect_user(transport, &options(), "nobody", ANN.1), NOT_AUTHORIZED);
            // Who does not say who it is.
            for version in VERSIONS {
                let anonymous = Options::new(version, &fresh("client"));
                assert_refused(Client::connect(transport, &anonymous), version, NOT_AUTHORIZED);
                // A user of the file has no password to send.
                let ann = anonymous.user(ANN.0, ANN.1);
                assert_refused(Client::connect(transport, &ann), version, BAD_PASSWORD);
            }
        }
        assert!(cluster.metric(node, "rookery_authentication_failures_total") >= 16.0);
    }
    // What a log may not hold.
    let secrets = users.lines().filter_map(|line| line.split_once('$')).map(|(_, secret)| secret.to_owned());
    let secrets: Vec<String> = secrets.chain([ANN.1.to_owned(), BOB.1.to_owned()]).collect();
    assert_eq!(secrets.len(), 4);
    for node in 1..=3 {
        let log = cluster.node(node).log();
        assert!(secrets.iter().all(|secret| !log.contains(secret.as_str())), "{log}");
    }
}

/// Salt and iterations of the challenge.
fn challenge(to: impl Into<Transport>, user: &str) -> String {
    let (_, _, challenge) = Client::challenged(to, &options(), user, "x").expect("a challenge");
    let text = String::from_utf8(challenge).expect("text");
    text.split_once(",s=").expect("a salt").1.to_owned()
}

#[test]
fn whether_a_user_exists_cannot_be_seen() {
    let (cluster, ..) = cluster(3, "");
    let known = challenge(cluster.mqtt(1), ANN.0);
    let unknown = challenge(cluster.mqtt(1), "nobody");
    assert_ne!(known, unknown);
    assert_eq!(known.len(), unknown.len());
    assert!(unknown.ends_with(",i=4096"), "{unknown}");
    // The salt never changes, and is the same everywhere, as a known user's is.
    for (user, salt) in [(ANN.0, &known), ("nobody", &unknown)] {
        assert_eq!(challenge(cluster.mqtt(1), user), *salt);
        assert_eq!(challenge(cluster.mqtt(2), user), *salt);
        assert_eq!(challenge(cluster.mqtt(3), user), *salt);
    }
    assert_ne!(challenge(cluster.mqtt(1), "somebody"), unknown);
}

#[test]
fn what_the_protocol_forbids_before_connack() {
    let (cluster, ..) = cluster(1, "");
    // Nobody need authenticate himself here.
    Client::connect(cluster.mqtt(1), &options()).expect("is let in");
    let connects = [
        (connect_with(proof("SCRAM-SHA-1", b"n,,n=ann,r=a")), BAD_METHOD),
        (connect_with(proof("scram-sha-256", b"n,,n=ann,r=a")), BAD_METHOD),
        (connect_with(proof(SCRAM, b"n,a=bob,n=ann,r=a")), NOT_AUTHORIZED),
        (connect_with(proof(SCRAM, b"p=tls-exporter,,n=ann,r=a")), 0x83),
        (connect_with(proof(SCRAM, b"let me in")), 0x83),
        (
            connect_with(Props::default().with(prop::AUTHENTICATION_DATA, Prop::Bytes(b"x".into()))),
            PROTOCOL_ERROR,
        ),
    ];
    for (connect, code) in connects {
        for transport in [Transport::Tcp(cluster.mqtt(1)), Transport::Ws(cluster.ws(1))] {
            let mut client = Client::open(transport, Version::V5).expect("connects");
            client.send(&connect).expect("sent");
            ends(&mut client, &Error::Refused(code));
        }
    }
    let publish = Publish {
        topic: "t".into(),
        payload: b"x".into(),
        qos: 0,
        retain: false,
        dup: false,
        id: 0,
        props: Props::default(),
    };
    let no_method = Props::default().with(prop::AUTHENTICATION_DATA, Prop::Bytes(b"x".into()));
    let answers = [
        (mqtt::auth(CONTINUE, &proof("other", b"x")), BAD_METHOD),
        (mqtt::auth(CONTINUE, &no_method), PROTOCOL_ERROR),
        (mqtt::auth(AGAIN, &proof(SCRAM, b"x")), PROTOCOL_ERROR),
        (mqtt::auth(0, &proof(SCRAM, b"x")), PROTOCOL_ERROR),
        (vec![0xf0, 0], PROTOCOL_ERROR),
        (vec![0xf1, 0], 0x81),
        (vec![0xc0, 0], PROTOCOL_ERROR),
        (mqtt::publish(Version::V5, &publish), PROTOCOL_ERROR),
        (mqtt::subscribe(Version::V5, 1, &[("t", 0)], &Props::default()), PROTOCOL_ERROR),
        (connect_with(Props::default()), PROTOCOL_ERROR),
        (mqtt::auth(CONTINUE, &proof(SCRAM, b"x")), 0x83),
    ];
    for (answer, code) in answers {
        for transport in [Transport::Tcp(cluster.mqtt(1)), Transport::Ws(cluster.ws(1))] {
            let (mut client, ..) = Client::challenged(transport, &options(), ANN.0, ANN.1).expect("asked");
            client.send(&answer).expect("sent");
            ends(&mut client, &Error::Refused(code));
        }
    }
    let (mut leaving, ..) = Client::challenged(cluster.mqtt(1), &options(), ANN.0, ANN.1).expect("asked");
    leaving.send(&mqtt::disconnect(Version::V5, 0)).expect("sent");
    ends(&mut leaving, &Error::Closed);
    // A message right behind the last answer, before CONNACK can have come.
    let (mut hasty, mut scram, challenge) =
        Client::challenged(cluster.mqtt(1), &options(), ANN.0, ANN.1).expect("asked");
    let mut bytes = mqtt::auth(CONTINUE, &proof(SCRAM, &scram.answer(&challenge)));
    bytes.extend(mqtt::publish(Version::V5, &publish));
    hasty.send(&bytes).expect("sent");
    ends(&mut hasty, &Error::Refused(PROTOCOL_ERROR));
}

#[test]
fn a_client_may_wait_to_be_asked() {
    let (cluster, ..) = cluster(1, "");
    let mut client = Client::open(cluster.mqtt(1), Version::V5).expect("connects");
    let method = Props::default().with(prop::AUTHENTICATION_METHOD, Prop::Str(SCRAM.into()));
    client.send(&connect_with(method)).expect("sent");
    match client.packet(COMES).expect("an answer") {
        Packet::Auth { code: CONTINUE, props } => {
            assert_eq!(props.text(prop::AUTHENTICATION_METHOD), Some(SCRAM));
        }
        other => panic!("{other:?}"),
    }
    let mut scram = Scram::new(ANN.0, ANN.1);
    client.send_auth(CONTINUE, SCRAM, &scram.first()).expect("sent");
    let challenge = client.await_challenge().expect("asked");
    client.send_auth(CONTINUE, SCRAM, &scram.answer(&challenge)).expect("sent");
    client.await_connack().expect("is let in");
}

#[test]
fn again_while_messages_flow_both_ways() {
    let (cluster, ..) = cluster(1, "");
    let topic = fresh("flow");
    for transport in [Transport::Tcp(cluster.mqtt(1)), Transport::Ws(cluster.ws(1))] {
        let mut ann = Client::connect_user(transport, &options(), ANN.0, ANN.1).expect("is let in");
        let mut other = connect(&cluster, BOB);
        subscribe(&mut ann, &topic);
        let mut scram = Scram::new(ANN.0, ANN.1);
        ann.send_auth(AGAIN, SCRAM, &scram.first()).expect("sent");
        let challenge = ann.await_challenge().expect("asked");
        // Between the broker's question and the answer.
        publish(&mut other, &topic, "to ann");
        assert_eq!(ann.recv(COMES).expect("a message").text(), "to ann");
        publish(&mut ann, &topic, "from ann");
        assert_eq!(ann.recv(COMES).expect("a message").text(), "from ann");
        ann.send_auth(CONTINUE, SCRAM, &scram.answer(&challenge)).expect("sent");
        match ann.packet(COMES).expect("an answer") {
            Packet::Auth { code: 0, props } => {
                let Some(Prop::Bytes(last_word)) = props.get(prop::AUTHENTICATION_DATA) else {
                    panic!("{props:?}");
                };
                assert_eq!(props.text(prop::AUTHENTICATION_METHOD), Some(SCRAM));
                assert!(scram.trusts(last_word));
            }
            other => panic!("{other:?}"),
        }
        publish(&mut ann, &topic, "afterwards");
        assert_eq!(ann.recv(COMES).expect("a message").text(), "afterwards");
        // As often as it likes.
        ann.authenticate_again(ANN.0, ANN.1).expect("again");
        ann.ping().expect("served");
    }
}

#[test]
fn again_and_failing() {
    let (cluster, ..) = cluster(1, "");
    let gone = |code| Error::Disconnected(code);

    let mut wrong = connect(&cluster, ANN);
    let failed = wrong.authenticate_again(ANN.0, BOB.1);
    assert!(matches!(failed, Err(Error::Disconnected(NOT_AUTHORIZED))), "{failed:?}");

    let mut other = connect(&cluster, ANN);
    let failed = other.authenticate_again(BOB.0, BOB.1);
    assert!(matches!(failed, Err(Error::Disconnected(NOT_AUTHORIZED))), "{failed:?}");

    let first = Scram::new(ANN.0, ANN.1).first();
    let mut twice = connect(&cluster, ANN);
    twice.send_auth(AGAIN, SCRAM, &first).expect("sent");
    twice.await_challenge().expect("asked");
    twice.send_auth(AGAIN, SCRAM, &first).expect("sent");
    ends(&mut twice, &gone(PROTOCOL_ERROR));

    for (code, method, reason) in
        [(CONTINUE, SCRAM, PROTOCOL_ERROR), (0, SCRAM, PROTOCOL_ERROR), (AGAIN, "other", BAD_METHOD)]
    {
        let mut client = connect(&cluster, ANN);
        client.send_auth(code, method, &first).expect("sent");
        ends(&mut client, &gone(reason));
    }

    // Without a method in CONNECT.
    let mut anonymous = Client::connect(cluster.mqtt(1), &options()).expect("is let in");
    assert!(anonymous.granted.get(prop::AUTHENTICATION_METHOD).is_none());
    anonymous.send_auth(AGAIN, SCRAM, &first).expect("sent");
    ends(&mut anonymous, &gone(PROTOCOL_ERROR));

    let mut old = Client::connect(cluster.mqtt(1), &Options::v311(&fresh("client"))).expect("is let in");
    old.send_auth(AGAIN, SCRAM, &first).expect("sent");
    ends(&mut old, &Error::Closed);

    // A failure is no DISCONNECT of the client: its will is published.
    let topic = fresh("will");
    let mut heir = connect(&cluster, BOB);
    subscribe(&mut heir, &topic);
    let with_will = options().will(mqtt::Will::new(&topic, "gone", 1));
    let mut dying =
        Client::connect_user(cluster.mqtt(1), &with_will, ANN.0, ANN.1).expect("authenticates itself");
    dying.authenticate_again(ANN.0, "x").expect_err("turned away");
    assert_eq!(heir.recv(COMES).expect("the will").text(), "gone");
}

#[test]
fn a_client_that_stalls_has_the_time_of_a_connect() {
    const TIMEOUT: Duration = Duration::from_millis(1_000);
    let (cluster, ..) = cluster(1, "[limits]\nconnect_timeout_ms = 1000\n");
    for transport in [Transport::Tcp(cluster.mqtt(1)), Transport::Ws(cluster.ws(1))] {
        let began = Instant::now();
        let (mut silent, ..) = Client::challenged(transport, &options(), ANN.0, ANN.1).expect("asked");
        ends(&mut silent, &Error::Refused(NOT_AUTHORIZED));
        assert!(began.elapsed() >= TIMEOUT / 2, "was given no time");
    }
    assert!(cluster.metric(1, "rookery_connect_timeouts_total") >= 2.0);
}

#[test]
fn what_does_not_fit_the_clients_maximum_packet_size() {
    let (cluster, ..) = cluster(1, "");
    let small = |bytes| options().prop(prop::MAXIMUM_PACKET_SIZE, Prop::U32(bytes));
    refused(Client::challenged(cluster.mqtt(1), &small(60), ANN.0, ANN.1), 0x83);
    Client::connect_user(cluster.mqtt(1), &small(200), ANN.0, ANN.1).expect("it fits");
}

#[test]
fn a_session_goes_on_after_another_authentication() {
    let (cluster, ..) = cluster(1, "");
    let (id, topic) = (fresh("client"), fresh("queue"));
    let persistent = Options::v5(&id).persistent();
    let mut ann = Client::connect_user(cluster.mqtt(1), &persistent, ANN.0, ANN.1).expect("is let in");
    subscribe(&mut ann, &topic);
    ann.crash();
    let mut bob = connect(&cluster, BOB);
    publish(&mut bob, &topic, "kept");
    let mut ann = Client::connect_user(cluster.mqtt(1), &persistent, ANN.0, ANN.1).expect("is let in");
    assert!(ann.session_present);
    assert_eq!(ann.recv(COMES).expect("a message").text(), "kept");
}
