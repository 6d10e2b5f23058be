//! Well-formed packets, byte by byte.

use super::packet;
use crate::mqtt::*;
use Version::{V5, V31, V311};

#[test]
fn bridges_of_3_x_are_recognised() {
    let bytes = packet(0x10, b"\0\x04MQTT\x84\x02\0\x3C\0\x01b");
    let Ok(Packet::Connect(c)) = decode(&bytes, None) else { panic!() };
    assert_eq!((c.version, c.bridge, c.client_id, c.keep_alive_s), (V311, true, "b", 60));
    let bytes = packet(0x10, b"\0\x06MQIsdp\x83\x02\0\x3C\0\x01b");
    let Ok(Packet::Connect(c)) = decode(&bytes, None) else { panic!() };
    assert_eq!((c.version, c.bridge), (V31, true));
}

#[test]
fn connect_has_the_defaults_of_the_standard() {
    let Ok(Packet::Connect(c)) = decode(b"\x10\x0D\0\x04MQTT\x05\0\0\0\0\0\0", None) else { panic!() };
    assert_eq!(c, Connect { clean_start: false, ..Connect::new(V5) });
    assert_eq!((c.session_expiry_s, c.receive_maximum, c.maximum_packet_size), (0, 65_535, None));
    assert!(c.request_problem_information && !c.request_response_information);
}

#[test]
fn a_password_without_user_name_is_fine_in_5_0() {
    let bytes = packet(0x10, b"\0\x04MQTT\x05\x42\0\0\0\0\0\0\x01p");
    let Ok(Packet::Connect(c)) = decode(&bytes, None) else { panic!() };
    assert_eq!((c.username, c.password), (None, Some(&b"p"[..])));
}

#[test]
fn a_leading_byte_order_mark_is_kept() {
    let bytes = packet(0x30, b"\0\x04\xEF\xBB\xBFa");
    let Ok(Packet::Publish(p)) = decode(&bytes, Some(V311)) else { panic!() };
    assert_eq!(p.topic, "\u{FEFF}a");
}

#[test]
fn packets_of_3_1_may_be_resent_with_dup() {
    for bytes in [packet(0x6A, b"\0\x01"), packet(0x8A, b"\0\x01\0\x01t\0"), packet(0xAA, b"\0\x01\0\x01t")] {
        assert!(decode(&bytes, Some(V31)).is_ok());
        assert!(decode(&bytes, Some(V311)).is_err());
    }
}

#[test]
fn short_forms_of_5_0() {
    fn ack(bytes: &[u8]) -> (u16, ReasonCode, Option<&str>) {
        match decode(bytes, Some(V5)) {
            Ok(Packet::PubAck(a)) => (a.packet_id, a.reason, a.reason_string),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ack(b"\x40\x02\0\x07"), (7, ReasonCode::Success, None));
    assert_eq!(ack(b"\x40\x03\0\x07\x97"), (7, ReasonCode::QuotaExceeded, None));
    assert_eq!(ack(b"\x40\x04\0\x07\x97\0"), (7, ReasonCode::QuotaExceeded, None));
    assert_eq!(ack(b"\x40\x08\0\x07\x97\x04\x1F\0\x01x"), (7, ReasonCode::QuotaExceeded, Some("x")));
    let disconnect = |bytes: &[u8]| match decode(bytes, Some(V5)) {
        Ok(Packet::Disconnect(d)) => (d.reason, d.session_expiry_s),
        other => panic!("{other:?}"),
    };
    assert_eq!(disconnect(b"\xE0\0"), (ReasonCode::Success, None));
    assert_eq!(disconnect(b"\xE0\x01\x04"), (ReasonCode::DisconnectWithWill, None));
    assert_eq!(disconnect(b"\xE0\x07\0\x05\x11\0\0\0\x09"), (ReasonCode::Success, Some(9)));
}

/// What must not be forwarded is left out, wherever it stands; the rest keeps bytes and order.
#[test]
fn forwardable_properties() {
    const USER: &[u8] = b"\x26\0\x01a\0\x01b";
    const EXPIRY: &[u8] = b"\x02\0\0\0\x05";
    const ALIAS: &[u8] = b"\x23\0\x01";
    const TEXT: &[u8] = b"\x01\x01";
    type Blocks = &'static [&'static [u8]];
    let cases: &[(Blocks, Blocks, bool)] = &[
        (&[], &[], true),
        (&[EXPIRY], &[], true),
        (&[USER, TEXT, USER], &[USER, TEXT, USER], true),
        (&[EXPIRY, USER, TEXT, ALIAS], &[USER, TEXT], true),
        (&[ALIAS, EXPIRY, TEXT], &[TEXT], true),
        (&[USER, ALIAS], &[USER], true),
        (&[USER, EXPIRY, TEXT], &[USER, TEXT], false),
        (&[ALIAS, USER, EXPIRY, USER, TEXT], &[USER, USER, TEXT], false),
    ];
    for (block, forwarded, borrowed) in cases {
        let block = block.concat();
        let body = [b"\0\x01t".as_slice(), &[block.len() as u8], &block, b"p"].concat();
        let bytes = packet(0x30, &body);
        let Ok(Packet::Publish(p)) = decode(&bytes, Some(V5)) else { panic!() };
        let wire = p.forward_properties();
        assert_eq!(*wire, *forwarded.concat());
        assert_eq!(matches!(wire, std::borrow::Cow::Borrowed(_)), *borrowed);
        assert_eq!(p.properties.is_empty(), wire.is_empty());
        assert_eq!(p.payload, b"p");
        super::walk(&Packet::Publish(p));
    }
}

