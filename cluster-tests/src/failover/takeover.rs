//! A client whose session is connected to one live node connects to another.

use std::time::{Duration, Instant};

use super::figures::{Figure, Figures};
use crate::cluster::Cluster;
use crate::fresh;
use crate::mqtt::{Client, Error, Options, Version, connect};

/// For the old connection to be ended.
const SOON: Duration = Duration::from_secs(20);

/// Takes one session over again and again, from node to node.
pub fn measure(cluster: &Cluster, times: usize, figures: &mut Figures) {
    let options = Options::v5(&fresh("moving")).persistent();
    let topic = fresh("moving");
    let mut old = Client::connect(cluster.mqtt(1), &options).expect("connects");
    old.subscribe(&[(&topic, 1)]).expect("SUBACK");
    for turn in 1..=times {
        let node = cluster.mqtt(turn % cluster.len() + 1);
        let mut new = Client::open(node, Version::V5).expect("a connection");
        let asked = Instant::now();
        new.send(&connect(&options)).expect("sent");
        new.await_connack().expect("CONNACK");
        figures.add(Figure::Takeover, asked.elapsed());
        assert!(new.session_present, "the session moves");
        let ended = old.ending(SOON).expect("the old connection ends");
        assert!(matches!(ended, Error::Disconnected(0x8e)), "{ended}");
        old = new;
    }
    old.disconnect().expect("leaves");
    let clean = Options::v5(&options.client_id);
    Client::connect(cluster.mqtt(1), &clean).and_then(Client::disconnect).expect("the session ends");
}
