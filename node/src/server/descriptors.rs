//! How many descriptors the process may have, and how many of them clients may take.

use std::io::stderr;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that clients never get: the log, the other nodes, the API. A quarter of all there
/// are, within these bounds.
const RESERVED_MIN: u64 = 64;
const RESERVED_MAX: u64 = 1_024;

/// Beyond those that clients may have, for being told that there is no room: this part of them, within
/// these bounds.
const SURPLUS_PART: u32 = 16;
const SURPLUS_MIN: u32 = 8;
const SURPLUS_MAX: u32 = 256;

/// Up to here the system's table of the process's descriptors has its size from the start, which takes
/// 8 bytes each. It doubles when it is full, and whoever opens a descriptor then waits for some 10 ms
/// until no other thread can be looking at the old one: an event loop, in the middle of accepting.
const TABLE_MAX: u64 = 1 << 18;

/// Connections that may exist beside as many of clients, to be told that there is no room.
pub fn surplus(clients: u32) -> u32 {
    (clients / SURPLUS_PART).clamp(SURPLUS_MIN, SURPLUS_MAX)
}

/// Raises the process's own bound as far as the system allows, and returns how many connections of
/// clients it has room for, at most `wanted`, and [`surplus`] of them besides. Without room for its log and its peers a node would
/// leave the cluster because of too many clients.
pub fn room_for_clients(wanted: u32) -> u32 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Refused only where the maximum is above what the kernel allows any process.
    let raised =
        current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let descriptors = if raised { maximum } else { current };
    size_table(descriptors.unwrap_or(TABLE_MAX).min(TABLE_MAX));
    let Some(descriptors) = descriptors else { return wanted };
    let room = without_reserve(descriptors);
    let room = room.saturating_sub(surplus(room)).max(1);
    if room < wanted {
        tracing::warn!(
            "limits.max_connections is {wanted}, but with {descriptors} descriptors there is room for {room} \
             connections; raise the limit of open files (ulimit -n, LimitNOFILE=)"
        );
    }
    wanted.min(room)
}

/// Makes room for so many, which stays when the last of them is closed.
fn size_table(descriptors: u64) {
    let last = i32::try_from(descriptors.saturating_sub(1)).unwrap_or(i32::MAX);
    // Without it they are had one doubling after the other.
    let _ = fcntl_dupfd_cloexec(stderr(), last);
}

fn without_reserve(descriptors: u64) -> u32 {
    let reserved = (descriptors / 4).clamp(RESERVED_MIN, RESERVED_MAX);
    u32::try_from(descriptors.saturating_sub(reserved)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many descriptors fit into the table as it is.
    #[cfg(target_os = "linux")]
    fn of_table() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).expect("a size");
        size.trim().parse().expect("a number")
    }

    #[test]
    fn some_are_always_left_for_the_node_itself() {
        for (descriptors, room) in [(50, 1), (256, 192), (1_024, 768), (20_000, 18_976), (u64::MAX, u32::MAX)]
        {
            assert_eq!(without_reserve(descriptors), room, "{descriptors}");
        }
        assert_eq!(room_for_clients(1), 1);
        #[cfg(target_os = "linux")]
        {
            let size = of_table();
            let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(TABLE_MAX);
            assert!(size >= descriptors.min(TABLE_MAX), "{size} of {descriptors}");
        }
        assert_eq!([1, 1_000, 1_000_000].map(surplus), [8, 62, 256]);
    }
}
