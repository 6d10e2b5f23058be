//! `rookery failover test`: clients that write down what was acknowledged and what arrived, on all
//! nodes of a running cluster, while an operator kills nodes; and the check of what they wrote.
//!
//! Below a random topic, per node:
//!
//! - a publisher at QoS 1 that stays with the node, by which the node's availability is told;
//! - one at QoS 1 and one at QoS 2, with a persistent session, that go elsewhere when they must;
//! - two persistent sessions, at QoS 1 and QoS 2, that are subscribed to all of these;
//! - a publisher and a subscriber whose messages concern clean sessions only;
//!
//! and one publisher of retained messages, which new subscriptions on all nodes look at.

mod availability;
mod exec;
pub mod history;
mod link;
mod numbers;
mod publisher;
mod reader;
mod record;
mod report;
mod subscriber;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use super::args::{FailoverCommand, FailoverTestArgs, Format};
use super::client::Api;
use super::exit::{Exit, Failure};
use super::mqtt::wire::Url;
use super::serve::stop_signal;
use super::{out, password};
use crate::admin::ClusterStatus;
use crate::env;
use crate::mqtt::QoS;
use availability::Gap;
use exec::Exec;
use history::{StreamId, StreamSpec, SubscriberSpec, Verdict};
use link::{Caller, Common};
use publisher::Publisher;
use reader::Reader;
use record::{Home, Record};
use report::Report;
use subscriber::Subscriber;

/// Topics of each publisher.
const TOPICS: u32 = 3;
/// For all subscribers to be subscribed at the start.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// For sessions and retained messages to be removed at the end.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two lines that say how it goes.
const PROGRESS: Duration = Duration::from_secs(10);
/// Between two looks whether everything has arrived.
const POLL: Duration = Duration::from_millis(50);

pub async fn run(command: FailoverCommand, format: Format) -> Result<(), Failure> {
    let FailoverCommand::Test(args) = command;
    let nodes = nodes(&args).await?;
    let common = Common {
        nodes: nodes.iter().map(|(_, url)| url.clone()).collect(),
        username: args.username.clone(),
        password: password::of_client(args.password_file.as_deref())?,
        timeout: args.timeout,
    };
    let prefix = format!("rookery-failover-{:016x}", env::random_u64());
    let mut run = Run::new(&prefix, common, nodes.into_iter().map(|(name, _)| name).collect());
    let result = run.test(&args).await;
    let left = run.clean_up().await;
    for what in &left {
        out::say(&format!("left behind: {what}"));
    }
    let report = result?;
    out::show(format, &report, Report::describe)?;
    report.outcome()
}

/// Names and MQTT addresses of the nodes.
async fn nodes(args: &FailoverTestArgs) -> Result<Vec<(String, Url)>, Failure> {
    if !args.mqtt.is_empty() {
        return args.mqtt.iter().map(|address| Ok((address.clone(), address.parse()?))).collect();
    }
    let status: ClusterStatus = Api::new(args.api.api.clone()).get("/api/v1/cluster").await?;
    let serving = status.members.into_iter().filter(|member| !member.mqtt_addr.is_empty());
    let nodes: Vec<(String, Url)> =
        serving.map(|member| Ok((member.name, member.mqtt_addr.parse()?))).collect::<Result<_, Failure>>()?;
    if nodes.is_empty() {
        let message = "no member of the cluster listens for MQTT over TCP; name the nodes with --mqtt";
        return Err(Failure::new(Exit::Unhealthy, message));
    }
    Ok(nodes)
}

struct Run {
    prefix: String,
    common: Common,
    names: Vec<String>,
    record: Arc<Mutex<Record>>,
    /// True when nothing new is to be sent.
    stop_sending: watch::Sender<bool>,
    /// True when nothing is to be received any more.
    stop_receiving: watch::Sender<bool>,
    /// Client ids of persistent sessions, which are to be ended.
    sessions: Vec<String>,
    /// Topics that have a retained message.
    retained: Vec<String>,
}

impl Run {
    fn new(prefix: &str, common: Common, names: Vec<String>) -> Self {
        Run {
            prefix: prefix.to_owned(),
            record: Arc::new(Mutex::new(Record::new(names.len()))),
            common,
            names,
            stop_sending: watch::Sender::new(false),
            stop_receiving: watch::Sender::new(false),
            sessions: Vec::new(),
            retained: Vec::new(),
        }
    }

