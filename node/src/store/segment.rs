//! One file of the log: a header, records, and the rest of its preallocated space.
//!
//! ```text
//! magic 8 │ format u16 │ 0 u16 │ number u32 │ owner u64 │ capacity u32 │ crc32c u32 │ records …
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::OpenError;
use super::record::{self, HEADER_LEN, Kind, Raw};

/// Bytes before the first record.
pub(crate) const HEAD_LEN: usize = 32;
/// Version of the segment format that is written; older ones are read.
pub(crate) const FORMAT: u16 = 1;

const MAGIC: [u8; 8] = *b"RKRY-LOG";

/// A segment whose records are still needed.
pub(crate) struct Segment {
    pub number: u32,
    pub path: PathBuf,
    pub file: Arc<File>,
    /// Bytes, header included.
    pub capacity: u32,
    /// Highest index of an entry ever written to it.
    pub last_entry: Option<u64>,
}

/// The name that says a file's number.
pub(crate) fn file_name(number: u32) -> String {
    format!("{number:010}.log")
}

/// The number in a segment's file name.
pub(crate) fn number_of(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 10 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

pub(crate) fn head(number: u32, owner: u64, capacity: u32) -> [u8; HEAD_LEN] {
    let mut head = [0; HEAD_LEN];
    head[..8].copy_from_slice(&MAGIC);
    head[8..10].copy_from_slice(&FORMAT.to_le_bytes());
    head[12..16].copy_from_slice(&number.to_le_bytes());
    head[16..24].copy_from_slice(&owner.to_le_bytes());
    head[24..28].copy_from_slice(&capacity.to_le_bytes());
    let crc = crc32c::crc32c(&head[..28]);
    head[28..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Checks the header and returns the capacity.
fn check_head(path: &Path, bytes: &[u8], number: u32, owner: u64) -> Result<u32, OpenError> {
    let Some(head) = bytes.get(..HEAD_LEN) else {
        return Err(OpenError::damaged(path, 0, "it is shorter than its header"));
    };
    if head[..8] != MAGIC {
        return Err(OpenError::damaged(path, 0, "it does not begin as a log segment does"));
    }
    let format = u16::from_le_bytes([head[8], head[9]]);
    if format > FORMAT {
        return Err(OpenError::NewerFormat {
            path: path.to_owned(),
            found: format.into(),
            known: FORMAT.into(),
        });
    }
    if crc32c::crc32c(&head[..28]).to_le_bytes() != head[28..32] {
        return Err(OpenError::damaged(path, 28, "the checksum of its header is wrong"));
    }
    let found =
        u64::from_le_bytes([head[16], head[17], head[18], head[19], head[20], head[21], head[22], head[23]]);
    if found != owner {
        return Err(OpenError::Foreign { path: path.to_owned(), found, expected: owner });
    }
    if head[12..16] != number.to_le_bytes() {
        return Err(OpenError::damaged(path, 12, "its name and its header disagree about its number"));
    }
    Ok(u32::from_le_bytes([head[24], head[25], head[26], head[27]]))
}

/// Where the records of the log have been read to, across segments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub group: u64,
    /// The last record read was its group's last.
    pub group_whole: bool,
}

/// How a segment's records end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Sealed,
    /// At this offset; `dirty`: what follows is not the zeros it should be.
    Open {
        at: u32,
        dirty: bool,
    },
}

/// Reads every record of the segment at `path`. `last`: no higher number exists, so that its end
/// may be that of an interrupted write, which was never acknowledged.
///
/// # Errors
/// Those of the file, of `each`, and damage: any bad record that is not the end of an
/// interrupted write.
pub(crate) fn scan(
    path: &Path,
    number: u32,
    owner: u64,
    last: bool,
    progress: &mut Progress,
    each: impl FnMut(u32, Raw<'_>) -> Result<(), String>,
) -> Result<(u32, End), OpenError> {
    let bytes = fs::read(path).map_err(OpenError::io(path))?;
    scan_bytes(path, &bytes, number, owner, last, progress, each)
}

/// As [`scan`], of what the file at `path` holds.
pub(crate) fn scan_bytes(
    path: &Path,
    bytes: &[u8],
    number: u32,
    owner: u64,
    last: bool,
    progress: &mut Progress,
    mut each: impl FnMut(u32, Raw<'_>) -> Result<(), String>,
) -> Result<(u32, End), OpenError> {
    let capacity = check_head(path, bytes, number, owner)?;
    let mut at = HEAD_LEN;
    while let Some(raw) = bytes.get(at..).and_then(|rest| record::parse(rest, number)) {
        if raw.group < progress.group {
            return Err(OpenError::damaged(path, at as u64, "a record is out of order"));
        }
        *progress = Progress { group: raw.group, group_whole: raw.ends_group };
        if raw.kind == Kind::Seal {
            return Ok((capacity, End::Sealed));
        }
        let len = raw.len();
        each(at as u32, raw).map_err(|what| OpenError::damaged(path, at as u64, what))?;
        at += len;
    }
    if !last {
        return Err(OpenError::damaged(path, at as u64, "a bad record, and the log goes on in a later file"));
    }
    // Groups are written one after the other, each synced before the next: a valid record of a
    // group after the one that broke off proves that the broken one had been whole.
    let broken = if progress.group_whole { progress.group + 1 } else { progress.group };
    let rest = &bytes[at..];
    if let Some(offset) = later_group(rest, number, broken) {
        let what = format!("a bad record, and valid ones of later writes follow at byte {}", at + offset);
        return Err(OpenError::damaged(path, at as u64, what));
    }
    let dirty = bytes.len() < capacity as usize || rest.iter().any(|b| *b != 0);
    Ok((capacity, End::Open { at: at as u32, dirty }))
}

/// Offset of the first valid record of a group after `group`.
fn later_group(bytes: &[u8], number: u32, group: u64) -> Option<usize> {
    let mut at = 0;
    while at + HEADER_LEN <= bytes.len() {
        // The kind is never 0: jump from one candidate to the next over the zeros.
        let kind = bytes[at + 8..].iter().position(|b| *b != 0)?;
        at += kind;
        if record::parse(&bytes[at..], number).is_some_and(|raw| raw.group > group) {
            return Some(at);
        }
        at += 1;
    }
    None
}
