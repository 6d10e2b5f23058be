//! What a well-formed packet may hold.

use super::Limits;
use crate::mqtt::{Connect, DecodeError, ForwardProperties, Packet, ReasonCode, UserProperties, topic};

/// # Errors
/// The packet exceeds a limit: the reason for DISCONNECT, or of a CONNECT for CONNACK.
pub(super) fn check(packet: &Packet<'_>, limits: &Limits) -> Result<(), DecodeError> {
    let properties = match packet {
        Packet::Publish(p) => p.properties.user_properties(),
        Packet::Connect(connect) => {
            let refused = |fault| DecodeError { connack: Some(connect.version), ..fault };
            return check_connect(connect, limits).map_err(refused);
        }
        Packet::PubAck(p) | Packet::PubRec(p) | Packet::PubRel(p) | Packet::PubComp(p) => p.user_properties,
        Packet::Subscribe(p) => p.user_properties,
        Packet::Unsubscribe(p) => p.user_properties,
        Packet::Auth(p) => p.user_properties,
        // The client leaves, whatever it says.
        _ => return Ok(()),
    };
    check_properties([properties, UserProperties::NONE], limits)
}

fn check_connect(connect: &Connect<'_>, limits: &Limits) -> Result<(), DecodeError> {
    if connect.client_id.len() > usize::from(limits.client_id_max_bytes) {
        return Err(DecodeError::new(ReasonCode::ClientIdentifierNotValid, "a client id that is too long"));
    }
    let mut of_will = UserProperties::NONE;
    if let Some(will) = &connect.will {
        check_topic(will.topic, limits)?;
        if will.payload.len() > usize::from(limits.will_max_bytes) {
            return Err(DecodeError::new(ReasonCode::QuotaExceeded, "a will that is too large"));
        }
        check_format(&will.properties, will.payload, limits)?;
        of_will = will.properties.user_properties();
    }
    check_properties([connect.user_properties, of_will], limits)
}

/// # Errors
/// The payload is not the text that it is said to be.
pub(super) fn check_format(
    properties: &ForwardProperties<'_>,
    payload: &[u8],
    limits: &Limits,
) -> Result<(), DecodeError> {
    let checked = limits.check_payload_format && properties.payload_is_text();
    if checked && std::str::from_utf8(payload).is_err() {
        let reason = ReasonCode::PayloadFormatInvalid;
        return Err(DecodeError::new(reason, "a payload that is said to be text and is not UTF-8"));
    }
    Ok(())
}

/// # Errors
/// The topic name, already resolved if it came as an alias, is too long or too deep.
pub(super) fn check_topic(name: &str, limits: &Limits) -> Result<(), DecodeError> {
    let levels_max = usize::from(limits.topic_levels_max);
    if name.len() > levels_max && topic::level_count(name) > levels_max {
        return Err(DecodeError::new(ReasonCode::TopicNameInvalid, "more topic levels than allowed"));
    }
    if name.len() > usize::from(limits.topic_max_bytes) {
        return Err(DecodeError::new(ReasonCode::TopicNameInvalid, "a topic that is longer than allowed"));
    }
    Ok(())
}

fn check_properties(all: [UserProperties<'_>; 2], limits: &Limits) -> Result<(), DecodeError> {
    let most_bytes = limits.user_properties_max_bytes as usize;
    let most = usize::from(limits.user_properties_max);
    // Whatever else the blocks hold, user properties cannot be larger or more than this.
    let upper = all.iter().map(UserProperties::block_len).sum::<usize>();
    if upper <= most_bytes && upper / UserProperties::MIN_BYTES <= most {
        return Ok(());
    }
    let (mut count, mut bytes) = (0, 0);
    for (name, value) in all.iter().flat_map(UserProperties::iter) {
        count += 1;
        bytes += UserProperties::MIN_BYTES + name.len() + value.len();
    }
    if count > most || bytes > most_bytes {
        return Err(DecodeError::new(ReasonCode::QuotaExceeded, "more user properties than allowed"));
    }
    Ok(())
}
