//! One node of a development cluster as a child process.

use std::process::{ExitStatus, Stdio};

use tokio::process::{ChildStdin, Command};
use tokio::sync::{mpsc, oneshot};

use super::super::exit::{Exit, Failure};
use super::folder::Folder;
use super::ports::Ports;
use crate::env;

pub struct Node {
    pub ports: Ports,
    running: Option<Running>,
}

struct Running {
    pid: u32,
    /// The child stops when this is closed: by us, or by the kernel when we die.
    stdin: Option<ChildStdin>,
    kill: Option<oneshot::Sender<()>>,
}

/// A child process has ended.
pub struct NodeExit {
    pub index: usize,
    pub pid: u32,
    /// For a person.
    pub how: String,
}

impl Node {
    pub fn new(ports: Ports) -> Self {
        Self { ports, running: None }
    }

    /// `None`: it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.pid)
    }

    /// Starts the process; its end is told to `exits`.
    pub fn start(
        &mut self,
        index: usize,
        folder: &Folder,
        set: &[String],
        exits: mpsc::UnboundedSender<NodeExit>,
    ) -> Result<(), Failure> {
        let name = &self.ports.name;
        let fail =
            |error: std::io::Error| Failure::new(Exit::Error, format!("{name} cannot be started: {error}"));
        let mut command = Command::new(std::env::current_exe().map_err(fail)?);
        command.args(["serve", "--stop-on-stdin-close"]);
        for assignment in self.settings(folder).iter().chain(set) {
            command.args(["--set", assignment]);
        }
        // A group of its own: Ctrl-C in a terminal reaches only us, who stop the nodes in order.
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(folder.log(name).map_err(fail)?);
        let mut child = command.spawn().map_err(fail)?;
        let pid = child.id().unwrap_or_default();
        let (kill, killed) = oneshot::channel();
        self.running = Some(Running { pid, stdin: child.stdin.take(), kill: Some(kill) });
        env::spawn(async move {
            let status = tokio::select! {
                status = child.wait() => status,
                _ = killed => match child.start_kill() {
                    Ok(()) => child.wait().await,
                    Err(error) => Err(error),
                },
            };
            // Nobody listens any more when the cluster is being given up.
            let _ = exits.send(NodeExit { index, pid, how: describe(status) });
        });
        Ok(())
    }

    fn settings(&self, folder: &Folder) -> [String; 6] {
        let Ports { name, mqtt, ws, api, peer } = &self.ports;
        [
            format!("node.name={name}"),
            format!("node.data_dir={}", folder.data_dir(name).display()),
            format!("listeners.tcp.bind=127.0.0.1:{mqtt}"),
            format!("listeners.ws.bind=127.0.0.1:{ws}"),
            format!("api.bind=127.0.0.1:{api}"),
            format!("cluster.bind=127.0.0.1:{peer}"),
        ]
    }

    pub fn ask_to_stop(&mut self) {
        if let Some(running) = &mut self.running {
            running.stdin = None;
        }
    }

    pub fn kill(&mut self) {
        if let Some(kill) = self.running.as_mut().and_then(|running| running.kill.take()) {
            // An error means that it has ended by itself.
            let _ = kill.send(());
        }
    }

    /// Notes that the process has ended.
    pub fn forget(&mut self) {
        self.running = None;
    }
}

fn describe(status: std::io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}
