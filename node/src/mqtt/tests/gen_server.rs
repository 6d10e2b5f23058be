//! Random well-formed packets that servers send, as bytes.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::gen_packets::{bytes, publish, qos, reason, text, user_properties, version};
use crate::mqtt::reason::CodeUse;
use crate::mqtt::*;

fn coded(fits: impl Fn(ReasonCode) -> bool + Clone) -> impl Strategy<Value = Vec<ReasonCode>> {
    vec(reason(move |code| fits(*code)), 1..20)
}

/// One whole packet that a server could send to a client of this version.
pub fn from_server() -> impl Strategy<Value = (Version, Vec<u8>)> {
    fn bytes_of(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }
    prop_oneof![
        publish(1).prop_map(|p| {
            let mut out = Vec::new();
            p.with(|p| encode::publish(&mut out, p)).unwrap();
            (p.version, out)
        }),
        (connack(), version()).prop_map(|(ack, version)| {
            // A version without a code for the reason sends nothing; then it is a success.
            let mut out = Vec::new();
            if !encode::connack(&mut out, version, &ack.borrow(), u32::MAX) {
                assert!(encode::connack(&mut out, version, &ConnAck::new(ReasonCode::Success), u32::MAX));
            }
            (version, out)
        }),
        (version(), 1..=u16::MAX, reason(|c| c.is_defined_for(CodeUse::FirstAck)), any::<bool>()).prop_map(
            |(version, id, code, first)| {
                let write = if first { encode::puback } else { encode::pubrec };
                (version, bytes_of(|out| write(out, version, id, code)))
            }
        ),
        (version(), 1..=u16::MAX, reason(|c| c.is_defined_for(CodeUse::SecondAck)), any::<bool>()).prop_map(
            |(version, id, code, first)| {
                let write = if first { encode::pubrel } else { encode::pubcomp };
                (version, bytes_of(|out| write(out, version, id, code)))
            }
        ),
        (version(), 1..=u16::MAX, coded(|c| c.is_defined_for(CodeUse::SubAck))).prop_map(
            |(version, id, codes)| (version, bytes_of(|out| encode::suback(out, version, id, &codes)))
        ),
        (version(), 1..=u16::MAX, coded(|c| c.is_defined_for(CodeUse::UnsubAck))).prop_map(
            |(version, id, codes)| (version, bytes_of(|out| encode::unsuback(out, version, id, &codes)))
        ),
        (
            reason(|c| c.is_defined_for(CodeUse::DisconnectByServer)),
            option::of(text()),
            option::of(text()),
            user_properties()
        )
            .prop_map(|(reason, text, server, user)| {
                let packet = Disconnect {
                    reason,
                    session_expiry_s: None,
                    reason_string: text.as_deref(),
                    server_reference: server.as_deref(),
                    user_properties: UserProperties::from_wire(&user).unwrap(),
                };
                (Version::V5, bytes_of(|out| assert!(encode::disconnect(out, &packet, u32::MAX))))
            }),
        (text(), option::of(bytes()), any::<bool>()).prop_map(|(method, data, done)| {
            let reason = if done { ReasonCode::Success } else { ReasonCode::ContinueAuthentication };
            let packet = Auth { reason, method: Some(&method), data: data.as_deref(), ..Auth::default() };
            (Version::V5, bytes_of(|out| assert!(encode::auth(out, &packet, u32::MAX))))
        }),
        version().prop_map(|version| (version, bytes_of(encode::pingresp))),
    ]
}

#[derive(Clone, Debug)]
pub struct OwnedConnAck {
    pub reason: ReasonCode,
    pub bits: u8,
    pub numbers: (Option<u32>, u16, Option<u32>, u16, Option<u16>),
    pub texts: Vec<Option<String>>,
    pub auth_data: Option<Vec<u8>>,
    pub qos: QoS,
    pub user: Vec<u8>,
}

impl OwnedConnAck {
    pub fn borrow(&self) -> ConnAck<'_> {
        let text = |i: usize| self.texts[i].as_deref();
        let bit = |i: u8| self.bits & 1 << i != 0;
        ConnAck {
            session_present: bit(0) && self.reason == ReasonCode::Success,
            reason: self.reason,
            session_expiry_s: self.numbers.0,
            receive_maximum: self.numbers.1,
            maximum_qos: self.qos,
            retain_available: bit(1),
            maximum_packet_size: self.numbers.2,
            assigned_client_id: text(0),
            topic_alias_maximum: self.numbers.3,
            reason_string: text(1),
            wildcard_subscriptions: bit(2),
            subscription_identifiers: bit(3),
            shared_subscriptions: bit(4),
            server_keep_alive_s: self.numbers.4,
            response_information: text(2),
            server_reference: text(3),
            auth_method: text(4),
            auth_data: self.auth_data.as_deref().filter(|_| text(4).is_some()),
            user_properties: UserProperties::from_wire(&self.user).unwrap(),
        }
    }
}

pub fn connack() -> impl Strategy<Value = OwnedConnAck> {
    let numbers = (
        option::of(any::<u32>()),
        1..=u16::MAX,
        option::of(1..=u32::MAX),
        any::<u16>(),
        option::of(any::<u16>()),
    );
    (
        reason(|c| c.is_defined_for(CodeUse::ConnAck)),
        any::<u8>(),
        numbers,
        vec(option::of(text()), 5),
        option::of(bytes()),
        qos(),
        user_properties(),
    )
        .prop_map(|(reason, bits, numbers, texts, auth_data, qos, user)| OwnedConnAck {
            reason,
            bits,
            numbers,
            texts,
            auth_data,
            qos,
            user,
        })
}