#[test]
fn forwarded_properties_read_by_name() {
    let mut block = Vec::new();
    for p in [
        Property::UserProperty("k", "1"),
        Property::PayloadFormatIndicator(true),
        Property::ContentType("text/plain"),
        Property::ResponseTopic("r/t"),
        Property::CorrelationData(&[0, 255]),
        Property::UserProperty("k", "2"),
    ] {
        encode::property(&mut block, p).unwrap();
    }
    let forward = ForwardProperties::from_wire(&block).unwrap();
    assert!(forward.payload_is_text());
    assert_eq!(forward.content_type(), Some("text/plain"));
    assert_eq!(forward.response_topic(), Some("r/t"));
    assert_eq!(forward.correlation_data(), Some(&[0, 255][..]));
    assert!(forward.user_properties().iter().eq([("k", "1"), ("k", "2")]));
    assert!(ForwardProperties::from_wire(b"\x23\0\x01").is_err());
}

#[test]
fn connack_of_each_version() {
    let encode = |version, ack: &ConnAck<'_>, max| {
        let mut out = Vec::new();
        let written = encode::connack(&mut out, version, ack, max);
        assert_eq!(written, !out.is_empty());
        out
    };
    let present = ConnAck { session_present: true, ..ConnAck::new(ReasonCode::Success) };
    assert_eq!(encode(V31, &present, 100), b"\x20\x02\0\0");
    assert_eq!(encode(V311, &present, 100), b"\x20\x02\x01\0");
    assert_eq!(encode(V5, &present, 100), b"\x20\x03\x01\0\0");
    let refused = ConnAck { session_present: true, ..ConnAck::new(ReasonCode::Banned) };
    assert_eq!(encode(V311, &refused, 100), b"\x20\x02\0\x05");
    assert_eq!(encode(V5, &refused, 100), b"\x20\x03\0\x8A\0");
    assert_eq!(encode(V311, &ConnAck::new(ReasonCode::MalformedPacket), 100), b"");
    let unknown = ConnAck::new(ReasonCode::UnsupportedProtocolVersion);
    assert_eq!(encode(V311, &unknown, 100), b"\x20\x02\0\x01");
    assert_eq!(encode(V5, &unknown, 100), b"\x20\x03\0\x84\0");

    // Texts that do not fit are left out; what cannot be left out is not sent at all.
    let long = ConnAck { reason_string: Some("too long"), ..ConnAck::new(ReasonCode::ServerBusy) };
    assert_eq!(encode(V5, &long, 16), b"\x20\x0E\0\x89\x0B\x1F\0\x08too long");
    assert_eq!(encode(V5, &long, 15), b"\x20\x03\0\x89\0");
    assert_eq!(encode(V5, &long, 4), b"");
}

#[test]
fn disconnect_fits_or_is_not_sent() {
    let text = Disconnect {
        reason: ReasonCode::SessionTakenOver,
        reason_string: Some("x"),
        ..Disconnect::default()
    };
    let encode = |packet: &Disconnect<'_>, max| {
        let mut out = vec![1];
        let written = encode::disconnect(&mut out, packet, max);
        assert_eq!(written, out.len() > 1);
        out.split_off(1)
    };
    assert_eq!(encode(&text, 8), b"\xE0\x06\x8E\x04\x1F\0\x01x");
    assert_eq!(encode(&text, 7), b"\xE0\x02\x8E\0");
    assert_eq!(encode(&text, 3), b"");
    assert_eq!(encode(&Disconnect::default(), 3), b"\xE0\0");
}

