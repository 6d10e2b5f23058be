//! Tests of the codec at its boundary: bytes in, packets out, and back.

mod fuzz;
mod gen_packets;
mod known;
mod malformed;
mod roundtrip;
mod topic;

use super::Packet;

/// A packet with this first byte, and a correct length before `body`.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    super::write::varint(&mut out, body.len());
    out.extend_from_slice(body);
    out
}

/// Reads everything that a decoded packet holds lazily, and checks that nothing goes missing.
fn walk(packet: &Packet<'_>) {
    match packet {
        Packet::Connect(c) => {
            c.user_properties.iter().for_each(drop);
            if let Some(will) = &c.will {
                assert_eq!(
                    super::ForwardProperties::from_wire(&will.forward_properties()),
                    Ok(will.properties)
                );
            }
        }
        Packet::ConnAck(c) => c.user_properties.iter().for_each(drop),
        Packet::Publish(p) => {
            let wire = p.forward_properties();
            let again = super::ForwardProperties::from_wire(&wire);
            assert_eq!(again, Ok(p.properties));
            assert!(p.properties.iter().eq(super::Properties::new(&wire)));
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
