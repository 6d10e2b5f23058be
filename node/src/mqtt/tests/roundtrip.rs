//! What is encoded decodes to the same packet.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::gen_packets::*;
use super::gen_server::connack;
use super::walk;
use crate::mqtt::*;

/// Decodes a packet that stands alone in `out`.
fn whole(out: &[u8], version: Option<Version>, from_server: bool) -> Packet<'_> {
    assert_eq!(frame_len(out, u32::MAX), Ok(Some(out.len())));
    let packet = match version {
        Some(version) if from_server => decode_from_server(out, version),
        _ => decode(out, version),
    };
    let packet = packet.unwrap_or_else(|e| panic!("{e} in {out:02X?}"));
    walk(&packet);
    packet
}

proptest! {
    #[test]
    fn connect_packets(c in connect()) {
        let mut out = Vec::new();
        encode::connect(&mut out, &c.borrow()).unwrap();
        prop_assert_eq!(whole(&out, None, false), Packet::Connect(c.borrow()));
    }

    #[test]
    fn publish_packets(p in publish(3), patched in 1..=u16::MAX) {
        let mut out = vec![0xAA; 3];
        let len = p.with(encode::publish_len);
        let id_at = p.with(|p| encode::publish(&mut out, p)).unwrap();
        prop_assert_eq!(out.len(), 3 + len);
        let v5 = p.version == Version::V5;
        let qos = p.message.qos;
        prop_assert_eq!(id_at.is_some(), qos != QoS::AtMostOnce);
        if let Some(at) = id_at {
            prop_assert_eq!(&out[at..at + 2], &p.packet_id.to_be_bytes());
            out[at..at + 2].copy_from_slice(&patched.to_be_bytes());
        }
        let Packet::Publish(read) = whole(&out[3..], Some(p.version), true) else { panic!() };
        prop_assert_eq!(read.qos, qos);
        prop_assert_eq!(read.dup, p.dup && qos != QoS::AtMostOnce);
        prop_assert_eq!(read.retain, p.message.retain);
        let named = !v5 || p.topic_alias.is_none_or(|(_, named)| named);
        prop_assert_eq!(read.topic, if named { &*p.message.topic } else { "" });
        prop_assert_eq!(read.packet_id, if id_at.is_some() { patched } else { 0 });
        prop_assert_eq!(read.payload, &*p.message.payload);
        if v5 {
            prop_assert_eq!(&*read.forward_properties(), &*p.message.properties);
            prop_assert!(matches!(read.forward_properties(), std::borrow::Cow::Borrowed(_)));
            prop_assert_eq!(read.topic_alias, p.topic_alias.map_or(0, |(alias, _)| alias));
            prop_assert_eq!(read.expiry_s, p.expiry_s);
            prop_assert!(read.subscription_ids().eq(p.subscription_ids.iter().copied()));
            prop_assert_eq!(decode(&out[3..], Some(p.version)).is_ok(), p.subscription_ids.is_empty());
        } else {
            prop_assert!(read.properties.is_empty());
        }
    }

    #[test]
    fn subscriptions(
        version in version(),
        id in 1..=u16::MAX,
        subscription_id in 0..=268_435_455u32,
        filters in vec((filter(), any::<u8>()), 1..40),
    ) {
        let items: Vec<SubscribeFilter<'_>> = filters
            .iter()
            .map(|(f, seed)| SubscribeFilter { filter: f, options: sub_options(version, f, *seed) })
            .collect();
        let mut out = Vec::new();
        encode::subscribe(&mut out, version, id, subscription_id, &items).unwrap();
        let Packet::Subscribe(read) = whole(&out, Some(version), false) else { panic!() };
        prop_assert_eq!(read.packet_id, id);
        prop_assert_eq!(read.subscription_id, if version == Version::V5 { subscription_id } else { 0 });
        prop_assert_eq!(read.filters.iter().collect::<Vec<_>>(), items);

        let names: Vec<&str> = filters.iter().map(|(f, _)| f.as_str()).collect();
        out.clear();
        encode::unsubscribe(&mut out, version, id, &names).unwrap();
        let Packet::Unsubscribe(read) = whole(&out, Some(version), false) else { panic!() };
        prop_assert_eq!(read.packet_id, id);
        prop_assert_eq!(read.filters.iter().collect::<Vec<_>>(), names);
    }

    #[test]
    fn acknowledgements(
        version in version(),
        id in 1..=u16::MAX,
        first in reason(|c| c.is_defined_for(reason::CodeUse::FirstAck)),
        second in reason(|c| c.is_defined_for(reason::CodeUse::SecondAck)),
    ) {
        let mut out = Vec::new();
        let expected = |reason| Ack {
            packet_id: id,
            reason: if version == Version::V5 { reason } else { ReasonCode::Success },
            reason_string: None,
            user_properties: UserProperties::NONE,
        };
        for from_server in [false, true] {
            out.clear();
            encode::puback(&mut out, version, id, first);
            prop_assert_eq!(whole(&out, Some(version), from_server), Packet::PubAck(expected(first)));
            out.clear();
            encode::pubrec(&mut out, version, id, first);
            prop_assert_eq!(whole(&out, Some(version), from_server), Packet::PubRec(expected(first)));
            out.clear();
            encode::pubrel(&mut out, version, id, second);
            prop_assert_eq!(whole(&out, Some(version), from_server), Packet::PubRel(expected(second)));
            out.clear();
            encode::pubcomp(&mut out, version, id, second);
            prop_assert_eq!(whole(&out, Some(version), from_server), Packet::PubComp(expected(second)));
        }
    }

    #[test]
    fn subscription_acknowledgements(
        version in version(),
        id in 1..=u16::MAX,
        sub in vec(reason(|c| c.is_defined_for(reason::CodeUse::SubAck)), 1..200),
        unsub in vec(reason(|c| c.is_defined_for(reason::CodeUse::UnsubAck)), 1..200),
    ) {
        let v5 = version == Version::V5;
        let mut out = Vec::new();
        encode::suback(&mut out, version, id, &sub);
        let Packet::SubAck(read) = whole(&out, Some(version), true) else { panic!() };
        let expected: Vec<ReasonCode> = sub
            .iter()
            .map(|c| if v5 || !c.is_error() { *c } else { ReasonCode::UnspecifiedError })
            .collect();
        prop_assert_eq!((read.packet_id, read.codes.iter().collect::<Vec<_>>()), (id, expected));

        out.clear();
        encode::unsuback(&mut out, version, id, &unsub);
        let Packet::UnsubAck(read) = whole(&out, Some(version), true) else { panic!() };
        let expected = if v5 { unsub } else { Vec::new() };
        prop_assert_eq!((read.packet_id, read.codes.iter().collect::<Vec<_>>()), (id, expected));
    }

    #[test]
    fn connack_packets(owned in connack()) {
        let ack = owned.borrow();
        let reason = ack.reason;
        let mut out = Vec::new();
        prop_assert!(encode::connack(&mut out, Version::V5, &ack, u32::MAX));
        prop_assert_eq!(whole(&out, Some(Version::V5), true), Packet::ConnAck(ack));

        // Without its texts it still decodes, and never exceeds the limit.
        for limit in [out.len() as u32 - 1, 20, 5, 4] {
            let mut short = Vec::new();
            if encode::connack(&mut short, Version::V5, &ack, limit) {
                prop_assert!(short.len() <= limit as usize);
                let stripped = ConnAck { reason_string: None, user_properties: UserProperties::NONE, ..ack };
                prop_assert_eq!(whole(&short, Some(Version::V5), true), Packet::ConnAck(stripped));
            } else {
                prop_assert!(short.is_empty());
            }
        }

        for version in [Version::V31, Version::V311] {
            out.clear();
            if encode::connack(&mut out, version, &ack, 4) {
                let Packet::ConnAck(read) = whole(&out, Some(version), true) else { panic!() };
                prop_assert_eq!(read.reason.connect_return_code(), reason.connect_return_code());
                prop_assert_eq!(read.session_present, ack.session_present && version == Version::V311);
            } else {
                prop_assert!(out.is_empty() && reason.connect_return_code().is_none());
            }
        }
    }

    #[test]
    fn disconnects(
        by_client in reason(|c| c.is_defined_for(reason::CodeUse::DisconnectByClient)),
        by_server in reason(|c| c.is_defined_for(reason::CodeUse::DisconnectByServer)),
        expiry in option::of(any::<u32>()),
        texts in (option::of(text()), option::of(text())),
        user in user_properties(),
    ) {
        let user_properties = UserProperties::from_wire(&user).unwrap();
        let client = Disconnect {
            reason: by_client,
            session_expiry_s: expiry,
            reason_string: texts.0.as_deref(),
            server_reference: None,
            user_properties,
        };
        let mut out = Vec::new();
        prop_assert!(encode::disconnect(&mut out, &client, u32::MAX));
        prop_assert_eq!(whole(&out, Some(Version::V5), false), Packet::Disconnect(client));
        let server = Disconnect {
            reason: by_server,
            session_expiry_s: None,
            server_reference: texts.1.as_deref(),
            ..client
        };
        out.clear();
        prop_assert!(encode::disconnect(&mut out, &server, u32::MAX));
        prop_assert_eq!(whole(&out, Some(Version::V5), true), Packet::Disconnect(server));
    }

    #[test]
    fn auths(method in text(), data in option::of(bytes()), text in option::of(text()), user in user_properties(), again in any::<bool>()) {
        let packet = Auth {
            reason: if again { ReasonCode::ReAuthenticate } else { ReasonCode::ContinueAuthentication },
            method: Some(&method),
            data: data.as_deref(),
            reason_string: text.as_deref(),
            user_properties: UserProperties::from_wire(&user).unwrap(),
        };
        let mut out = Vec::new();
        prop_assert!(encode::auth(&mut out, &packet, u32::MAX));
        prop_assert_eq!(whole(&out, Some(Version::V5), false), Packet::Auth(packet));
    }
}

#[test]
fn packets_without_fields() {
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut out = Vec::new();
        encode::pingreq(&mut out);
        assert_eq!(whole(&out, Some(version), false), Packet::PingReq);
        out.clear();
        encode::pingresp(&mut out);
        assert_eq!(whole(&out, Some(version), true), Packet::PingResp);
        out.clear();
        encode::disconnect_v3(&mut out);
        assert_eq!(whole(&out, Some(version), false), Packet::Disconnect(Disconnect::default()));
    }
    let mut out = Vec::new();
    assert!(encode::auth(&mut out, &Auth::default(), u32::MAX));
    assert_eq!(whole(&out, Some(Version::V5), true), Packet::Auth(Auth::default()));
}
