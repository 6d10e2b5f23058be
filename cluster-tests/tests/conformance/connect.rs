//! CONNECT: what is accepted, what is refused and how.

use std::collections::BTreeSet;

use cluster_tests::conformance::{Case, Outcome, Site, case};
use cluster_tests::fresh;
use cluster_tests::mqtt::{
    Client, Error, Options, Packet, Prop, Props, Version, Will, connect, disconnect, prop, publish,
    remaining_length,
};

use crate::messages::{SOON, message};

pub const CASES: &[Case] = &[
    case("a first packet other than CONNECT is answered by closing, without a word", first_packet)
        .v3(&["3.1.0-1"])
        .v5(&["3.1.0-1", "3.14.0-1"]),
    case("a second CONNECT ends the connection", second_connect).v3(&["3.1.0-2"]).v5(&["3.1.0-2"]),
    case("another protocol name is not served", protocol_name).v3(&["3.1.2-1"]).v5(&["3.1.2-1"]),
    case("an unknown protocol level is refused in a form its sender knows", protocol_level)
        .v3(&["3.1.2-2"])
        .v5(&["3.1.2-2"]),
    case("a malformed CONNECT closes the connection, in 3.x without a CONNACK", malformed)
        .v3(&["3.1.4-1", "3.1.2-3", "3.1.2-9", "3.1.2-11", "3.1.2-13", "3.1.2-14", "3.1.2-15", "3.1.2-18"])
        .v5(&["3.1.4-1", "3.1.2-3", "3.1.2-9", "3.1.2-11", "3.1.2-12", "3.1.2-13", "3.1.2-16", "3.1.2-17"]),
    case("flags and fields of CONNECT agree, and strings are UTF-8", malformed_fields)
        .v3(&["3.1.2-19", "3.1.2-20", "3.1.2-21", "3.1.3-3", "3.1.3-4", "3.1.3-10", "3.1.3-11", "3.2.2-6"])
        .v5(&["3.1.2-18", "3.1.2-19", "3.1.3-3", "3.1.3-4", "3.1.3-11", "3.1.3-12"]),
    case("a password without a user name is an error in 3.x and allowed in 5.0", password_alone)
        .v3(&["3.1.2-22"])
        .v5(&["3.1.2-19"]),
    case("properties that CONNECT may not have, or not with this value, are errors", bad_properties)
        .v5(&["3.1.4-1", "4.13.1-1"]),
    case("all fields of CONNECT are read in their order", all_fields).v3(&["3.1.3-1"]).v5(&["3.1.3-1"]),
    case("ids of 1 to 23 letters and digits are accepted", plain_ids).v3(&["3.1.3-5"]).v5(&["3.1.3-5"]),
    case("an empty id gets a unique one", empty_id)
        .v3(&["3.1.3-6"])
        .v5(&["3.1.3-6", "3.1.3-7", "3.2.2-16"])
        .not_in_v31(),
    case("an empty id with a session to keep is refused in 3.x", empty_id_persistent).v3(&["3.1.3-8"]),
    case("an empty id with a session to keep gets an id to come back with", empty_id_kept)
        .v5(&["3.1.3-7", "3.2.2-16"]),
    case("an id that is too long is refused, without session present, and closed", rejected_id)
        .v3(&["3.1.3-9", "3.2.2-4", "3.2.2-5"])
        .v5(&["3.1.3-8", "3.2.2-6", "3.2.2-7", "3.2.2-8", "4.13.2-1"]),
    case("nothing that follows a refused CONNECT is processed", after_refusal)
        .v3(&["3.1.4-5"])
        .v5(&["3.1.4-6"]),
    case("success is one CONNACK, before anything else", one_connack)
        .v3(&["3.1.4-4", "3.2.0-1"])
        .v5(&["3.1.4-5", "3.2.0-1", "3.2.0-2", "3.2.2-1", "3.2.2-8"]),
    case(
        "every QoS, retain, wildcard and sharing is there, so nothing is announced as missing",
        capabilities,
    )
    .v5(&["3.2.2-9", "3.2.2-10", "3.2.2-12", "3.2.2-13"]),
    case("limits are announced", announced_limits).v5(&["3.2.2-8"]),
    case("a CONNACK keeps to the client's Maximum Packet Size", connack_fits)
        .v5(&["3.1.2-24", "3.2.2-19", "3.2.2-20"]),
    case("response information is not returned unless it was asked for", response_information)
        .v5(&["3.1.2-28"]),
    case("an unknown authentication method is refused and closed", unknown_method)
        .v5(&["4.12.0-1", "4.12.0-4"]),
    case("without a method in CONNECT there is none in CONNACK, and AUTH is an error", auth_unasked)
        .v5(&["4.12.0-6", "4.12.0-7"]),
    case("no extension is needed: the shortest CONNECT is served", shortest)
        .v3(&["7.0.0-2"])
        .v5(&["7.0.0-2"])
        .not_in_v31(),
    case("CONNECT may come in pieces of a byte", in_pieces).v3(&["6.0.0-2"]).v5(&["6.0.0-2"]),
];