    async fn test(&mut self, args: &FailoverTestArgs) -> Result<Report, Failure> {
        let stop = stop_signal()?;
        let publishers = self.publishers(args.rate);
        let (subscribers, ready) = self.subscribers(&publishers);
        let receiving: Vec<_> = subscribers.into_iter().map(|s| env::spawn(s.run())).collect();
        let subscribed = async {
            for ready in ready {
                // An error means that it has ended, which none does before it is told to.
                let _ = ready.await;
            }
        };
        if tokio::time::timeout(START_TIMEOUT, subscribed).await.is_err() {
            let message = format!("not all subscribers were subscribed within {} s", START_TIMEOUT.as_secs());
            return Err(Failure::new(Exit::Unhealthy, message));
        }
        let readers: Vec<_> = self.readers(&publishers).into_iter().map(|r| env::spawn(r.run())).collect();
        let sending: Vec<_> = publishers.into_iter().map(|p| env::spawn(p.run())).collect();
        let until =
            args.duration.map_or("Ctrl-C".to_owned(), |time| format!("{} s are over", time.as_secs()));
        let names = self.names.join(", ");
        out::say(&format!("publishing to {names} below {} until {until}: now kill nodes", self.prefix));

        let mut exec = args.exec.as_ref().map(|command| Exec::new(command, args.every));
        tokio::select! {
            () = stop => {}
            () = lasting(args.duration) => {}
            () = self.tell_progress() => {}
            () = running(&mut exec) => {}
        }
        if let Some(exec) = &mut exec {
            exec.finish().await;
        }
        let lasted = self.record.lock().now();
        self.settle(args.drain, sending, readers).await;
        let verdict = self.record.lock().history.verdict();
        self.stop_receiving.send_replace(true);
        for task in receiving {
            // An error is a panic of the task, which ends the process.
            let _ = task.await;
        }
        Ok(self.report(lasted, verdict, exec.as_ref()))
    }

