//! What can be wrong with what an authenticator is told to work with.

use std::io::Read as _;
use std::path::Path;

use zeroize::Zeroizing;

/// A key of the configuration whose value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {what}")]
pub struct BadSetting {
    /// Within the section of the authenticator.
    pub key: &'static str,
    /// With what to do, and without what the file says.
    pub what: String,
}

impl BadSetting {
    pub fn new(key: &'static str, what: impl Into<String>) -> Self {
        Self { key, what: what.into() }
    }
}

/// Reads a file of at most `max_bytes`, which may be secret. Blocks.
///
/// # Errors
/// It cannot be read or is larger.
pub(super) fn read_file(
    key: &'static str,
    path: &Path,
    max_bytes: usize,
) -> Result<Zeroizing<Vec<u8>>, BadSetting> {
    let error = |what: String| BadSetting::new(key, format!("{}: {what}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| error(e.to_string()))?;
    // With room for all of it, so that it is not copied to grow and left behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(max_bytes + 1));
    file.take(max_bytes as u64 + 1).read_to_end(&mut bytes).map_err(|e| error(e.to_string()))?;
    if bytes.len() > max_bytes {
        return Err(error(format!("is larger than {max_bytes} bytes")));
    }
    Ok(bytes)
}
