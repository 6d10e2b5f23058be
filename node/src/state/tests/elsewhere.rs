//! Where clients are sent that find no room.

use super::*;

fn up(rig: &mut Rig, node: NodeId, server_reference: &str, connections_max: u32) {
    let server_reference = server_reference.to_owned();
    rig.up_as(node, NodeInfo { server_reference, connections_max, ..NodeInfo::default() });
}

fn clients(rig: &mut Rig, node: NodeId, count: usize) {
    for i in 0..count {
        rig.claim(node, clean(&format!("{node}-{i}")));
    }
}

#[test]
fn the_live_node_with_the_fewest_clients_if_it_has_room_and_can_be_told() {
    let mut rig = Rig::default();
    up(&mut rig, 1, "one:1883", 100);
    assert_eq!(rig.state.elsewhere(1), None, "alone");
    up(&mut rig, 2, "two:1883", 100);
    assert_eq!(rig.state.elsewhere(1), None, "it has no fewer");
    clients(&mut rig, 1, 5);
    assert_eq!((rig.state.elsewhere(1), rig.state.elsewhere(2)), (Some("two:1883"), None));
    clients(&mut rig, 2, 2);
    up(&mut rig, 3, "", 100);
    assert_eq!(rig.state.elsewhere(1), Some("two:1883"), "nobody is sent to the third");
    up(&mut rig, 3, "three:1883", 100);
    assert_eq!(rig.state.elsewhere(1), Some("three:1883"));
    assert_eq!(rig.state.elsewhere(2), Some("three:1883"));
    rig.down(1, 3);
    assert_eq!(rig.state.elsewhere(1), Some("two:1883"), "the third is gone");
    up(&mut rig, 3, "three:1883", 1);
    assert_eq!(rig.state.elsewhere(1), Some("two:1883"), "the third has no room worth telling of");
    assert_eq!(rig.state.elsewhere(9), None, "a node that nobody knows has no clients");
}
