//! What only clients send: the broker's own command line client and the tests.

use super::text_properties;
use crate::mqtt::connect::{BRIDGE_BIT, flag};
use crate::mqtt::decode::{MAX_REMAINING_LEN, kind};
use crate::mqtt::property::Property;
use crate::mqtt::{Connect, Oversize, SubscribeFilter, Version, Will, write};

/// Appends a CONNECT. What the version cannot say is left out.
///
/// # Errors
/// [`Oversize`]; nothing was appended then.
pub fn connect(out: &mut Vec<u8>, c: &Connect<'_>) -> Result<(), Oversize> {
    let will = c.will.as_ref();
    let lens = [
        c.client_id.len(),
        c.username.map_or(0, str::len),
        c.password.map_or(0, <[u8]>::len),
        c.auth_method.map_or(0, str::len),
        c.auth_data.map_or(0, <[u8]>::len),
        will.map_or(0, |w| w.topic.len()),
        will.map_or(0, |w| w.payload.len()),
    ];
    if lens.iter().any(|len| *len > write::MAX_FIELD_LEN) {
        return Err(Oversize);
    }
    client_packet(out, kind::CONNECT, 0, |out| connect_body(out, c))
}

fn connect_body(out: &mut Vec<u8>, c: &Connect<'_>) {
    write::str(out, if c.version == Version::V31 { "MQIsdp" } else { "MQTT" });
    let bridge = if c.bridge && c.version != Version::V5 { BRIDGE_BIT } else { 0 };
    out.push(c.version as u8 | bridge);
    let mut flags = 0;
    let mut set = |bits, when| flags |= if when { bits } else { 0 };
    set(flag::CLEAN_START, c.clean_start);
    set(flag::USERNAME, c.username.is_some());
    set(flag::PASSWORD, c.password.is_some());
    if let Some(will) = &c.will {
        set(flag::WILL, true);
        set((will.qos as u8) << 3, true);
        set(flag::WILL_RETAIN, will.retain);
    }
    out.push(flags);
    write::u16(out, c.keep_alive_s);
    if c.version == Version::V5 {
        write::prefixed(out, |out| connect_properties(out, c));
    }
    write::str(out, c.client_id);
    if let Some(will) = &c.will {
        if c.version == Version::V5 {
            write::prefixed(out, |out| will_properties(out, will));
        }
        write::str(out, will.topic);
        write::binary(out, will.payload);
    }
    if let Some(name) = c.username {
        write::str(out, name);
    }
    if let Some(password) = c.password {
        write::binary(out, password);
    }
}

fn connect_properties(out: &mut Vec<u8>, c: &Connect<'_>) {
    let mut put = |p| write::property(out, p);
    if c.session_expiry_s != 0 {
        put(Property::SessionExpiryInterval(c.session_expiry_s));
    }
    if c.receive_maximum != u16::MAX {
        put(Property::ReceiveMaximum(c.receive_maximum));
    }
    if let Some(max) = c.maximum_packet_size {
        put(Property::MaximumPacketSize(max));
    }
    if c.topic_alias_maximum != 0 {
        put(Property::TopicAliasMaximum(c.topic_alias_maximum));
    }
    if c.request_response_information {
        put(Property::RequestResponseInformation(true));
    }
    if !c.request_problem_information {
        put(Property::RequestProblemInformation(false));
    }
    if let Some(method) = c.auth_method {
        put(Property::AuthenticationMethod(method));
        if let Some(data) = c.auth_data {
            put(Property::AuthenticationData(data));
        }
    }
    text_properties(out, None, &c.user_properties);
}

fn will_properties(out: &mut Vec<u8>, will: &Will<'_>) {
    if will.delay_s != 0 {
        write::property(out, Property::WillDelayInterval(will.delay_s));
    }
    if let Some(s) = will.expiry_s {
        write::property(out, Property::MessageExpiryInterval(s));
    }
    out.extend_from_slice(&will.properties.to_wire());
}

/// Appends a SUBSCRIBE. `subscription_id`: 5.0 only, 0 for none, at most 268,435,455.
///
/// # Errors
/// [`Oversize`]; nothing was appended then.
pub fn subscribe(
    out: &mut Vec<u8>,
    version: Version,
    packet_id: u16,
    subscription_id: u32,
    filters: &[SubscribeFilter<'_>],
) -> Result<(), Oversize> {
    if filters.iter().any(|f| f.filter.len() > write::MAX_FIELD_LEN)
        || subscription_id as usize > MAX_REMAINING_LEN
    {
        return Err(Oversize);
    }
    client_packet(out, kind::SUBSCRIBE, 2, |out| {
        write::u16(out, packet_id);
        if version == Version::V5 {
            write::prefixed(out, |out| {
                if subscription_id != 0 {
                    write::property(out, Property::SubscriptionIdentifier(subscription_id));
                }
            });
        }
        for f in filters {
            write::str(out, f.filter);
            out.push(if version == Version::V5 { f.options.to_byte() } else { f.options.qos as u8 });
        }
    })
}

/// Appends an UNSUBSCRIBE.
///
/// # Errors
/// [`Oversize`]; nothing was appended then.
pub fn unsubscribe(
    out: &mut Vec<u8>,
    version: Version,
    packet_id: u16,
    filters: &[&str],
) -> Result<(), Oversize> {
    if filters.iter().any(|f| f.len() > write::MAX_FIELD_LEN) {
        return Err(Oversize);
    }
    client_packet(out, kind::UNSUBSCRIBE, 2, |out| {
        write::u16(out, packet_id);
        if version == Version::V5 {
            out.push(0);
        }
        for f in filters {
            write::str(out, f);
        }
    })
}

/// Appends a PINGREQ.
pub fn pingreq(out: &mut Vec<u8>) {
    out.extend_from_slice(&[kind::PINGREQ << 4, 0]);
}

/// Appends a client's DISCONNECT of 3.x.
pub fn disconnect_v3(out: &mut Vec<u8>) {
    out.extend_from_slice(&[kind::DISCONNECT << 4, 0]);
}

/// Writes a packet whose size the caller's input decides, or nothing.
fn client_packet(
    out: &mut Vec<u8>,
    kind: u8,
    flags: u8,
    body: impl FnOnce(&mut Vec<u8>),
) -> Result<(), Oversize> {
    let start = out.len();
    write::packet(out, kind, flags, body);
    if out.len() - start > 5 + MAX_REMAINING_LEN {
        out.truncate(start);
        return Err(Oversize);
    }
    Ok(())
}
