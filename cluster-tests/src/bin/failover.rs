//! Measures failover and writes the page about it; see `scripts/failover-report`.
//!
//! ```text
//! failover measure leader|follower|owner KILLS FILE.json
//! failover page VERSION FILE.json…          the page, on standard output
//! ```

use std::fs;
use std::process::ExitCode;

use cluster_tests::cluster::Cluster;
use cluster_tests::failover::{Figures, Machine, Role, measure, page};
use serde_json::Value;

const USAGE: &str =
    "usage: failover measure leader|follower|owner KILLS FILE.json | failover page VERSION FILE.json...";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["measure", role, kills, file] => match (Role::parse(role), kills.parse()) {
            (Some(role), Ok(kills)) => run(role, kills, file),
            _ => Err(USAGE.to_owned()),
        },
        ["page", version, files @ ..] if !files.is_empty() => write_page(version, files),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failover: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(role: Role, kills: usize, file: &str) -> Result<(), String> {
    let figures = measure(&mut Cluster::start(3), role, kills);
    fs::write(file, format!("{}\n", figures.to_json())).map_err(|e| format!("{file}: {e}"))?;
    match figures.wrong() {
        0 => Ok(()),
        wrong => Err(format!("{wrong} things went wrong that must not: {}", figures.to_json())),
    }
}

fn write_page(version: &str, files: &[&str]) -> Result<(), String> {
    let read = |file: &&str| {
        let text = fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
        let value: Value = serde_json::from_str(&text).map_err(|e| format!("{file}: {e}"))?;
        Figures::from_json(&value).ok_or_else(|| format!("{file}: not of this program"))
    };
    let all = files.iter().map(read).collect::<Result<Vec<_>, String>>()?;
    let machine = Machine::here(&std::env::temp_dir()).map_err(|e| format!("the temporary folder: {e}"))?;
    print!("{}", page(&all, &machine, version));
    Ok(())
}
