//! One frame, right or wrong.

/// Opcodes of RFC 6455.
pub mod opcode {
    pub const CONTINUATION: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
}

/// How the length is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// In the fewest bytes, as the standard demands.
    Least,
    Bits16,
    Bits64,
}

/// A frame as a client sends it; the constructors make valid ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// FIN, the three reserved bits and the opcode.
    pub first: u8,
    pub mask: Option<[u8; 4]>,
    pub form: Form,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        let mask = Some([0x37, 0xfa, 0x21, 0x3d]);
        Frame { first: 0x80 | opcode, mask, form: Form::Least, payload: payload.as_ref().to_vec() }
    }

    pub fn binary(payload: impl AsRef<[u8]>) -> Self {
        Frame::new(opcode::BINARY, payload)
    }

    pub fn ping(payload: impl AsRef<[u8]>) -> Self {
        Frame::new(opcode::PING, payload)
    }

    pub fn pong(payload: impl AsRef<[u8]>) -> Self {
        Frame::new(opcode::PONG, payload)
    }

    pub fn close(status: u16, reason: impl AsRef<[u8]>) -> Self {
        Frame::new(opcode::CLOSE, [&status.to_be_bytes(), reason.as_ref()].concat())
    }

    /// A message in fragments of `size` bytes.
    pub fn fragments(payload: &[u8], size: usize) -> Vec<Self> {
        let pieces: Vec<&[u8]> = payload.chunks(size).collect();
        let frame = |(i, piece): (usize, &&[u8])| {
            let opcode = if i == 0 { opcode::BINARY } else { opcode::CONTINUATION };
            let frame = Frame::new(opcode, piece);
            if i + 1 == pieces.len() { frame } else { frame.unfinished() }
        };
        pieces.iter().enumerate().map(frame).collect()
    }

    /// Without FIN: more of the message follows.
    #[must_use]
    pub fn unfinished(mut self) -> Self {
        self.first &= 0x7f;
        self
    }

    /// With these of the reserved bits, 1 to 7.
    #[must_use]
    pub fn reserved(mut self, bits: u8) -> Self {
        self.first |= bits << 4;
        self
    }

    #[must_use]
    pub fn unmasked(mut self) -> Self {
        self.mask = None;
        self
    }

    #[must_use]
    pub fn masked(mut self, mask: [u8; 4]) -> Self {
        self.mask = Some(mask);
        self
    }

    #[must_use]
    pub fn in_form(mut self, form: Form) -> Self {
        self.form = form;
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let length = self.payload.len();
        let form = match (self.form, length) {
            (Form::Least, 126..=0xffff) => Form::Bits16,
            (Form::Least, 0x1_0000..) => Form::Bits64,
            (form, _) => form,
        };
        let is_masked = u8::from(self.mask.is_some()) << 7;
        let mut bytes = vec![self.first];
        match form {
            Form::Least => bytes.push(is_masked | length as u8),
            Form::Bits16 => {
                bytes.push(is_masked | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            Form::Bits64 => {
                bytes.push(is_masked | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        match self.mask {
            None => bytes.extend(&self.payload),
            Some(mask) => {
                bytes.extend(mask);
                bytes.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
            }
        }
        bytes
    }

    /// The first whole frame of `bytes` as a server may send it, and its length; `None`: not
    /// there yet.
    ///
    /// # Errors
    /// No server may send it so.
    pub fn of_server(bytes: &[u8]) -> Result<Option<(Self, usize)>, String> {
        let [first, second, ..] = *bytes else { return Ok(None) };
        let opcode = first & 0x0f;
        if first & 0x70 != 0 || !matches!(opcode, 0 | 1 | 2 | 8 | 9 | 10) {
            return Err(format!("first byte {first:#04x}"));
        }
        if second & 0x80 != 0 {
            return Err("a mask".into());
        }
        let (extended, least) = match second {
            126 => (2, 126),
            127 => (8, 0x1_0000),
            _ => (0, 0),
        };
        let Some(length) = bytes.get(2..2 + extended) else { return Ok(None) };
        let length = match extended {
            0 => usize::from(second),
            _ => length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
        };
        if length < least {
            return Err(format!("a length of {length} in {extended} bytes"));
        }
        if opcode >= 8 && (length > 125 || first & 0x80 == 0) {
            return Err("a control frame in fragments or of more than 125 bytes".into());
        }
        let end = 2 + extended + length;
        let Some(payload) = bytes.get(2 + extended..end) else { return Ok(None) };
        Ok(Some((Frame { first, mask: None, form: Form::Least, payload: payload.to_vec() }, end)))
    }

    pub fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    /// The status of a Close frame; `None`: it has none, or is no Close frame.
    pub fn status(&self) -> Option<u16> {
        let status = self.payload.first_chunk().filter(|_| self.opcode() == opcode::CLOSE)?;
        Some(u16::from_be_bytes(*status))
    }
}
