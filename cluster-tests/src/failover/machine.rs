//! The machine that figures come from.

use std::fs;
use std::io::{Seek, Write};
use std::path::Path;
use std::time::Instant;

/// Writes that the time of one is taken from.
const SYNCS: usize = 200;

/// What the figures depend on.
#[derive(Clone, Debug)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub kernel: String,
    /// Processes that ran or wanted to, on average over a quarter of an hour: beyond the number of
    /// cores, the figures are those of a machine with other work to do.
    pub load: f64,
    /// Median of a write of 4 KiB into a file that is there, as the log is, and its fdatasync, where
    /// the nodes have their data, milliseconds.
    pub sync_ms: f64,
}

impl Machine {
    /// This one; `data`: a folder on the disk that nodes write to.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn here(data: &Path) -> std::io::Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let of = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
        };
        let memory = of(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
        Ok(Machine {
            cpu: of(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: (kib as f64 / 1024.0 / 1024.0).round() as u64,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: read("/proc/loadavg").split(' ').nth(2).and_then(|load| load.parse().ok()).unwrap_or(0.0),
            sync_ms: sync_ms(data)?,
        })
    }
}

fn sync_ms(folder: &Path) -> std::io::Result<f64> {
    const BLOCK: [u8; 4096] = [7; 4096];
    let mut file = tempfile::tempfile_in(folder)?;
    file.write_all(&BLOCK.repeat(SYNCS))?;
    file.sync_all()?;
    file.rewind()?;
    let mut times = Vec::new();
    for _ in 0..SYNCS {
        let begin = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[SYNCS / 2])
}
