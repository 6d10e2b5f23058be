//! The operator's own command, run again and again: a script that kills a node, say.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::super::out;

/// How long the command may still take when the run is over, before it is killed.
const GRACE: Duration = Duration::from_secs(60);

pub struct Exec {
    command: String,
    every: Duration,
    child: Option<Child>,
    pub runs: u64,
    /// Runs that could not be started, or ended with another status than 0.
    pub failed: u64,
}

impl Exec {
    /// `command` is one for `sh -c`; a run begins `every` after the last one ended.
    pub fn new(command: &str, every: Duration) -> Self {
        Exec { command: command.to_owned(), every, child: None, runs: 0, failed: 0 }
    }

    /// Never returns; dropping the future leaves a command that runs to [`finish`](Self::finish).
    pub async fn run(&mut self) {
        loop {
            tokio::time::sleep(self.every).await;
            self.start();
            self.wait().await;
        }
    }

    /// Waits for the end of a command that runs.
    pub async fn finish(&mut self) {
        if tokio::time::timeout(GRACE, self.wait()).await.is_err() {
            self.failed += 1;
            out::say(&format!("the command still runs after {} s and is killed", GRACE.as_secs()));
            // Dropping it kills it.
            self.child = None;
        }
    }

    fn start(&mut self) {
        self.runs += 1;
        let mut command = Command::new("sh");
        // A group of its own: Ctrl-C in a terminal ends the run, not a restart half done.
        command.args(["-c", &self.command]).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(std::io::stderr());
        match command.spawn() {
            Ok(child) => self.child = Some(child),
            Err(error) => self.fail(&error.to_string()),
        }
    }

    async fn wait(&mut self) {
        let Some(child) = &mut self.child else { return };
        let status = child.wait().await;
        self.child = None;
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => self.fail(&status.to_string()),
            Err(error) => self.fail(&error.to_string()),
        }
    }

    fn fail(&mut self, why: &str) {
        self.failed += 1;
        out::say(&format!("the command failed: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_that_fails_is_counted() {
        for (command, failed) in [("true", 0), ("exit 3", 1)] {
            let mut exec = Exec::new(command, Duration::ZERO);
            exec.start();
            exec.finish().await;
            assert_eq!((exec.runs, exec.failed), (1, failed), "{command}");
        }
    }
}
