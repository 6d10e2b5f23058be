//! Load on one broker, whichever it is, and what came of it as one line of JSON.
//!
//! ```text
//! load fan-in|fan-out|pairs HOST:PORT [--qos 0|1] [--seconds 3] [--clients N] [--pid PID]
//! load idle HOST:PORT [--clients 10000]
//! ```
//!
//! `idle` prints its line when all are connected and holds them until its standard input ends.

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use cluster_tests::load::{Idle, Job, Shape, run};
use serde_json::json;

const USAGE: &str =
    "usage: load fan-in|fan-out|pairs|idle HOST:PORT [--qos 0|1] [--seconds S] [--clients N] [--pid PID]";

struct Args {
    mode: String,
    broker: SocketAddr,
    qos: u8,
    seconds: f64,
    clients: Option<usize>,
    pid: Option<u32>,
}

fn parse() -> Option<Args> {
    let mut words = std::env::args().skip(1);
    let mode = words.next()?;
    let broker = words.next()?.to_socket_addrs().ok()?.next()?;
    let mut args = Args { mode, broker, qos: 0, seconds: 3.0, clients: None, pid: None };
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word.as_str() {
            "--qos" => args.qos = value.parse().ok().filter(|qos| *qos < 2)?,
            "--seconds" => args.seconds = value.parse().ok().filter(|s| *s > 0.0)?,
            "--clients" => args.clients = Some(value.parse().ok().filter(|n| *n > 0)?),
            "--pid" => args.pid = Some(value.parse().ok()?),
            _ => return None,
        }
    }
    Some(args)
}

fn idle(args: &Args) -> io::Result<()> {
    let idle = Idle::connect(args.broker, args.clients.unwrap_or(10_000))?;
    println!("{}", json!({ "connected": idle.connections.len() }));
    io::stdout().flush()?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

fn measure(args: &Args, shape: Shape) -> io::Result<()> {
    let measured = Duration::from_secs_f64(args.seconds);
    let m = run(&Job { shape, broker: args.broker, qos: args.qos, measured, pid: args.pid })?;
    println!(
        "{}",
        json!({
            "delivered": m.delivered,
            "per_s": m.per_second().round(),
            "p50_us": m.p50_us,
            "p99_us": m.p99_us,
            "cpu_s": m.broker_cpu_s,
            "cpu_s_per_million": m.cpu_s_per_million(),
            "generator_cpu_s": m.own_cpu_s,
        })
    );
    Ok(())
}

fn main() -> ExitCode {
    let Some(args) = parse() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let done = match args.mode.as_str() {
        "idle" => idle(&args),
        "fan-in" => measure(&args, Shape::FanIn(args.clients.unwrap_or(100))),
        "fan-out" => measure(&args, Shape::FanOut(args.clients.unwrap_or(1_000))),
        "pairs" => measure(&args, Shape::Pairs(args.clients.unwrap_or(500))),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}
