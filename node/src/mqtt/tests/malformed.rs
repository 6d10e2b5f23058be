//! Packets that break one rule each, and the reason code each must be answered with.

use super::packet;
use crate::mqtt::{ReasonCode, Version, decode, decode_from_server, frame_len};
use ReasonCode::{
    MalformedPacket as Malformed, ProtocolError as Protocol, TopicAliasInvalid, TopicFilterInvalid,
    TopicNameInvalid, UnsupportedProtocolVersion as Unsupported,
};
use Version::{V5, V31, V311};

fn concat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// A length-prefixed field.
fn field(bytes: &[u8]) -> Vec<u8> {
    concat(&[&(bytes.len() as u16).to_be_bytes(), bytes])
}

/// Variable header of a CONNECT up to the keep-alive, then `rest`.
fn connect(version: Version, flags: u8, rest: &[u8]) -> Vec<u8> {
    let name: &[u8] = if version == V31 { b"MQIsdp" } else { b"MQTT" };
    packet(0x10, &concat(&[&field(name), &[version as u8, flags, 0, 60], rest]))
}

/// A 5.0 CONNECT with this property block and the client id "c".
fn connect_with(properties: &[u8]) -> Vec<u8> {
    connect(V5, 2, &concat(&[&[properties.len() as u8], properties, b"\0\x01c"]))
}

/// A 5.0 CONNECT with a will "t" → "m" and this block of will properties.
fn will_with(properties: &[u8]) -> Vec<u8> {
    connect(V5, 6, &concat(&[b"\0\0\x01c", &[properties.len() as u8], properties, b"\0\x01t\0\x01m"]))
}

/// A 5.0 QoS 0 PUBLISH to "t" with this property block.
fn publish_with(properties: &[u8]) -> Vec<u8> {
    packet(0x30, &concat(&[b"\0\x01t", &[properties.len() as u8], properties, b"payload"]))
}

/// A 5.0 SUBSCRIBE with this property block.
fn subscribe_with(properties: &[u8]) -> Vec<u8> {
    packet(0x82, &concat(&[b"\0\x01", &[properties.len() as u8], properties, b"\0\x01t\0"]))
}

fn subscribe(version: Version, filter: &[u8], options: u8) -> Vec<u8> {
    let properties: &[u8] = if version == V5 { b"\0" } else { b"" };
    packet(0x82, &concat(&[b"\0\x01", properties, &field(filter), &[options]]))
}

