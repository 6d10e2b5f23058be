//! Where users are looked up.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::scram::{self, ITERATIONS_DEFAULT, SALT_BYTES, Verifier};
use super::{Directory, prepare};

/// Largest file of users that is read, bytes.
const FILE_MAX_BYTES: u64 = 256 << 20;

/// The users as mechanisms see them. Called on event loops: must not block.
pub trait Users: Send + Sync + 'static {
    /// The verifier of a user; `name` is prepared.
    fn find(&self, name: &str) -> Option<Arc<Verifier>>;

    /// Nobody can be found, and the method need not be offered.
    fn is_empty(&self) -> bool {
        false
    }

    /// What most users' verifiers look like, so that one of a user that does not exist looks alike.
    fn usual(&self) -> Shape;
}

/// What a challenge shows of a verifier beside its salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    pub iterations: u32,
    pub salt_bytes: usize,
}

/// The users of a file, and of the cluster: the file's come first.
pub struct UsersOfBoth {
    file: Option<UserTable>,
    directory: Arc<dyn Directory>,
}

impl UsersOfBoth {
    pub fn new(file: Option<UserTable>, directory: Arc<dyn Directory>) -> Self {
        Self { file, directory }
    }
}

impl Users for UsersOfBoth {
    fn find(&self, name: &str) -> Option<Arc<Verifier>> {
        let in_file = self.file.as_ref().and_then(|file| file.find(name));
        in_file.or_else(|| self.directory.find(name)?.scram?.parse().ok().map(Arc::new))
    }

    fn usual(&self) -> Shape {
        self.file.as_ref().map_or_else(|| usual(std::iter::empty()), UserTable::usual)
    }

    fn is_empty(&self) -> bool {
        self.file.is_none() && self.directory.is_empty()
    }
}

/// Users read from a file, and as they were then.
#[derive(Debug)]
pub struct UserTable {
    users: HashMap<Box<str>, Arc<Verifier>>,
    usual: Shape,
}

/// A file of users that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {what}", path.display(), line.map_or(String::new(), |line| format!(":{line}")))]
pub struct UsersFileError {
    pub path: PathBuf,
    /// From 1; `None`: it could not be read.
    pub line: Option<usize>,
    pub what: String,
}

impl UserTable {
    /// Reads a file; see [`UserTable::parse`]. Blocks.
    ///
    /// # Errors
    /// It cannot be read, or the first line that is wrong.
    pub fn load(path: &Path) -> Result<Self, UsersFileError> {
        let error = |line, what| UsersFileError { path: path.to_owned(), line, what };
        let read = || {
            let mut text = String::new();
            std::fs::File::open(path)?.take(FILE_MAX_BYTES + 1).read_to_string(&mut text)?;
            Ok(text)
        };
        let text = read().map_err(|e: std::io::Error| error(None, e.to_string()))?;
        if text.len() as u64 > FILE_MAX_BYTES {
            return Err(error(None, format!("is larger than {FILE_MAX_BYTES} bytes")));
        }
        Self::parse(&text).map_err(|(line, what)| error(Some(line), what))
    }

    /// One user per line: the name, a colon and the [`Verifier`]. Empty lines and those that
    /// begin with `#` are passed over.
    ///
    /// # Errors
    /// The number of the first line that is wrong, from 1, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut users: HashMap<Box<str>, (usize, Arc<Verifier>)> = HashMap::new();
        for (line, number) in text.lines().zip(1..) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, verifier) = user(line).map_err(|what| (number, what))?;
            if let Some((first, _)) = users.get(&*name) {
                return Err((number, format!("the user {name:?} is in line {first} already")));
            }
            users.insert(name.into(), (number, Arc::new(verifier)));
        }
        let users: HashMap<_, _> = users.into_iter().map(|(name, (_, verifier))| (name, verifier)).collect();
        let usual = usual(users.values());
        Ok(Self { users, usual })
    }

    pub fn len(&self) -> usize {
        self.users.len()
    }

    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The line of a user.
    ///
    /// # Errors
    /// The name cannot be one.
    pub fn line(name: &str, verifier: &Verifier) -> Result<String, String> {
        let name = prepare(name).map_err(|e| format!("the user name {e}"))?;
        if name.starts_with('#') {
            return Err("a user name cannot begin with '#', which makes the line a comment".to_owned());
        }
        Ok(format!("{name}:{verifier}"))
    }
}

