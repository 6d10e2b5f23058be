//! Runs the simulated cluster from one seed.

use std::process::ExitCode;

use cluster_tests::sim;

/// One fault breaks much; the first shows what.
const SHOWN: usize = 8;

fn main() -> ExitCode {
    let Some(seed) = std::env::args().nth(1).and_then(|text| text.parse().ok()) else {
        eprintln!("usage: simulate SEED");
        return ExitCode::from(2);
    };
    if std::env::var_os("RUST_LOG").is_some() {
        rookery::logging::init(&rookery::config::Config::default().log);
    }
    match sim::run(seed) {
        Ok(report) => {
            println!(
                "seed {seed}: trace {:016x}, {} ms simulated, {} connections, {} acknowledged, {} delivered",
                report.trace, report.simulated_ms, report.connections, report.acknowledged, report.delivered
            );
            for violation in report.violations.iter().take(SHOWN) {
                println!("seed {seed}: VIOLATION {violation}");
            }
            if report.violations.len() > SHOWN {
                println!("seed {seed}: and {} more", report.violations.len() - SHOWN);
            }
            if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            println!("seed {seed}: FAILED {error}");
            ExitCode::FAILURE
        }
    }
}
