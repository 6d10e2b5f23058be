//! One form for the packets of both codecs, so that they can be compared.

use std::collections::BTreeMap;
use std::fmt::Debug;

use crate::mqtt::{ForwardProperties, Packet, Property, UserProperties};

/// What a packet says, by name. What it does not say has the standard's default.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fields(pub BTreeMap<&'static str, String>);

impl Fields {
    pub fn of(kind: &'static str) -> Self {
        Self::default().with("kind", kind)
    }

    pub fn with(mut self, name: &'static str, value: impl Debug) -> Self {
        let before = self.0.insert(name, format!("{value:?}"));
        assert_eq!(before, None, "{name} is said twice");
        self
    }
}

/// Name and value of each user property.
pub(super) type Pairs = Vec<(String, String)>;

fn pairs(user: UserProperties<'_>) -> Pairs {
    user.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A packet that Rookery decoded.
pub(super) fn ours(packet: &Packet<'_>) -> Fields {
    let kind = packet.name();
    match packet {
        Packet::Connect(c) => {
            let fields = Fields::of(kind)
                .with("version", c.version as u8)
                .with("clean", c.clean_start)
                .with("keep alive", c.keep_alive_s)
                .with("client id", c.client_id)
                .with("user name", c.username)
                .with("password", c.password)
                .with("session expiry", c.session_expiry_s)
                .with("receive maximum", c.receive_maximum)
                .with("maximum packet size", c.maximum_packet_size)
                .with("topic alias maximum", c.topic_alias_maximum)
                .with("response information", c.request_response_information)
                .with("problem information", c.request_problem_information)
                .with("auth method", c.auth_method)
                .with("auth data", c.auth_data)
                .with("user properties", pairs(c.user_properties));
            match &c.will {
                None => fields,
                Some(w) => forwardable(
                    fields
                        .with("will topic", w.topic)
                        .with("will payload", w.payload)
                        .with("will qos", w.qos as u8)
                        .with("will retain", w.retain)
                        .with("will delay", w.delay_s)
                        .with("will expiry", w.expiry_s),
                    &w.properties,
                    "will user properties",
                ),
            }
        }
        Packet::ConnAck(a) => Fields::of(kind)
            .with("session present", a.session_present)
            .with("reason", a.reason.as_u8())
            .with("session expiry", a.session_expiry_s)
            .with("receive maximum", a.receive_maximum)
            .with("maximum qos", a.maximum_qos as u8)
            .with("retain", a.retain_available)
            .with("maximum packet size", a.maximum_packet_size)
            .with("assigned client id", a.assigned_client_id)
            .with("topic alias maximum", a.topic_alias_maximum)
            .with("reason string", a.reason_string)
            .with("wildcards", a.wildcard_subscriptions)
            .with("subscription ids", a.subscription_identifiers)
            .with("shared", a.shared_subscriptions)
            .with("keep alive", a.server_keep_alive_s)
            .with("response information", a.response_information)
            .with("server reference", a.server_reference)
            .with("auth method", a.auth_method)
            .with("auth data", a.auth_data)
            .with("user properties", pairs(a.user_properties)),
        Packet::Publish(p) => forwardable(
            Fields::of(kind)
                .with("dup", p.dup)
                .with("qos", p.qos as u8)
                .with("retain", p.retain)
                .with("topic", p.topic)
                .with("packet id", p.packet_id)
                .with("payload", p.payload)
                .with("topic alias", p.topic_alias)
                .with("expiry", p.expiry_s)
                .with("subscription ids", p.subscription_ids().collect::<Vec<_>>()),
            &p.properties,
            "user properties",
        ),
        Packet::PubAck(a) | Packet::PubRec(a) | Packet::PubRel(a) | Packet::PubComp(a) => Fields::of(kind)
            .with("packet id", a.packet_id)
            .with("reason", a.reason.as_u8())
            .with("reason string", a.reason_string)
            .with("user properties", pairs(a.user_properties)),
        Packet::Subscribe(s) => Fields::of(kind)
            .with("packet id", s.packet_id)
            .with("subscription id", s.subscription_id)
            .with(
                "filters",
                s.filters.iter().map(|f| (f.filter.to_owned(), f.options.to_byte())).collect::<Vec<_>>(),
            )
            .with("user properties", pairs(s.user_properties)),
        Packet::Unsubscribe(u) => Fields::of(kind)
            .with("packet id", u.packet_id)
            .with("filters", u.filters.iter().collect::<Vec<_>>())
            .with("user properties", pairs(u.user_properties)),
        Packet::SubAck(a) | Packet::UnsubAck(a) => Fields::of(kind)
            .with("packet id", a.packet_id)
            .with("codes", a.codes.iter().map(|code| code.as_u8()).collect::<Vec<_>>())
            .with("reason string", a.reason_string)
            .with("user properties", pairs(a.user_properties)),
        Packet::Disconnect(d) => Fields::of(kind)
            .with("reason", d.reason.as_u8())
            .with("session expiry", d.session_expiry_s)
            .with("reason string", d.reason_string)
            .with("server reference", d.server_reference)
            .with("user properties", pairs(d.user_properties)),
        Packet::Auth(a) => Fields::of(kind)
            .with("reason", a.reason.as_u8())
            .with("auth method", a.method)
            .with("auth data", a.data)
            .with("reason string", a.reason_string)
            .with("user properties", pairs(a.user_properties)),
        Packet::PingReq | Packet::PingResp => Fields::of(kind),
    }
}

fn forwardable(fields: Fields, properties: &ForwardProperties<'_>, user: &'static str) -> Fields {
    let is_text = properties.iter().find_map(|p| match p {
        Property::PayloadFormatIndicator(is_text) => Some(is_text),
        _ => None,
    });
    fields
        .with("payload is text", is_text)
        .with("content type", properties.content_type())
        .with("response topic", properties.response_topic())
        .with("correlation data", properties.correlation_data())
        .with(user, pairs(properties.user_properties()))
}
