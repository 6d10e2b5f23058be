//! What the first release wrote, kept to be read ever after.
//!
//! `node/fixtures/format-1/` holds bytes of every format that is on disk or between nodes, one named
//! item per line in hexadecimal. While a format is the one that is written, what is written is
//! compared as well: a change that would make nodes of two builds misunderstand each other shows
//! here, and asks for a version or a feature level of its own.
//!
//! `ROOKERY_WRITE_FIXTURES=1` writes them anew; only before a format is released.

use std::path::PathBuf;

/// An item's name and its bytes.
pub type Item = (String, Vec<u8>);

/// The items of a fixture, which must be those that are written `now`.
pub fn first_format(name: &str, now: &[Item]) -> Vec<Item> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/format-1").join(name);
    if std::env::var_os("ROOKERY_WRITE_FIXTURES").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let text: String = now.iter().map(|(name, bytes)| format!("{name} {}\n", hex(bytes))).collect();
        std::fs::write(&path, text).expect("written");
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let kept: Vec<Item> = text
        .lines()
        .map(|line| {
            let (name, digits) = line.rsplit_once(' ').expect("a name and bytes");
            (name.to_owned(), unhex(digits))
        })
        .collect();
    for ((kept_name, kept), (now_name, now)) in kept.iter().zip(now) {
        assert_eq!(kept_name, now_name, "{}", path.display());
        assert!(kept == now, "{kept_name} of {} is written otherwise now", path.display());
    }
    assert_eq!(kept.len(), now.len(), "{}", path.display());
    kept
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}
