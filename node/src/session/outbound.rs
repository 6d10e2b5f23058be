//! What waits to be written to one client, and the rules by which any thread may write it.

use super::acks::Receiving;
use super::deliver::Sending;
use super::pool;
use super::proof::Proof;
use crate::auth::Outcome;
use crate::mqtt::{ReasonCode, frame_len};
use crate::state::Replays;

/// Room for the longest header of a WebSocket frame from a server.
const FRAME_HEADER_MAX: usize = 10;
/// No frame is open.
const NO_FRAME: u32 = u32::MAX;

/// The WebSocket status nearest to the reason an MQTT connection ends for: all that a 3.x client
/// gets to know.
fn close_status(reason: ReasonCode) -> u16 {
    use ReasonCode::*;
    match reason {
        Success | DisconnectWithWill => 1000,
        // The server goes away.
        ServerShuttingDown | UseAnotherServer | ServerMoved => 1001,
        MalformedPacket
        | ProtocolError
        | UnsupportedProtocolVersion
        | TopicFilterInvalid
        | TopicNameInvalid
        | PacketIdentifierInUse
        | PacketIdentifierNotFound
        | ReceiveMaximumExceeded
        | TopicAliasInvalid
        | PayloadFormatInvalid => 1002,
        PacketTooLarge => 1009,
        UnspecifiedError | ImplementationSpecificError => 1011,
        // Try again later.
        ServerUnavailable | ServerBusy => 1013,
        // The general one, a breach of policy: not let in, taken over, too slow, too much.
        _ => 1008,
    }
}

/// One bit each, so that an idle connection stays small.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags(u8);

impl Flags {
    /// On some thread's list of outboxes to be written at the end of its turn.
    pub const DIRTY: u8 = 1;
    /// A thread is in the system call; it looks again afterwards.
    pub const WRITING: u8 = 2;
    /// The socket took no more; its owner goes on when it is writable.
    pub const BLOCKED: u8 = 4;
    /// Nothing may be appended any more.
    pub const CLOSING: u8 = 8;
    /// The link has been told that nothing more comes.
    pub const FINISHED: u8 = 16;
    /// Bytes go out in WebSocket frames, and after the last one the client has a say: the stream
    /// is not ended before its Close frame.
    pub const FRAMED: u8 = 32;
    /// The owner does not read because of the client's backlog and wants to know when it is gone.
    pub const STALLED: u8 = 64;
    /// Deliveries of a persistent session, or retained messages, found the outbox or the window
    /// full.
    pub const HUNGRY: u8 = 128;

    pub fn has(self, any: u8) -> bool {
        self.0 & any != 0
    }

    pub fn set(&mut self, flags: u8) {
        self.0 |= flags;
    }

    /// Clears the flags; whether any was set.
    pub fn clear(&mut self, flags: u8) -> bool {
        let had = self.has(flags);
        self.0 &= !flags;
        had
    }
}

/// What a CONNACK has to say that was asked in CONNECT; gone once it is answered.
#[derive(Debug)]
pub(super) struct Greeting {
    /// Session Expiry Interval as the client asked for it, seconds.
    pub expiry_asked_s: u32,
    /// Set when it differs from what the client asked for.
    pub server_keep_alive_s: Option<u16>,
    /// Of a client that has authenticated itself.
    pub proof: Option<Proof>,
}

/// What most connections never have, or only for moments.
#[derive(Debug, Default)]
pub(super) struct Cold {
    /// Bytes at the front of the buffer that are already written.
    pub head: usize,
    pub greeting: Option<Box<Greeting>>,
    pub sending: Option<Box<Sending>>,
    pub receiving: Option<Box<Receiving>>,
    /// Subscriptions whose retained messages have not all been sent.
    pub replays: Option<Box<Replays>>,
    /// The answer to a step of the authentication that the owner has not seen.
    pub outcome: Option<Box<Outcome>>,
}

#[derive(Debug)]
pub(super) struct Outbound {
    buf: Vec<u8>,
    pub cold: Option<Box<Cold>>,
    /// Where the open WebSocket frame begins in the buffer: [`FRAME_HEADER_MAX`] bytes of room,
    /// then its payload.
    frame: u32,
    /// The client's Maximum Packet Size; `u32::MAX`: none.
    pub maximum_packet: u32,
    /// Deliveries the client takes at once, our own bound applied.
    pub receive_maximum: u16,
    /// Topic aliases that may be used, our own bound applied.
    pub alias_maximum: u16,
    /// Packets appended since they were last counted.
    pub packets: u16,
    pub flags: Flags,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            buf: Vec::new(),
            cold: None,
            frame: NO_FRAME,
            maximum_packet: u32::MAX,
            receive_maximum: 1,
            alias_maximum: 0,
            packets: 0,
            flags: Flags::default(),
        }
    }
}

