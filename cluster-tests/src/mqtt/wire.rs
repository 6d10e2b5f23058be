//! The wire format, as far as a test client needs it: what a client sends is encoded, what a
//! broker sends is decoded, strictly enough to notice a broker that writes nonsense.

use super::{Ack, AckKind, Options, Packet, Prop, Props, Publish, Version, prop};

type Decoded<T> = std::result::Result<T, String>;

/// A Remaining Length, which is also a variable byte integer [MQTT-1.5.5].
pub fn remaining_length(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let byte = (value % 128) as u8;
        value /= 128;
        if value == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
}

fn props(out: &mut Vec<u8>, props: &Props) {
    let mut body = Vec::new();
    for (id, value) in &props.0 {
        body.push(*id);
        match value {
            Prop::Byte(v) => body.push(*v),
            Prop::U16(v) => body.extend_from_slice(&v.to_be_bytes()),
            Prop::U32(v) => body.extend_from_slice(&v.to_be_bytes()),
            Prop::Varint(v) => remaining_length(&mut body, *v as usize),
            Prop::Bytes(v) => bytes(&mut body, v),
            Prop::Str(v) => bytes(&mut body, v.as_bytes()),
            Prop::Pair(name, v) => {
                bytes(&mut body, name.as_bytes());
                bytes(&mut body, v.as_bytes());
            }
        }
    }
    remaining_length(out, body.len());
    out.extend_from_slice(&body);
}

fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    remaining_length(&mut out, body.len());
    out.extend_from_slice(body);
    out
}

pub fn connect(options: &Options) -> Vec<u8> {
    let mut body = Vec::new();
    bytes(&mut body, if options.version == Version::V31 { b"MQIsdp" } else { b"MQTT" });
    body.push(options.version as u8);
    let mut flags = u8::from(options.clean_start) << 1;
    if let Some(will) = &options.will {
        flags |= 0x04 | will.qos << 3 | u8::from(will.retain) << 5;
    }
    flags |= u8::from(options.password.is_some()) << 6 | u8::from(options.username.is_some()) << 7;
    body.push(flags);
    body.extend_from_slice(&options.keep_alive_s.to_be_bytes());
    if options.version == Version::V5 {
        props(&mut body, &options.props);
    }
    bytes(&mut body, options.client_id.as_bytes());
    if let Some(will) = &options.will {
        if options.version == Version::V5 {
            let mut of_will = will.props.clone();
            if will.delay_s > 0 {
                of_will = of_will.with(prop::WILL_DELAY_S, Prop::U32(will.delay_s));
            }
            props(&mut body, &of_will);
        }
        bytes(&mut body, will.topic.as_bytes());
        bytes(&mut body, &will.payload);
    }
    if let Some(username) = &options.username {
        bytes(&mut body, username.as_bytes());
    }
    if let Some(password) = &options.password {
        bytes(&mut body, password);
    }
    frame(0x10, &body)
}

pub fn publish(version: Version, message: &Publish) -> Vec<u8> {
    let mut body = Vec::with_capacity(message.payload.len() + message.topic.len() + 8);
    bytes(&mut body, message.topic.as_bytes());
    if message.qos > 0 {
        body.extend_from_slice(&message.id.to_be_bytes());
    }
    if version == Version::V5 {
        props(&mut body, &message.props);
    }
    body.extend_from_slice(&message.payload);
    frame(0x30 | u8::from(message.dup) << 3 | message.qos << 1 | u8::from(message.retain), &body)
}

/// `filters`: each with its options byte (the QoS, and in 5.0 the other options above it).
pub fn subscribe(version: Version, id: u16, filters: &[(&str, u8)], with: &Props) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        props(&mut body, with);
    }
    for (filter, options) in filters {
        bytes(&mut body, filter.as_bytes());
        body.push(*options);
    }
    frame(0x82, &body)
}

pub fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        props(&mut body, &Props::default());
    }
    for filter in filters {
        bytes(&mut body, filter.as_bytes());
    }
    frame(0xa2, &body)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP with success.
pub fn ack(kind: AckKind, id: u16) -> Vec<u8> {
    let flags = if kind == AckKind::PubRel { 2 } else { 0 };
    frame((kind as u8) << 4 | flags, &id.to_be_bytes())
}

pub fn disconnect(version: Version, code: u8) -> Vec<u8> {
    if version == Version::V5 && code != 0 { frame(0xe0, &[code]) } else { frame(0xe0, &[]) }
}

pub fn auth(code: u8, with: &Props) -> Vec<u8> {
    let mut body = vec![code];
    props(&mut body, with);
    frame(0xf0, &body)
}

/// The first whole packet of `buf` and its length; `None`: not there yet.
pub fn decode(version: Version, buf: &[u8]) -> Decoded<Option<(Packet, usize)>> {
    let Some(&first) = buf.first() else { return Ok(None) };
    let (mut length, mut header) = (0_usize, 1);
    loop {
        let Some(&byte) = buf.get(header) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * (header - 1));
        header += 1;
        if byte & 0x80 == 0 {
            if byte == 0 && header > 2 {
                return Err("a Remaining Length in more bytes than it needs".into());
            }
            break;
        }
        if header > 4 {
            return Err("a Remaining Length of more than four bytes".into());
        }
    }
    let Some(body) = buf.get(header..header + length) else { return Ok(None) };
    let mut reader = Reader { rest: body, version };
    let packet = reader.packet(first)?;
    if !reader.rest.is_empty() {
        return Err(format!("{} bytes too many in {packet:?}", reader.rest.len()));
    }
    Ok(Some((packet, header + length)))
}

