//! What the frames of a WebSocket client carry, piece by piece: no I/O, no message is put together.

use super::Violation;

/// Two bytes, eight of extended length, four of mask.
const HEADER_MAX: usize = 14;
const MASK_BYTES: u8 = 4;
/// Payload of a control frame, at most.
pub(super) const CONTROL_MAX: usize = 125;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// What a client has sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The next bytes of the binary stream, never empty. Where frames and messages begin and end
    /// means nothing to MQTT [MQTT-6.0.0-2].
    Data(&'a [u8]),
    /// To be answered by a pong with the same payload.
    Ping(Box<Control>),
    /// The client's Close frame with its status, if it has one. Nothing follows.
    Close(Option<u16>),
}

/// The payload of a control frame: the only thing that is kept until it is whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Control {
    opcode: u8,
    len: u8,
    bytes: [u8; CONTROL_MAX],
}

impl Control {
    pub fn payload(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn push(&mut self, piece: &[u8]) {
        let len = usize::from(self.len);
        self.bytes[len..len + piece.len()].copy_from_slice(piece);
        self.len += piece.len() as u8;
    }

    /// The status of a Close frame.
    fn status(&self) -> Result<Option<u16>, Violation> {
        let (status, reason) = match self.payload() {
            [] => return Ok(None),
            [_] => return Err(Violation::protocol("a Close frame with half a status")),
            [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        };
        // Those of the standard that may be sent, those registered since, and those for libraries
        // and applications.
        if !matches!(status, 1000..=1003 | 1007..=1014 | 3000..=4999) {
            return Err(Violation::protocol("a Close frame with a status that is never sent"));
        }
        if str::from_utf8(reason).is_err() {
            return Err(Violation::new(Violation::NOT_UTF8, "a Close frame whose reason is not UTF-8"));
        }
        Ok(Some(status))
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x} {}", self.opcode, self.payload().escape_ascii())
    }
}

/// Reads the frames of one client as RFC 6455 demands of a server without extensions, and refuses
/// text [MQTT-6.0.0-1]. Every rule is enforced with the first byte that breaks it.
#[derive(Debug)]
pub struct FrameReader {
    /// The control frame that is being read.
    control: Option<Box<Control>>,
    /// Payload of the current frame that is still to come. 0: the next byte belongs to a header.
    rest: u32,
    /// Payload of the current message, of the frames before this one.
    message: u32,
    message_max: u32,
    /// Begins with the byte for what comes next of the payload.
    mask: [u8; 4],
    header: [u8; HEADER_MAX],
    /// Bytes of the header that have come.
    have: u8,
    /// The last fragment of a message is still to come.
    fragmented: bool,
    /// Nothing counts any more: the client closed or broke the protocol.
    over: bool,
}

impl FrameReader {
    /// `message_max`: the largest message, bytes over all its fragments.
    pub fn new(message_max: u32) -> Self {
        Self {
            control: None,
            rest: 0,
            message: 0,
            message_max,
            mask: [0; 4],
            header: [0; HEADER_MAX],
            have: 0,
            fragmented: false,
            over: false,
        }
    }

