//! Random well-formed packets of every kind and version, as bytes.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::mqtt::*;

pub fn version() -> impl Strategy<Value = Version> {
    prop::sample::select(vec![Version::V31, Version::V311, Version::V5])
}

pub fn qos() -> impl Strategy<Value = QoS> {
    prop::sample::select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

pub fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

pub fn topic_name() -> impl Strategy<Value = String> {
    "[a-z0-9/$ äß🦀]{1,24}"
}

pub fn filter() -> impl Strategy<Value = String> {
    prop_oneof![
        topic_name(),
        vec(prop::sample::select(vec!["a", "+", "", "b"]), 1..5).prop_map(|l| l.join("/") + "/#"),
        "\\$share/[a-z]{1,4}/[a-z/]{1,4}",
        Just("#".to_owned()),
    ]
    .prop_filter("a valid filter", |f| topic::valid_filter(f, usize::MAX).is_ok())
}

pub fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..200)
}

pub fn user_properties() -> impl Strategy<Value = Vec<u8>> {
    vec((text(), text()), 0..4).prop_map(|pairs| {
        let mut out = Vec::new();
        for (name, value) in &pairs {
            encode::user_property(&mut out, name, value).unwrap();
        }
        out
    })
}

/// Forwardable properties in wire form, in any order.
pub fn forwardable() -> impl Strategy<Value = Vec<u8>> {
    (
        option::of(any::<bool>()),
        option::of(text()),
        option::of(topic_name()),
        option::of(bytes()),
        user_properties(),
    )
        .prop_flat_map(|(format, content_type, response_topic, correlation, user)| {
            let mut blocks = Vec::new();
            let mut add = |p: Property<'_>| {
                let mut one = Vec::new();
                encode::property(&mut one, p).unwrap();
                blocks.push(one);
            };
            format.into_iter().for_each(|f| add(Property::PayloadFormatIndicator(f)));
            content_type.iter().for_each(|t| add(Property::ContentType(t)));
            response_topic.iter().for_each(|t| add(Property::ResponseTopic(t)));
            correlation.iter().for_each(|d| add(Property::CorrelationData(d)));
            for (name, value) in UserProperties::from_wire(&user).unwrap().iter() {
                add(Property::UserProperty(name, value));
            }
            Just(blocks).prop_shuffle().prop_map(|b| b.concat())
        })
}

pub fn reason(allowed: impl Fn(&ReasonCode) -> bool) -> impl Strategy<Value = ReasonCode> {
    prop::sample::select(ReasonCode::ALL.iter().copied().filter(allowed).collect::<Vec<_>>())
}

pub fn sub_options(version: Version, filter: &str, seed: u8) -> SubOptions {
    let qos = QoS::from_u8(seed % 3).unwrap();
    if version != Version::V5 {
        return SubOptions { qos, ..SubOptions::default() };
    }
    SubOptions {
        qos,
        no_local: seed & 4 != 0 && topic::parse_share(filter).is_none(),
        retain_as_published: seed & 8 != 0,
        retain_handling: (seed >> 4) % 3,
    }
}

#[derive(Clone, Debug)]
pub struct OwnedPublish {
    pub version: Version,
    pub message: std::sync::Arc<Message>,
    pub dup: bool,
    pub packet_id: u16,
    pub subscription_ids: Vec<u32>,
    pub topic_alias: Option<(u16, bool)>,
    pub expiry_s: Option<u32>,
}

