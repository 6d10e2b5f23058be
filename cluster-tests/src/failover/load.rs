//! A run of `rookery failover test`.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::Value;

use crate::cluster::{binary, signal};

/// It publishes from the start on, until it is told to stop.
pub struct Load {
    child: Child,
    /// What all its topics and client ids begin with.
    pub prefix: String,
    stderr: BufReader<ChildStderr>,
}

impl Load {
    /// # Panics
    /// When it does not begin to publish.
    pub fn start<S: AsRef<OsStr>>(args: &[S]) -> Self {
        let mut command = Command::new(binary());
        command.args(["failover", "test", "-o", "json"]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("what it says");
        let prefix = line.split(" below ").nth(1).and_then(|rest| rest.split(' ').next());
        let prefix = prefix.unwrap_or_else(|| panic!("it does not publish: {line}")).to_owned();
        Load { child, prefix, stderr }
    }

    /// Ctrl-C; its exit code, its report, and what it said.
    ///
    /// # Panics
    /// When there is no report.
    pub fn stop(mut self) -> (Option<i32>, Value, String) {
        signal(self.child.id(), "INT");
        let (mut stdout, mut said) = (String::new(), String::new());
        self.stderr.read_to_string(&mut said).expect("what it says");
        self.child.stdout.take().expect("piped").read_to_string(&mut stdout).expect("the report");
        let code = self.child.wait().expect("its end").code();
        let report = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout:?} {said}"));
        (code, report, said)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
