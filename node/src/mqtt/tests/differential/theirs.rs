//! What mqtt-proto makes of a packet.

use std::sync::Arc;

use bytes::Bytes;
use mqtt_proto::{Pid, PollHeader, QosPid, TopicName, v3, v5};

use super::fields::{Fields, Pairs};
use crate::mqtt::Version;

/// The packet that is all of `bytes`, or why it is none. mqtt-proto does not compare what a packet
/// held with the length its header gave, but says how far it read.
pub(super) fn decode(bytes: &[u8], version: Version) -> Result<Fields, String> {
    match version {
        Version::V31 | Version::V311 => {
            let header = v3::Header::decode(bytes).map_err(|e| e.to_string())?;
            whole(bytes, header).map(|packet| of_v3(&packet))
        }
        Version::V5 => {
            let header = v5::Header::decode(bytes).map_err(|e| e.to_string())?;
            whole(bytes, header).map(|packet| of_v5(&packet))
        }
    }
}

/// What `packet` is in bytes by mqtt-proto's own encoder, if it takes it for one.
pub(super) fn encoded_again(bytes: &[u8], version: Version) -> Option<Vec<u8>> {
    if version == Version::V5 {
        let packet = whole(bytes, v5::Header::decode(bytes).ok()?).ok()?;
        Some(packet.encode().ok()?.as_ref().to_vec())
    } else {
        let packet = whole(bytes, v3::Header::decode(bytes).ok()?).ok()?;
        Some(packet.encode().ok()?.as_ref().to_vec())
    }
}

fn whole<H: PollHeader<Error: ToString>>(bytes: &[u8], header: H) -> Result<H::Packet, String> {
    let len = header.remaining_len();
    let start = 2 + bytes[1..].iter().take_while(|b| **b & 0x80 != 0).count();
    if bytes.len() != start + len {
        return Err("not the length that the header gives".into());
    }
    if let Some(packet) = header.build_empty_packet() {
        return if len == 0 { Ok(packet) } else { Err("bytes in an empty packet".into()) };
    }
    let mut read = 0;
    let packet = header.decode_buffer(&bytes[start..], &mut read).map_err(|e| e.to_string())?;
    if read == len { Ok(packet) } else { Err("bytes follow the packet".into()) }
}

fn pairs(user: &[v5::UserProperty]) -> Pairs {
    user.iter().map(|p| (p.name.to_string(), p.value.to_string())).collect()
}

fn packet_id(qos_pid: QosPid) -> u16 {
    qos_pid.pid().map_or(0, Pid::value)
}

fn text(text: &Option<Arc<str>>) -> Option<&str> {
    text.as_deref()
}

fn name(name: &Option<TopicName>) -> Option<&str> {
    name.as_deref()
}

fn data(data: &Option<Bytes>) -> Option<&[u8]> {
    data.as_deref()
}

const NO_PAIRS: Pairs = Pairs::new();