type Case = (&'static str, Option<Version>, Vec<u8>, ReasonCode);

fn check(cases: &[Case], decode: impl Fn(&[u8], Option<Version>) -> Option<ReasonCode>) {
    let mut wrong = Vec::new();
    for (name, version, bytes, expected) in cases {
        let got = decode(bytes, *version);
        if got != Some(*expected) {
            wrong.push(format!("{name}: expected {expected}, got {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn check_client(cases: &[Case]) {
    check(cases, |bytes, version| decode(bytes, version).err().map(|e| e.reason));
}

#[test]
fn connects() {
    check_client(&[
        ("not first", None, packet(0xC0, b""), Protocol),
        ("publish first", None, packet(0x30, b"\0\x01t"), Protocol),
        ("second CONNECT", Some(V5), connect_with(b""), Protocol),
        ("fixed header flags", None, packet(0x11, b"\0\x04MQTT\x04\x02\0\0\0\0"), Malformed),
        ("empty body", None, packet(0x10, b""), Malformed),
        ("no level", None, packet(0x10, b"\0\x04MQTT"), Malformed),
        ("wrong name", None, packet(0x10, b"\0\x04MQTX\x04\x02\0\0\0\0"), Unsupported),
        ("name in lower case", None, packet(0x10, b"\0\x04mqtt\x04\x02\0\0\0\0"), Unsupported),
        ("name not UTF-8", None, packet(0x10, b"\0\x04MQT\xFF\x04\x02\0\0\0\0"), Unsupported),
        ("level 6", None, packet(0x10, b"\0\x04MQTT\x06\x02\0\0\0\0\0"), Unsupported),
        ("level 3 as MQTT", None, packet(0x10, b"\0\x04MQTT\x03\x02\0\0\0\0"), Unsupported),
        ("level 4 as MQIsdp", None, packet(0x10, b"\0\x06MQIsdp\x04\x02\0\0\0\0"), Unsupported),
        ("reserved flag", None, connect(V311, 3, b"\0\x01c"), Malformed),
        ("reserved flag, 5.0", None, connect(V5, 3, b"\0\0\x01c"), Malformed),
        ("will QoS 3", None, connect(V311, 0x1E, b"\0\x01c\0\x01t\0\x01m"), Malformed),
        ("will QoS without will", None, connect(V311, 0x0A, b"\0\x01c"), Malformed),
        ("will retain without will", None, connect(V5, 0x22, b"\0\0\x01c"), Malformed),
        ("password alone, 3.1", None, connect(V31, 0x42, b"\0\x01c\0\x01p"), Malformed),
        ("password alone, 3.1.1", None, connect(V311, 0x42, b"\0\x01c\0\x01p"), Malformed),
        ("no client id", None, connect(V311, 2, b""), Malformed),
        ("client id cut short", None, connect(V311, 2, b"\0\x05abc"), Malformed),
        ("client id not UTF-8", None, connect(V311, 2, b"\0\x02\xC3\x28"), Malformed),
        ("client id with U+0000", None, connect(V311, 2, b"\0\x02a\0"), Malformed),
        ("client id with a surrogate", None, connect(V311, 2, b"\0\x03\xED\xA0\x80"), Malformed),
        ("client id overlong", None, connect(V311, 2, b"\0\x02\xC0\x80"), Malformed),
        ("trailing byte", None, connect(V311, 2, b"\0\x01cx"), Malformed),
        ("trailing user name", None, connect(V5, 2, b"\0\0\x01c\0\x01u"), Malformed),
        ("user name missing", None, connect(V311, 0x82, b"\0\x01c"), Malformed),
        ("password missing", None, connect(V311, 0xC2, b"\0\x01c\0\x01u"), Malformed),
        ("user name not UTF-8", None, connect(V311, 0x82, b"\0\x01c\0\x01\xFF"), Malformed),
        ("will missing", None, connect(V311, 6, b"\0\x01c"), Malformed),
        ("will payload missing", None, connect(V311, 6, b"\0\x01c\0\x01t"), Malformed),
        ("will topic with wildcard", None, connect(V311, 6, b"\0\x01c\0\x03t/#\0\x01m"), TopicNameInvalid),
        ("will topic empty", None, connect(V5, 6, b"\0\0\x01c\0\0\0\0\x01m"), TopicNameInvalid),
        ("will topic not UTF-8", None, connect(V311, 6, b"\0\x01c\0\x01\xFE\0\x01m"), Malformed),
        ("no properties", None, connect(V5, 2, b""), Malformed),
        ("properties beyond the end", None, connect(V5, 2, b"\x7F\0\x01c"), Malformed),
        ("property length not shortest", None, connect(V5, 2, b"\x80\0\0\x01c"), Malformed),
        ("property cut by the block", None, connect_with(b"\x11\0\0"), Malformed),
        ("property unknown", None, connect_with(b"\x7E\0"), Malformed),
        ("property identifier of two bytes", None, connect_with(b"\x91\0\0\0\0\0"), Malformed),
        ("property of PUBLISH", None, connect_with(b"\x23\0\x01"), Malformed),
        ("receive maximum 0", None, connect_with(b"\x21\0\0"), Protocol),
        ("receive maximum twice", None, connect_with(b"\x21\0\x01\x21\0\x01"), Protocol),
        ("session expiry twice", None, connect_with(b"\x11\0\0\0\x01\x11\0\0\0\x01"), Protocol),
        ("maximum packet size 0", None, connect_with(b"\x27\0\0\0\0"), Protocol),
        ("request problem information 2", None, connect_with(b"\x17\x02"), Protocol),
        ("request response information 2", None, connect_with(b"\x19\x02"), Protocol),
        ("auth data without method", None, connect_with(b"\x16\0\x01x"), Protocol),
        ("auth method twice", None, connect_with(b"\x15\0\x01x\x15\0\x01x"), Protocol),
        ("user property without value", None, connect_with(b"\x26\0\x01x"), Malformed),
        ("user property with U+0000", None, connect_with(b"\x26\0\x01x\0\x01\0"), Malformed),
        ("will delay in CONNECT", None, connect_with(b"\x18\0\0\0\x01"), Malformed),
        ("will: topic alias", None, will_with(b"\x23\0\x01"), Malformed),
        ("will: subscription id", None, will_with(b"\x0B\x01"), Malformed),
        ("will: delay twice", None, will_with(b"\x18\0\0\0\x01\x18\0\0\0\x01"), Protocol),
        ("will: payload format 2", None, will_with(b"\x01\x02"), Protocol),
        ("will: response topic wildcard", None, will_with(b"\x08\0\x01+"), TopicNameInvalid),
    ]);
}

#[test]
fn publishes() {
    check_client(&[
        ("QoS 3", Some(V311), packet(0x36, b"\0\x01t\0\x01"), Malformed),
        ("QoS 0 with DUP", Some(V311), packet(0x38, b"\0\x01t"), Malformed),
        ("no topic", Some(V311), packet(0x30, b""), Malformed),
        ("topic beyond the end", Some(V311), packet(0x30, b"\0\x09t"), Malformed),
        ("topic not UTF-8", Some(V311), packet(0x30, b"\0\x01\xFF"), Malformed),
        ("topic with U+0000", Some(V311), packet(0x30, b"\0\x03a\0b"), Malformed),
        ("topic with a surrogate", Some(V5), packet(0x30, b"\0\x03\xED\xBF\xBF\0"), Malformed),
        ("topic empty, 3.1.1", Some(V311), packet(0x30, b"\0\0x"), TopicNameInvalid),
        ("topic empty without alias", Some(V5), packet(0x30, b"\0\0\0x"), Protocol),
        ("topic with +", Some(V31), packet(0x30, b"\0\x03a/+"), TopicNameInvalid),
        ("topic with #", Some(V5), packet(0x30, b"\0\x01#\0"), TopicNameInvalid),
        ("no packet id", Some(V311), packet(0x32, b"\0\x01t\0"), Malformed),
        ("packet id 0", Some(V311), packet(0x32, b"\0\x01t\0\0"), Protocol),
        ("packet id 0, QoS 2", Some(V5), packet(0x34, b"\0\x01t\0\0\0"), Protocol),
        ("no properties", Some(V5), packet(0x30, b"\0\x01t"), Malformed),
        ("properties beyond the end", Some(V5), packet(0x30, b"\0\x01t\x09\x01"), Malformed),
        ("topic alias 0", Some(V5), publish_with(b"\x23\0\0"), TopicAliasInvalid),
        ("topic alias twice", Some(V5), publish_with(b"\x23\0\x01\x23\0\x01"), Protocol),
        ("payload format 2", Some(V5), publish_with(b"\x01\x02"), Protocol),
        ("payload format twice", Some(V5), publish_with(b"\x01\x01\x01\x01"), Protocol),
        ("expiry twice", Some(V5), publish_with(b"\x02\0\0\0\x01\x02\0\0\0\x01"), Protocol),
        ("content type twice", Some(V5), publish_with(b"\x03\0\x01x\x03\0\x01x"), Protocol),
        ("content type not UTF-8", Some(V5), publish_with(b"\x03\0\x01\xFF"), Malformed),
        ("response topic wildcard", Some(V5), publish_with(b"\x08\0\x01#"), TopicNameInvalid),
        ("response topic empty", Some(V5), publish_with(b"\x08\0\0"), TopicNameInvalid),
        ("response topic twice", Some(V5), publish_with(b"\x08\0\x01x\x08\0\x01x"), Protocol),
        ("correlation data twice", Some(V5), publish_with(b"\x09\0\x01x\x09\0\x01x"), Protocol),
        ("subscription id", Some(V5), publish_with(b"\x0B\x01"), Protocol),
        ("subscription id 0", Some(V5), publish_with(b"\x0B\0"), Protocol),
        ("reason string", Some(V5), publish_with(b"\x1F\0\x01x"), Malformed),
        ("user property not UTF-8", Some(V5), publish_with(b"\x26\0\x01\xFF\0\0"), Malformed),
    ]);
}

#[test]
fn acknowledgements() {
    check_client(&[
        ("PUBACK flags", Some(V311), packet(0x41, b"\0\x01"), Malformed),
        ("PUBREC flags", Some(V311), packet(0x52, b"\0\x01"), Malformed),
        ("PUBREL flags 0", Some(V311), packet(0x60, b"\0\x01"), Malformed),
        ("PUBREL with DUP after 3.1", Some(V311), packet(0x6A, b"\0\x01"), Malformed),
        ("PUBCOMP flags", Some(V5), packet(0x72, b"\0\x01"), Malformed),
        ("packet id 0", Some(V311), packet(0x40, b"\0\0"), Protocol),
        ("packet id cut short", Some(V311), packet(0x40, b"\0"), Malformed),
        ("reason code in 3.1.1", Some(V311), packet(0x40, b"\0\x01\0"), Malformed),
        ("undefined reason", Some(V5), packet(0x40, b"\0\x01\x05"), Malformed),
        ("reason of another packet", Some(V5), packet(0x40, b"\0\x01\x92"), Protocol),
        ("PUBREL: PUBACK's reason", Some(V5), packet(0x62, b"\0\x01\x97"), Protocol),
        ("foreign property", Some(V5), packet(0x40, b"\0\x01\0\x03\x21\0\x01"), Malformed),
        ("reason string twice", Some(V5), packet(0x40, b"\0\x01\0\x06\x1F\0\0\x1F\0\0"), Protocol),
        ("properties beyond the end", Some(V5), packet(0x40, b"\0\x01\0\x01"), Malformed),
        ("bytes after the properties", Some(V5), packet(0x40, b"\0\x01\0\0\0"), Malformed),
    ]);
}

#[test]
fn subscriptions() {
    check_client(&[
        ("SUBSCRIBE flags", Some(V311), packet(0x80, b"\0\x01\0\x01t\0"), Malformed),
        ("SUBSCRIBE with DUP after 3.1", Some(V5), packet(0x8A, b"\0\x01\0\0\x01t\0"), Malformed),
        ("SUBSCRIBE packet id 0", Some(V311), packet(0x82, b"\0\0\0\x01t\0"), Protocol),
        ("SUBSCRIBE without filters", Some(V311), packet(0x82, b"\0\x01"), Protocol),
        ("SUBSCRIBE without filters, 5.0", Some(V5), packet(0x82, b"\0\x01\0"), Protocol),
        ("SUBSCRIBE without options", Some(V311), packet(0x82, b"\0\x01\0\x01t"), Malformed),
        ("second filter cut short", Some(V311), packet(0x82, b"\0\x01\0\x01t\0\0\x05a"), Malformed),
        ("filter not UTF-8", Some(V311), subscribe(V311, b"\xFF", 0), Malformed),
        ("filter with U+0000", Some(V311), subscribe(V311, b"a\0", 0), Malformed),
        ("filter empty", Some(V311), subscribe(V311, b"", 0), TopicFilterInvalid),
        ("filter a/#/b", Some(V311), subscribe(V311, b"a/#/b", 0), TopicFilterInvalid),
        ("filter a+", Some(V5), subscribe(V5, b"a+", 0), TopicFilterInvalid),
        ("$share/g", Some(V5), subscribe(V5, b"$share/g", 0), TopicFilterInvalid),
        ("$share/g/", Some(V5), subscribe(V5, b"$share/g/", 0), TopicFilterInvalid),
        ("$share//t", Some(V5), subscribe(V5, b"$share//t", 0), TopicFilterInvalid),
        ("$share/+/t", Some(V311), subscribe(V311, b"$share/+/t", 0), TopicFilterInvalid),
        ("no local and shared", Some(V5), subscribe(V5, b"$share/g/t", 4), Protocol),
        ("QoS 3", Some(V311), subscribe(V311, b"t", 3), Protocol),
        ("QoS 3, 5.0", Some(V5), subscribe(V5, b"t", 3), Protocol),
        ("no local in 3.1.1", Some(V311), subscribe(V311, b"t", 4), Malformed),
        ("retain handling 3", Some(V5), subscribe(V5, b"t", 0x30), Protocol),
        ("reserved bit 6", Some(V5), subscribe(V5, b"t", 0x40), Malformed),
        ("reserved bit 7", Some(V5), subscribe(V5, b"t", 0x80), Malformed),
        ("subscription id 0", Some(V5), subscribe_with(b"\x0B\0"), Protocol),
        ("subscription id twice", Some(V5), subscribe_with(b"\x0B\x01\x0B\x02"), Protocol),
        ("subscription id of 5 bytes", Some(V5), subscribe_with(b"\x0B\xFF\xFF\xFF\xFF\x01"), Malformed),
        ("subscription id not shortest", Some(V5), subscribe_with(b"\x0B\x81\0"), Malformed),
        ("reason string", Some(V5), subscribe_with(b"\x1F\0\0"), Malformed),
        ("UNSUBSCRIBE flags", Some(V311), packet(0xA0, b"\0\x01\0\x01t"), Malformed),
        ("UNSUBSCRIBE packet id 0", Some(V311), packet(0xA2, b"\0\0\0\x01t"), Protocol),
        ("UNSUBSCRIBE without filters", Some(V311), packet(0xA2, b"\0\x01"), Protocol),
        ("UNSUBSCRIBE without filters, 5.0", Some(V5), packet(0xA2, b"\0\x01\0"), Protocol),
        ("UNSUBSCRIBE filter invalid", Some(V311), packet(0xA2, b"\0\x01\0\x02#a"), TopicFilterInvalid),
        ("UNSUBSCRIBE filter cut short", Some(V311), packet(0xA2, b"\0\x01\0\x02a"), Malformed),
        ("UNSUBSCRIBE subscription id", Some(V5), packet(0xA2, b"\0\x01\x02\x0B\x01\0\x01t"), Malformed),
    ]);
}

#[test]
fn the_rest() {
    check_client(&[
        ("packet type 0", Some(V5), packet(0x00, b""), Malformed),
        ("length too long", Some(V5), vec![0xC0, 1], Malformed),
        ("length too short", Some(V5), vec![0xC0, 0, 0], Malformed),
        ("length not shortest", Some(V5), vec![0xC0, 0x80, 0], Malformed),
        ("PINGREQ flags", Some(V5), packet(0xC1, b""), Malformed),
        ("PINGREQ with a body", Some(V5), packet(0xC0, b"x"), Malformed),
        ("PINGRESP from a client", Some(V5), packet(0xD0, b""), Protocol),
        ("CONNACK from a client", Some(V5), packet(0x20, b"\0\0\0"), Protocol),
        ("SUBACK from a client", Some(V311), packet(0x90, b"\0\x01\0"), Protocol),
        ("UNSUBACK from a client", Some(V311), packet(0xB0, b"\0\x01"), Protocol),
        ("DISCONNECT flags", Some(V311), packet(0xE1, b""), Malformed),
        ("DISCONNECT with a body", Some(V311), packet(0xE0, b"\0"), Malformed),
        ("DISCONNECT flags, 5.0", Some(V5), packet(0xE8, b""), Malformed),
        ("DISCONNECT undefined reason", Some(V5), packet(0xE0, b"\x03"), Malformed),
        ("DISCONNECT server's reason", Some(V5), packet(0xE0, b"\x8E"), Protocol),
        ("DISCONNECT server reference", Some(V5), packet(0xE0, b"\0\x04\x1C\0\x01x"), Malformed),
        ("DISCONNECT trailing", Some(V5), packet(0xE0, b"\0\0x"), Malformed),
        ("DISCONNECT expiry twice", Some(V5), packet(0xE0, b"\0\x0A\x11\0\0\0\x01\x11\0\0\0\x01"), Protocol),
        ("AUTH in 3.1.1", Some(V311), packet(0xF0, b""), Malformed),
        ("AUTH flags", Some(V5), packet(0xF1, b"\x18\x04\x15\0\x01x"), Malformed),
        ("AUTH success from a client", Some(V5), packet(0xF0, b""), Protocol),
        ("AUTH without properties", Some(V5), packet(0xF0, b"\x18"), Malformed),
        ("AUTH without method", Some(V5), packet(0xF0, b"\x18\0"), Protocol),
        ("AUTH undefined reason", Some(V5), packet(0xF0, b"\x17\x04\x15\0\x01x"), Malformed),
        ("AUTH foreign property", Some(V5), packet(0xF0, b"\x18\x07\x15\0\x01x\x21\0\x01"), Malformed),
    ]);
}

#[test]
fn from_servers() {
    let cases: &[Case] = &[
        ("PINGREQ from a server", Some(V5), packet(0xC0, b""), Protocol),
        ("CONNACK flags", Some(V5), packet(0x20, b"\x02\0\0"), Malformed),
        ("CONNACK session present in 3.1", Some(V31), packet(0x20, b"\x01\0"), Malformed),
        ("CONNACK refused with session", Some(V311), packet(0x20, b"\x01\x05"), Protocol),
        ("CONNACK undefined return code", Some(V311), packet(0x20, b"\0\x06"), Malformed),
        ("CONNACK reason of DISCONNECT", Some(V5), packet(0x20, b"\0\x8E\0"), Protocol),
        ("CONNACK maximum QoS 2", Some(V5), packet(0x20, b"\0\0\x02\x24\x02"), Protocol),
        ("CONNACK retain available 2", Some(V5), packet(0x20, b"\0\0\x02\x25\x02"), Protocol),
        ("CONNACK without properties", Some(V5), packet(0x20, b"\0\0"), Malformed),
        ("SUBACK without codes", Some(V311), packet(0x90, b"\0\x01"), Protocol),
        ("SUBACK undefined code in 3.1.1", Some(V311), packet(0x90, b"\0\x01\x87"), Malformed),
        ("SUBACK code of UNSUBACK", Some(V5), packet(0x90, b"\0\x01\0\x11"), Protocol),
        ("UNSUBACK codes in 3.1.1", Some(V311), packet(0xB0, b"\0\x01\0"), Malformed),
        ("DISCONNECT in 3.1.1", Some(V311), packet(0xE0, b""), Protocol),
        ("DISCONNECT with session expiry", Some(V5), packet(0xE0, b"\x8B\x05\x11\0\0\0\x01"), Malformed),
        ("DISCONNECT with will", Some(V5), packet(0xE0, b"\x04"), Protocol),
        ("AUTH re-authenticate", Some(V5), packet(0xF0, b"\x19\x04\x15\0\x01x"), Protocol),
        ("PUBLISH subscription id 0", Some(V5), publish_with(b"\x0B\0"), Protocol),
    ];
    check(cases, |bytes, version| decode_from_server(bytes, version?).err().map(|e| e.reason));
}

/// Which form of CONNACK may tell a client that its CONNECT is refused.
#[test]
fn refusals() {
    for (bytes, form) in [
        (packet(0x10, b"\0\x04MQTT\x06\x02\0\0\0\0\0"), Some(V5)),
        (packet(0x10, b"\0\x04MQTT\xFF\x02\0\0\0\0\0"), Some(V5)),
        (packet(0x10, b"\0\x04MQTT\x03\x02\0\0\0\0"), Some(V311)),
        (packet(0x10, b"\0\x06MQIsdp\x02\x02\0\0\0\0"), Some(V311)),
        (packet(0x10, b"\0\x03XYZ\x04\x02\0\0\0\0"), None),
        (connect_with(b"\x21\0\0"), Some(V5)),
        (connect(V311, 3, b"\0\x01c"), None),
        (connect(V31, 3, b"\0\x01c"), None),
        (packet(0xC0, b""), None),
    ] {
        let error = decode(&bytes, None).unwrap_err();
        assert_eq!(error.connack, form, "{error}");
    }
}

#[test]
fn frames() {
    let reason = |bytes: &[u8]| frame_len(bytes, 1000).map_err(|e| e.reason);
    assert_eq!(reason(b""), Ok(None));
    assert_eq!(reason(b"\x30"), Ok(None));
    assert_eq!(reason(b"\x30\x80"), Ok(None));
    assert_eq!(reason(b"\x30\x80\x80\x80"), Ok(None));
    assert_eq!(reason(b"\xC0\0"), Ok(Some(2)));
    assert_eq!(reason(b"\x30\xE5\x07"), Ok(Some(1000)));
    assert_eq!(reason(b"\x30\xE6\x07"), Err(ReasonCode::PacketTooLarge));
    assert_eq!(reason(b"\x30\x80\0"), Err(Malformed));
    assert_eq!(reason(b"\x30\xFF\x80\0"), Err(Malformed));
    assert_eq!(reason(b"\x30\x80\x80\x80\x80\x01"), Err(Malformed));
    assert_eq!(reason(b"\x30\xFF\xFF\xFF\xFF"), Err(Malformed));
    assert_eq!(reason(b"\x0F"), Err(Malformed));
    assert_eq!(frame_len(b"\x30\xFF\xFF\xFF\x7F", u32::MAX), Ok(Some(268_435_460)));
}