    /// The next thing in `input`, which is passed over, its payload unmasked in place. `None`:
    /// there is no more in it, or nothing that counts.
    ///
    /// # Errors
    /// The client broke the protocol; the connection is to be closed with the violation's status.
    pub fn next<'a>(&mut self, input: &mut &'a mut [u8]) -> Option<Result<Event<'a>, Violation>> {
        while !self.over && !input.is_empty() {
            if self.rest == 0 {
                let byte = input[0];
                *input = &mut std::mem::take(input)[1..];
                match self.header_byte(byte) {
                    Ok(true) => self.begin(),
                    Ok(false) => continue,
                    Err(violation) => return Some(Err(self.fail(violation))),
                }
            } else {
                let piece = self.payload(input);
                match &mut self.control {
                    Some(control) => control.push(piece),
                    None => return Some(Ok(Event::Data(piece))),
                }
            }
            if self.rest == 0
                && let Some(control) = self.control.take()
            {
                match control.opcode {
                    PING => return Some(Ok(Event::Ping(control))),
                    CLOSE => {
                        self.over = true;
                        return Some(control.status().map(Event::Close));
                    }
                    // A pong that nobody asked for, or nobody waits for.
                    _ => {}
                }
            }
        }
        None
    }

    fn fail(&mut self, violation: Violation) -> Violation {
        self.over = true;
        violation
    }

    /// Takes one byte of a header. True: it was the last.
    fn header_byte(&mut self, byte: u8) -> Result<bool, Violation> {
        self.header[usize::from(self.have)] = byte;
        self.have += 1;
        match self.have {
            1 => self.check_first(byte)?,
            2 => self.check_second(byte)?,
            _ => {}
        }
        if self.have < 2 {
            return Ok(false);
        }
        let before_mask = 2 + self.extended_bytes();
        if self.have == before_mask {
            self.check_length()?;
        }
        Ok(self.have == before_mask + MASK_BYTES)
    }

    fn check_first(&self, byte: u8) -> Result<(), Violation> {
        let (is_last, opcode) = (byte & 0x80 != 0, byte & 0x0F);
        let fault = match opcode {
            _ if byte & 0x70 != 0 => "a reserved bit, which no extension defines",
            CONTINUATION if !self.fragmented => "a continuation of nothing",
            TEXT | BINARY if self.fragmented => "a message inside a fragmented one",
            TEXT => return Err(Violation::new(Violation::UNSUPPORTED, "a text frame")),
            CLOSE | PING | PONG if !is_last => "a fragmented control frame",
            CONTINUATION | BINARY | CLOSE | PING | PONG => return Ok(()),
            _ => "a reserved opcode",
        };
        Err(Violation::protocol(fault))
    }

    fn check_second(&self, byte: u8) -> Result<(), Violation> {
        if byte & 0x80 == 0 {
            return Err(Violation::protocol("a frame without a mask"));
        }
        if self.is_control() && usize::from(byte & 0x7F) > CONTROL_MAX {
            return Err(Violation::protocol("a control frame of more than 125 bytes"));
        }
        Ok(())
    }

    fn check_length(&self) -> Result<(), Violation> {
        let len = self.len();
        let least = match self.extended_bytes() {
            0 => 0,
            2 => 126,
            _ => 1 << 16,
        };
        if len < least {
            return Err(Violation::protocol("a length in a longer form than it needs"));
        }
        if len >> 63 != 0 {
            return Err(Violation::protocol("a length with its top bit set"));
        }
        if !self.is_control() && len > u64::from(self.message_max - self.message) {
            return Err(Violation::new(Violation::TOO_BIG, "a message above the largest packet"));
        }
        Ok(())
    }

    /// Begins the payload of a frame whose header is whole.
    fn begin(&mut self) {
        let end = usize::from(self.have);
        self.mask.copy_from_slice(&self.header[end - usize::from(MASK_BYTES)..end]);
        // Not above the maximum, which was checked.
        self.rest = self.len() as u32;
        self.have = 0;
        let first = self.header[0];
        if self.is_control() {
            let control = Control { opcode: first & 0x0F, len: 0, bytes: [0; CONTROL_MAX] };
            self.control = Some(Box::new(control));
        } else {
            self.fragmented = first & 0x80 == 0;
            self.message = if self.fragmented { self.message + self.rest } else { 0 };
        }
    }

    fn is_control(&self) -> bool {
        self.header[0] & 0x08 != 0
    }

    fn extended_bytes(&self) -> u8 {
        match self.header[1] & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn len(&self) -> u64 {
        match self.extended_bytes() {
            0 => u64::from(self.header[1] & 0x7F),
            extended => {
                let bytes = &self.header[2..2 + usize::from(extended)];
                bytes.iter().fold(0, |len, byte| len << 8 | u64::from(*byte))
            }
        }
    }

    /// Takes what `input` has of the payload.
    fn payload<'a>(&mut self, input: &mut &'a mut [u8]) -> &'a [u8] {
        let len = input.len().min(self.rest as usize);
        let (piece, after) = std::mem::take(input).split_at_mut(len);
        *input = after;
        self.rest -= len as u32;
        unmask(piece, self.mask);
        self.mask.rotate_left(len % usize::from(MASK_BYTES));
        piece
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let word_mask = u32::from_ne_bytes(mask);
    let (words, tail) = bytes.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ word_mask).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}
