//! After a stop of all nodes the replicated clock makes up for it, by their wall clocks.

use super::super::limits::{RESTART_PATIENCE_MS, WITNESS_AGE_MAX_MS};
use super::*;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
const YEAR_MS: u64 = 365 * DAY_MS;

/// What the nodes' wall clocks show beside the true time, which need not be the same.
const OFFSETS_MS: [u64; 4] = [0, 50 * YEAR_MS, 7 * DAY_MS, 50 * YEAR_MS + 3];

fn tell(rig: &mut Rig, node: NodeId, true_ms: u64) {
    tell_exactly(rig, node, true_ms + OFFSETS_MS[node as usize]);
}

fn tell_exactly(rig: &mut Rig, node: NodeId, wall_ms: u64) {
    assert_eq!(rig.run(node, Command::WallClock { wall_ms }), Outcome::Ok);
}

/// Three nodes that have said what time it is, ten seconds ago.
fn three() -> Rig {
    let mut rig = Rig::new(3);
    for node in 1..=3 {
        tell(&mut rig, node, 0);
    }
    rig.tick(10_000);
    rig
}

fn settled(rig: &Rig) -> [bool; 3] {
    [1, 2, 3].map(|node| rig.state.knows_the_time(node))
}

#[test]
fn a_stop_of_all_nodes_is_made_up_for_once_all_are_back_or_declared_down() {
    for declared_down in [false, true] {
        let mut rig = three();
        for node in [2, 1] {
            rig.up(node);
            tell(&mut rig, node, 10_000 + DAY_MS);
        }
        assert_eq!(rig.state.clock_ms(), 10_000, "node 3 may have been there all the time");
        assert_eq!(settled(&rig), [false, false, true]);
        if declared_down {
            rig.down(1, 3);
        } else {
            rig.up(3);
            assert_eq!(rig.state.clock_ms(), 10_000, "it is about to say so");
            tell(&mut rig, 3, 10_000 + DAY_MS);
        }
        assert_eq!(rig.state.clock_ms(), 10_000 + DAY_MS, "{declared_down}");
        assert_eq!(rig.effects.last(), Some(&Effect::ClockAdvanced { by_ms: DAY_MS }));
        assert_eq!(settled(&rig), [true; 3]);
        // Once, whatever they say later.
        tell(&mut rig, 1, 10_000 + 2 * DAY_MS);
        assert_eq!(rig.state.clock_ms(), 10_000 + DAY_MS);
    }
}

#[test]
fn each_stop_is_made_up_for_from_what_was_said_after_the_one_before() {
    let mut rig = three();
    let mut true_ms = 10_000;
    for stop_ms in [DAY_MS, 5_000, 3 * DAY_MS] {
        true_ms += stop_ms;
        for node in 1..=3 {
            rig.up(node);
        }
        for node in 1..=3 {
            tell(&mut rig, node, true_ms);
        }
        assert_eq!(rig.state.clock_ms(), true_ms);
        rig.tick(2_000);
        true_ms += 2_000;
    }
}

#[test]
fn what_was_ticked_since_is_not_counted_twice() {
    let mut rig = three();
    rig.up(1);
    tell(&mut rig, 1, 10_000 + DAY_MS);
    rig.tick(1_500);
    rig.up(2);
    tell(&mut rig, 2, 10_000 + DAY_MS + 1_500);
    rig.tick(500);
    rig.down(1, 3);
    assert_eq!(rig.state.clock_ms(), 10_000 + DAY_MS + 2_000);
}

/// Whatever one of three wall clocks says after the stop, and in whatever order they speak.
#[test]
fn one_wrong_wall_clock_moves_nothing() {
    let right = |node: NodeId| 10_000 + DAY_MS + OFFSETS_MS[node as usize];
    for wrong in 1..=3 {
        for says in [0, 1, 10_000, right(wrong) - 1, right(wrong) + YEAR_MS, u64::MAX] {
            for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
                let mut rig = three();
                order.iter().for_each(|node| rig.up(*node));
                for node in order {
                    let wall_ms = if node == wrong { says } else { right(node) };
                    tell_exactly(&mut rig, node, wall_ms);
                }
                let clock_ms = rig.state.clock_ms();
                assert_eq!(clock_ms, 10_000 + DAY_MS, "node {wrong} says {says}, in the order {order:?}");
            }
        }
    }
}

