//! A node dies, and all its clients come to the others; see `scripts/storm`.
//!
//! ```text
//! storm [--clients 15000] [--steady 1000] [--messages 2000] [--rate 1000] [--leader]
//! ```

use std::process::ExitCode;

use cluster_tests::cluster::Cluster;
use cluster_tests::reconnect::{P99_FACTOR, Plan, run};

const USAGE: &str = "usage: storm [--clients N] [--steady N] [--messages PER_S] [--rate PER_S] [--leader]";

fn parse() -> Option<Plan> {
    let mut plan =
        Plan { clients: 15_000, steady: 1_000, messages_per_s: 2_000, accept_rate: 1_000, leader: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--leader" {
            plan.leader = true;
            continue;
        }
        let value: u32 = words.next()?.parse().ok().filter(|n| *n > 0)?;
        match word.as_str() {
            "--clients" => plan.clients = value as usize,
            "--steady" => plan.steady = value as usize,
            "--messages" => plan.messages_per_s = value,
            "--rate" => plan.accept_rate = value,
            _ => return None,
        }
    }
    Some(plan)
}

fn main() -> ExitCode {
    let Some(plan) = parse() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut cluster = Cluster::start_with(3, &plan.toml());
    let outcome = run(&mut cluster, plan);
    print!("{}", outcome.table());
    let mut failures = outcome.failures();
    if outcome.p99_factor() > P99_FACTOR {
        failures.push(format!("the others' p99 was {:.2} times that before", outcome.p99_factor()));
    }
    failures.iter().for_each(|failure| eprintln!("FAILED: {failure}"));
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
