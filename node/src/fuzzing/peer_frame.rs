//! Forward frames of other nodes.

use std::cell::OnceCell;
use std::sync::Arc;

use bytes::BytesMut;

use super::client::{Fed, Layer, connect_bytes};
use super::packets;
use crate::mqtt::{ForwardProperties, Publication, Version, topic};
use crate::peer::forward::codec::{decode, encode, encoded_len};
use crate::session::{Conn, Delivery, Flow, Inbound, Share};

/// Frames of an input that are delivered.
const DELIVERED_MAX: usize = 6;

/// Input: a batch of frames. What can be read is written and read again as the same, and a
/// subscriber survives it.
pub fn peer_frame(input: &[u8]) {
    let mut rest = input;
    let mut delivered = 0;
    while let Ok(Some(frame)) = decode(&mut rest) {
        let mut bytes = BytesMut::new();
        encode(&frame, &mut bytes);
        assert_eq!(bytes.len(), encoded_len(&frame));
        // Numbers may have come in a longer form than they need.
        assert!(bytes.len() <= input.len());
        let mut from = &bytes[..];
        let again = decode(&mut from).expect("well-formed").expect("a frame");
        assert!(from.is_empty());
        assert_eq!(again.publication.to_message(), frame.publication.to_message());
        assert_eq!((again.barrier, again.share), (frame.barrier, frame.share));
        // A connection costs more than all the frames together.
        if delivered < DELIVERED_MAX {
            deliver(&frame.publication, [Version::V31, Version::V311, Version::V5][delivered % 3]);
            delivered += 1;
        }
    }
}

/// Follows what the client sends with a delivery.
struct Delivering<'a>(&'a Publication<'a>);

impl Layer for Delivering<'_> {
    fn feed(&mut self, conn: &Arc<Conn>, inbound: &mut Inbound, piece: &mut [u8]) -> Flow {
        let flow = inbound.feed(conn, piece, 0);
        let Self(publication) = *self;
        let qos = publication.qos;
        let share = Some(Share { group: 1, moves: 0 });
        let delivery = Delivery { publication, qos, retain: false, subscription_ids: &[], share };
        conn.deliver(&delivery, &OnceCell::new(), 0);
        flow
    }
}

/// To a client that has just connected. What makes sense arrives, and nothing else harms it.
fn deliver(publication: &Publication<'_>, version: Version) {
    let fed = Fed::through([connect_bytes(version).as_slice()], Delivering(publication));
    let makes_sense = topic::valid_name(publication.topic, usize::MAX).is_ok()
        && ForwardProperties::from_wire(publication.properties).is_ok();
    if makes_sense {
        let sent = packets::from_server(&fed.sent, version);
        assert_eq!(sent.len(), if publication.expires_at_ms == 0 { 2 } else { sent.len() });
    }
}
