//! What growth costs a node, as a table for people.
//!
//! ```text
//! growth [stall|restart|churn]… [--sessions 1000000]
//! ```

use std::process::ExitCode;
use std::time::Duration;

use cluster_tests::growth::{Arenas, Grown, churn, quantile, stall};

const USAGE: &str = "usage: growth [stall|restart|churn]… [--sessions N]";
const ALL: [&str; 3] = ["stall", "restart", "churn"];
/// Samples of memory during the churn, and how many of them are warm-up.
const SAMPLES: usize = 20;
const WARM_UP: usize = 5;
const SHOWN_EVERY: usize = 4;
const QUANTILES: [(&str, f64); 4] = [("median", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("longest", 1.0)];

fn row(what: &str, value: String) {
    println!("| {what:<58} | {value:>12} |");
}

fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn show_stall(sessions: usize) -> std::io::Result<()> {
    let s = stall(sessions)?;
    row("sessions", s.sessions.to_string());
    row("resident memory of a session with one subscription", format!("{} B", s.session_bytes));
    row("freezing the state for a snapshot", ms(s.freeze));
    let applied =
        [("state growing", &s.growing), ("no snapshot", &s.quiet), ("during a snapshot", &s.frozen)];
    for (what, applied) in applied {
        for (kind, times) in [("CPU", &applied.cpu), ("elapsed", &applied.wall)] {
            for (name, share) in QUANTILES {
                let what = format!("apply of 512 commands, {what}: {kind}, {name} of {}", times.len());
                row(&what, ms(quantile(times, share)));
            }
        }
    }
    row("snapshot", mb(s.snapshot_bytes));
    row("writing it while commands go on being applied", ms(s.write));
    row("reading it", ms(s.read));
    row("freeing the state", ms(s.free));
    Ok(())
}

fn show_restart(sessions: usize) {
    let mut grown = Grown::make(sessions);
    row("sessions in one node", sessions.to_string());
    row("made, subscribed and left in", format!("{:.1} s", grown.made.as_secs_f64()));
    let r = grown.restart();
    row("snapshots on disk", mb(r.snapshot_bytes));
    row("log on disk", mb(r.log_bytes));
    row("from start to ready", format!("{:.2} s", r.ready.as_secs_f64()));
    row("from start until one session had its message", format!("{:.2} s", r.served.as_secs_f64()));
    row("resident memory", mb(r.memory_kb * 1024));
    let latency = grown.latency();
    row("snapshots written under load", latency.snapshots.to_string());
    for (what, times) in [("no snapshot", &latency.quiet), ("during a snapshot", &latency.during)] {
        for (name, share) in QUANTILES {
            row(&format!("PUBLISH to PUBACK, {what}: {name} of {}", times.len()), ms(quantile(times, share)));
        }
    }
}

fn show_churn(sessions: usize) {
    for (arenas, how) in [(Arenas::Many, "as nodes run"), (Arenas::One, "one arena")] {
        let c = churn(arenas, SAMPLES, sessions.div_ceil(SAMPLES));
        row("sessions made and expired", c.samples.last().map_or(0, |s| s.made).to_string());
        row("in", format!("{:.1} s", c.took.as_secs_f64()));
        for sample in c.samples.iter().skip(SHOWN_EVERY - 1).step_by(SHOWN_EVERY) {
            row(&format!("resident memory after {}, {how}", sample.made), mb(sample.memory_kb * 1024));
        }
        for (from, name) in [(WARM_UP, "the first quarter"), (SAMPLES / 2, "the first half")] {
            let growth = format!("{:.2} B", c.bytes_per_session(from));
            row(&format!("growth per session after {name}, {how}"), growth);
        }
    }
}

fn main() -> ExitCode {
    let (mut modes, mut sessions) = (Vec::new(), 1_000_000);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--sessions" => match words.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0) {
                Some(n) => sessions = n,
                None => {
                    eprintln!("{USAGE}");
                    return ExitCode::from(2);
                }
            },
            mode if ALL.contains(&mode) => modes.push(mode.to_owned()),
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    if modes.is_empty() {
        modes = ALL.map(str::to_owned).to_vec();
    }
    for mode in modes {
        println!("\n{mode}");
        match mode.as_str() {
            "stall" => {
                if let Err(error) = show_stall(sessions) {
                    eprintln!("growth: {error}");
                    return ExitCode::FAILURE;
                }
            }
            "restart" => show_restart(sessions),
            _ => show_churn(sessions),
        }
    }
    ExitCode::SUCCESS
}
