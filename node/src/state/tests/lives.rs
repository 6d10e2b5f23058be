//! Packs, lives of nodes, and the routes that go with them.

use super::*;

fn tick() -> Vec<Command> {
    vec![Command::Tick { elapsed_ms: 1 }]
}

fn node_up() -> Vec<Command> {
    vec![Command::NodeUp { info: NodeInfo::default() }]
}

#[test]
fn only_the_next_sequence_of_the_present_epoch_is_applied() {
    let mut rig = Rig::new(1);
    let pack = |epoch, seq| Pack { origin: 1, epoch, seq, commands: tick() };
    for (epoch, seq) in [(1, 0), (1, 2), (2, 1), (0, 1), (2, 0)] {
        assert_eq!(rig.apply(&pack(epoch, seq)), None, "epoch {epoch}, seq {seq}");
    }
    let before = bytes(&rig.state);
    assert!(rig.apply(&pack(1, 1)).is_some());
    assert_ne!(bytes(&rig.state), before);
    assert_eq!(rig.apply(&pack(1, 1)), None, "a duplicate");
    assert!(rig.apply(&pack(1, 2)).is_some());
    assert_eq!(rig.state.clock_ms(), 2);
    assert_eq!(rig.apply(&Pack { origin: 9, epoch: 1, seq: 0, commands: tick() }), None, "never up");
}

#[test]
fn node_up_with_a_higher_epoch_ends_the_older_life() {
    let mut rig = Rig::new(1);
    let up = |epoch, seq| Pack { origin: 1, epoch, seq, commands: node_up() };
    assert_eq!(rig.apply(&up(1, 0)), None, "the same epoch");
    assert_eq!(rig.apply(&up(5, 1)), None, "not its first pack");
    assert_eq!(rig.apply(&up(5, 0)), Some(vec![Outcome::Ok]));
    let info = NodeInfo::default();
    assert_eq!(
        rig.effects,
        [Effect::NodeDown { node: 1, epoch: 1 }, Effect::NodeUp { node: 1, epoch: 5, info }]
    );
    assert_eq!(rig.apply(&Pack { origin: 1, epoch: 1, seq: 1, commands: tick() }), None);
    assert_eq!(rig.apply(&up(4, 0)), None, "a lower epoch");
}

#[test]
fn a_downed_epoch_is_closed_for_good() {
    let mut rig = Rig::new(2);
    rig.down(1, 2);
    assert_eq!(rig.effects, [Effect::NodeDown { node: 2, epoch: 1 }]);
    let pack = rig.pack(2, tick());
    assert_eq!(rig.apply(&pack), None);
    rig.run(1, Command::NodeDown { node: 2, epoch: 1, term: TERM });
    assert!(rig.effects.is_empty(), "it is down already");
    assert_eq!(rig.apply(&Pack { origin: 2, epoch: 1, seq: 0, commands: node_up() }), None);
    rig.up(2);
    assert!(rig.state.is_live(2, 2) && !rig.state.is_live(2, 1));
    assert!(!rig.effects.contains(&Effect::NodeDown { node: 2, epoch: 1 }));
    rig.run(1, Command::NodeDown { node: 2, epoch: 1, term: TERM });
    assert!(rig.state.is_live(2, 2), "a late NodeDown of an older epoch");
}

#[test]
fn what_follows_the_end_of_its_own_life_in_a_pack_is_void() {
    let mut rig = Rig::new(1);
    let commands = vec![Command::NodeDown { node: 1, epoch: 1, term: TERM }, Command::Claim(clean("c"))];
    let pack = rig.pack(1, commands);
    assert_eq!(rig.apply(&pack), Some(vec![Outcome::Ok, Outcome::Stale]));
    assert_eq!(rig.state.counts(), Counts::default());
}

#[test]
fn live_nodes_are_those_that_are_up() {
    let mut rig = Rig::new(3);
    rig.down(1, 2);
    let live: Vec<_> = rig.state.live_nodes().map(|(n, e, i)| (n, e, i.name.clone())).collect();
    assert_eq!(live, [(1, 1, "n1".to_owned()), (3, 1, "n3".to_owned())]);
    assert_eq!(rig.state.node(2).map(|n| (n.up, n.epoch)), Some((false, 1)));
    assert_eq!(rig.state.nodes().len(), 3);
}