fn of_v3(packet: &v3::Packet) -> Fields {
    use v3::Packet::*;
    let ack = |kind, pid: &Pid| {
        Fields::of(kind)
            .with("packet id", pid.value())
            .with("reason", 0)
            .with("reason string", None::<&str>)
            .with("user properties", NO_PAIRS)
    };
    match packet {
        Connect(c) => {
            let fields = Fields::of("CONNECT")
                .with("version", c.protocol as u8)
                .with("clean", c.clean_session)
                .with("keep alive", c.keep_alive)
                .with("client id", &*c.client_id)
                .with("user name", text(&c.username))
                .with("password", data(&c.password))
                .with("session expiry", 0)
                .with("receive maximum", u16::MAX)
                .with("maximum packet size", None::<u32>)
                .with("topic alias maximum", 0)
                .with("response information", false)
                .with("problem information", true)
                .with("auth method", None::<&str>)
                .with("auth data", None::<&[u8]>)
                .with("user properties", NO_PAIRS);
            match &c.last_will {
                None => fields,
                Some(w) => nothing_forwardable(
                    fields
                        .with("will topic", &*w.topic_name)
                        .with("will payload", &*w.message)
                        .with("will qos", w.qos as u8)
                        .with("will retain", w.retain)
                        .with("will delay", 0)
                        .with("will expiry", None::<u32>),
                    "will user properties",
                ),
            }
        }
        Connack(a) => Fields::of("CONNACK")
            .with("session present", a.session_present)
            .with(
                "reason",
                crate::mqtt::ReasonCode::from_connect_return_code(a.code as u8).map_or(0, u8::from),
            )
            .with("session expiry", None::<u32>)
            .with("receive maximum", u16::MAX)
            .with("maximum qos", 2)
            .with("retain", true)
            .with("maximum packet size", None::<u32>)
            .with("assigned client id", None::<&str>)
            .with("topic alias maximum", 0)
            .with("reason string", None::<&str>)
            .with("wildcards", true)
            .with("subscription ids", true)
            .with("shared", true)
            .with("keep alive", None::<u16>)
            .with("response information", None::<&str>)
            .with("server reference", None::<&str>)
            .with("auth method", None::<&str>)
            .with("auth data", None::<&[u8]>)
            .with("user properties", NO_PAIRS),
        Publish(p) => nothing_forwardable(
            Fields::of("PUBLISH")
                .with("dup", p.dup)
                .with("qos", p.qos_pid.qos() as u8)
                .with("retain", p.retain)
                .with("topic", &*p.topic_name)
                .with("packet id", packet_id(p.qos_pid))
                .with("payload", &*p.payload)
                .with("topic alias", 0)
                .with("expiry", None::<u32>)
                .with("subscription ids", Vec::<u32>::new()),
            "user properties",
        ),
        Puback(pid) => ack("PUBACK", pid),
        Pubrec(pid) => ack("PUBREC", pid),
        Pubrel(pid) => ack("PUBREL", pid),
        Pubcomp(pid) => ack("PUBCOMP", pid),
        Subscribe(s) => Fields::of("SUBSCRIBE")
            .with("packet id", s.pid.value())
            .with("subscription id", 0)
            .with(
                "filters",
                s.topics.iter().map(|(filter, qos)| (filter.to_string(), *qos as u8)).collect::<Vec<_>>(),
            )
            .with("user properties", NO_PAIRS),
        Unsubscribe(u) => Fields::of("UNSUBSCRIBE")
            .with("packet id", u.pid.value())
            .with("filters", u.topics.iter().map(|filter| &**filter).collect::<Vec<_>>())
            .with("user properties", NO_PAIRS),
        Suback(a) => Fields::of("SUBACK")
            .with("packet id", a.pid.value())
            .with(
                "codes",
                a.topics
                    .iter()
                    .map(|code| if *code == v3::SubscribeReturnCode::Failure { 0x80 } else { *code as u8 })
                    .collect::<Vec<_>>(),
            )
            .with("reason string", None::<&str>)
            .with("user properties", NO_PAIRS),
        Unsuback(pid) => Fields::of("UNSUBACK")
            .with("packet id", pid.value())
            .with("codes", Vec::<u8>::new())
            .with("reason string", None::<&str>)
            .with("user properties", NO_PAIRS),
        Disconnect => Fields::of("DISCONNECT")
            .with("reason", 0)
            .with("session expiry", None::<u32>)
            .with("reason string", None::<&str>)
            .with("server reference", None::<&str>)
            .with("user properties", NO_PAIRS),
        Pingreq => Fields::of("PINGREQ"),
        Pingresp => Fields::of("PINGRESP"),
    }
}

fn nothing_forwardable(fields: Fields, user: &'static str) -> Fields {
    fields
        .with("payload is text", None::<bool>)
        .with("content type", None::<&str>)
        .with("response topic", None::<&str>)
        .with("correlation data", None::<&[u8]>)
        .with(user, NO_PAIRS)
}

