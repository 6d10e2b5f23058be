//! `rookery dev`: a whole cluster on this machine, every node a process of its own.

mod folder;
mod form;
mod node;
mod ports;

use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;

use super::args::{DevArgs, Format};
use super::exit::{Exit, Failure};
use super::serve::stop_signal;
use super::{config, out};
use folder::Folder;
use node::{Node, NodeExit};
use ports::Ports;

/// How long the nodes may take to stop before they are killed.
const STOP_GRACE: Duration = Duration::from_secs(15);
/// How long a dead node stays dead with `--restart`, so that one that cannot start does not spin.
const RESTART_DELAY: Duration = Duration::from_secs(1);

pub async fn run(args: DevArgs, format: Format) -> Result<(), Failure> {
    // What every node would refuse is better said once, before any of them starts.
    config::load(None, &args.set)?;
    let stop = stop_signal()?;
    let folder = Folder::open(args.data_dir.as_deref())?;
    let ports = ports::plan(&args, &folder.remembered_ports())?;
    folder.remember_ports(&ports)?;
    let (exits, exited) = mpsc::unbounded_channel();
    let mut cluster = Cluster { nodes: Vec::new(), exits, exited, folder, args };
    for ports in ports {
        cluster.nodes.push(Node::new(ports));
    }
    let result = tokio::select! {
        result = cluster.run(format) => result,
        () = stop => Ok(()),
    };
    cluster.stop().await;
    result
}

struct Cluster {
    nodes: Vec<Node>,
    exits: mpsc::UnboundedSender<NodeExit>,
    exited: mpsc::UnboundedReceiver<NodeExit>,
    folder: Folder,
    args: DevArgs,
}

impl Cluster {
    /// Returns only when something went wrong.
    async fn run(&mut self, format: Format) -> Result<(), Failure> {
        out::say(&format!("data and logs are in {}", self.folder.path().display()));
        for index in 0..self.nodes.len() {
            self.start(index)?;
        }
        let ports: Vec<Ports> = self.nodes.iter().map(|node| node.ports.clone()).collect();
        tokio::select! {
            formed = form::form(&ports, self.args.timeout) => {
                formed.map_err(|failure| self.explain(failure))?;
            }
            Some(exit) = self.exited.recv() => return Err(self.gone_too_early(&exit)),
        }
        self.announce(format)?;
        self.watch().await
    }

    fn start(&mut self, index: usize) -> Result<(), Failure> {
        self.nodes[index].start(index, &self.folder, &self.args.set, self.exits.clone())
    }

    /// Says that nodes died, for as long as the cluster is wanted.
    async fn watch(&mut self) -> Result<(), Failure> {
        while let Some(exit) = self.exited.recv().await {
            let node = &mut self.nodes[exit.index];
            node.forget();
            let name = node.ports.name.clone();
            out::say(&format!("{name} (pid {}) is gone: {}", exit.pid, exit.how));
            if self.args.restart {
                tokio::time::sleep(RESTART_DELAY).await;
                self.start(exit.index)?;
                let pid = self.nodes[exit.index].pid().unwrap_or_default();
                out::say(&format!("{name} was started again (pid {pid})"));
            } else if self.nodes.iter().all(|node| node.pid().is_none()) {
                out::say("no node is left; Ctrl-C ends this");
            }
        }
        Ok(())
    }

    fn announce(&self, format: Format) -> Result<(), Failure> {
        let format = if self.args.json { Format::Json } else { format };
        let address = |port: u16| format!("127.0.0.1:{port}");
        let nodes = self.nodes.iter().map(|node| ReadyNode {
            name: node.ports.name.clone(),
            pid: node.pid().unwrap_or_default(),
            mqtt: address(node.ports.mqtt),
            ws: address(node.ports.ws),
            api: address(node.ports.api),
            peer: address(node.ports.peer),
        });
        let ready = Ready { nodes: nodes.collect() };
        out::show(format, &ready, |ready| {
            let rows = ready.nodes.iter().map(|n| {
                [
                    n.name.clone(),
                    n.pid.to_string(),
                    n.mqtt.clone(),
                    n.ws.clone(),
                    n.api.clone(),
                    n.peer.clone(),
                ]
            });
            out::table(["NAME", "PID", "MQTT", "WS", "API", "PEER"], rows)
        })?;
        if let (Format::Table, Some(first), Some(last)) = (format, ready.nodes.first(), ready.nodes.last()) {
            out::say(&format!(
                "\nThe cluster serves. Try it from another terminal:\n  \
                 rookery mqtt sub --url mqtt://{} 'demo/#'\n  \
                 rookery mqtt pub --url mqtt://{} demo/hello world\n  \
                 rookery cluster status --api {}\nCtrl-C stops all nodes.",
                first.mqtt, last.mqtt, first.api
            ));
        }
        Ok(())
    }

    fn gone_too_early(&mut self, exit: &NodeExit) -> Failure {
        let node = &mut self.nodes[exit.index];
        node.forget();
        let log = self.folder.log_tail(&node.ports.name);
        let message = format!("{} ended before the cluster served: {}\n{log}", node.ports.name, exit.how);
        Failure::new(Exit::Error, message)
    }

    fn explain(&self, failure: Failure) -> Failure {
        let logs = self.nodes.iter().map(|node| {
            let name = &node.ports.name;
            format!("\nlast words of {name}:\n{}", self.folder.log_tail(name))
        });
        Failure::new(failure.exit, failure.message + &logs.collect::<String>())
    }

    /// Asks all nodes to stop, and kills those that take too long or when asked a second time.
    async fn stop(&mut self) {
        for node in &mut self.nodes {
            node.ask_to_stop();
        }
        let again = async {
            match stop_signal() {
                Ok(signal) => signal.await,
                Err(_) => std::future::pending().await,
            }
        };
        let all_gone = async {
            while self.nodes.iter().any(|node| node.pid().is_some()) {
                let Some(exit) = self.exited.recv().await else { break };
                self.nodes[exit.index].forget();
            }
        };
        let in_time = tokio::select! {
            () = all_gone => true,
            () = again => false,
            () = tokio::time::sleep(STOP_GRACE) => false,
        };
        if in_time {
            return;
        }
        for node in &mut self.nodes {
            if node.pid().is_some() {
                out::say(&format!("{} does not stop and is killed", node.ports.name));
                node.kill();
            }
        }
        while self.nodes.iter().any(|node| node.pid().is_some()) {
            let Some(exit) = self.exited.recv().await else { break };
            self.nodes[exit.index].forget();
        }
    }
}

/// What is printed when the cluster serves; programs rely on its names.
#[derive(Serialize)]
struct Ready {
    nodes: Vec<ReadyNode>,
}

#[derive(Serialize)]
struct ReadyNode {
    name: String,
    pid: u32,
    mqtt: String,
    ws: String,
    api: String,
    peer: String,
}
