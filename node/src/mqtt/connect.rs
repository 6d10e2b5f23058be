//! Decoding of CONNECT, which decides the version, and of CONNACK.

use super::decode::reason_code;
use super::packet::{ConnAck, Connect, Will};
use super::properties;
use super::property::{self, Property};
use super::reader::Reader;
use super::reason::CodeUse;
use super::{DecodeError, QoS, ReasonCode, Version, topic};

/// The bit that mosquitto's bridges set in the protocol level of 3.x.
pub(super) const BRIDGE_BIT: u8 = 0x80;

/// Connect flags.
pub(super) mod flag {
    pub const RESERVED: u8 = 0x01;
    pub const CLEAN_START: u8 = 0x02;
    pub const WILL: u8 = 0x04;
    pub const WILL_RETAIN: u8 = 0x20;
    pub const PASSWORD: u8 = 0x40;
    pub const USERNAME: u8 = 0x80;
}

/// Reads what follows the fixed header of a CONNECT.
pub(super) fn read(header_flags: u8, mut body: Reader<'_>) -> Result<Connect<'_>, DecodeError> {
    let (version, bridge) = protocol(&mut body)?;
    let mut connect = Connect::new(version);
    connect.bridge = bridge;
    match fields(&mut connect, header_flags, &mut body) {
        Ok(()) => Ok(connect),
        Err(e) if version == Version::V5 => Err(e.refusable(version)),
        Err(e) => Err(e),
    }
}

/// Protocol name and level [MQTT-3.1.2-1], [MQTT-3.1.2-2].
fn protocol(body: &mut Reader<'_>) -> Result<(Version, bool), DecodeError> {
    const UNKNOWN: DecodeError =
        DecodeError::new(ReasonCode::UnsupportedProtocolVersion, "an unsupported protocol level");
    let name = body.binary()?;
    let level = body.u8();
    match (name, level) {
        (b"MQTT" | b"MQIsdp", Err(e)) => Err(e),
        (b"MQTT", Ok(5)) => Ok((Version::V5, false)),
        (b"MQTT", Ok(level)) if level & !BRIDGE_BIT == 4 => Ok((Version::V311, level & BRIDGE_BIT != 0)),
        (b"MQIsdp", Ok(level)) if level & !BRIDGE_BIT == 3 => Ok((Version::V31, level & BRIDGE_BIT != 0)),
        // A later version will understand the form of the latest that we know; an older one, or
        // a name that 5.0 does not use, can only be 3.x.
        (b"MQTT", Ok(6..)) => Err(UNKNOWN.refusable(Version::V5)),
        (b"MQTT" | b"MQIsdp", _) => Err(UNKNOWN.refusable(Version::V311)),
        _ => Err(DecodeError::new(ReasonCode::UnsupportedProtocolVersion, "an unknown protocol name")),
    }
}

fn fields<'a>(connect: &mut Connect<'a>, header_flags: u8, body: &mut Reader<'a>) -> Result<(), DecodeError> {
    if header_flags != 0 {
        return Err(DecodeError::malformed("reserved flags of the fixed header are set"));
    }
    let v5 = connect.version == Version::V5;
    let flags = body.u8()?;
    if flags & flag::RESERVED != 0 {
        // [MQTT-3.1.2-3]
        return Err(DecodeError::malformed("the reserved connect flag is set"));
    }
    let has_will = flags & flag::WILL != 0;
    // [MQTT-3.1.2-12]
    let will_qos = QoS::from_u8(flags >> 3 & 3).ok_or(DecodeError::malformed("a will with QoS 3"))?;
    let will_retain = flags & flag::WILL_RETAIN != 0;
    if !has_will && (will_qos != QoS::AtMostOnce || will_retain) {
        // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
        return Err(DecodeError::malformed("will QoS or will retain without a will"));
    }
    let has_password = flags & flag::PASSWORD != 0;
    let has_username = flags & flag::USERNAME != 0;
    if has_password && !has_username && !v5 {
        // [MQTT-3.1.2-22] of 3.1.1
        return Err(DecodeError::malformed("a password without a user name"));
    }
    connect.clean_start = flags & flag::CLEAN_START != 0;
    connect.keep_alive_s = body.u16()?;
    if v5 {
        connect_properties(connect, body)?;
    }
    connect.client_id = body.str()?;
    if has_will {
        connect.will = Some(will(body, v5, will_qos, will_retain)?);
    }
    if has_username {
        connect.username = Some(body.str()?);
    }
    if has_password {
        connect.password = Some(body.binary()?);
    }
    body.finish()
}

