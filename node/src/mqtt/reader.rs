//! Reads the data types of MQTT from borrowed bytes.

use super::DecodeError;

/// The rest of a packet, or of a block inside it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

const SHORT: DecodeError = DecodeError::malformed("the packet ends inside a field");

impl<'a> Reader<'a> {
    #[inline]
    pub fn new(rest: &'a [u8]) -> Self {
        Reader { rest }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that is left.
    #[inline]
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.rest.split_first().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*first)
    }

    #[inline]
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk::<2>().ok_or(SHORT)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    #[inline]
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk::<4>().ok_or(SHORT)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// A Variable Byte Integer, in its shortest form only [MQTT-1.5.5-1].
    #[inline]
    pub fn varint(&mut self) -> Result<u32, DecodeError> {
        let (value, len) = varint(self.rest)?.ok_or(SHORT)?;
        self.rest = &self.rest[len..];
        Ok(value)
    }

    /// Binary Data.
    #[inline]
    pub fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A UTF-8 Encoded String [MQTT-1.5.4-1], [MQTT-1.5.4-2]; a leading U+FEFF is kept
    /// [MQTT-1.5.4-3].
    #[inline]
    pub fn str(&mut self) -> Result<&'a str, DecodeError> {
        let text = std::str::from_utf8(self.binary()?)
            .map_err(|_| DecodeError::malformed("a string is not valid UTF-8"))?;
        if has_nul(text.as_bytes()) {
            return Err(DecodeError::malformed("a string contains U+0000"));
        }
        Ok(text)
    }

    /// A packet identifier, never 0 [MQTT-2.2.1-3].
    #[inline]
    pub fn packet_id(&mut self) -> Result<u16, DecodeError> {
        match self.u16()? {
            0 => Err(DecodeError::protocol("packet identifier 0")),
            id => Ok(id),
        }
    }

    /// Nothing may be left over.
    #[inline]
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::malformed("bytes after the end of the packet's last field"))
        }
    }
}

// Without an early exit, so that the compiler can vectorise it: strings are short and clean.
#[inline]
fn has_nul(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |found, b| found | (*b == 0))
}

/// A Variable Byte Integer at the start of `bytes` and how many bytes it takes; `None` if more
/// bytes are needed.
#[inline]
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            if *byte == 0 && i > 0 {
                return Err(DecodeError::malformed("a variable byte integer is not in its shortest form"));
            }
            return Ok(Some((value, i + 1)));
        }
    }
    if bytes.len() >= 4 {
        return Err(DecodeError::malformed("a variable byte integer takes more than four bytes"));
    }
    Ok(None)
}
