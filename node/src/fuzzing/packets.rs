//! What must hold of every packet that the decoder accepts.

use crate::mqtt::{
    ForwardProperties, Packet, Properties, Publication, PublishOut, Version, decode, decode_from_server,
    encode, frame_len, topic,
};

/// Reads everything that a decoded packet holds lazily, and checks that nothing goes missing.
pub(crate) fn walk(packet: &Packet<'_>) {
    match packet {
        Packet::Connect(c) => {
            c.user_properties.iter().for_each(drop);
            if let Some(will) = &c.will {
                assert_eq!(topic::valid_name(will.topic, usize::MAX), Ok(()));
                assert_eq!(ForwardProperties::from_wire(&will.forward_properties()), Ok(will.properties));
            }
        }
        Packet::ConnAck(c) => c.user_properties.iter().for_each(drop),
        Packet::Publish(p) => {
            if p.topic.is_empty() {
                assert_ne!(p.topic_alias, 0);
            } else {
                assert_eq!(topic::valid_name(p.topic, usize::MAX), Ok(()));
            }
            let wire = p.forward_properties();
            assert_eq!(ForwardProperties::from_wire(&wire), Ok(p.properties));
            assert!(p.properties.iter().eq(Properties::new(&wire)));
            assert!(p.properties.user_properties().iter().count() <= p.properties.iter().count());
            p.subscription_ids().for_each(|id| assert_ne!(id, 0));
        }
        Packet::PubAck(a) | Packet::PubRec(a) | Packet::PubRel(a) | Packet::PubComp(a) => {
            assert_ne!(a.packet_id, 0);
            a.user_properties.iter().for_each(drop);
        }
        Packet::Subscribe(s) => {
            assert_eq!(s.filters.iter().count(), s.filters.len());
            assert!(!s.filters.is_empty());
            for item in s.filters.iter() {
                assert_eq!(topic::valid_filter(item.filter, usize::MAX), Ok(()));
            }
        }
        Packet::Unsubscribe(u) => {
            assert_eq!(u.filters.iter().count(), u.filters.len());
            assert!(!u.filters.is_empty());
        }
        Packet::SubAck(a) | Packet::UnsubAck(a) => assert_eq!(a.codes.iter().count(), a.codes.len()),
        Packet::Disconnect(d) => d.user_properties.iter().for_each(drop),
        Packet::Auth(a) => a.user_properties.iter().for_each(drop),
        Packet::PingReq | Packet::PingResp => {}
    }
}

/// Decodes in every way there is of this version (`None`: as the first packet); whatever is
/// accepted must be sound.
pub(crate) fn decode_all(bytes: &[u8], version: Option<Version>) {
    let framed = frame_len(bytes, u32::MAX);
    let from_server = version.map(|v| decode_from_server(bytes, v));
    for decoded in [Some(decode(bytes, version)), from_server].into_iter().flatten() {
        match decoded {
            Ok(packet) => {
                assert_eq!(framed, Ok(Some(bytes.len())));
                walk(&packet);
                decodes_again(&packet, version);
            }
            Err(e) => assert!(e.reason.is_error() && !e.what.is_empty()),
        }
    }
}

/// What was accepted can be encoded, and reads the same again.
fn decodes_again(packet: &Packet<'_>, version: Option<Version>) {
    const FITS: &str = "what was decoded fits";
    let mut out = Vec::new();
    match (packet, version) {
        (Packet::Connect(c), _) => {
            encode::connect(&mut out, c).expect(FITS);
            assert_eq!(decode(&out, None), Ok(*packet));
        }
        (Packet::Publish(p), Some(version)) => {
            let properties = p.forward_properties();
            let message = Publication {
                topic: p.topic,
                payload: p.payload,
                properties: &properties,
                qos: p.qos,
                retain: p.retain,
                expires_at_ms: 0,
                publisher: "",
            };
            let ids: Vec<u32> = p.subscription_ids().collect();
            let again = PublishOut {
                dup: p.dup,
                packet_id: p.packet_id,
                subscription_ids: &ids,
                topic_alias: (p.topic_alias != 0).then_some((p.topic_alias, true)),
                expiry_s: p.expiry_s,
                ..PublishOut::new(version, &message)
            };
            encode::publish(&mut out, &again).expect(FITS);
            assert_eq!(out.len(), encode::publish_len(&again));
            assert_eq!(decode_from_server(&out, version), Ok(*packet));
        }
        (Packet::Subscribe(s), Some(version)) => {
            let filters: Vec<_> = s.filters.iter().collect();
            encode::subscribe(&mut out, version, s.packet_id, s.subscription_id, &filters).expect(FITS);
            let Ok(Packet::Subscribe(read)) = decode(&out, Some(version)) else { panic!("{packet:?}") };
            assert_eq!((read.filters, read.subscription_id), (s.filters, s.subscription_id));
        }
        (Packet::Unsubscribe(u), Some(version)) => {
            let filters: Vec<_> = u.filters.iter().collect();
            encode::unsubscribe(&mut out, version, u.packet_id, &filters).expect(FITS);
            let Ok(Packet::Unsubscribe(read)) = decode(&out, Some(version)) else { panic!("{packet:?}") };
            assert_eq!(read.filters, u.filters);
        }
        (Packet::Disconnect(d), Some(Version::V5)) => {
            assert!(encode::disconnect(&mut out, d, u32::MAX));
            let read = [decode(&out, version), decode_from_server(&out, Version::V5)];
            assert!(read.contains(&Ok(*packet)), "{packet:?} reads {read:?}");
        }
        (Packet::Auth(a), Some(Version::V5)) => {
            assert!(encode::auth(&mut out, a, u32::MAX));
            let read = [decode(&out, version), decode_from_server(&out, Version::V5)];
            assert!(read.contains(&Ok(*packet)), "{packet:?} reads {read:?}");
        }
        (Packet::ConnAck(a), Some(version)) if encode::connack(&mut out, version, a, u32::MAX) => {
            let Ok(Packet::ConnAck(read)) = decode_from_server(&out, version) else { panic!("{packet:?}") };
            assert_eq!(read, *a);
        }
        _ => {}
    }
}

/// Splits what a server sent into packets, checking that each is one.
pub(super) fn from_server(mut bytes: &[u8], version: Version) -> Vec<Packet<'_>> {
    let mut packets = Vec::new();
    while !bytes.is_empty() {
        let len = match frame_len(bytes, u32::MAX) {
            Ok(Some(len)) if len <= bytes.len() => len,
            other => panic!("{other:?} of {bytes:02X?}"),
        };
        let packet = decode_from_server(&bytes[..len], version);
        packets.push(packet.unwrap_or_else(|e| panic!("{e} in {:02X?}", &bytes[..len])));
        bytes = &bytes[len..];
    }
    packets
}