fn connect_properties<'a>(connect: &mut Connect<'a>, body: &mut Reader<'a>) -> Result<(), DecodeError> {
    connect.user_properties = properties::read(body, property::CONNECT, |p| {
        match p {
            Property::SessionExpiryInterval(s) => connect.session_expiry_s = s,
            Property::ReceiveMaximum(max) => connect.receive_maximum = max,
            Property::MaximumPacketSize(max) => connect.maximum_packet_size = Some(max),
            Property::TopicAliasMaximum(max) => connect.topic_alias_maximum = max,
            Property::RequestResponseInformation(wanted) => connect.request_response_information = wanted,
            Property::RequestProblemInformation(wanted) => connect.request_problem_information = wanted,
            Property::AuthenticationMethod(method) => connect.auth_method = Some(method),
            Property::AuthenticationData(data) => connect.auth_data = Some(data),
            _ => {}
        }
        Ok(())
    })?;
    if connect.auth_data.is_some() && connect.auth_method.is_none() {
        return Err(DecodeError::protocol("authentication data without authentication method"));
    }
    Ok(())
}

fn will<'a>(body: &mut Reader<'a>, v5: bool, qos: QoS, retain: bool) -> Result<Will<'a>, DecodeError> {
    let found = if v5 {
        properties::read_message(body, property::WILL, false)?
    } else {
        properties::MessageProperties::default()
    };
    let name = body.str()?;
    topic::valid_name(name, usize::MAX)
        .map_err(|e| DecodeError::new(ReasonCode::TopicNameInvalid, e.what()))?;
    Ok(Will {
        topic: name,
        payload: body.binary()?,
        qos,
        retain,
        delay_s: found.delay_s,
        expiry_s: found.expiry_s,
        properties: found.forward,
    })
}

/// Reads what follows the fixed header of a CONNACK.
pub(super) fn read_ack(mut body: Reader<'_>, version: Version) -> Result<ConnAck<'_>, DecodeError> {
    let flags = body.u8()?;
    // [MQTT-3.2.2-1]; 3.1 reserves the whole byte.
    if flags > u8::from(version != Version::V31) {
        return Err(DecodeError::malformed("reserved connect acknowledge flags are set"));
    }
    let code = body.u8()?;
    let reason = if version == Version::V5 {
        reason_code(code, CodeUse::ConnAck)?
    } else {
        ReasonCode::from_connect_return_code(code)
            .ok_or(DecodeError::malformed("an undefined CONNACK return code"))?
    };
    let mut ack = ConnAck::new(reason);
    ack.session_present = flags == 1;
    if ack.session_present && reason != ReasonCode::Success {
        // [MQTT-3.2.2-6]
        return Err(DecodeError::protocol("a refusing CONNACK with session present"));
    }
    if version == Version::V5 {
        ack_properties(&mut ack, &mut body)?;
    }
    body.finish()?;
    Ok(ack)
}

fn ack_properties<'a>(ack: &mut ConnAck<'a>, body: &mut Reader<'a>) -> Result<(), DecodeError> {
    ack.user_properties = properties::read(body, property::CONNACK, |p| {
        match p {
            Property::SessionExpiryInterval(s) => ack.session_expiry_s = Some(s),
            Property::ReceiveMaximum(max) => ack.receive_maximum = max,
            Property::MaximumQoS(qos) => ack.maximum_qos = qos,
            Property::RetainAvailable(yes) => ack.retain_available = yes,
            Property::MaximumPacketSize(max) => ack.maximum_packet_size = Some(max),
            Property::AssignedClientIdentifier(id) => ack.assigned_client_id = Some(id),
            Property::TopicAliasMaximum(max) => ack.topic_alias_maximum = max,
            Property::ReasonString(text) => ack.reason_string = Some(text),
            Property::WildcardSubscriptionAvailable(yes) => ack.wildcard_subscriptions = yes,
            Property::SubscriptionIdentifierAvailable(yes) => ack.subscription_identifiers = yes,
            Property::SharedSubscriptionAvailable(yes) => ack.shared_subscriptions = yes,
            Property::ServerKeepAlive(s) => ack.server_keep_alive_s = Some(s),
            Property::ResponseInformation(text) => ack.response_information = Some(text),
            Property::ServerReference(text) => ack.server_reference = Some(text),
            Property::AuthenticationMethod(method) => ack.auth_method = Some(method),
            Property::AuthenticationData(data) => ack.auth_data = Some(data),
            _ => {}
        }
        Ok(())
    })?;
    if ack.auth_data.is_some() && ack.auth_method.is_none() {
        return Err(DecodeError::protocol("authentication data without authentication method"));
    }
    Ok(())
}
