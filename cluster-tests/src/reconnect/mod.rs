//! All clients of a node that dies want their connections back at once, from the nodes that are left:
//! how long that takes, what it costs those who were connected there, and whether anything else
//! fails.

mod fleet;
mod watch;

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

pub use fleet::Fleet;
use watch::Watch;

use crate::cluster::Cluster;
use crate::load::{Steady, Window, low_priority};
use crate::wait;

/// For the fleet to be connected at first.
const CONNECTS: Duration = Duration::from_secs(120);
/// Beyond what the accept rate says: the fleet has to notice, a claim to be committed, and who was
/// refused while the node's end was not known asks again after half a second.
const GRACE: Duration = Duration::from_millis(2_500);
/// By how much slower the slowest hundredth of those who were connected may be meanwhile.
pub const P99_FACTOR: f64 = 3.0;
/// What is measured before, and for how long the storm is looked at if it is shorter.
const QUIET: Duration = Duration::from_secs(5);
const STORM_AT_LEAST: Duration = Duration::from_secs(1);

/// What is to happen.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Clients of the node that dies.
    pub clients: usize,
    /// Clients of the others that publish all the while, and how many messages a second.
    pub steady: usize,
    pub messages_per_s: u32,
    /// `limits.accept_rate` of the nodes.
    pub accept_rate: u32,
    /// The node that dies leads.
    pub leader: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    plan: Plan,
    quiet: Window,
    storm: Window,
    /// When each of the fleet was back.
    back: Vec<Duration>,
    refused: usize,
    lost_again: usize,
    watched: watch::Seen,
}

impl Plan {
    /// Configuration of the nodes, as TOML.
    pub fn toml(&self) -> String {
        format!("[limits]\naccept_rate = {}\n", self.accept_rate)
    }

    /// Everybody is to be back within this.
    pub fn bound(&self) -> Duration {
        Duration::from_secs_f64(self.clients as f64 / (2.0 * f64::from(self.accept_rate))) + GRACE
    }
}

/// Lets it happen to a cluster of three nodes.
///
/// # Panics
/// When it cannot, or when a client that was connected elsewhere loses its connection or a message.
pub fn run(cluster: &mut Cluster, plan: Plan) -> Outcome {
    let victim = if plan.leader { cluster.leader() } else { cluster.follower(&[]) };
    let others: Vec<usize> = (1..=3).filter(|i| *i != victim).collect();
    let left: Vec<_> = others.iter().map(|i| cluster.mqtt(*i)).collect();
    let steady = Steady::start(&left, plan.steady, plan.messages_per_s).expect("they connect");
    let fleet = Fleet::start(plan.clients, &[cluster.mqtt(victim)]);
    wait::eventually("the fleet to be connected", CONNECTS, || {
        steady.check();
        (fleet.connected() == fleet.size()).then_some(())
    });
    let refused = fleet.refused();
    let apis: Vec<_> = others.iter().map(|i| cluster.api(*i)).collect();
    let logs: Vec<_> = others.iter().map(|i| cluster.node(*i).log_file()).collect();
    // It looks in the quiet time too, so that looking does not tell the two apart.
    let watch = Watch::start(&apis, &logs);
    let (quiet, ()) = steady.during(|| wait::pass(QUIET));
    // A machine that dies takes its cores with it: those who are left have no part in its sockets' end.
    threads_of(cluster.pid(victim)).into_iter().for_each(low_priority);
    fleet.aim(&left);
    let killed = Instant::now();
    let granted = fleet.granted();
    let (storm, ()) = steady.during(|| {
        cluster.kill9(victim);
        // Who does not come back in time is missed below.
        let _ = wait::within(3 * plan.bound(), || (fleet.granted() >= granted + plan.clients).then_some(()));
        wait::pass(STORM_AT_LEAST.saturating_sub(killed.elapsed()));
    });
    let back = fleet.granted_since(killed);
    let lost_again = fleet.lost().saturating_sub(plan.clients);
    let watched = watch.stop();
    Outcome { plan, quiet, storm, back, refused: fleet.refused() - refused, lost_again, watched }
}

fn threads_of(pid: u32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    threads.flatten().filter_map(|thread| thread.file_name().to_str()?.parse().ok()).collect()
}

impl Outcome {
    /// What is not as it has to be.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let Plan { clients, leader, .. } = self.plan;
        let mut must = |holds: bool, what: String| {
            if !holds {
                failures.push(what);
            }
        };
        let (last, bound) = (self.back.last().copied().unwrap_or_default(), self.plan.bound());
        must(self.back.len() >= clients, format!("{} of {clients} came back", self.back.len()));
        must(last <= bound, format!("the last was back after {last:.1?}, the bound is {bound:.1?}"));
        must(self.lost_again == 0, format!("{} lost their connection again", self.lost_again));
        let watch::Seen { downs, lapses, leaders, .. } = &self.watched;
        must(*downs == 0, format!("{downs} lives of the other nodes were declared over"));
        // Who may acknowledge depends on the leader, and one has died.
        must(*lapses == 0 || leader, format!("the others were without a lease {lapses} times"));
        must(*leaders <= usize::from(leader), format!("leadership changed {leaders} times"));
        failures
    }

    /// How many times slower the slowest hundredth of those who were connected was.
    pub fn p99_factor(&self) -> f64 {
        self.storm.quantile(0.99).as_secs_f64() / self.quiet.quantile(0.99).as_secs_f64().max(1e-6)
    }

    /// A row for each figure.
    pub fn table(&self) -> String {
        let Plan { clients, steady, messages_per_s, accept_rate, leader } = self.plan;
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1_000.0);
        let back = |share: f64| {
            let at = ((self.back.len() as f64 * share) as usize).min(self.back.len().saturating_sub(1));
            self.back.get(at).map_or("never".to_owned(), |time| ms(*time))
        };
        let three = |window: &Window| [0.5, 0.99, 1.0].map(|share| ms(window.quantile(share))).join(" / ");
        let watch::Seen { downs, lapses, leaders, level, loop_lag, consensus_lag, refused, redirected } =
            &self.watched;
        let rows = [
            ("clients of the node that died", format!("{clients}")),
            ("it was", if leader { "the leader" } else { "a follower" }.to_owned()),
            ("accepted a second on each other node, at most", format!("{accept_rate}")),
            ("back: half / 99 % / all", format!("{} / {} / {}", back(0.5), back(0.99), back(1.0))),
            ("all back within, by the accept rate", ms(self.plan.bound())),
            ("CONNECTs that were refused or cut", format!("{}", self.refused)),
            ("of these 0x97 or 3 / 0x9C, for overload", format!("{refused} / {redirected}")),
            ("connections lost a second time", format!("{}", self.lost_again)),
            (
                "lives declared over / lapses of leases / changes of leader",
                format!("{downs} / {lapses} / {leaders}"),
            ),
            ("highest level of overload", format!("{level}")),
            (
                "longest turn of an event loop / consensus late by",
                format!("{} / {}", ms(*loop_lag), ms(*consensus_lag)),
            ),
            ("clients that were connected / messages a second", format!("{steady} / {messages_per_s}")),
            ("their latency before: median / p99 / longest", three(&self.quiet)),
            ("and during the storm", three(&self.storm)),
            ("p99, times that before", format!("{:.2}", self.p99_factor())),
        ];
        let mut table = String::from("| | |\n|---|---:|\n");
        for (what, value) in rows {
            let _ = writeln!(table, "| {what} | {value} |");
        }
        table
    }
}
