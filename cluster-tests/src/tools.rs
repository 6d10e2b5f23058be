//! Where programs are that the tests run: those of others, installed by `scripts/test-tools` below
//! `target/`, and our own.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where `scripts/test-tools` puts what it installs.
pub fn tools_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("ROOKERY_TEST_TOOLS") {
        return PathBuf::from(dir);
    }
    repository().join("target/test-tools")
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Python of the virtual environment that has the client libraries.
pub fn python() -> Command {
    Command::new(tools_dir().join("venv/bin/python"))
}

/// Node.js where what npm installed can be required.
pub fn node() -> Command {
    let mut command = Command::new("node");
    command.env("NODE_PATH", tools_dir().join("node_modules"));
    command
}

/// The folder of what drives a client library of others.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// A program that cargo has built: beside this one, or above the folder of a test.
///
/// # Panics
/// When there is none.
pub fn built(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("the path of this program");
    let found = this.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no {name} near {}: cargo build -p {name}", this.display()))
}