const MALFORMED: u8 = 0x81;
const PROTOCOL_ERROR: u8 = 0x82;

/// Asserts that a CONNECT is refused: 3.x with this return code, or with `None` by closing
/// alone; 5.0 with one of these reason codes.
#[track_caller]
fn assert_refused(at: &Site, mut client: Client, what: &str, v3: Option<u8>, v5: &[u8]) -> Outcome {
    match (client.ending(SOON)?, v3) {
        (Error::Refused(code), _) if at.is_v5() => assert!(v5.contains(&code), "{what}: {code:#04x}"),
        (Error::Refused(code), Some(expected)) => assert_eq!(code, expected, "{what}"),
        (Error::Closed, None) => return Ok(()),
        (other, _) => panic!("{what}: {other}"),
    }
    // Refusing it closes it.
    assert!(matches!(client.ending(SOON)?, Error::Closed), "{what}: open after CONNACK");
    Ok(())
}

/// A CONNECT by its parts, to be wrong on purpose.
#[derive(Clone)]
struct Parts {
    first: u8,
    name: &'static [u8],
    level: u8,
    flags: u8,
    /// Only in 5.0.
    props: Vec<u8>,
    /// Client id and whatever follows, each with its length; other bytes come last.
    fields: Vec<&'static [u8]>,
    tail: &'static [u8],
}

impl Parts {
    fn new(at: &Site) -> Self {
        let name: &[u8] = if at.version == Version::V31 { b"MQIsdp" } else { b"MQTT" };
        let level = at.version as u8;
        Parts { first: 0x10, name, level, flags: 2, props: Vec::new(), fields: vec![b"x"], tail: b"" }
    }

    fn bytes(&self) -> Vec<u8> {
        let field = |out: &mut Vec<u8>, bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
            out.extend_from_slice(bytes);
        };
        let mut body = Vec::new();
        field(&mut body, self.name);
        body.extend_from_slice(&[self.level, self.flags, 0, 60]);
        if self.level == 5 {
            remaining_length(&mut body, self.props.len());
            body.extend_from_slice(&self.props);
        }
        self.fields.iter().for_each(|bytes| field(&mut body, bytes));
        body.extend_from_slice(self.tail);
        let mut out = vec![self.first];
        remaining_length(&mut out, body.len());
        out.extend_from_slice(&body);
        out
    }

    fn with(&self, flags: u8, fields: &[&'static [u8]]) -> Self {
        Parts { flags, fields: fields.to_vec(), ..self.clone() }
    }
}

/// Sends each CONNECT on a connection of its own and asserts that it is taken for malformed.
fn assert_malformed(at: &Site, rows: &[(&str, Parts)]) -> Outcome {
    for (what, parts) in rows {
        let mut client = at.open()?;
        client.send(&parts.bytes())?;
        assert_refused(at, client, what, None, &[MALFORMED, PROTOCOL_ERROR])?;
    }
    Ok(())
}

fn first_packet(at: &Site) -> Outcome {
    let packets: &[&[u8]] = &[
        &[0xc0, 0],
        &[0x30, 4, 0, 1, b'a', 0],
        &[0x82, 6, 0, 1, 0, 1, b'a', 0],
        &[0xe0, 0],
        &[0xf0, 0],
        &[0, 0],
    ];
    for bytes in packets {
        let mut client = at.open()?;
        client.send(bytes)?;
        assert!(matches!(client.ending(SOON)?, Error::Closed), "{bytes:02x?}");
    }
    Ok(())
}

fn second_connect(at: &Site) -> Outcome {
    let options = at.options();
    let mut client = Client::connect(at.near(), &options)?;
    client.send(&connect(&options))?;
    at.assert_ends(client, &[PROTOCOL_ERROR])?;
    Ok(())
}