/// Never repeats the verifier in what it says.
fn user(line: &str) -> Result<(String, Verifier), String> {
    // The name may hold colons, the verifier begins with its mechanism.
    let Some((name, _)) = line.rsplit_once(&format!(":{}$", scram::NAME)) else {
        return Err(format!("expected NAME:{}$ITERATIONS:SALT$STOREDKEY:SERVERKEY", scram::NAME));
    };
    let prepared = prepare(name).map_err(|e| format!("the user name {e}"))?;
    let verifier = line[name.len() + 1..].parse().map_err(|e| format!("the user {name:?}: {e}"))?;
    Ok((prepared, verifier))
}

/// The most frequent shape; of several, always the same one.
fn usual<'a>(verifiers: impl Iterator<Item = &'a Arc<Verifier>>) -> Shape {
    let mut counts: HashMap<Shape, usize> = HashMap::new();
    for verifier in verifiers {
        let shape = Shape { iterations: verifier.iterations(), salt_bytes: verifier.salt().len() };
        *counts.entry(shape).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(shape, count)| (*count, *shape));
    most.map_or(Shape { iterations: ITERATIONS_DEFAULT, salt_bytes: SALT_BYTES }, |(shape, _)| shape)
}

impl Users for UserTable {
    fn find(&self, name: &str) -> Option<Arc<Verifier>> {
        self.users.get(name).cloned()
    }

    fn usual(&self) -> Shape {
        self.usual
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
        WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn users_are_found_by_their_prepared_names() {
        let text = format!("# people\n\n\u{2168}:{VERIFIER}\r\na:b c:{VERIFIER}");
        let table = UserTable::parse(&text).unwrap();
        assert_eq!(table.len(), 2);
        assert!(table.find("IX").is_some() && table.find("a:b c").is_some());
        assert!(table.find("\u{2168}").is_none() && table.find("people").is_none());
    }

    #[test]
    fn the_usual_shape() {
        assert_eq!(UserTable::parse("").unwrap().usual(), Shape { iterations: 4096, salt_bytes: 16 });
        let slow = VERIFIER.replace("$4096:", "$9999:").replace("W22ZaJ0SNY7soEsUEjb6gQ==", "W22Z");
        let text = format!("a:{VERIFIER}\nb:{slow}\nc:{slow}\n");
        assert_eq!(UserTable::parse(&text).unwrap().usual(), Shape { iterations: 9999, salt_bytes: 3 });
    }

    #[test]
    fn a_wrong_line_is_named_and_its_secrets_are_not() {
        let weak = VERIFIER.replace("$4096:", "$1000:");
        for (text, line, what) in [
            (format!("a:{VERIFIER}\n#\na:{VERIFIER}"), 3, "is in line 1 already"),
            (format!("a:{VERIFIER}\nWG5d8oPm"), 2, "expected NAME:SCRAM-SHA-256$"),
            (format!("a:{weak}"), 1, "iterations must be from 4096"),
            (format!(":{VERIFIER}"), 1, "the user name is empty"),
            (format!("\u{7}:{VERIFIER}"), 1, "the user name has characters"),
            (format!("a:{VERIFIER} "), 1, "ServerKey must"),
        ] {
            let (number, said) = UserTable::parse(&text).expect_err(&text);
            assert_eq!(number, line, "{said}");
            assert!(said.contains(what) && !said.contains("WG5d"), "{said}");
        }
    }

    #[test]
    fn files() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "a:{VERIFIER}\nb").unwrap();
        let path = file.path().to_owned();
        let error = UserTable::load(&path).expect_err("line 2").to_string();
        assert!(error.starts_with(&format!("{}:2: expected NAME:", path.display())), "{error}");
        drop(file);
        let error = UserTable::load(&path).expect_err("gone").to_string();
        assert!(error.starts_with(&format!("{}: ", path.display())), "{error}");
    }

    #[test]
    fn lines_are_what_is_read() {
        let verifier: Verifier = VERIFIER.parse().unwrap();
        let line = UserTable::line("I\u{AD}X", &verifier).unwrap();
        assert_eq!(line, format!("IX:{VERIFIER}"));
        assert_eq!(UserTable::parse(&line).unwrap().find("IX").as_deref(), Some(&verifier));
        assert!(UserTable::line("#a", &verifier).is_err());
        assert!(UserTable::line("", &verifier).is_err());
    }
}