impl Outbound {
    pub fn cold(&mut self) -> &mut Cold {
        self.cold.get_or_insert_default()
    }

    pub fn sending(&mut self) -> &mut Sending {
        self.cold().sending.get_or_insert_default()
    }

    pub fn receiving(&mut self) -> &mut Receiving {
        self.cold().receiving.get_or_insert_default()
    }

    fn head(&self) -> usize {
        self.cold.as_ref().map_or(0, |cold| cold.head)
    }

    fn set_head(&mut self, head: usize) {
        if head > 0 || self.cold.is_some() {
            self.cold().head = head;
        }
    }

    /// Bytes that wait, without those a writer is busy with.
    pub fn len(&self) -> usize {
        self.buf.len() - self.head()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that wait for the client, or for the answer to its SUBSCRIBE before they do.
    pub fn backlog_bytes(&self) -> usize {
        let receiving = self.cold.as_ref().and_then(|cold| cold.receiving.as_ref());
        self.len() + receiving.map_or(0, |receiving| receiving.behind_bytes())
    }

    /// The buffer, to append one packet to. What is appended must be a whole packet, or be cut off
    /// again.
    ///
    /// Where there are WebSocket frames, each packet has its own: a receiver must not expect that
    /// [MQTT-6.0.0-2], but Paho C forgets the second packet of a frame until the next one arrives.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.buf.capacity() == 0 {
            self.buf = pool::take();
        }
        if self.flags.has(Flags::FRAMED) {
            self.seal();
            self.frame = self.buf.len() as u32;
            self.buf.extend_from_slice(&[0; FRAME_HEADER_MAX]);
        }
        &mut self.buf
    }

    /// As [`Outbound::buffer`], for a PUBLISH, which may have to wait for a SUBACK.
    pub fn publish_buffer(&mut self, retained: bool) -> &mut Vec<u8> {
        let receiving = self.cold.as_ref().and_then(|cold| cold.receiving.as_ref());
        if receiving.is_some_and(|receiving| receiving.holds_back(retained)) {
            self.receiving().behind()
        } else {
            self.buffer()
        }
    }

    /// Appends packets that have been counted, each in a frame of its own where there are frames.
    pub fn append_packets(&mut self, mut packets: &[u8]) {
        while let Ok(Some(len)) = frame_len(packets, u32::MAX) {
            let (packet, rest) = packets.split_at(len);
            self.buffer().extend_from_slice(packet);
            packets = rest;
        }
    }

    /// Appends one control packet; nothing once the connection is closing.
    pub fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.flags.has(Flags::CLOSING) {
            write(self.buffer());
            self.packets = self.packets.saturating_add(1);
        }
    }

    /// As [`Outbound::append`], unless the packet is larger than the client takes. False: it is.
    pub fn append_within(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.flags.has(Flags::CLOSING) {
            return true;
        }
        let maximum = self.maximum_packet as usize;
        let buffer = self.buffer();
        let start = buffer.len();
        write(buffer);
        let fits = buffer.len() - start <= maximum;
        if fits {
            self.packets = self.packets.saturating_add(1);
        } else {
            buffer.truncate(start);
        }
        fits
    }

    /// Appends bytes that are not MQTT packets: those of the WebSocket protocol itself.
    pub fn append_raw(&mut self, bytes: &[u8]) {
        self.seal();
        if self.buf.capacity() == 0 {
            self.buf = pool::take();
        }
        self.buf.extend_from_slice(bytes);
    }

    /// Ends the open WebSocket frame: what was appended since the last one becomes the payload of
    /// one binary frame [MQTT-6.0.0-1].
    fn seal(&mut self) {
        if self.frame == NO_FRAME {
            return;
        }
        let start = self.frame as usize;
        self.frame = NO_FRAME;
        let payload = self.buf.len() - start - FRAME_HEADER_MAX;
        if payload == 0 {
            self.buf.truncate(start);
            return;
        }
        let mut header = [0; FRAME_HEADER_MAX];
        header[0] = 0x82; // FIN, binary
        let len = match payload {
            0..=125 => {
                header[1] = payload as u8;
                2
            }
            126..=0xFFFF => {
                header[1] = 126;
                header[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
                4
            }
            _ => {
                header[1] = 127;
                header[2..10].copy_from_slice(&(payload as u64).to_be_bytes());
                10
            }
        };
        let gap = FRAME_HEADER_MAX - len;
        self.buf[start + gap..start + FRAME_HEADER_MAX].copy_from_slice(&header[..len]);
        if gap == 0 {
            return;
        }
        if start == self.head() {
            self.set_head(start + gap);
        } else {
            self.buf.copy_within(start + gap.., start);
            self.buf.truncate(self.buf.len() - gap);
        }
    }

    /// Says goodbye in the WebSocket protocol, where that is spoken.
    pub fn close_frame(&mut self, reason: ReasonCode) {
        if self.flags.has(Flags::FRAMED) {
            let [high, low] = close_status(reason).to_be_bytes();
            self.append_raw(&[0x88, 2, high, low]); // FIN, close
        }
    }

    pub fn replays(&self) -> Option<&Replays> {
        self.cold.as_ref()?.replays.as_deref()
    }

    /// The replays, to be put back; `None` if there are none, or nothing may be appended.
    pub fn take_replays(&mut self) -> Option<Box<Replays>> {
        let replays = self.cold.as_mut()?.replays.take();
        replays.filter(|_| !self.flags.has(Flags::CLOSING))
    }

    /// Whether one more delivery at QoS 1 or 2 could go to the client, and be the next to go.
    pub fn has_room_at_once(&self) -> bool {
        let sending = self.cold.as_ref().and_then(|cold| cold.sending.as_ref());
        sending.is_none_or(|sending| sending.has_room_at_once(self.receive_maximum))
    }

    /// Whether deliveries that found no room might find it now, but for the outbox.
    pub fn may_go_on(&self) -> bool {
        let sending = self.cold.as_ref().and_then(|cold| cold.sending.as_ref());
        // Retained messages at QoS 0 need no room in the window.
        let has_room = sending.is_none_or(|sending| sending.has_room(self.receive_maximum));
        self.flags.has(Flags::HUNGRY) && (has_room || self.replays().is_some())
    }

    /// Takes everything for writing: the buffer and how much of its front is to be passed over.
    pub fn take(&mut self) -> (Vec<u8>, usize) {
        self.seal();
        let head = self.head();
        self.set_head(0);
        (std::mem::take(&mut self.buf), head)
    }

    /// Puts back what could not be written, in front of what was appended meanwhile.
    pub fn put_back(&mut self, mut bytes: Vec<u8>, mut head: usize) {
        self.seal();
        let newer_head = self.head();
        if head > bytes.len() / 2 {
            bytes.drain(..head);
            head = 0;
        }
        bytes.extend_from_slice(&self.buf[newer_head..]);
        pool::give(std::mem::replace(&mut self.buf, bytes));
        self.set_head(head);
    }

    /// Passes over bytes that were written from [`Outbound::front`].
    pub fn consume(&mut self, bytes: usize) {
        let head = self.head() + bytes;
        self.set_head(head);
    }

    /// Everything that waits. Only after [`Outbound::put_back`], while no frame is open.
    pub fn front(&self) -> &[u8] {
        &self.buf[self.head()..]
    }

    /// Gives the buffer up when nothing waits.
    pub fn recycle(&mut self) {
        if self.is_empty() {
            self.set_head(0);
            self.frame = NO_FRAME;
            pool::give(std::mem::take(&mut self.buf));
        }
    }

    /// Throws everything away.
    pub fn discard(&mut self) {
        self.set_head(0);
        self.frame = NO_FRAME;
        pool::give(std::mem::take(&mut self.buf));
    }

    /// Frees what an idle connection does not need.
    pub fn shrink(&mut self) {
        if let Some(cold) = &mut self.cold {
            if cold.sending.as_ref().is_some_and(|sending| sending.is_idle()) {
                cold.sending = None;
            }
            if cold.receiving.as_ref().is_some_and(|receiving| receiving.is_idle()) {
                cold.receiving = None;
            }
            let in_use = cold.head > 0
                || cold.greeting.is_some()
                || cold.sending.is_some()
                || cold.receiving.is_some()
                || cold.replays.is_some()
                || cold.outcome.is_some();
            if !in_use {
                self.cold = None;
            }
        }
        if self.is_empty() && self.buf.capacity() > 0 {
            self.recycle();
        }
    }

    /// Whether the connection owns any memory beside its own.
    #[cfg(test)]
    pub fn owns_nothing(&self) -> bool {
        self.buf.capacity() == 0 && self.cold.is_none()
    }
}
