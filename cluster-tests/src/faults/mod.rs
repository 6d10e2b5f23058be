//! What happens to the machines and the network of a cluster of real processes: links between the
//! nodes' peer ports that can be cut and slowed down, network namespaces with real packet loss,
//! and disks that are full.

mod caller;
mod disk;
mod links;
mod netns;

pub use disk::SmallDisk;
pub use links::{Links, Way};
pub use netns::Namespaces;

/// Whether this process may make network namespaces and mount file systems.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says why a test does nothing; the tests that need root pass without it.
pub fn skip(what: &str, why: &str) {
    eprintln!("skipped, {what}: {why}");
}
