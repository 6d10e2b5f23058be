//! A small disk of its own for a node, that a test can fill to the last byte.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::statvfs;

/// What ours are called in the table of mounts, followed by the process id of the test.
const NAME: &str = "rookery-disk-";
/// The file that takes the room.
const BALLAST: &str = "ballast";
const STEP_BYTES: usize = 64 << 10;

/// A file system in memory, unmounted with this.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Unmounts what tests left that were killed.
fn sweep() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(source), Some(path)) = (fields.next(), fields.next()) else { continue };
        let pid = source.strip_prefix(NAME);
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another test may be sweeping too.
            let _ = run("umount", &["-l", path]);
        }
    }
}

impl SmallDisk {
    /// Mounts a disk of so many bytes at `path`.
    ///
    /// # Errors
    /// Why there can be none here: not root, a system that mounts nothing.
    pub fn mount(path: &Path, bytes: u64) -> Result<Self, String> {
        if !super::is_root() {
            return Err("mounting a disk needs root".into());
        }
        sweep();
        fs::create_dir_all(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let (source, size) = (format!("{NAME}{}", std::process::id()), format!("size={bytes}"));
        run("mount", &["-t", "tmpfs", "-o", &size, &source, &path.to_string_lossy()])?;
        Ok(SmallDisk { path: path.to_owned() })
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        let stat = statvfs(&self.path).expect("the disk is mounted");
        stat.f_bavail * stat.f_frsize
    }

    /// Takes all room but `left` bytes.
    pub fn fill(&self, left: u64) {
        let mut ballast = File::options().create(true).append(true).open(self.path.join(BALLAST));
        let ballast = ballast.as_mut().expect("the disk takes one more file");
        let step = vec![0; STEP_BYTES];
        while let Some(room) = self.free().checked_sub(left).filter(|room| *room > 0) {
            match ballast.write_all(&step[..STEP_BYTES.min(room as usize)]) {
                Err(e) if e.kind() == ErrorKind::StorageFull => return,
                written => written.expect("the ballast is written"),
            }
        }
    }

    /// Gives the room back.
    pub fn relieve(&self) {
        fs::remove_file(self.path.join(BALLAST)).expect("there is ballast");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process may still be ending.
        if let Err(error) = run("umount", &["-l", &self.path.to_string_lossy()]) {
            eprintln!("{error}");
        }
    }
}
