//! Where a development cluster keeps its data and logs.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::super::exit::{Exit, Failure};
use super::super::out;
use super::ports::Ports;
use crate::env;

/// How much of the end of a log is shown when a node fails, bytes.
const TAIL_BYTES: u64 = 2_000;

/// The cluster's directory; a temporary one goes with it.
pub struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    /// # Errors
    /// The directory can neither be used nor made.
    pub fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let fail =
            |path: &Path, error: io::Error| Failure::new(Exit::Error, format!("{}: {error}", path.display()));
        let Some(path) = path else { return Self::temporary().map_err(|e| fail(&std::env::temp_dir(), e)) };
        private_dir(path).or_else(already_there).map_err(|e| fail(path, e))?;
        let path = fs::canonicalize(path).map_err(|e| fail(path, e))?;
        Ok(Self { path, temporary: false })
    }

    fn temporary() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("rookery-dev-{:016x}", env::random_u64()));
        // Anything that is there already was put there by somebody else.
        private_dir(&path)?;
        Ok(Self { path, temporary: true })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A node's data directory.
    pub fn data_dir(&self, node: &str) -> PathBuf {
        self.path.join(node)
    }

    /// A node's log, to be appended to.
    pub fn log(&self, node: &str) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(self.log_path(node))
    }

    fn log_path(&self, node: &str) -> PathBuf {
        self.path.join(format!("{node}.log"))
    }

    /// The last lines of a node's log.
    pub fn log_tail(&self, node: &str) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(self.log_path(node))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            let mut tail = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut tail)?;
            Ok(tail)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).trim_end().to_owned()
    }

    /// The ports of the last run on this directory. Peers know each other by them, so a later run
    /// with any free ports uses the same.
    pub fn remembered_ports(&self) -> Vec<Ports> {
        fs::read(self.path.join("ports.json"))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    pub fn remember_ports(&self, ports: &[Ports]) -> Result<(), Failure> {
        let text = serde_json::to_vec(ports).map_err(io::Error::from)?;
        fs::write(self.path.join("ports.json"), text)?;
        Ok(())
    }
}

fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn already_there(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            out::say(&format!("{} could not be removed: {error}", self.path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_temporary_directory_goes_and_a_named_one_stays() {
        let folder = Folder::open(None).expect("made");
        let path = folder.path().to_owned();
        folder.log("n1").expect("opened").write_all(b"line\n").expect("written");
        assert_eq!(folder.log_tail("n1"), "line");
        drop(folder);
        assert!(!path.exists());

        let home = tempfile::tempdir().expect("made");
        let path = home.path().join("cluster");
        let ports = vec![Ports { name: "n1".to_owned(), mqtt: 1, ws: 2, api: 3, peer: 4 }];
        Folder::open(Some(&path)).expect("made").remember_ports(&ports).expect("written");
        assert_eq!(Folder::open(Some(&path)).expect("there").remembered_ports(), ports);
    }
}
