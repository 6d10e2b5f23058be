//! One `rookery serve` process.

use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::{Ports, binary};
use crate::wait::within;
use crate::{http, tls, wait};

/// For a node to serve, from its start. Generous: a restarted cluster first has to elect.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// For a process to be gone after a signal that asks it to.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Lines of a node's log that a failed test shows.
const TAIL: usize = 25;

#[derive(Debug)]
pub struct Node {
    pub name: String,
    pub ports: Ports,
    /// Where the other nodes are told to find it, if not at its peer port.
    advertised: Option<SocketAddr>,
    dir: PathBuf,
    /// Lines of configuration beyond the common ones.
    extra: String,
    /// Lines of configuration for both encrypted listeners.
    encrypted: String,
    /// The most descriptors the process may have; `None`: as many as this one.
    descriptors: Option<u32>,
    /// Environment variables of the process, beyond those of this one.
    variables: Vec<(String, String)>,
    child: Option<Child>,
}

impl Node {
    /// A node that has not been started; its data and log live below `dir`.
    pub fn new(name: &str, dir: &Path, ports: Ports) -> Self {
        tls::install(dir);
        let dir = dir.join(name);
        fs::create_dir_all(&dir).expect("a directory for the node");
        let (extra, encrypted) = (String::new(), String::new());
        Node {
            name: name.into(),
            ports,
            advertised: None,
            dir,
            extra,
            encrypted,
            descriptors: None,
            variables: Vec::new(),
            child: None,
        }
    }

    /// Adds configuration as TOML: keys of `[cluster]`, then tables of its own.
    pub fn configure(&mut self, toml: &str) {
        self.extra.push_str(toml);
        self.extra.push('\n');
    }

    /// Tells the others another address than that of the peer port.
    pub fn advertise(&mut self, address: SocketAddr) {
        self.advertised = Some(address);
    }

    /// Where the other nodes find it.
    pub fn peer(&self) -> SocketAddr {
        self.advertised.unwrap_or(self.ports.peer)
    }

    /// Bounds the descriptors of the process, from its next start on.
    pub fn limit_descriptors(&mut self, most: u32) {
        self.descriptors = Some(most);
    }

    /// Sets an environment variable of the process, from its next start on.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Adds lines of configuration to both encrypted listeners.
    pub fn configure_tls(&mut self, lines: &str) {
        self.encrypted.push_str(lines);
        self.encrypted.push('\n');
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Everything the node has ever logged.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The end of the log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// Writes the configuration file; its path.
    pub fn write_config(&self) -> PathBuf {
        let Ports { mqtt, ws, tls: tls_bind, wss, api, peer } = self.ports;
        let (name, data, extra, advertised) = (&self.name, self.data_dir(), &self.extra, self.peer());
        let data = data.display();
        let shared = self.dir.parent().expect("nodes live in their cluster's directory");
        let (cert, key) = (shared.join(tls::CERT_FILE), shared.join(tls::KEY_FILE));
        let certificate = format!("cert_file = {cert:?}\nkey_file = {key:?}\n{}", self.encrypted);
        let text = format!(
            "[node]\nname = \"{name}\"\ndata_dir = \"{data}\"\n\n\
             [listeners.tcp]\nbind = \"{mqtt}\"\n\n[listeners.ws]\nbind = \"{ws}\"\n\n\
             [listeners.tls]\nbind = \"{tls_bind}\"\n{certificate}\n\
             [listeners.wss]\nbind = \"{wss}\"\n{certificate}\n\
             [api]\nbind = \"{api}\"\n\n\
             [cluster]\nbind = \"{peer}\"\nadvertise = \"{advertised}\"\n\n{extra}"
        );
        let path = self.dir.join("rookery.toml");
        fs::write(&path, text).expect("the node's configuration is written");
        path
    }

    /// The command that runs this node, for tests that expect it to fail.
    pub fn command(&self) -> Command {
        let mut command = match self.descriptors {
            None => Command::new(binary()),
            Some(most) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &most.to_string()]).arg(binary());
                shell
            }
        };
        command.arg("serve").arg("--config").arg(self.write_config());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Starts the process and does not wait for anything.
    pub fn spawn(&mut self) {
        assert!(!self.running(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(self.log_file());
        let log = log.expect("the node's log opens");
        let both = File::try_clone(&log).expect("a second handle of the log");
        let child = self.command().stdout(log).stderr(both).spawn();
        self.child = Some(child.unwrap_or_else(|e| panic!("{} does not start: {e}", binary().display())));
    }

    pub fn running(&mut self) -> bool {
        self.exit_status().is_none() && self.child.is_some()
    }

    /// How the process ended; `None` while it runs or if it was never started.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("the state of a child")
    }

    /// # Panics
    /// When the node was not started.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map(Child::id).unwrap_or_else(|| panic!("{} was not started", self.name))
    }

    /// Whether the HTTP API answers `path` with 200.
    pub fn answers(&self, path: &str) -> bool {
        http::get(self.ports.api, path).is_ok_and(|(status, _)| status == 200)
    }

    /// Waits until the process answers at all: it can then be told to form or join a cluster.
    pub fn wait_live(&mut self) {
        self.wait_for("/livez");
    }

    /// Waits until the node serves clients as a member of its cluster.
    pub fn wait_ready(&mut self) {
        self.wait_for("/readyz");
    }

    #[track_caller]
    fn wait_for(&mut self, path: &str) {
        let outcome = within(READY_TIMEOUT, || match self.exit_status() {
            Some(status) => Some(Err(status)),
            None => self.answers(path).then_some(Ok(())),
        });
        match outcome {
            Some(Ok(())) => {}
            Some(Err(status)) => panic!("{} ended with {status} before {path} was 200", self.name),
            None => {
                let last = http::get(self.ports.api, path);
                panic!("{}: {path} not 200 within {READY_TIMEOUT:?}; last answer {last:?}", self.name);
            }
        }
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; then there is nobody to kill.
            let _ = child.kill();
            child.wait().expect("a killed child can be waited for");
        }
    }

    /// Sends a signal by name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// SIGSTOP, and waits until every thread stands still. The first to see the signal stops the
    /// others; on a busy machine they go on serving until then.
    pub fn pause(&self) {
        self.signal("STOP");
        let pid = self.pid();
        wait::eventually("every thread to stand still", STOP_TIMEOUT, || stands_still(pid).then_some(()));
    }

    /// SIGTERM, and waits for a clean end.
    pub fn stop(&mut self) {
        if !self.running() {
            return;
        }
        self.signal("TERM");
        self.wait_exit();
    }

    /// Waits until the process has ended by itself.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let name = self.name.clone();
        let what = format!("{name} to end");
        let status = wait::eventually(&what, STOP_TIMEOUT, || self.exit_status());
        self.child = None;
        status
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Whether all threads of a process are stopped.
fn stands_still(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    threads.flatten().all(|thread| {
        // The state follows the name, which may have anything in it, parentheses too.
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

/// Sends a signal to a process that this test started.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("sh").args(["-c", "kill -\"$0\" \"$1\"", name, &pid.to_string()]).status();
    assert!(status.is_ok_and(|s| s.success()), "kill -{name} {pid}");
}