struct Reader<'a> {
    rest: &'a [u8],
    version: Version,
}

impl<'a> Reader<'a> {
    fn packet(&mut self, first: u8) -> Decoded<Packet> {
        let v5 = self.version == Version::V5;
        match (first >> 4, first & 0x0f) {
            (2, 0) => {
                let session_present = match self.byte()? {
                    0 => false,
                    1 => true,
                    other => return Err(format!("CONNACK flags {other:#x}")),
                };
                let code = self.byte()?;
                Ok(Packet::ConnAck { session_present, code, props: self.props()? })
            }
            (3, flags) => self.publish(flags),
            (kind @ (4 | 5 | 7), 0) | (kind @ 6, 2) => {
                let id = self.u16()?;
                let code = if self.rest.is_empty() { 0 } else { self.byte()? };
                let props = if self.rest.is_empty() { Props::default() } else { self.props()? };
                let kind = match kind {
                    4 => AckKind::PubAck,
                    5 => AckKind::PubRec,
                    6 => AckKind::PubRel,
                    _ => AckKind::PubComp,
                };
                Ok(Packet::Ack(Ack { kind, id, code, props }))
            }
            (9, 0) => {
                let (id, props) = (self.u16()?, self.props()?);
                Ok(Packet::SubAck { id, codes: std::mem::take(&mut self.rest).to_vec(), props })
            }
            (11, 0) => {
                let (id, props) = (self.u16()?, self.props()?);
                Ok(Packet::UnsubAck { id, codes: std::mem::take(&mut self.rest).to_vec(), props })
            }
            (13, 0) => Ok(Packet::PingResp),
            (14, 0) if v5 => {
                let (code, props) = self.code_and_props()?;
                Ok(Packet::Disconnect { code, props })
            }
            (15, 0) if v5 => {
                let (code, props) = self.code_and_props()?;
                Ok(Packet::Auth { code, props })
            }
            _ => Err(format!("a packet no broker sends: first byte {first:#04x}")),
        }
    }

    fn publish(&mut self, flags: u8) -> Decoded<Packet> {
        let qos = flags >> 1 & 3;
        if qos == 3 || (qos == 0 && flags & 8 != 0) {
            return Err(format!("PUBLISH flags {flags:#x}"));
        }
        let topic = self.text()?;
        let id = if qos > 0 { self.u16()? } else { 0 };
        if qos > 0 && id == 0 {
            return Err("PUBLISH with packet id 0".into());
        }
        let props = self.props()?;
        let payload = std::mem::take(&mut self.rest).to_vec();
        let (retain, dup) = (flags & 1 != 0, flags & 8 != 0);
        Ok(Packet::Publish(Publish { topic, payload, qos, retain, dup, id, props }))
    }

    /// A reason code and properties, both of which may be left out [MQTT-3.14.2.1].
    fn code_and_props(&mut self) -> Decoded<(u8, Props)> {
        let code = if self.rest.is_empty() { 0 } else { self.byte()? };
        let props = if self.rest.is_empty() { Props::default() } else { self.props()? };
        Ok((code, props))
    }

    fn take(&mut self, length: usize) -> Decoded<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or("a packet that ends too early")?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Decoded<u8> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Decoded<u16> {
        let two = self.take(2)?;
        Ok(u16::from_be_bytes([two[0], two[1]]))
    }

    fn bytes(&mut self) -> Decoded<Vec<u8>> {
        let length = usize::from(self.u16()?);
        Ok(self.take(length)?.to_vec())
    }

    fn text(&mut self) -> Decoded<String> {
        String::from_utf8(self.bytes()?).map_err(|e| format!("text that is not UTF-8: {e}"))
    }

    fn varint(&mut self) -> Decoded<u32> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte == 0 && shift > 0 {
                return Err("a variable byte integer in more bytes than it needs".into());
            }
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a variable byte integer of more than four bytes".into())
    }

    fn props(&mut self) -> Decoded<Props> {
        let mut out = Props::default();
        if self.version != Version::V5 {
            return Ok(out);
        }
        let length = self.varint()? as usize;
        let mut inner = Reader { rest: self.take(length)?, version: self.version };
        while !inner.rest.is_empty() {
            let id = inner.byte()?;
            let value = match id {
                0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => Prop::Byte(inner.byte()?),
                0x13 | 0x21 | 0x22 | 0x23 => Prop::U16(inner.u16()?),
                0x02 | 0x11 | 0x18 | 0x27 => {
                    let four = inner.take(4)?;
                    Prop::U32(u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
                }
                0x0b => Prop::Varint(inner.varint()?),
                0x09 | 0x16 => Prop::Bytes(inner.bytes()?),
                0x03 | 0x08 | 0x12 | 0x15 | 0x1a | 0x1c | 0x1f => Prop::Str(inner.text()?),
                0x26 => Prop::Pair(inner.text()?, inner.text()?),
                other => return Err(format!("unknown property {other:#04x}")),
            };
            out.0.push((id, value));
        }
        Ok(out)
    }
}
