//! Files that commands read.

use std::io::Read as _;
use std::path::Path;

use super::exit::{Exit, Failure};

/// Largest file that is read, bytes.
const MAX_BYTES: u64 = 64 << 20;

/// A text file, or stdin for `-`.
///
/// # Errors
/// It cannot be read, or is no text.
pub fn text(path: &Path) -> Result<String, Failure> {
    let wrong =
        |what: &dyn std::fmt::Display| Failure::new(Exit::Usage, format!("{}: {what}", path.display()));
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_BYTES + 1).read_to_string(&mut text)
    } else {
        let open = std::fs::File::open(path);
        open.and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
    };
    read.map_err(|error| wrong(&error))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(wrong(&format!("is larger than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

/// What is wrong with a line of a file.
pub fn wrong(path: &Path, line: usize, what: &str) -> Failure {
    Failure::new(Exit::Usage, format!("{}:{line}: {what}", path.display()))
}
