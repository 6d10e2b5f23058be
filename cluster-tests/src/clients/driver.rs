//! A program that holds one of the client libraries and does with it what it is told.
//!
//! It reads one JSON object per line and answers each with one: `{"ok": …}` or `{"error": "…"}`.
//! What it holds are clients by name, so `client` is in every command. Payloads and correlation
//! data are hexadecimal.
//!
//! | `do` | with | `ok` is, or has |
//! |---|---|---|
//! | `connect` | `url`, `version`, `id`, `clean`, `will`: null or `topic`, `payload`, `qos` | `session_present`, null if the client does not tell |
//! | `subscribe` | `topic`, `qos`, `identifier`: null or a number | `granted` |
//! | `publish` | `topic`, `payload`, `qos`, `retain`, `properties`: null or an object | once acknowledged |
//! | `publish_alias` | the same without `properties` | once both are: the second has the alias only |
//! | `next` | | the next message, once there is one: `topic`, `payload`, `qos`, `retain`, `properties` |
//! | `disconnect` | | once DISCONNECT is sent |
//!
//! `CA_FILE` in its environment is the only authority that it may trust, `SCRATCH_DIR` a directory
//! that is removed after it. Any other line that it prints is skipped.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// For a driver to answer: it gives up by itself before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// What a failure shows of what the driver wrote to its standard error, in bytes.
const TAIL: u64 = 2000;

/// The program with less of a claim to the processor than the nodes: a browser that starts takes
/// all there is, and a node that gets nothing for seconds is no longer of the cluster.
fn giving_way(program: &Command) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "10"]).arg(program.get_program()).args(program.get_args());
    let given = program.get_envs().filter_map(|(key, value)| Some((key, value?)));
    command.envs(given);
    command
}

/// Killed with all that it has started when dropped.
pub struct Driver {
    child: Child,
    stdin: ChildStdin,
    answers: Receiver<String>,
    stderr: File,
    _scratch: TempDir,
}

impl Driver {
    /// # Errors
    /// When the program is not installed.
    pub fn start(program: Command, ca_file: &Path) -> Result<Self, String> {
        let mut command = giving_way(&program);
        let scratch = TempDir::new().map_err(|e| e.to_string())?;
        let stderr = tempfile::tempfile().map_err(|e| e.to_string())?;
        let also_stderr = stderr.try_clone().map_err(|e| e.to_string())?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(also_stderr);
        command.env("SCRATCH_DIR", scratch.path()).env("CA_FILE", ca_file);
        // With a group of its own, what it starts can be killed together with it.
        let child = command.process_group(0).spawn();
        let mut child =
            child.map_err(|e| format!("{command:?}: {e}; scripts/test-tools clients installs it"))?;
        let stdin = child.stdin.take().expect("a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok).filter(|line| line.starts_with('{')) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Driver { child, stdin, answers, stderr, _scratch: scratch })
    }

    /// What `ok` of the answer is.
    ///
    /// # Errors
    /// What the client says, or that it has ended or does not answer.
    pub fn ask(&mut self, command: &Value) -> Result<Value, String> {
        // One write: half a line would be none.
        let told = self.stdin.write_all(format!("{command}\n").as_bytes());
        let answer = told.map_err(|e| e.to_string()).and_then(|()| {
            self.answers.recv_timeout(ANSWER_TIMEOUT).map_err(|e| match e {
                RecvTimeoutError::Timeout => format!("no answer within {ANSWER_TIMEOUT:?}"),
                RecvTimeoutError::Disconnected => "the driver has ended".to_owned(),
            })
        });
        let answer = answer.and_then(|line| {
            serde_json::from_str::<Value>(&line).map_err(|e| format!("{e} in the answer {line}"))
        });
        match answer {
            Ok(mut answer) if answer.get("ok").is_some() => Ok(answer["ok"].take()),
            Ok(answer) => Err(self.failure(command, answer["error"].as_str().unwrap_or("no answer"))),
            Err(error) => Err(self.failure(command, &error)),
        }
    }

    fn failure(&mut self, command: &Value, error: &str) -> String {
        let mut command = command.clone();
        // Long, and always the same.
        let _ = command.as_object_mut().and_then(|command| command.remove("payload"));
        let mut tail = Vec::new();
        let end = self.stderr.seek(SeekFrom::End(0)).unwrap_or(0);
        // Without its output the error alone has to do.
        let _ = self.stderr.seek(SeekFrom::Start(end.saturating_sub(TAIL)));
        let _ = self.stderr.read_to_end(&mut tail);
        let tail = String::from_utf8_lossy(&tail);
        format!("{command}: {error}\n{}", tail.trim()).trim_end().to_owned()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(group) = group {
            // It may have ended by itself; then there is nobody to kill.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}
