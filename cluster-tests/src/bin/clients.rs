//! Plays what every client has to get through against a cluster and prints the table.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use cluster_tests::clients::{CLIENTS, Row, VERSIONS, table};
use cluster_tests::cluster::Cluster;

/// Rows that are played at a time; most of the work is that of the clients.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    let clients = CLIENTS.iter().filter(|client| is_wanted(client.name));
    let jobs: Vec<_> =
        clients.flat_map(|client| VERSIONS.iter().map(move |version| (client, *version))).collect();
    if jobs.is_empty() {
        eprintln!("usage: clients [PART_OF_THE_NAME_OF_A_CLIENT]...");
        return ExitCode::from(2);
    }

    let cluster = Cluster::start(3);
    let next = AtomicUsize::new(0);
    let rows: Mutex<Vec<(usize, Row)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((client, version)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begin = std::time::Instant::now();
                    let row = client.play_version(&cluster, *version);
                    let seconds = begin.elapsed().as_secs_f32();
                    eprintln!("{}, {version}: {seconds:.1} s", client.name);
                    for failure in row.failures() {
                        eprintln!("{failure}\n");
                    }
                    let at = jobs.iter().position(|job| job.0.name == client.name && job.1 == *version);
                    let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
                    rows.push((at.unwrap_or_default(), row));
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by_key(|(at, _)| *at);
    let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();

    print!("{}", table(&rows));
    if rows.iter().all(|row| row.failures().is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
