//! What the death of a node costs clients, measured: real processes, kill -9, and probes that time
//! every answer around the moment of the kill. Meanwhile `rookery failover test` runs against the
//! same cluster and checks that nothing is lost. `scripts/failover-report` writes the page.

mod figures;
mod kill;
mod load;
mod machine;
mod page;
mod probe;
mod queue;
mod takeover;
mod wills;

pub use figures::{Figure, Figures, Role};
pub use load::Load;
pub use machine::Machine;
pub use page::page;

use crate::cluster::Cluster;

/// Takeovers that are measured with each role's kills.
const TAKEOVERS: usize = 200;

/// Messages that the checked load publishes a second.
const LOAD_RATE: u32 = 100;

/// Kills a node of that role so many times, and brings it back each time.
///
/// # Panics
/// When the cluster does not do what it has to at all.
pub fn measure(cluster: &mut Cluster, role: Role, kills: usize) -> Figures {
    let mut figures = Figures::new(role);
    let addresses = cluster.mqtt_all().iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut args = vec!["--rate".to_owned(), LOAD_RATE.to_string(), "--mqtt".to_owned()];
    args.extend(addresses);
    let load = Load::start(&args);
    takeover::measure(cluster, TAKEOVERS.min(kills * 20), &mut figures);
    for turn in 0..kills {
        let victim = match role {
            Role::Leader => cluster.leader(),
            Role::Follower => {
                let leader = cluster.leader();
                let followers: Vec<usize> = (1..=cluster.len()).filter(|i| *i != leader).collect();
                followers[turn % followers.len()]
            }
            // Whichever part it has in consensus.
            Role::Owner => turn % cluster.len() + 1,
        };
        figures.kills += 1;
        figures.leaders += usize::from(cluster.leader() == victim);
        kill::measure(cluster, victim, &mut figures);
        eprintln!("{role} {} of {kills}: n{victim}", turn + 1);
    }
    let (code, report, said) = load.stop();
    assert!(matches!(code, Some(0 | 8)), "the checked load ended with {code:?}: {said}");
    figures.checked(&report);
    figures
}
