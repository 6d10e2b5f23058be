//! What the system says about a process.

use std::fs;

use crate::load::cpu_seconds;

/// A process that is measured from outside.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    /// Resident memory of the process's own, kB: `VmRSS` without the pages of the program file,
    /// which come in with the code that runs and are the system's to drop.
    pub fn memory_kb(self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0));
        let status = status.unwrap_or_else(|e| panic!("process {} is gone: {e}", self.0));
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let number = line.and_then(|rest| rest.trim().strip_suffix("kB"));
        number.and_then(|n| n.trim().parse().ok()).expect("RssAnon in /proc/PID/status")
    }

    /// CPU seconds it has used.
    pub fn cpu_s(self) -> f64 {
        cpu_seconds(self.0).unwrap_or_else(|e| panic!("process {} is gone: {e}", self.0))
    }

    /// How many descriptors it has open.
    pub fn descriptors(self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.0)).map_or(0, Iterator::count)
    }
}
