//! Attacks on a node that serves a thousand clients; see `scripts/overload-report`.
//!
//! ```text
//! siege [--clients 1000] [--messages 500] [--rounds 3] [--seconds 10]
//! ```

use std::process::ExitCode;
use std::time::Duration;

use cluster_tests::attack::siege::{Siege, TOML, run, table};
use cluster_tests::cluster::Cluster;

const USAGE: &str = "usage: siege [--clients N] [--messages PER_S] [--rounds N] [--seconds N]";

fn parse() -> Option<Siege> {
    let attacked = Duration::from_secs(10);
    let mut siege = Siege { good_clients: 1_000, messages_per_s: 500, rounds: 3, attacked };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value: u32 = words.next()?.parse().ok().filter(|n| *n > 0)?;
        match word.as_str() {
            "--clients" => siege.good_clients = value as usize,
            "--messages" => siege.messages_per_s = value,
            "--rounds" => siege.rounds = value as usize,
            "--seconds" => siege.attacked = Duration::from_secs(value.into()),
            _ => return None,
        }
    }
    Some(siege)
}

fn main() -> ExitCode {
    let Some(siege) = parse() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let endured = run(&mut Cluster::start_with(3, TOML), siege);
    print!("{}", table(&endured));
    let failures: Vec<String> = endured.iter().flat_map(|row| row.failures()).collect();
    failures.iter().for_each(|failure| eprintln!("FAILED: {failure}"));
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