#[test]
fn of_two_that_disagree_the_one_that_says_less_is_believed() {
    for wrong in [1, 2] {
        let mut rig = three();
        for node in [1, 2] {
            rig.up(node);
            tell(&mut rig, node, 10_000 + DAY_MS + if node == wrong { YEAR_MS } else { 0 });
        }
        rig.down(1, 3);
        assert_eq!(rig.state.clock_ms(), 10_000 + DAY_MS);
    }
}

#[test]
fn the_clock_never_goes_back() {
    let mut rig = three();
    for node in 1..=3 {
        rig.up(node);
        tell_exactly(&mut rig, node, 0);
    }
    assert_eq!(rig.state.clock_ms(), 10_000);
    assert_eq!(settled(&rig), [true; 3]);
}

#[test]
fn who_went_on_shows_that_the_cluster_did() {
    let mut rig = three();
    rig.up(2);
    tell(&mut rig, 2, 10_000 + DAY_MS);
    assert_eq!(settled(&rig), [true, false, true], "only the new life has to wait");
    // Any pack of an earlier life that was appended after the return.
    rig.run(3, Command::Sweep { clients: vec![], routes: vec![] });
    assert_eq!(settled(&rig), [true; 3]);
    for node in [1, 3] {
        tell(&mut rig, node, 10_000 + DAY_MS);
    }
    assert_eq!(rig.state.clock_ms(), 10_000);
}

#[test]
fn what_does_not_count_shows_nothing() {
    let mut rig = three();
    let late = rig.pack(3, vec![Command::Sweep { clients: vec![], routes: vec![] }]);
    rig.down(1, 3);
    for node in [1, 2] {
        rig.up(node);
    }
    assert_eq!(rig.apply(&late), None, "of a life that is over");
    assert_eq!(settled(&rig)[..2], [false, false]);
    for node in [1, 2] {
        tell(&mut rig, node, 10_000 + DAY_MS);
    }
    assert_eq!(rig.state.clock_ms(), 10_000 + DAY_MS);
}

#[test]
fn a_rolling_restart_moves_nothing() {
    let mut rig = three();
    for node in 1..=3 {
        rig.run(node, Command::Farewell);
        rig.tick_by(node % 3 + 1, 1_000);
        rig.up(node);
        tell(&mut rig, node, DAY_MS);
        for other in (1..=3).filter(|other| *other != node) {
            tell(&mut rig, other, DAY_MS);
        }
        assert_eq!(settled(&rig), [true; 3]);
    }
    assert_eq!(rig.state.clock_ms(), 13_000);
}

#[test]
fn a_planned_stop_of_all_is_a_stop_of_all() {
    let mut rig = three();
    rig.run(3, Command::Farewell);
    rig.run(2, Command::Farewell);
    for node in [3, 1, 2] {
        rig.up(node);
        tell(&mut rig, node, 10_000 + DAY_MS);
    }
    assert_eq!(rig.state.clock_ms(), 10_000 + DAY_MS);
}

#[test]
fn a_new_node_waits_for_nobody_and_proves_nothing() {
    let mut rig = three();
    rig.up(4);
    assert!(rig.state.knows_the_time(4), "nothing was before it");
    rig.up(1);
    rig.up(5);
    rig.run(5, Command::Sweep { clients: vec![], routes: vec![] });
    assert!(!rig.state.knows_the_time(1), "a node that came later was not there before");
    assert!(!rig.state.knows_the_time(5));
}

#[test]
fn a_node_alone_believes_itself() {
    let mut rig = Rig::new(1);
    tell_exactly(&mut rig, 1, 5);
    rig.up(1);
    assert!(!rig.state.knows_the_time(1));
    tell_exactly(&mut rig, 1, 5 + DAY_MS);
    assert!(rig.state.knows_the_time(1));
    assert_eq!(rig.state.clock_ms(), DAY_MS);
}

