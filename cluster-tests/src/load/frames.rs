//! Frames as bytes, and the borders between them.

use crate::mqtt::{Options, Version, connect, remaining_length, subscribe};

use super::PAYLOAD;

pub fn connect_frame(client_id: &str) -> Vec<u8> {
    connect(&Options::v311(client_id).keep_alive_s(0))
}

pub fn subscribe_frame(filter: &str, qos: u8) -> Vec<u8> {
    subscribe(Version::V311, 1, &[(filter, qos)], &Default::default())
}

/// A PUBLISH whose packet id and payload are filled in for each message.
pub struct Template {
    frame: Vec<u8>,
    qos: u8,
}

/// What the first bytes of a payload carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Since the start of the run.
    pub sent_us: u64,
    pub publisher: u32,
    pub number: u32,
}

impl Template {
    pub fn new(topic: &str, qos: u8) -> Self {
        let id = if qos > 0 { 2 } else { 0 };
        let mut frame = vec![0x30 | qos << 1];
        remaining_length(&mut frame, 2 + topic.len() + id + PAYLOAD);
        frame.extend_from_slice(&(topic.len() as u16).to_be_bytes());
        frame.extend_from_slice(topic.as_bytes());
        frame.resize(frame.len() + id + PAYLOAD, b'.');
        Template { frame, qos }
    }

    pub fn write(&self, out: &mut Vec<u8>, packet_id: u16, stamp: Stamp) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        let payload = out.len() - PAYLOAD;
        if self.qos > 0 {
            out[payload - 2..payload].copy_from_slice(&packet_id.to_be_bytes());
        }
        out[payload..payload + 8].copy_from_slice(&stamp.sent_us.to_be_bytes());
        out[payload + 8..payload + 12].copy_from_slice(&stamp.publisher.to_be_bytes());
        out[payload + 12..payload + 16].copy_from_slice(&stamp.number.to_be_bytes());
        debug_assert!(out.len() - start == self.frame.len());
    }
}

/// A packet as far as the generator looks into it.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// `packet_id` is 0 at QoS 0.
    Publish {
        packet_id: u16,
        stamp: Stamp,
    },
    PubAck,
    /// CONNACK or SUBACK with its last byte, the reason code.
    Answer(u8),
    Other(u8),
}

/// The first whole frame of `buf` and its length; `None`: not there yet.
pub fn split(buf: &[u8]) -> Option<(Frame, usize)> {
    let first = *buf.first()?;
    let (mut length, mut header) = (0, 1);
    loop {
        let byte = *buf.get(header)?;
        length |= usize::from(byte & 0x7f) << (7 * (header - 1));
        header += 1;
        if byte & 0x80 == 0 || header > 4 {
            break;
        }
    }
    let body = buf.get(header..header + length)?;
    let frame = match first >> 4 {
        3 => publish(first, body).unwrap_or(Frame::Other(first)),
        4 => Frame::PubAck,
        2 | 9 => Frame::Answer(*body.last()?),
        _ => Frame::Other(first),
    };
    Some((frame, header + length))
}

fn publish(first: u8, body: &[u8]) -> Option<Frame> {
    let payload = body.get(body.len().checked_sub(PAYLOAD)?..)?;
    let packet_id = if first & 0x06 == 0 {
        0
    } else {
        let id = body.get(body.len() - PAYLOAD - 2..body.len() - PAYLOAD)?;
        u16::from_be_bytes(id.try_into().ok()?)
    };
    let stamp = Stamp {
        sent_us: u64::from_be_bytes(payload[..8].try_into().ok()?),
        publisher: u32::from_be_bytes(payload[8..12].try_into().ok()?),
        number: u32::from_be_bytes(payload[12..16].try_into().ok()?),
    };
    Some(Frame::Publish { packet_id, stamp })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_publish_is_read_back() {
        for qos in [0, 1] {
            let stamp = Stamp { sent_us: 7, publisher: 8, number: 9 };
            let mut out = Vec::new();
            Template::new("a/b", qos).write(&mut out, 77, stamp);
            let id = if qos == 0 { 0 } else { 77 };
            assert_eq!(split(&out), Some((Frame::Publish { packet_id: id, stamp }, out.len())));
            assert_eq!(split(&out[..out.len() - 1]), None);
        }
    }
}