#[test]
fn acknowledgements_are_short() {
    let mut out = Vec::new();
    encode::puback(&mut out, V5, 258, ReasonCode::Success);
    encode::pubrec(&mut out, V311, 258, ReasonCode::QuotaExceeded);
    encode::pubrel(&mut out, V5, 258, ReasonCode::PacketIdentifierNotFound);
    encode::pubcomp(&mut out, V5, 258, ReasonCode::Success);
    encode::pingresp(&mut out);
    assert_eq!(out, b"\x40\x02\x01\x02\x50\x02\x01\x02\x62\x03\x01\x02\x92\x70\x02\x01\x02\xD0\0");
    out.clear();
    let codes = [ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized];
    encode::suback(&mut out, V311, 1, &codes);
    encode::suback(&mut out, V5, 1, &codes);
    encode::unsuback(&mut out, V311, 1, &codes);
    encode::unsuback(&mut out, V5, 1, &[ReasonCode::NoSubscriptionExisted]);
    assert_eq!(out, b"\x90\x04\0\x01\x01\x80\x90\x05\0\x01\0\x01\x87\xB0\x02\0\x01\xB0\x04\0\x01\0\x11");
}

#[test]
fn oversized_fields_are_refused_and_leave_nothing_behind() {
    let long = "x".repeat(65_536);
    let mut out = vec![7];
    let message = Publication {
        topic: &long,
        payload: b"",
        properties: b"",
        qos: QoS::AtMostOnce,
        retain: false,
        expires_at_ms: 0,
        publisher: "",
    };
    assert_eq!(encode::publish(&mut out, &PublishOut::new(V5, &message)), Err(Oversize));
    let c = Connect { username: Some(&long), ..Connect::new(V5) };
    assert_eq!(encode::connect(&mut out, &c), Err(Oversize));
    assert_eq!(encode::unsubscribe(&mut out, V311, 1, &["a", &long]), Err(Oversize));
    assert_eq!(encode::user_property(&mut out, "a", &long), Err(Oversize));
    assert_eq!(encode::property(&mut out, Property::SubscriptionIdentifier(u32::MAX)), Err(Oversize));
    let filter = SubscribeFilter { filter: "a", options: SubOptions::default() };
    assert_eq!(encode::subscribe(&mut out, V5, 1, u32::MAX, &[filter]), Err(Oversize));
    assert_eq!(out, [7]);
}

/// [MQTT-3.15.2-2], [MQTT-3.15.2-3], [MQTT-3.2.2-19], [MQTT-3.2.2-20]
#[test]
fn texts_of_an_authentication_yield_to_the_clients_maximum_packet_size() {
    let mut user = Vec::new();
    encode::user_property(&mut user, "name", "value").unwrap();
    let user_properties = UserProperties::from_wire(&user).unwrap();
    let (method, data) = (Some("m"), Some(&b"data"[..]));
    let auth = Auth {
        reason: ReasonCode::ContinueAuthentication,
        method,
        data,
        reason_string: Some("why"),
        user_properties,
    };
    let ack = ConnAck {
        auth_method: method,
        auth_data: data,
        reason_string: Some("why"),
        user_properties,
        ..ConnAck::new(ReasonCode::Success)
    };
    let write = |max| {
        let mut out = (Vec::new(), Vec::new());
        let fit = (encode::auth(&mut out.0, &auth, max), encode::connack(&mut out.1, V5, &ack, max));
        (out, fit)
    };
    let ((whole_auth, whole_ack), _) = write(u32::MAX);
    let bare_auth = b"\xF0\x0D\x18\x0B\x15\0\x01m\x16\0\x04data";
    let bare_ack = b"\x20\x0E\0\0\x0B\x15\0\x01m\x16\0\x04data";
    for max in 0..whole_ack.len() {
        let ((got_auth, got_ack), fit) = write(max as u32);
        assert_eq!(fit, (max >= bare_auth.len(), max >= bare_ack.len()));
        let want = if max >= whole_auth.len() { &whole_auth[..] } else { &bare_auth[..] };
        assert_eq!(got_auth, if fit.0 { want } else { b"" }, "{max}");
        assert_eq!(got_ack, if fit.1 { &bare_ack[..] } else { b"" }, "{max}");
    }
}

/// A reason string may come from an authorization service; it must never break the packet.
#[test]
fn long_reason_strings_are_cut_between_characters() {
    let long = "ä".repeat(40_000);
    let mut out = Vec::new();
    let ack = ConnAck { reason_string: Some(&long), ..ConnAck::new(ReasonCode::NotAuthorized) };
    assert!(encode::connack(&mut out, V5, &ack, u32::MAX));
    let Ok(Packet::ConnAck(read)) = decode_from_server(&out, V5) else { panic!() };
    assert_eq!(read.reason_string.map(str::len), Some(65_534));
}