impl OwnedPublish {
    pub fn with<T>(&self, f: impl FnOnce(&PublishOut<'_>) -> T) -> T {
        let message = self.message.borrow();
        f(&PublishOut {
            dup: self.dup,
            packet_id: self.packet_id,
            subscription_ids: &self.subscription_ids,
            topic_alias: self.topic_alias,
            expiry_s: self.expiry_s,
            ..PublishOut::new(self.version, &message)
        })
    }
}

/// `ids`: how many subscription identifiers at most.
pub fn publish(ids: usize) -> impl Strategy<Value = OwnedPublish> {
    (
        (version(), topic_name(), bytes(), forwardable(), qos(), any::<bool>(), any::<bool>()),
        1..=u16::MAX,
        vec(1u32..=268_435_455, 0..=ids),
        option::of((1..=u16::MAX, any::<bool>())),
        option::of(any::<u32>()),
    )
        .prop_map(|(m, packet_id, subscription_ids, topic_alias, expiry_s)| {
            let (version, topic, payload, properties, qos, retain, dup) = m;
            let message = Publication {
                topic: &topic,
                payload: &payload,
                properties: &properties,
                qos,
                retain,
                expires_at_ms: 0,
                publisher: "",
            };
            let message = message.to_message();
            OwnedPublish { version, message, dup, packet_id, subscription_ids, topic_alias, expiry_s }
        })
}

#[derive(Clone, Debug)]
pub struct OwnedConnect {
    pub version: Version,
    pub bits: u8,
    pub numbers: (u16, u32, u16, Option<u32>, u16),
    pub client_id: String,
    pub username: Option<String>,
    pub password: Option<Vec<u8>>,
    pub will: Option<OwnedWill>,
    pub auth: Option<(String, Option<Vec<u8>>)>,
    pub user: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct OwnedWill {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: QoS,
    pub retain: bool,
    pub delay_s: u32,
    pub expiry_s: Option<u32>,
    pub properties: Vec<u8>,
}

impl OwnedConnect {
    /// The CONNECT with what its version can say.
    pub fn borrow(&self) -> Connect<'_> {
        let v5 = self.version == Version::V5;
        let mut c = Connect::new(self.version);
        c.bridge = !v5 && self.bits & 1 != 0;
        c.clean_start = self.bits & 2 != 0;
        c.keep_alive_s = self.numbers.0;
        c.client_id = &self.client_id;
        c.username = self.username.as_deref();
        if v5 || c.username.is_some() {
            c.password = self.password.as_deref();
        }
        c.will = self.will.as_ref().map(|w| Will {
            topic: &w.topic,
            payload: &w.payload,
            qos: w.qos,
            retain: w.retain,
            delay_s: if v5 { w.delay_s } else { 0 },
            expiry_s: w.expiry_s.filter(|_| v5),
            properties: ForwardProperties::from_wire(if v5 { &w.properties } else { &[] }).unwrap(),
        });
        if v5 {
            (_, c.session_expiry_s, c.receive_maximum, c.maximum_packet_size, c.topic_alias_maximum) =
                self.numbers;
            c.request_response_information = self.bits & 4 != 0;
            c.request_problem_information = self.bits & 8 != 0;
            c.auth_method = self.auth.as_ref().map(|(method, _)| method.as_str());
            c.auth_data = self.auth.as_ref().and_then(|(_, data)| data.as_deref());
            c.user_properties = UserProperties::from_wire(&self.user).unwrap();
        }
        c
    }
}

pub fn connect() -> impl Strategy<Value = OwnedConnect> {
    let will =
        (topic_name(), bytes(), qos(), any::<bool>(), any::<u32>(), option::of(any::<u32>()), forwardable())
            .prop_map(|(topic, payload, qos, retain, delay_s, expiry_s, properties)| OwnedWill {
                topic,
                payload,
                qos,
                retain,
                delay_s,
                expiry_s,
                properties,
            });
    let numbers = (any::<u16>(), any::<u32>(), 1..=u16::MAX, option::of(1..=u32::MAX), any::<u16>());
    (
        (version(), any::<u8>(), numbers, text()),
        option::of(text()),
        option::of(bytes()),
        option::of(will),
        option::of((text(), option::of(bytes()))),
        user_properties(),
    )
        .prop_map(|((version, bits, numbers, client_id), username, password, will, auth, user)| {
            OwnedConnect { version, bits, numbers, client_id, username, password, will, auth, user }
        })
}

/// One whole packet that a client of this version could send after CONNECT, or a CONNECT with
/// `None`.
pub fn from_client() -> impl Strategy<Value = (Option<Version>, Vec<u8>)> {
    prop_oneof![
        connect().prop_map(|c| {
            let mut out = Vec::new();
            encode::connect(&mut out, &c.borrow()).unwrap();
            (None, out)
        }),
        publish(0).prop_map(|p| {
            let mut out = Vec::new();
            p.with(|p| encode::publish(&mut out, p)).unwrap();
            (Some(p.version), out)
        }),
        (version(), 1..=u16::MAX, 0..=300u32, vec((filter(), any::<u8>()), 1..5)).prop_map(
            |(version, id, subscription_id, filters)| {
                let filters: Vec<_> = filters
                    .iter()
                    .map(|(f, seed)| SubscribeFilter { filter: f, options: sub_options(version, f, *seed) })
                    .collect();
                let mut out = Vec::new();
                encode::subscribe(&mut out, version, id, subscription_id, &filters).unwrap();
                (Some(version), out)
            }
        ),
        (version(), 1..=u16::MAX, vec(filter(), 1..5)).prop_map(|(version, id, filters)| {
            let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
            let mut out = Vec::new();
            encode::unsubscribe(&mut out, version, id, &filters).unwrap();
            (Some(version), out)
        }),
        (version(), 1..=u16::MAX, 0..4).prop_map(|(version, id, kind)| {
            let mut out = Vec::new();
            match kind {
                0 => encode::puback(&mut out, version, id, ReasonCode::QuotaExceeded),
                1 => encode::pubrec(&mut out, version, id, ReasonCode::NotAuthorized),
                2 => encode::pubrel(&mut out, version, id, ReasonCode::PacketIdentifierNotFound),
                _ => encode::pubcomp(&mut out, version, id, ReasonCode::Success),
            }
            (Some(version), out)
        }),
        (option::of(any::<u32>()), option::of(text()), user_properties()).prop_map(|(expiry, text, user)| {
            let mut out = Vec::new();
            let packet = Disconnect {
                reason: ReasonCode::DisconnectWithWill,
                session_expiry_s: expiry,
                reason_string: text.as_deref(),
                server_reference: None,
                user_properties: UserProperties::from_wire(&user).unwrap(),
            };
            assert!(encode::disconnect(&mut out, &packet, u32::MAX));
            (Some(Version::V5), out)
        }),
        (text(), bytes(), option::of(text())).prop_map(|(method, data, text)| {
            let mut out = Vec::new();
            let packet = Auth {
                reason: ReasonCode::ContinueAuthentication,
                method: Some(&method),
                data: Some(&data),
                reason_string: text.as_deref(),
                user_properties: UserProperties::NONE,
            };
            assert!(encode::auth(&mut out, &packet, u32::MAX));
            (Some(Version::V5), out)
        }),
        version().prop_map(|version| {
            let mut out = Vec::new();
            encode::pingreq(&mut out);
            (Some(version), out)
        }),
    ]
}