fn route(filter: &str) -> Command {
    Command::RouteAdd { filter: filter.into() }
}

#[test]
fn routes_lead_to_the_nodes_that_added_them() {
    let mut rig = Rig::new(3);
    rig.run(1, route("a/b"));
    rig.run(2, route("a/+"));
    rig.run(2, route("a/b"));
    rig.run(3, route("a/b"));
    rig.run(3, route("a/b"));
    rig.run(3, Command::RouteRemove { filter: "a/b".into() });
    rig.run(3, Command::RouteRemove { filter: "never/#".into() });
    let mut nodes = matched(&rig.state, "a/b", 1).nodes;
    nodes.sort_unstable();
    assert_eq!(nodes.as_slice(), [1, 2]);
    assert_eq!(matched(&rig.state, "a/c", 0).nodes.as_slice(), [2]);
    assert!(matched(&rig.state, "b", 0).nodes.is_empty());
    assert_eq!(rig.state.route_nodes("a/+").as_slice(), [2]);
}

#[test]
fn routes_of_a_dead_life_are_void_at_once_and_swept_later() {
    let mut rig = Rig::new(2);
    for filter in ["a", "a/+", "$share/g/a"] {
        rig.run(2, route(filter));
    }
    rig.run(1, route("a"));
    rig.down(1, 2);
    let out = matched(&rig.state, "a", 0);
    assert_eq!((out.nodes.as_slice(), out.shared.len()), (&[1][..], 0));

    let mut due = rig.state.due(rig.state.clock_ms(), &mut SweepCursor::default(), 100);
    due.routes.sort();
    assert_eq!(due.routes, ["$share/g/a".into(), "a".into(), "a/+".into()] as [Box<str>; 3]);
    rig.run(1, Command::Sweep { clients: vec![], routes: due.routes });
    assert!(rig.state.due(rig.state.clock_ms(), &mut SweepCursor::default(), 100).is_empty());
    assert_eq!(rig.state.counts().routes, 1);

    // The node's next life starts without routes.
    rig.up(2);
    assert_eq!(matched(&rig.state, "a", 0).nodes.as_slice(), [1]);
    rig.run(2, route("a"));
    assert_eq!(matched(&rig.state, "a", 0).nodes.len(), 2);
}

#[test]
fn routes_added_in_a_new_life_survive_the_sweep_of_the_old() {
    let mut rig = Rig::new(2);
    rig.run(2, route("a/+"));
    rig.up(2);
    rig.run(2, route("a/+"));
    rig.run(1, Command::Sweep { clients: vec![], routes: vec!["a/+".into()] });
    assert_eq!(matched(&rig.state, "a/x", 0).nodes.as_slice(), [2]);
}

#[test]
fn the_search_for_what_is_due_sees_every_claim_of_a_dead_life() {
    let mut rig = Rig::new(2);
    for i in 0..500 {
        rig.claim(1 + i % 2, clean(&format!("c{i}")));
    }
    rig.down(1, 2);
    let (mut cursor, mut swept) = (SweepCursor::default(), 0);
    loop {
        let due = rig.state.due(rig.state.clock_ms(), &mut cursor, 16);
        if due.is_empty() {
            break;
        }
        assert!(due.clients.len() <= 16);
        swept += due.clients.len();
        rig.run(1, Command::Sweep { clients: due.clients, routes: vec![] });
    }
    assert_eq!(swept, 250);
    assert_eq!(rig.state.counts().claims, 250);
    assert_eq!((rig.state.claims_of(1), rig.state.claims_of(2)), (250, 0));
}

#[test]
fn a_node_down_of_an_earlier_leader_is_void() {
    let mut rig = Rig::new(2);
    rig.run(1, Command::NodeDown { node: 2, epoch: 1, term: TERM - 1 });
    assert!(rig.state.is_live(2, 1), "a later leader may have renewed its lease");
}

#[test]
fn a_farewell_ends_the_life_of_its_origin_alone() {
    let mut rig = Rig::new(2);
    rig.run(2, Command::Farewell);
    assert_eq!(rig.effects, [Effect::NodeDown { node: 2, epoch: 1 }]);
    assert!(rig.state.is_live(1, 1) && !rig.state.is_live(2, 1));
    rig.up(2);
    assert!(rig.state.is_live(2, 2));
}
