//! How many descriptors the process may have, and how many of them clients may take.

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
    let Some(descriptors) = (if raised { maximum } else { current }) else { return wanted };
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

fn without_reserve(descriptors: u64) -> u32 {
    let reserved = (descriptors / 4).clamp(RESERVED_MIN, RESERVED_MAX);
    u32::try_from(descriptors.saturating_sub(reserved)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_always_left_for_the_node_itself() {
        for (descriptors, room) in [(50, 1), (256, 192), (1_024, 768), (20_000, 18_976), (u64::MAX, u32::MAX)]
        {
            assert_eq!(without_reserve(descriptors), room, "{descriptors}");
        }
        assert_eq!(room_for_clients(1), 1);
        assert_eq!([1, 1_000, 1_000_000].map(surplus), [8, 62, 256]);
    }
}