fn protocol_name(at: &Site) -> Outcome {
    for name in [&b"mqtt"[..], b"MQTTX", b"MQT", b"", b"HTTP", b"MQIsdpx", &[0xff, 0xfe, b'T', b'T']] {
        let mut client = at.open()?;
        client.send(&Parts { name, ..Parts::new(at) }.bytes())?;
        let ended = client.ending(SOON)?;
        // 5.0 lets a server say why, which no client of another protocol would understand.
        assert!(matches!(ended, Error::Closed), "{name:02x?}: {ended}");
    }
    Ok(())
}

fn protocol_level(at: &Site) -> Outcome {
    let v3: &[(&'static [u8], u8)] =
        &[(b"MQTT", 0), (b"MQTT", 1), (b"MQTT", 3), (b"MQIsdp", 4), (b"MQIsdp", 5), (b"MQIsdp", 2)];
    let v5: &[(&'static [u8], u8)] = &[(b"MQTT", 6), (b"MQTT", 7), (b"MQTT", 127)];
    let (rows, expected) = if at.is_v5() { (v5, 0x84) } else { (v3, 0x01) };
    for &(name, level) in rows {
        let mut client = at.open()?;
        client.send(&Parts { name, level, ..Parts::new(at) }.bytes())?;
        let ended = client.ending(SOON)?;
        assert!(matches!(ended, Error::Refused(code) if code == expected), "{level}: {ended}");
        assert!(matches!(client.ending(SOON)?, Error::Closed), "{level}: open after CONNACK");
    }
    Ok(())
}

fn malformed(at: &Site) -> Outcome {
    let good = Parts::new(at);
    let mut rows = vec![
        ("flags of the fixed header", Parts { first: 0x11, ..good.clone() }),
        ("the reserved connect flag", good.with(0x03, &[b"x"])),
        ("will QoS without a will", good.with(0x0a, &[b"x"])),
        ("will retain without a will", good.with(0x22, &[b"x"])),
        ("bytes after the last field", Parts { tail: b"\0\x01y", ..good.clone() }),
        ("a user name without its flag", good.with(0x02, &[b"x", b"user"])),
        ("a body that ends after the keep-alive", good.with(0x02, &[])),
    ];
    if at.is_v5() {
        // Property length 0 of the will comes as the tail of an otherwise short packet.
        rows.push(("will QoS 3", Parts { tail: b"\0\0\x01t\0\x01p", ..good.with(0x1e, &[b"x"]) }));
        rows.push(("a will flag without a will", good.with(0x06, &[b"x"])));
        rows.push(("a will without its properties", good.with(0x06, &[b"x", b"topic", b"payload"])));
        rows.push(("a will without its payload", Parts { tail: b"\0\0\x01t", ..good.with(0x06, &[b"x"]) }));
    } else {
        rows.push(("will QoS 3", good.with(0x1e, &[b"x", b"topic", b"payload"])));
        rows.push(("a will flag without a will", good.with(0x06, &[b"x"])));
        rows.push(("a will without its message", good.with(0x06, &[b"x", b"topic"])));
    }
    assert_malformed(at, &rows)
}

fn malformed_fields(at: &Site) -> Outcome {
    let good = Parts::new(at);
    let surrogate: &[u8] = &[0xed, 0xa0, 0x80];
    let mut rows = vec![
        ("a user flag without a user name", good.with(0x82, &[b"x"])),
        ("a password flag without a password", good.with(0xc2, &[b"x", b"user"])),
        ("a password without its flag", good.with(0x82, &[b"x", b"user", b"secret"])),
        ("no client id", good.with(0x02, &[])),
        ("a client id that is not UTF-8", good.with(0x02, &[b"x\xc3\x28"])),
        ("a surrogate in a client id", good.with(0x02, &[surrogate])),
        ("U+0000 in a client id", good.with(0x02, &[b"x\0y"])),
        ("a user name that is not UTF-8", good.with(0x82, &[b"x", b"\xff"])),
        ("U+0000 in a user name", good.with(0x82, &[b"x", b"\0"])),
        ("a client id longer than the packet", Parts { tail: b"\0\x09x", ..good.with(0x02, &[]) }),
    ];
    if at.is_v5() {
        let tail = b"\0\0\x03\xed\xa0\x80\0\x01p";
        rows.push(("a surrogate in a will topic", Parts { tail, ..good.with(0x06, &[b"x"]) }));
    } else {
        rows.push(("a surrogate in a will topic", good.with(0x06, &[b"x", surrogate, b"p"])));
        rows.push(("U+0000 in a will topic", good.with(0x06, &[b"x", b"t\0", b"p"])));
    }
    assert_malformed(at, &rows)
}

fn password_alone(at: &Site) -> Outcome {
    let mut options = at.options();
    options.password = Some(b"secret".to_vec());
    let mut client = at.open()?;
    client.send(&connect(&options))?;
    if at.is_v5() {
        client.await_connack()?;
    } else {
        assert!(matches!(client.ending(SOON)?, Error::Closed));
    }
    Ok(())
}

fn bad_properties(at: &Site) -> Outcome {
    let good = Parts::new(at);
    let props = |bytes: &[u8]| Parts { props: bytes.to_vec(), ..good.clone() };
    let both = &[MALFORMED, PROTOCOL_ERROR][..];
    let protocol = &[PROTOCOL_ERROR][..];
    let rows: &[(&str, Parts, &[u8])] = &[
        ("receive maximum 0", props(&[0x21, 0, 0]), protocol),
        ("maximum packet size 0", props(&[0x27, 0, 0, 0, 0]), protocol),
        ("receive maximum twice", props(&[0x21, 0, 1, 0x21, 0, 1]), protocol),
        ("session expiry twice", props(&[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1]), protocol),
        ("topic alias maximum twice", props(&[0x22, 0, 1, 0x22, 0, 1]), protocol),
        ("request problem information 2", props(&[0x17, 2]), protocol),
        ("request response information 2", props(&[0x19, 2]), protocol),
        ("request response information twice", props(&[0x19, 1, 0x19, 1]), protocol),
        ("authentication data without a method", props(&[0x16, 0, 1, b'x']), protocol),
        ("authentication method twice", props(b"\x15\0\x01m\x15\0\x01m"), protocol),
        ("an unknown property", props(&[0x04, 0]), both),
        ("a property of PUBLISH", props(&[0x23, 0, 1]), both),
        ("a property of CONNACK", props(&[0x13, 0, 1]), both),
        ("properties that end too early", props(&[0x11, 0, 0]), both),
        ("a property without a value", props(&[0x21]), both),
        ("an identifier in more bytes than it needs", props(&[0x91, 0x00, 0, 0, 0, 1]), both),
        ("a user property that is not UTF-8", props(b"\x26\0\x01a\0\x01\xff"), both),
        ("U+0000 in the name of a user property", props(b"\x26\0\x01\0\0\x01b"), both),
    ];
    for (what, parts, codes) in rows {
        let mut client = at.open()?;
        client.send(&parts.bytes())?;
        assert_refused(at, client, what, None, codes)?;
    }
    // The will has properties of its own.
    let alias = Props::default().with(prop::TOPIC_ALIAS, Prop::U16(1));
    let twice =
        Props::default().with(prop::WILL_DELAY_S, Prop::U32(1)).with(prop::WILL_DELAY_S, Prop::U32(1));
    let format = Props::default().with(prop::PAYLOAD_FORMAT, Prop::Byte(2));
    for props in [alias, twice, format] {
        let will = Will { props: props.clone(), ..Will::new(&at.topic(), "gone", 0) };
        let mut client = at.open()?;
        client.send(&connect(&at.options().will(will)))?;
        assert_refused(at, client, &format!("a will with {props:?}"), None, both)?;
    }
    Ok(())
}

fn all_fields(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    let mut options = at.options().will(Will::new(&topic, "the will", 1));
    options.username = Some("user".into());
    options.password = Some(b"pass\0word\xff".to_vec());
    let client = Client::connect(at.near(), &options)?;
    client.crash();
    let message = at.recv(&mut subscriber)?;
    assert_eq!((message.text(), message.qos), ("the will".into(), 1));
    Ok(())
}

fn plain_ids(at: &Site) -> Outcome {
    // One character could be another case's too, and take it over; nothing here lasts.
    let unique = fresh("").replace('-', "Z");
    for id in ["0", "z", &format!("{:A>23}", unique), "0123456789abcdefghijklm", "NOPQRSTUVWXYZnopqrstuvw"] {
        let mut client = at.open()?;
        client.send(&connect(&Options::new(at.version, id)))?;
        match client.await_connack() {
            // Taken over by the same case of another version, after it was accepted.
            Ok(()) | Err(Error::Disconnected(0x8e) | Error::Closed) => {}
            Err(other) => panic!("{id:?}: {other}"),
        }
    }
    Ok(())
}

fn empty_id(at: &Site) -> Outcome {
    let options = Options { client_id: String::new(), ..at.options() };
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Client::connect(at.near(), &options)?);
    }
    for client in &mut clients {
        assert!(!client.session_present);
        client.ping()?;
    }
    if at.is_v5() {
        let assigned = |client: &Client| client.granted.text(prop::ASSIGNED_CLIENT_ID).map(str::to_owned);
        let ids: BTreeSet<String> = clients.iter().filter_map(assigned).collect();
        assert_eq!(ids.len(), clients.len(), "{ids:?}");
    }
    Ok(())
}

fn empty_id_persistent(at: &Site) -> Outcome {
    let options = Options { client_id: String::new(), clean_start: false, ..at.options() };
    let mut client = at.open()?;
    client.send(&connect(&options))?;
    assert_refused(at, client, "an empty id", Some(0x02), &[])
}

fn empty_id_kept(at: &Site) -> Outcome {
    let options = Options { client_id: String::new(), ..at.persistent() };
    let client = Client::connect(at.near(), &options)?;
    let id = client.granted.text(prop::ASSIGNED_CLIENT_ID).expect("an assigned id").to_owned();
    client.disconnect()?;
    let options = Options { client_id: id, ..options };
    let client = Client::connect(at.far(), &options)?;
    assert!(client.session_present);
    assert_eq!(client.granted.text(prop::ASSIGNED_CLIENT_ID), None, "only an empty id gets one");
    client.disconnect()?;
    at.forget(&options)?;
    Ok(())
}

fn too_long(at: &Site) -> Options {
    Options { client_id: "x".repeat(2000), ..at.options() }
}

fn rejected_id(at: &Site) -> Outcome {
    let mut client = at.open()?;
    client.send(&connect(&too_long(at)))?;
    let Packet::ConnAck { session_present, .. } = client.packet(SOON)? else { panic!("no CONNACK") };
    assert!(!session_present);
    assert!(matches!(client.ending(SOON)?, Error::Closed));
    let mut client = at.open()?;
    client.send(&connect(&too_long(at)))?;
    assert_refused(at, client, "a long id", Some(0x02), &[0x85])
}

fn after_refusal(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 0)?;
    let mut client = at.open()?;
    let mut bytes = connect(&too_long(at));
    let publish = publish(at.version, &message(&topic, "x", 0, 0));
    bytes.extend_from_slice(&publish);
    client.send(&bytes)?;
    assert_refused(at, client, "a long id", Some(0x02), &[0x85])?;
    let mut publisher = at.client()?;
    // The very bytes are good ones elsewhere.
    publisher.send(&publish)?;
    assert_eq!(at.received(&mut publisher, &mut subscriber)?.len(), 1);
    Ok(())
}

fn one_connack(at: &Site) -> Outcome {
    let mut client = at.open()?;
    let mut bytes = connect(&at.options());
    bytes.extend_from_slice(&[0xc0, 0]);
    bytes.extend_from_slice(&disconnect(at.version, 0));
    client.send(&bytes)?;
    let first = client.packet(SOON)?;
    assert!(matches!(first, Packet::ConnAck { session_present: false, code: 0, .. }), "{first:?}");
    assert_eq!(client.packet(SOON)?, Packet::PingResp);
    assert!(matches!(client.packet(SOON), Err(Error::Closed)));
    Ok(())
}

fn capabilities(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut will = Will::new(&topic, "", 2);
    will.retain = true;
    let mut client = Client::connect(at.near(), &at.options().will(will))?;
    let absent = [prop::MAXIMUM_QOS, prop::RETAIN_AVAILABLE, prop::WILDCARD_AVAILABLE];
    let absent = absent.iter().chain(&[prop::SUBSCRIPTION_IDS_AVAILABLE, prop::SHARED_AVAILABLE]);
    for id in absent {
        assert!(client.granted.number(*id).unwrap_or(1) != 0, "{id:#04x} in {:?}", client.granted);
    }
    assert_eq!(client.granted.number(prop::MAXIMUM_QOS), None);
    let shared = format!("$share/g/{topic}");
    let filters =
        [(&*format!("{topic}/0"), 0), (&format!("{topic}/+"), 1), (&format!("{topic}/#"), 2), (&shared, 2)];
    let with = Props::default().with(prop::SUBSCRIPTION_ID, Prop::Varint(7));
    assert_eq!(client.subscribe_with(&filters, &with)?, [0, 1, 2, 2]);
    for qos in 0..=2 {
        client.publish(&at.topic(), "x", qos)?;
    }
    Ok(())
}

fn announced_limits(at: &Site) -> Outcome {
    let client = Client::connect(at.near(), &at.expiring(u32::MAX))?;
    let granted = &client.granted;
    assert_eq!(granted.number(prop::RECEIVE_MAXIMUM), Some(1024));
    assert_eq!(granted.number(prop::MAXIMUM_PACKET_SIZE), Some(1 << 20));
    assert_eq!(granted.number(prop::TOPIC_ALIAS_MAXIMUM), Some(64));
    assert_eq!(granted.number(prop::SESSION_EXPIRY_S), Some(2_592_000), "less than was asked for");
    client.disconnect()?;
    let client = Client::connect(at.near(), &at.expiring(0))?;
    assert_eq!(client.granted.number(prop::SESSION_EXPIRY_S), None, "as was asked for");
    Ok(())
}

fn connack_fits(at: &Site) -> Outcome {
    let small = |bytes| at.options().prop(prop::MAXIMUM_PACKET_SIZE, Prop::U32(bytes));
    let mut client = Client::connect(at.near(), &small(64))?;
    client.ping()?;
    // What the broker has to say does not fit, and leaving it out would mislead.
    let mut client = at.open()?;
    client.send(&connect(&small(5)))?;
    assert!(matches!(client.ending(SOON)?, Error::Closed));
    // A refusal is told without its text.
    let mut client = at.open()?;
    let options = Options { client_id: "x".repeat(2000), ..small(5) };
    client.send(&connect(&options))?;
    assert!(matches!(client.ending(SOON)?, Error::Refused(0x85)));
    Ok(())
}

fn response_information(at: &Site) -> Outcome {
    for asked in [None, Some(0)] {
        let mut options = at.options();
        if let Some(value) = asked {
            options = options.prop(prop::REQUEST_RESPONSE_INFORMATION, Prop::Byte(value));
        }
        let client = Client::connect(at.near(), &options)?;
        assert_eq!(client.granted.get(prop::RESPONSE_INFORMATION), None);
    }
    let asked = at.options().prop(prop::REQUEST_RESPONSE_INFORMATION, Prop::Byte(1));
    Client::connect(at.near(), &asked)?.disconnect()?;
    Ok(())
}

fn unknown_method(at: &Site) -> Outcome {
    let method = |name: &str| at.options().prop(prop::AUTHENTICATION_METHOD, Prop::Str(name.into()));
    let with_data = method("X-UNKNOWN").prop(prop::AUTHENTICATION_DATA, Prop::Bytes(b"data".to_vec()));
    for options in [method("X-UNKNOWN"), method(""), with_data] {
        let mut client = at.open()?;
        client.send(&connect(&options))?;
        assert_refused(at, client, "a method", None, &[0x8c])?;
    }
    Ok(())
}

fn auth_unasked(at: &Site) -> Outcome {
    let mut client = at.client()?;
    assert_eq!(client.granted.get(prop::AUTHENTICATION_METHOD), None);
    client.send(b"\xf0\x06\x18\x04\x15\0\x01m")?;
    at.assert_ends(client, &[PROTOCOL_ERROR])?;
    Ok(())
}

fn shortest(at: &Site) -> Outcome {
    let mut client = at.open()?;
    let parts = Parts { fields: vec![b""], ..Parts::new(at) };
    client.send(&parts.bytes())?;
    client.await_connack()?;
    client.ping()?;
    Ok(())
}

fn in_pieces(at: &Site) -> Outcome {
    let mut client = at.open()?;
    for byte in connect(&at.options()) {
        client.send(&[byte])?;
    }
    client.await_connack()?;
    for byte in [0xc0, 0, 0xc0, 0] {
        client.send(&[byte])?;
    }
    assert_eq!(client.packet(SOON)?, Packet::PingResp);
    assert_eq!(client.packet(SOON)?, Packet::PingResp);
    Ok(())
}
