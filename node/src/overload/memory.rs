//! How much memory the process has, and may have.

use std::fs;
use std::path::{Path, PathBuf};

/// Of what the machine or its container has, this part may be used when nothing is configured: the
/// system and the page cache, in which the log is, need the rest.
const PART: f64 = 0.8;

/// Resident memory of this process, bytes. `None`: the system does not tell.
pub fn resident_bytes() -> Option<u64> {
    kib_of(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// What the node may use: `configured`, or when that is 0 the greater part of what its control group
/// or its machine has, bytes. `None`: the system does not tell.
pub fn memory_limit_bytes(configured: u64) -> Option<u64> {
    if configured > 0 {
        return Some(configured);
    }
    let machine = kib_of(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let least =
        group_limit_bytes(Path::new("/sys/fs/cgroup"), &groups).map_or(machine, |limit| limit.min(machine));
    Some((least as f64 * PART) as u64)
}

/// The value of a line such as `MemTotal:  2048 kB`, bytes.
fn kib_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// The least limit of the process's control group and those around it, in either version of control
/// groups below `root`. `groups`: the lines of `/proc/self/cgroup`. Within a container the group
/// often appears as the root itself, while its name is that outside.
fn group_limit_bytes(root: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, group) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
        let (top, file) = match controllers {
            Some("") => (root.to_owned(), "memory.max"),
            Some(names) if names.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let within: PathBuf = group.trim_start_matches('/').into();
        within.ancestors().map(|group| top.join(group).join(file)).collect()
    });
    limits.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_this_machine_have_memory() {
        let resident = resident_bytes().expect("on Linux");
        let limit = memory_limit_bytes(0).expect("on Linux");
        assert!(resident > 1 << 20 && limit > resident, "{resident} of {limit}");
        assert_eq!(memory_limit_bytes(5), Some(5));
    }

    #[test]
    fn the_least_of_all_limits_counts() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        };
        let limit = |groups: &str| group_limit_bytes(dir.path(), groups);
        assert_eq!(limit("0::/a/b\n"), None);
        write("a/memory.max", "3000\n");
        write("a/b/memory.max", "max\n");
        assert_eq!(limit("0::/a/b\n"), Some(3_000));
        write("memory.max", "2000\n");
        assert_eq!(limit("0::/elsewhere/outside\n"), Some(2_000));
        write("memory/x/memory.limit_in_bytes", "1000\n");
        assert_eq!(limit("4:cpu:/x\n3:memory,hugetlb:/x/y\n0::/\n"), Some(1_000));
        assert_eq!(limit("nonsense\n\n::\n"), Some(2_000));
    }

    #[test]
    fn the_system_says_it_in_kib() {
        assert_eq!(kib_of("MemTotal:       2048 kB\nMemFree: 1 kB\n", "MemTotal:"), Some(2 << 20));
        assert_eq!(kib_of("MemTotal: much\n", "MemTotal:"), None);
    }
}
