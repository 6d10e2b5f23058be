//! What can be wrong with a configuration, said so that it can be fixed without a manual.

use std::path::{Path, PathBuf};

/// Why a configuration was refused. `Display` has one problem per line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong, and where it was said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct Problem {
    pub place: Place,
    pub what: String,
}

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Line numbers start at 1.
    File { path: PathBuf, line: usize },
    /// The whole file, when it could not be read.
    WholeFile(PathBuf),
    /// The name of the variable.
    Environment(String),
    /// The key named by `--set`.
    Set(String),
    /// A key, whoever set it: found wrong only together with others.
    Key(&'static str),
    /// A key of one of several sections with the same keys.
    KeyOf { section: &'static str, key: &'static str },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::WholeFile(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Set(key) => write!(f, "--set {key}"),
            Self::Key(key) => write!(f, "{key}"),
            Self::KeyOf { section, key } => write!(f, "{section}.{key}"),
        }
    }
}

impl Problem {
    pub(super) fn new(place: Place, what: impl Into<String>) -> Self {
        Self { place, what: what.into() }
    }

    pub(super) fn in_file(path: &Path, line: usize, what: impl Into<String>) -> Self {
        Self::new(Place::File { path: path.to_owned(), line }, what)
    }
}

/// The candidate most like `word`, if any is near enough to be what was meant.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (distance(word, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(word.len()) / 2).max(2))
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
