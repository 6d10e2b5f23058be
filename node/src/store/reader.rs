//! Reading entries back from the files.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use super::record::{self, HEADER_LEN, Kind};
use super::view::Place;

/// Bytes read at once: neighbouring entries come with one read.
const WINDOW_LEN: usize = 256 << 10;

/// An entry to be read.
pub(super) struct Wanted {
    pub index: u64,
    pub place: Place,
    pub file: Arc<File>,
}

/// Bytes of one file, read together.
#[derive(Default)]
struct Window {
    segment: u32,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn slice(&self, place: Place) -> &[u8] {
        let offset =
            u64::from(place.offset).checked_sub(self.start).filter(|_| self.segment == place.segment);
        offset.and_then(|o| self.bytes.get(o as usize..)).unwrap_or_default()
    }

    fn load(&mut self, wanted: &Wanted, len: usize) -> io::Result<()> {
        self.segment = wanted.place.segment;
        self.start = wanted.place.offset.into();
        self.bytes.resize(len, 0);
        let mut filled = 0;
        while filled < len {
            match wanted.file.read_at(&mut self.bytes[filled..], self.start + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.bytes.truncate(filled);
        Ok(())
    }
}

/// The entries of `wanted`, from its start, as many as fit `max_bytes` but at least one.
pub(super) fn read(wanted: &[Wanted], max_bytes: usize) -> io::Result<Vec<Bytes>> {
    let mut window = Window::default();
    let mut found = Vec::with_capacity(wanted.len().min(1024));
    let mut bytes = 0usize;
    for entry in wanted {
        let damaged = || {
            let Place { segment, offset } = entry.place;
            let what = format!("log entry {} in file {segment} at byte {offset} is damaged", entry.index);
            io::Error::new(io::ErrorKind::InvalidData, what)
        };
        if window.slice(entry.place).len() < HEADER_LEN {
            window.load(entry, WINDOW_LEN)?;
        }
        let seen = window.slice(entry.place);
        if seen.len() < HEADER_LEN {
            return Err(damaged());
        }
        let len = record::claimed_len(seen);
        bytes = bytes.saturating_add(len - HEADER_LEN);
        if bytes > max_bytes && !found.is_empty() {
            break;
        }
        if seen.len() < len {
            // A damaged length must not decide how much memory is taken.
            if len as u64 > entry.file.metadata()?.len() {
                return Err(damaged());
            }
            window.load(entry, len.max(WINDOW_LEN))?;
        }
        let raw = record::parse(window.slice(entry.place), entry.place.segment).ok_or_else(damaged)?;
        if raw.kind != Kind::Entry || raw.index != entry.index {
            return Err(damaged());
        }
        found.push(Bytes::copy_from_slice(raw.payload));
    }
    Ok(found)
}