    /// Lets publishers settle what is open, and subscribers receive what is acknowledged.
    async fn settle(&self, drain: Duration, sending: Vec<JoinHandle<()>>, readers: Vec<JoinHandle<()>>) {
        out::say("waiting for what was acknowledged to arrive");
        self.stop_sending.send_replace(true);
        let deadline = env::now() + drain;
        for mut task in sending.into_iter().chain(readers) {
            if timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
            }
        }
        while env::now() < deadline && !self.record.lock().history.is_complete() {
            tokio::time::sleep(POLL).await;
        }
    }

    async fn tell_progress(&self) {
        let mut ticks = tokio::time::interval_at(env::now() + PROGRESS, PROGRESS);
        loop {
            ticks.tick().await;
            let line = self.progress();
            out::say(&line);
        }
    }

    fn progress(&self) -> String {
        let record = self.record.lock();
        let (now, so_far) = (record.now(), record.history.so_far());
        format!(
            "{} s: {} acknowledged, {} delivered, {} connections broken, \
             longest time without an acknowledgement {} ms, {} things wrong",
            now.as_secs(),
            so_far.acknowledged,
            so_far.delivered,
            record.broken(),
            record.any.up_to(now).as_millis(),
            so_far.counts.values().sum::<u64>(),
        )
    }

    fn caller(&mut self, name: &str, node: usize, persistent: bool, resident: bool) -> Caller {
        let client_id = format!("{}-{name}", self.prefix);
        if persistent {
            self.sessions.push(client_id.clone());
        }
        Caller { common: self.common.clone(), client_id, persistent, resident, node }
    }

    /// All publishers, at `rate` messages a second together.
    fn publishers(&mut self, rate: u32) -> Vec<Publisher> {
        let mut publishers = Vec::new();
        for node in 0..self.names.len() {
            publishers.push(self.publisher("stay", node, Role { resident: true, ..ROAMING }));
            publishers.push(self.publisher("one", node, ROAMING));
            publishers.push(self.publisher("two", node, Role { qos: QoS::ExactlyOnce, ..ROAMING }));
            publishers.push(self.publisher("clean", node, Role { clean_only: true, ..ROAMING }));
        }
        publishers.push(self.publisher("retained", 0, Role { retain: true, ..ROAMING }));
        let pace = Duration::from_secs(1) * publishers.len() as u32 / rate;
        publishers.iter_mut().for_each(|publisher| publisher.pace = pace);
        publishers
    }

    fn publisher(&mut self, kind: &str, node: usize, role: Role) -> Publisher {
        let name = format!("{kind}-{}", node + 1);
        let once = role.qos == QoS::ExactlyOnce;
        let caller = self.caller(&format!("pub-{name}"), node, once, role.resident);
        let topics = if role.retain { 1 } else { TOPICS };
        let branch = match role {
            Role { retain: true, .. } => "retained",
            Role { clean_only: true, .. } => "clean",
            _ => "kept",
        };
        let topic = format!("{}/{branch}/{name}", self.prefix);
        if role.retain {
            self.retained.push(format!("{topic}/0"));
        }
        let mut record = self.record.lock();
        let home = if role.resident {
            Home::Node(node)
        } else {
            record.roaming.push(Gap::default());
            Home::Roaming(record.roaming.len() - 1)
        };
        Publisher {
            stream: record.history.add_stream(StreamSpec { name: caller.client_id.clone(), once, topics }),
            caller,
            qos: role.qos,
            retain: role.retain,
            topic,
            topics,
            pace: Duration::ZERO,
            home,
            record: Arc::clone(&self.record),
            stop: self.stop_sending.subscribe(),
            open: VecDeque::new(),
            next: 0,
        }
    }

    /// All subscribers, and for each what tells that it is subscribed.
    fn subscribers(&mut self, publishers: &[Publisher]) -> (Vec<Subscriber>, Vec<oneshot::Receiver<()>>) {
        let streams = |branch: &str| -> Vec<StreamId> {
            let below = format!("{}/{branch}/", self.prefix);
            publishers.iter().filter(|p| p.topic.starts_with(&below)).map(|p| p.stream).collect()
        };
        let (kept, clean) = (streams("kept"), streams("clean"));
        let (mut subscribers, mut waiting) = (Vec::new(), Vec::new());
        for node in 0..self.names.len() {
            for (kind, qos, branch) in [
                ("one", QoS::AtLeastOnce, "kept"),
                ("two", QoS::ExactlyOnce, "kept"),
                ("clean", QoS::AtLeastOnce, "clean"),
            ] {
                let persistent = branch == "kept";
                let caller = self.caller(&format!("sub-{kind}-{}", node + 1), node, persistent, false);
                let (ready, is_ready) = oneshot::channel();
                waiting.push(is_ready);
                let id = self.record.lock().history.add_subscriber(SubscriberSpec {
                    name: caller.client_id.clone(),
                    persistent,
                    once: qos == QoS::ExactlyOnce,
                    streams: if persistent { kept.clone() } else { clean.clone() },
                });
                subscribers.push(Subscriber {
                    id,
                    caller,
                    filter: format!("{}/{branch}/#", self.prefix),
                    qos,
                    record: Arc::clone(&self.record),
                    stop: self.stop_receiving.subscribe(),
                    ready: Some(ready),
                });
            }
        }
        (subscribers, waiting)
    }

    fn readers(&mut self, publishers: &[Publisher]) -> Vec<Reader> {
        let retaining: Vec<_> = publishers.iter().filter(|publisher| publisher.retain).collect();
        let readers = retaining.into_iter().map(|publisher| Reader {
            stream: publisher.stream,
            caller: self.caller("reader", 0, false, false),
            topic: format!("{}/0", publisher.topic),
            record: Arc::clone(&self.record),
            stop: self.stop_sending.subscribe(),
        });
        readers.collect()
    }

    fn report(&self, lasted: Duration, verdict: Verdict, exec: Option<&Exec>) -> Report {
        let record = self.record.lock();
        Report::new(&self.names, &record, lasted, verdict, exec)
    }

    /// Ends the sessions and clears the retained messages of this run; what could not be.
    async fn clean_up(&mut self) -> Vec<String> {
        self.stop_sending.send_replace(true);
        self.stop_receiving.send_replace(true);
        let deadline = env::now() + CLEAN_UP_TIMEOUT;
        let mut left = Vec::new();
        for session in std::mem::take(&mut self.sessions) {
            let ended = timeout_at(deadline, self.open_clean(&session)).await;
            match ended {
                Ok(link) => link.disconnect().await,
                Err(_) => left.push(format!("session {session}, which ends by itself within an hour")),
            }
        }
        for topic in std::mem::take(&mut self.retained) {
            let clearing = async {
                let id = format!("{}-cleaner", self.prefix);
                loop {
                    let mut link = self.open_clean(&id).await;
                    let packet = link::publish(&topic, b"", QoS::AtLeastOnce, true, 1, false);
                    let cleared = link.send(&packet).await.is_ok()
                        && matches!(link.receive().await, Ok(packet) if link::is_puback(&packet));
                    link.disconnect().await;
                    if cleared {
                        return;
                    }
                    tokio::time::sleep(POLL).await;
                }
            };
            if timeout_at(deadline, clearing).await.is_err() {
                left.push(format!("the retained message of {topic}"));
            }
        }
        left
    }

    /// Connects as this client to any node, with a session that ends with the connection.
    async fn open_clean(&self, client_id: &str) -> link::Link {
        let (common, client_id) = (self.common.clone(), client_id.to_owned());
        let mut caller = Caller { common, client_id, persistent: false, resident: false, node: 0 };
        caller.connect().await
    }
}

/// What sets one publisher apart.
#[derive(Clone, Copy)]
struct Role {
    qos: QoS,
    resident: bool,
    retain: bool,
    clean_only: bool,
}

/// What most publishers are.
const ROAMING: Role = Role { qos: QoS::AtLeastOnce, resident: false, retain: false, clean_only: false };

async fn lasting(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// Runs the operator's command again and again, if there is one.
async fn running(exec: &mut Option<Exec>) {
    match exec {
        Some(exec) => exec.run().await,
        None => std::future::pending().await,
    }
}
