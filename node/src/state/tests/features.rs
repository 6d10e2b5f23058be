//! The feature level is what every member understands, and nobody below it takes part.

use super::*;

/// Starts a node whose build understands this level.
fn up(rig: &mut Rig, node: NodeId, feature_level: u32) {
    let info = NodeInfo { feature_level, ..NodeInfo::default() };
    rig.up_as(node, info);
}

fn raise(rig: &mut Rig, level: u32) -> u32 {
    rig.run(1, Command::Raise { level });
    rig.state.feature_level()
}

#[test]
fn the_level_is_raised_once_every_member_understands_it() {
    let mut rig = Rig::default();
    up(&mut rig, 1, 2);
    up(&mut rig, 2, 1);
    let members = [1, 2];
    assert_eq!(rig.state.feature_level_to_raise(&members), Some(1));
    assert_eq!(rig.state.feature_level_to_raise(&[1, 2, 3]), None, "the third may not understand it");
    assert_eq!(raise(&mut rig, 1), 1);
    assert_eq!(rig.state.feature_level_to_raise(&members), None);
    // The older one stops: it may come back as it was.
    rig.down(1, 2);
    assert_eq!(rig.state.feature_level_to_raise(&members), None);
    up(&mut rig, 2, 2);
    assert_eq!(rig.state.feature_level_to_raise(&members), Some(2));
    assert_eq!(raise(&mut rig, 2), 2);
    assert_eq!(raise(&mut rig, 1), 2, "it never sinks");
    let restored = State::read(&mut bytes(&rig.state).as_slice(), Arc::default()).expect("a snapshot");
    assert_eq!(restored.feature_level(), 2);
}

#[test]
fn a_node_that_started_since_the_leader_looked_keeps_the_level_down() {
    let mut rig = Rig::default();
    up(&mut rig, 1, 2);
    up(&mut rig, 2, 1);
    assert_eq!(raise(&mut rig, 2), 0);
}

#[test]
fn a_node_that_does_not_understand_the_level_is_kept_out_and_changes_nothing() {
    let mut rig = Rig::default();
    up(&mut rig, 1, 2);
    up(&mut rig, 2, 2);
    raise(&mut rig, 2);
    let before = bytes(&rig.state);
    let info = NodeInfo { feature_level: 1, ..NodeInfo::default() };
    let pack = Pack { origin: 2, epoch: 9, seq: 0, commands: vec![Command::NodeUp { info }] };
    assert_eq!(rig.apply(&pack), None);
    assert_eq!(rig.effects, [Effect::Outdated { node: 2, understood: 1, used: 2 }]);
    assert!(bytes(&rig.state) == before, "its life from before goes on until its lease is over");
}
