//! The records of the log, and how they lie in a segment.
//!
//! ```text
//! length u32 │ crc32c u32 │ kind u8 │ group u64 │ index u64 │ payload     little endian
//! ```
//!
//! The checksum covers the segment's number, every other field and the payload. The number is
//! what makes the records of a recycled file's earlier life invalid.

use bytes::Bytes;

/// Bytes of a record before its payload.
pub(crate) const HEADER_LEN: usize = 25;
/// Bytes of the record that ends a full segment.
pub(crate) const SEAL_LEN: usize = HEADER_LEN;

/// Set on the last record of a group: everything before it was written by the same call.
const GROUP_END: u8 = 0x80;

/// One change of the log, in the order in which it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Entry {
        index: u64,
        payload: Bytes,
    },
    /// Entries from this index on are gone.
    Truncate {
        from: u64,
    },
    /// Entries up to and including this index are gone; `marker` is the caller's.
    Purge {
        upto: u64,
        marker: Bytes,
    },
    Vote(Bytes),
    Committed(Bytes),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Entry = 1,
    Vote = 2,
    Truncate = 3,
    Purge = 4,
    Committed = 5,
    /// The segment is full; the log goes on in the next number.
    Seal = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Entry,
            2 => Self::Vote,
            3 => Self::Truncate,
            4 => Self::Purge,
            5 => Self::Committed,
            6 => Self::Seal,
            _ => return None,
        })
    }
}

/// A record as found in a segment.
#[derive(Debug)]
pub(crate) struct Raw<'a> {
    pub kind: Kind,
    pub group: u64,
    pub ends_group: bool,
    pub index: u64,
    pub payload: &'a [u8],
}

impl Raw<'_> {
    /// Bytes it takes in the segment.
    pub fn len(&self) -> usize {
        HEADER_LEN + self.payload.len()
    }
}

/// Where a record is written, and as part of what.
#[derive(Clone, Copy)]
pub(crate) struct Stamp {
    pub segment: u32,
    pub group: u64,
    pub ends_group: bool,
}

fn checksum(segment: u32, header: &[u8], payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&segment.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &header[..4]);
    let crc = crc32c::crc32c_append(crc, &header[8..HEADER_LEN]);
    crc32c::crc32c_append(crc, payload)
}

/// Appends one record to `out`. `parts` together are its payload.
pub(crate) fn put(out: &mut Vec<u8>, stamp: Stamp, kind: Kind, index: u64, parts: [&[u8]; 2]) {
    let start = out.len();
    let payload_len = parts[0].len() + parts[1].len();
    out.extend_from_slice(&(payload_len as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.push(kind as u8 | if stamp.ends_group { GROUP_END } else { 0 });
    out.extend_from_slice(&stamp.group.to_le_bytes());
    out.extend_from_slice(&index.to_le_bytes());
    out.extend_from_slice(parts[0]);
    out.extend_from_slice(parts[1]);
    let (header, payload) = out[start..].split_at(HEADER_LEN);
    let crc = checksum(stamp.segment, header, payload);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

fn u32_at(buf: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([buf[at], buf[at + 1], buf[at + 2], buf[at + 3]])
}

fn u64_at(buf: &[u8], at: usize) -> u64 {
    u64::from(u32_at(buf, at)) | u64::from(u32_at(buf, at + 4)) << 32
}

/// Bytes that the record at the start of `buf` claims to take; `buf` holds at least its header.
pub(crate) fn claimed_len(buf: &[u8]) -> usize {
    (u32_at(buf, 0) as usize).saturating_add(HEADER_LEN)
}

/// The record at the start of `buf`; `None`: none, or not a whole one, or a damaged one.
pub(crate) fn parse(buf: &[u8], segment: u32) -> Option<Raw<'_>> {
    let header = buf.get(..HEADER_LEN)?;
    let kind = Kind::from_byte(header[8] & !GROUP_END)?;
    let payload = buf.get(HEADER_LEN..claimed_len(header))?;
    if checksum(segment, header, payload) != u32_at(header, 4) {
        return None;
    }
    Some(Raw {
        kind,
        group: u64_at(header, 9),
        ends_group: header[8] & GROUP_END != 0,
        index: u64_at(header, 17),
        payload,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(segment: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let stamp = Stamp { segment, group: 7, ends_group: true };
        put(&mut out, stamp, Kind::Entry, 42, [b"pay", b"load"]);
        out
    }

    #[test]
    fn round_trip() {
        let bytes = one(3);
        let raw = parse(&bytes, 3).unwrap();
        assert_eq!(
            (raw.kind, raw.group, raw.ends_group, raw.index, raw.payload, raw.len()),
            (Kind::Entry, 7, true, 42, b"payload".as_slice(), bytes.len())
        );
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let bytes = one(3);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&damaged, 3).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_of_another_segment_is_none() {
        assert!(parse(&one(3), 4).is_none());
        assert!(parse(&[0; 64], 4).is_none());
    }
}