fn of_v5(packet: &v5::Packet) -> Fields {
    use v5::Packet::*;
    let ack = |kind, pid: Pid, reason: u8, string: &Option<Arc<str>>, user: &[v5::UserProperty]| {
        Fields::of(kind)
            .with("packet id", pid.value())
            .with("reason", reason)
            .with("reason string", text(string))
            .with("user properties", pairs(user))
    };
    let codes = |kind, pid: Pid, codes: Vec<u8>, string: &Option<Arc<str>>, user: &[v5::UserProperty]| {
        Fields::of(kind)
            .with("packet id", pid.value())
            .with("codes", codes)
            .with("reason string", text(string))
            .with("user properties", pairs(user))
    };
    match packet {
        Connect(c) => {
            let p = &c.properties;
            let fields = Fields::of("CONNECT")
                .with("version", c.protocol as u8)
                .with("clean", c.clean_start)
                .with("keep alive", c.keep_alive)
                .with("client id", &*c.client_id)
                .with("user name", text(&c.username))
                .with("password", data(&c.password))
                .with("session expiry", p.session_expiry_interval.unwrap_or(0))
                .with("receive maximum", p.receive_max.unwrap_or(u16::MAX))
                .with("maximum packet size", p.max_packet_size)
                .with("topic alias maximum", p.topic_alias_max.unwrap_or(0))
                .with("response information", p.request_response_info.unwrap_or(false))
                .with("problem information", p.request_problem_info.unwrap_or(true))
                .with("auth method", text(&p.auth_method))
                .with("auth data", data(&p.auth_data))
                .with("user properties", pairs(&p.user_properties));
            let Some(w) = &c.last_will else { return fields };
            let p = &w.properties;
            fields
                .with("will topic", &*w.topic_name)
                .with("will payload", &*w.payload)
                .with("will qos", w.qos as u8)
                .with("will retain", w.retain)
                .with("will delay", p.delay_interval.unwrap_or(0))
                .with("will expiry", p.message_expiry_interval)
                .with("payload is text", p.payload_is_utf8)
                .with("content type", text(&p.content_type))
                .with("response topic", name(&p.response_topic))
                .with("correlation data", data(&p.correlation_data))
                .with("will user properties", pairs(&p.user_properties))
        }
        Connack(a) => {
            let p = &a.properties;
            Fields::of("CONNACK")
                .with("session present", a.session_present)
                .with("reason", a.reason_code as u8)
                .with("session expiry", p.session_expiry_interval)
                .with("receive maximum", p.receive_max.unwrap_or(u16::MAX))
                .with("maximum qos", p.max_qos.map_or(2, |qos| qos as u8))
                .with("retain", p.retain_available.unwrap_or(true))
                .with("maximum packet size", p.max_packet_size)
                .with("assigned client id", text(&p.assigned_client_id))
                .with("topic alias maximum", p.topic_alias_max.unwrap_or(0))
                .with("reason string", text(&p.reason_string))
                .with("wildcards", p.wildcard_subscription_available.unwrap_or(true))
                .with("subscription ids", p.subscription_id_available.unwrap_or(true))
                .with("shared", p.shared_subscription_available.unwrap_or(true))
                .with("keep alive", p.server_keep_alive)
                .with("response information", text(&p.response_info))
                .with("server reference", text(&p.server_reference))
                .with("auth method", text(&p.auth_method))
                .with("auth data", data(&p.auth_data))
                .with("user properties", pairs(&p.user_properties))
        }
        Publish(m) => {
            let p = &m.properties;
            Fields::of("PUBLISH")
                .with("dup", m.dup)
                .with("qos", m.qos_pid.qos() as u8)
                .with("retain", m.retain)
                .with("topic", &*m.topic_name)
                .with("packet id", packet_id(m.qos_pid))
                .with("payload", &*m.payload)
                .with("topic alias", p.topic_alias.unwrap_or(0))
                .with("expiry", p.message_expiry_interval)
                .with("subscription ids", p.subscription_id.iter().map(|id| id.value()).collect::<Vec<_>>())
                .with("payload is text", p.payload_is_utf8)
                .with("content type", text(&p.content_type))
                .with("response topic", name(&p.response_topic))
                .with("correlation data", data(&p.correlation_data))
                .with("user properties", pairs(&p.user_properties))
        }
        Puback(a) => {
            let p = &a.properties;
            ack("PUBACK", a.pid, a.reason_code as u8, &p.reason_string, &p.user_properties)
        }
        Pubrec(a) => {
            let p = &a.properties;
            ack("PUBREC", a.pid, a.reason_code as u8, &p.reason_string, &p.user_properties)
        }
        Pubrel(a) => {
            let p = &a.properties;
            ack("PUBREL", a.pid, a.reason_code as u8, &p.reason_string, &p.user_properties)
        }
        Pubcomp(a) => {
            let p = &a.properties;
            ack("PUBCOMP", a.pid, a.reason_code as u8, &p.reason_string, &p.user_properties)
        }
        Subscribe(s) => {
            let byte = |o: &v5::SubscriptionOptions| {
                o.max_qos as u8
                    | u8::from(o.no_local) << 2
                    | u8::from(o.retain_as_published) << 3
                    | (o.retain_handling as u8) << 4
            };
            let filters: Vec<_> = s.topics.iter().map(|(f, o)| (f.to_string(), byte(o))).collect();
            Fields::of("SUBSCRIBE")
                .with("packet id", s.pid.value())
                .with("subscription id", s.properties.subscription_id.map_or(0, v5::VarByteInt::value))
                .with("filters", filters)
                .with("user properties", pairs(&s.properties.user_properties))
        }
        Unsubscribe(u) => Fields::of("UNSUBSCRIBE")
            .with("packet id", u.pid.value())
            .with("filters", u.topics.iter().map(|filter| &**filter).collect::<Vec<_>>())
            .with("user properties", pairs(&u.properties.user_properties)),
        Suback(a) => {
            let (p, all) = (&a.properties, a.topics.iter().map(|code| *code as u8).collect());
            codes("SUBACK", a.pid, all, &p.reason_string, &p.user_properties)
        }
        Unsuback(a) => {
            let (p, all) = (&a.properties, a.topics.iter().map(|code| *code as u8).collect());
            codes("UNSUBACK", a.pid, all, &p.reason_string, &p.user_properties)
        }
        Disconnect(d) => Fields::of("DISCONNECT")
            .with("reason", d.reason_code as u8)
            .with("session expiry", d.properties.session_expiry_interval)
            .with("reason string", text(&d.properties.reason_string))
            .with("server reference", text(&d.properties.server_reference))
            .with("user properties", pairs(&d.properties.user_properties)),
        Auth(a) => Fields::of("AUTH")
            .with("reason", a.reason_code as u8)
            .with("auth method", text(&a.properties.auth_method))
            .with("auth data", data(&a.properties.auth_data))
            .with("reason string", text(&a.properties.reason_string))
            .with("user properties", pairs(&a.properties.user_properties)),
        Pingreq => Fields::of("PINGREQ"),
        Pingresp => Fields::of("PINGRESP"),
    }
}