#[test]
fn patience_has_an_end() {
    // Node 3 stays away and is not declared down either.
    let mut rig = three();
    for node in [1, 2] {
        rig.up(node);
        tell(&mut rig, node, 10_000 + DAY_MS);
    }
    rig.tick(RESTART_PATIENCE_MS - 1);
    assert_eq!(settled(&rig), [false, false, true]);
    rig.tick(1);
    assert_eq!(settled(&rig), [true; 3]);
    assert_eq!(rig.state.clock_ms(), 10_000 + RESTART_PATIENCE_MS, "without all there is no telling");

    // Node 2 says nothing, and no quorum does.
    let mut rig = three();
    rig.up(1);
    tell(&mut rig, 1, 10_000 + DAY_MS);
    rig.up(2);
    rig.down(1, 3);
    rig.tick(RESTART_PATIENCE_MS);
    assert_eq!(settled(&rig)[..2], [true; 2]);
    assert_eq!(rig.state.clock_ms(), 10_000 + RESTART_PATIENCE_MS);

    // Node 3 says nothing, but a quorum does.
    let mut rig = three();
    (1..=3).for_each(|node| rig.up(node));
    for node in [1, 2] {
        tell(&mut rig, node, 10_000 + DAY_MS);
    }
    assert_eq!(settled(&rig), [false; 3]);
    rig.tick(RESTART_PATIENCE_MS);
    assert_eq!(rig.state.clock_ms(), 10_000 + RESTART_PATIENCE_MS + DAY_MS);
}

#[test]
fn who_left_long_before_is_not_waited_for() {
    let mut rig = Rig::new(5);
    for node in 1..=5 {
        tell(&mut rig, node.min(3), 0);
    }
    for node in [4, 5] {
        tell_exactly(&mut rig, node, 0);
        rig.down(1, node);
    }
    rig.tick(WITNESS_AGE_MAX_MS + 1);
    for node in 1..=3 {
        tell(&mut rig, node, WITNESS_AGE_MAX_MS + 1);
    }
    rig.down(1, 3);
    // Two of three that were there lately; of all five they would be no quorum.
    for node in [1, 2] {
        rig.up(node);
        tell(&mut rig, node, WITNESS_AGE_MAX_MS + 1 + DAY_MS);
    }
    assert_eq!(rig.state.clock_ms(), WITNESS_AGE_MAX_MS + 1 + DAY_MS);
}

#[test]
fn a_second_return_before_it_is_known_counts_as_the_first() {
    let mut rig = three();
    rig.up(1);
    tell(&mut rig, 1, 10_000 + DAY_MS);
    rig.up(1);
    assert!(!rig.state.knows_the_time(1));
    for node in [2, 3] {
        rig.up(node);
        tell(&mut rig, node, 10_000 + 2 * DAY_MS);
    }
    tell(&mut rig, 1, 10_000 + 2 * DAY_MS);
    assert_eq!(rig.state.clock_ms(), 10_000 + 2 * DAY_MS);
}

#[test]
fn a_snapshot_in_between_changes_nothing() {
    let mut rig = three();
    for step in 0..6 {
        rig.state = State::read(&mut bytes(&rig.state).as_slice(), Arc::default()).expect("a snapshot");
        let node = step / 2 + 1;
        if step % 2 == 0 { rig.up(node) } else { tell(&mut rig, node, 10_000 + DAY_MS) }
    }
    assert_eq!(rig.state.clock_ms(), 10_000 + DAY_MS);
}

#[test]
fn what_ran_out_during_the_stop_has_run_out() {
    let mut rig = three();
    let watch = Claim { expiry_s: u32::MAX, ..persistent("watcher") };
    let (watcher, _) = rig.claim(1, watch.clone());
    rig.subscribe(1, "watcher", watcher, &[sub("#", 1)]);
    for (client, expiry_s) in [("short", 3_600), ("long", 3 * 86_400), ("never", u32::MAX)] {
        rig.claim(2, Claim { expiry_s, will: will(client, 1_800), ..persistent(client) });
    }
    let message = Message { expires_at_ms: rig.state.clock_ms() + 3_600_000, ..message("x", "old", 1) };
    rig.publish(1, message);
    for node in 1..=3 {
        rig.up(node);
    }
    for node in 1..=3 {
        tell(&mut rig, node, 10_000 + DAY_MS);
    }
    assert!(rig.claim(1, watch).1);
    let due = rig.state.due(rig.state.clock_ms(), &mut SweepCursor::default(), 9).clients;
    rig.run(1, Command::Sweep { clients: due, routes: vec![] });
    let mut fired = rig.delivered();
    fired.sort();
    assert_eq!(fired, ["long", "never", "short"], "their delays were over");
    let present = |rig: &mut Rig, client| rig.claim(1, persistent(client)).1;
    assert!(!present(&mut rig, "short"));
    assert!(present(&mut rig, "long") && present(&mut rig, "never"));
}
