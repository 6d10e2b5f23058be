//! Nodes that let their clients go.

use super::*;

const DRAIN: Drain = Drain { rate_per_s: 1_000, for_good: false };

fn up(rig: &mut Rig, node: NodeId) {
    let server_reference = format!("{node}:1883");
    rig.up_as(node, NodeInfo { server_reference, connections_max: 100, ..NodeInfo::default() });
}

fn drain(rig: &mut Rig, by: NodeId, node: NodeId, drain: Option<Drain>) -> Outcome {
    rig.run(by, Command::Drain { node, drain })
}

#[test]
fn the_node_is_told_when_something_changes_for_it() {
    let mut rig = Rig::new(2);
    assert_eq!(drain(&mut rig, 1, 2, Some(DRAIN)), Outcome::Ok);
    assert_eq!(rig.effects, [Effect::Drain { node: 2, epoch: 1, drain: Some(DRAIN) }]);
    assert_eq!((rig.state.draining(1), rig.state.draining(2)), (None, Some(DRAIN)));
    assert_eq!(drain(&mut rig, 1, 2, Some(DRAIN)), Outcome::Ok);
    assert_eq!(rig.effects, [], "it drains already");
    let faster = Drain { rate_per_s: 2_000, ..DRAIN };
    assert_eq!(drain(&mut rig, 2, 2, Some(faster)), Outcome::Ok);
    assert_eq!(rig.effects, [Effect::Drain { node: 2, epoch: 1, drain: Some(faster) }]);
    assert_eq!(drain(&mut rig, 1, 2, None), Outcome::Ok);
    assert_eq!(rig.effects, [Effect::Drain { node: 2, epoch: 1, drain: None }]);
    assert_eq!(rig.state.draining(2), None);
    drain(&mut rig, 1, 2, None);
    assert_eq!(rig.effects, []);
}

#[test]
fn it_ends_with_the_life() {
    let mut rig = Rig::new(3);
    drain(&mut rig, 1, 2, Some(DRAIN));
    drain(&mut rig, 1, 3, Some(DRAIN));
    rig.down(1, 2);
    assert_eq!(rig.state.draining(2), None);
    assert_eq!(drain(&mut rig, 1, 2, Some(DRAIN)), Outcome::Unchanged(Unchanged::NotFound), "it is down");
    rig.up(2);
    rig.up(3);
    assert_eq!((rig.state.draining(2), rig.state.draining(3)), (None, None));
    assert_eq!(drain(&mut rig, 1, 9, Some(DRAIN)), Outcome::Unchanged(Unchanged::NotFound));
}

#[test]
fn nobody_is_sent_to_a_node_that_drains_and_its_own_clients_go_wherever_there_is_room() {
    let mut rig = Rig::default();
    (1..=3).for_each(|node| up(&mut rig, node));
    for i in 0..4 {
        rig.claim(1, clean(&format!("a{i}")));
    }
    rig.claim(2, clean("b"));
    assert_eq!(rig.state.elsewhere(1), Some("3:1883"));
    drain(&mut rig, 1, 3, Some(DRAIN));
    assert_eq!(rig.state.elsewhere(1), Some("2:1883"));
    // The fewest it has itself: it lets them go all the same.
    assert_eq!(rig.state.elsewhere(3), Some("2:1883"));
    let references = |rig: &Rig| rig.state.references(3).map(|(n, r)| (n, r.to_owned())).collect::<Vec<_>>();
    assert_eq!(references(&rig), [(4, "1:1883".to_owned()), (1, "2:1883".to_owned())]);
    drain(&mut rig, 1, 1, Some(DRAIN));
    assert_eq!(references(&rig), [(1, "2:1883".to_owned())]);
    drain(&mut rig, 1, 2, Some(DRAIN));
    assert_eq!((references(&rig), rig.state.has_refuge(3)), (vec![], false), "all of them drain");
    drain(&mut rig, 1, 2, None);
    assert!(rig.state.has_refuge(3));
}
