//! Programs of others that the tests run as they are: Debian's mosquitto clients, paho-mqtt in a
//! virtual environment and MQTT.js, both installed by `scripts/test-tools` below `target/`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::wait;

/// For a program of others to do its little job.
const TOOL_TIMEOUT: Duration = Duration::from_secs(60);

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

/// Python of the virtual environment that has paho-mqtt.
pub fn python() -> Command {
    tool(tools_dir().join("venv/bin/python"))
}

/// Node.js where MQTT.js can be required.
pub fn node() -> Command {
    let mut command = tool("node".into());
    command.env("NODE_PATH", tools_dir().join("node_modules"));
    command
}

pub fn tool(program: PathBuf) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// A script of others' client libraries beside the tests.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// A program that runs until it has done its job, killed when dropped before.
pub struct Running {
    what: String,
    child: Option<Child>,
}

impl Running {
    /// # Panics
    /// When the program is not installed.
    pub fn start(command: &mut Command) -> Self {
        let what = format!("{command:?}");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.unwrap_or_else(|e| panic!("{what}: {e}; scripts/test-tools installs it"));
        Running { what, child: Some(child) }
    }

    /// The next line on standard output, for a program that says when it is ready.
    ///
    /// # Panics
    /// When it ends without one.
    pub fn line(&mut self) -> String {
        use std::io::Read;
        let stdout = self.child.as_mut().and_then(|child| child.stdout.as_mut()).expect("a pipe");
        let (mut line, mut byte) = (Vec::new(), [0]);
        // By bytes: what follows the line is for `finish`.
        while stdout.read_exact(&mut byte).is_ok() && byte != *b"\n" {
            line.push(byte[0]);
        }
        assert!(!line.is_empty(), "{} ended without a word", self.what);
        String::from_utf8_lossy(&line).into_owned()
    }

    /// What it printed (the rest of it), once it has ended with success.
    ///
    /// # Panics
    /// When it fails, or does not end in time.
    #[track_caller]
    pub fn finish(mut self) -> String {
        let child = self.child.as_mut().expect("still there");
        let ended = wait::within(TOOL_TIMEOUT, || child.try_wait().expect("the state of a child"));
        if ended.is_none() {
            let _ = child.kill();
        }
        let output = self.child.take().expect("still there").wait_with_output();
        let Output { status, stdout, stderr } = output.expect("the output of a child");
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        let stderr = String::from_utf8_lossy(&stderr);
        assert!(status.success() && ended.is_some(), "{}: {status}\n{stdout}\n{stderr}", self.what);
        stdout
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs a program to its end; what it printed.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    Running::start(command).finish()
}
