//! A fuzzer's input, taken apart.

/// Takes small values off the front of the input; at its end there are only zeros and empty
/// slices, so that every input means something.
pub(super) struct Source<'a> {
    rest: &'a [u8],
}

impl<'a> Source<'a> {
    pub fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub fn u8(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => 0,
        }
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    pub fn bool(&mut self) -> bool {
        self.u8() & 1 != 0
    }

    /// Up to `len` bytes.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// A slice whose length is the next byte.
    pub fn slice(&mut self) -> &'a [u8] {
        let len = self.u8();
        self.take(usize::from(len))
    }
}

/// Cuts `bytes` into pieces of 1 to `seed % 16 + 1` bytes that depend on `seed` alone.
pub(super) fn chops(bytes: &[u8], seed: u64) -> impl Iterator<Item = &[u8]> {
    let longest = seed % 16 + 1;
    let mut state = seed | 1;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        // Steele and Vigna's multiplier; the high bits are the good ones.
        state = state.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(1);
        let len = ((state >> 33) % longest + 1) as usize;
        let (piece, after) = rest.split_at(len.min(rest.len()));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}
