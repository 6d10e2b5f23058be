//! Attacks on one node of a real cluster, and the means to tell that nobody else suffers.
//!
//! [`Arena`] is the cluster with its well-behaved clients ([`Bystanders`]); every other module is
//! one kind of attacker, driven by a [`Plan`] that says whom, how much and with which seed.

mod arena;
mod bystanders;
mod crowd;
pub mod deep;
pub mod flood;
pub mod half_open;
pub mod loris;
pub mod malformed;
mod noise;
pub mod peers;
mod process;
mod rng;
pub mod siege;
pub mod storm;
pub mod subscribe;

use std::net::SocketAddr;

pub use arena::Arena;
pub use bystanders::Bystanders;
pub use crowd::Crowd;
pub use process::Process;
pub use rng::Rng;

/// Seeds the attacks' randomness; without it a seed is drawn and printed.
pub const SEED_VARIABLE: &str = "ROOKERY_ATTACK_SEED";

/// Set to anything but nothing: the campaign instead of the short form.
pub const LONG_VARIABLE: &str = "ROOKERY_ATTACK_LONG";

/// Whom to attack, how much, and the seed of what is random about it.
#[derive(Clone, Debug)]
pub struct Plan {
    pub process: Process,
    pub mqtt: SocketAddr,
    pub ws: SocketAddr,
    /// These and the encrypted ones.
    pub listeners: [SocketAddr; 4],
    pub api: SocketAddr,
    pub peer: SocketAddr,
    pub seed: u64,
    pub long: bool,
}

impl Plan {
    /// How much of something: in the short form, and in the campaign.
    pub fn size(&self, short: usize, long: usize) -> usize {
        if self.long { long } else { short }
    }

    /// The randomness of one part of the attack.
    pub fn rng(&self, part: u64) -> Rng {
        Rng::new(self.seed, part)
    }

    /// A metric of the attacked node; 0 without a sample.
    ///
    /// # Panics
    /// When the node does not answer: that is what an attack must not bring about.
    pub fn metric(&self, name: &str) -> f64 {
        let (status, text) = crate::http::get(self.api, "/metrics").expect("/metrics answers");
        assert_eq!(status, 200, "/metrics");
        crate::http::metric(&text, name).unwrap_or(0.0)
    }
}

/// The seed to use, and whether the campaign is wanted.
pub(crate) fn asked() -> (u64, bool) {
    let drawn = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    let seed = std::env::var(SEED_VARIABLE)
        .ok()
        .map_or_else(drawn, |text| text.parse().unwrap_or_else(|e| panic!("{SEED_VARIABLE}={text}: {e}")));
    let long = std::env::var_os(LONG_VARIABLE).is_some_and(|value| !value.is_empty());
    (seed, long)
}
