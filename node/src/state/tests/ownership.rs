//! Claims, releases, wills and expiry.

use super::*;

fn release(client: &str, incarnation: Incarnation, will: WillFate, expiry_s: Option<u32>) -> Command {
    Command::Release { client: client.into(), incarnation, will, expiry_s, sent: None }
}

#[test]
fn incarnations_grow_across_nodes_and_within_a_pack() {
    let mut rig = Rig::new(2);
    let (a, _) = rig.claim(1, clean("a"));
    let pack = rig.pack(2, vec![Command::Claim(clean("b")), Command::Claim(clean("a"))]);
    let outcomes = rig.apply(&pack).expect("in sequence");
    let [Outcome::Claimed { incarnation: b, .. }, Outcome::Claimed { incarnation: c, .. }] = outcomes[..]
    else {
        panic!("{outcomes:?}")
    };
    assert!(a < b && b < c);
}

#[test]
fn a_claim_takes_over_from_a_live_owner() {
    let mut rig = Rig::new(2);
    let (old, _) = rig.claim(1, clean("c"));
    let (new, present) = rig.claim(2, clean("c"));
    assert!(!present);
    let taken = Effect::TakenOver { client: "c".into(), node: 1, epoch: 1, incarnation: old };
    assert_eq!(rig.effects, [taken]);
    assert_eq!(rig.state.owner("c"), Some((2, 1, new)));
    assert_eq!(rig.release(1, "c", old, WillFate::Fire), Outcome::Stale);
    assert_eq!(rig.state.owner("c"), Some((2, 1, new)));
}

#[test]
fn a_claim_after_release_takes_over_from_nobody() {
    let mut rig = Rig::new(1);
    let (first, _) = rig.claim(1, persistent("c"));
    rig.release(1, "c", first, WillFate::Discard);
    assert_eq!(rig.state.owner("c"), None);
    let (_, present) = rig.claim(1, persistent("c"));
    assert!(present);
    assert!(rig.effects.is_empty());
}

#[test]
fn clean_start_discards_the_session() {
    let mut rig = Rig::new(1);
    let (inc, _) = rig.claim(1, persistent("c"));
    rig.subscribe(1, "c", inc, &[sub("a", 1)]);
    rig.publish(1, message("a", "1", 1));
    let (_, present) = rig.claim(1, Claim { clean_start: true, ..persistent("c") });
    assert!(!present);
    assert!(rig.stored("c").is_empty());
    assert!(!matched(&rig.state, "a", 1).must_log);
    assert_eq!(rig.state.counts().persistent_sessions, 1);
}

#[test]
fn clean_sessions_leave_nothing_behind() {
    let mut rig = Rig::new(1);
    let (inc, _) = rig.claim(1, clean("c"));
    assert_eq!(rig.state.counts().claims, 1);
    assert_eq!(rig.release(1, "c", inc, WillFate::Discard), Outcome::Ok);
    assert_eq!(rig.state.counts(), Counts::default());
    assert_eq!(rig.release(1, "c", inc, WillFate::Discard), Outcome::Stale);
}

#[test]
fn a_session_ends_when_its_expiry_is_over_even_if_nobody_swept_it() {
    let mut rig = Rig::new(1);
    let (inc, _) = rig.claim(1, persistent("c"));
    rig.release(1, "c", inc, WillFate::Discard);
    rig.tick(99_999);
    let (inc, present) = rig.claim(1, persistent("c"));
    assert!(present);
    rig.release(1, "c", inc, WillFate::Discard);
    rig.tick(100_000);
    assert_eq!(rig.state.due(rig.state.clock_ms(), &mut SweepCursor::default(), 9).clients, ["c".into()]);
    assert!(!rig.claim(1, persistent("c")).1);
}

#[test]
fn a_sweep_ends_expired_sessions_and_no_others() {
    let mut rig = Rig::new(1);
    let (inc, _) = rig.claim(1, persistent("c"));
    rig.release(1, "c", inc, WillFate::Discard);
    rig.tick(100_000);
    // A late sweep never takes a resumed session.
    let (inc, _) = rig.claim(1, Claim { expiry_s: 100, ..persistent("c") });
    rig.sweep("c");
    assert!(rig.state.owner("c").is_some());
    rig.release(1, "c", inc, WillFate::Discard);
    rig.sweep("c");
    assert_eq!(rig.state.counts().persistent_sessions, 1, "not yet");
    rig.tick(100_000);
    rig.sweep("c");
    assert_eq!(rig.state.counts(), Counts::default());
}

#[test]
fn the_largest_expiry_never_comes() {
    let mut rig = Rig::new(1);
    let (inc, _) = rig.claim(1, Claim { expiry_s: u32::MAX, ..persistent("c") });
    rig.release(1, "c", inc, WillFate::Discard);
    rig.tick(u64::MAX / 2);
    assert!(rig.state.due(rig.state.clock_ms(), &mut SweepCursor::default(), 9).is_empty());
    assert!(rig.claim(1, persistent("c")).1);
}

#[test]
fn release_may_change_the_expiry() {
    let mut rig = Rig::new(1);
    let (inc, _) = rig.claim(1, persistent("c"));
    rig.run(1, release("c", inc, WillFate::Discard, Some(7)));
    assert_eq!(rig.state.client("c").and_then(|c| c.expires_at_ms), Some(7_000));
    let (inc, _) = rig.claim(1, persistent("c"));
    rig.run(1, release("c", inc, WillFate::Discard, Some(0)));
    assert_eq!(rig.state.counts(), Counts::default(), "0 ends it at once");
}

#[test]
fn a_session_resumed_with_expiry_0_ends_with_the_connection() {
    let mut rig = Rig::new(1);
    let (inc, _) = rig.claim(1, persistent("c"));
    rig.subscribe(1, "c", inc, &[sub("a", 1)]);
    rig.release(1, "c", inc, WillFate::Discard);
    rig.publish(1, message("a", "1", 1));
    let (inc, present) = rig.claim(1, Claim { clean_start: false, ..clean("c") });
    assert!(present);
    assert_eq!(rig.payloads("c"), ["1"]);
    rig.release(1, "c", inc, WillFate::Fire);
    assert_eq!(rig.state.counts(), Counts::default());
}

// Wills.

#[test]
fn a_discarded_will_does_not_fire() {
    let mut rig = Rig::new(1);
    let (inc, _) = rig.claim(1, Claim { will: will("w", 0), ..clean("c") });
    rig.release(1, "c", inc, WillFate::Discard);
    assert!(rig.delivered().is_empty());
}

#[test]
fn a_will_without_delay_fires_on_release() {
    let mut rig = Rig::new(1);
    for claim in [clean("c"), persistent("c")] {
        let (inc, _) = rig.claim(1, Claim { will: will("w", 0), ..claim });
        rig.release(1, "c", inc, WillFate::Fire);
        assert_eq!(rig.delivered(), ["w"]);
    }
}

#[test]
fn a_will_fires_after_its_delay() {
    let mut rig = Rig::new(1);
    let (inc, _) = rig.claim(1, Claim { will: will("w", 10), ..persistent("c") });
    rig.release(1, "c", inc, WillFate::Fire);
    assert!(rig.delivered().is_empty());
    rig.tick(9_999);
    rig.sweep("c");
    assert!(rig.delivered().is_empty());
    rig.tick(1);
    assert_eq!(rig.state.due(rig.state.clock_ms(), &mut SweepCursor::default(), 9).clients, ["c".into()]);
    rig.sweep("c");
    assert_eq!(rig.delivered(), ["w"]);
    rig.sweep("c");
    assert!(rig.delivered().is_empty(), "once");
    assert!(rig.claim(1, persistent("c")).1, "the session goes on");
}

#[test]
fn a_will_fires_when_the_session_ends_before_its_delay() {
    let mut rig = Rig::new(1);
    let (inc, _) = rig.claim(1, Claim { will: will("w", 1000), ..persistent("c") });
    rig.release(1, "c", inc, WillFate::Fire);
    rig.tick(100_000);
    rig.sweep("c");
    assert_eq!(rig.delivered(), ["w"]);
    assert_eq!(rig.state.counts(), Counts::default());

    let (inc, _) = rig.claim(1, Claim { will: will("w", 1000), ..clean("c") });
    rig.release(1, "c", inc, WillFate::Fire);
    assert_eq!(rig.delivered(), ["w"], "a clean session ends with its connection");
}

#[test]
fn a_new_connection_before_the_delay_cancels_the_will() {
    let mut rig = Rig::new(1);
    let (inc, _) = rig.claim(1, Claim { will: will("w", 10), ..persistent("c") });
    rig.release(1, "c", inc, WillFate::Fire);
    rig.tick(5_000);
    let (inc, _) = rig.claim(1, persistent("c"));
    assert!(rig.delivered().is_empty());
    rig.release(1, "c", inc, WillFate::Fire);
    rig.tick(10_000);
    rig.sweep("c");
    assert!(rig.delivered().is_empty());
}

#[test]
fn a_clean_start_before_the_delay_ends_the_session_and_fires_the_will() {
    let mut rig = Rig::new(1);
    let (inc, _) = rig.claim(1, Claim { will: will("w", 10), ..persistent("c") });
    rig.release(1, "c", inc, WillFate::Fire);
    rig.claim(1, Claim { clean_start: true, ..persistent("c") });
    assert_eq!(rig.delivered(), ["w"]);
}

#[test]
fn a_claim_fires_a_will_that_is_due_but_was_not_swept() {
    let mut rig = Rig::new(1);
    let (inc, _) = rig.claim(1, Claim { will: will("w", 10), ..persistent("c") });
    rig.release(1, "c", inc, WillFate::Fire);
    rig.tick(10_000);
    assert!(rig.claim(1, persistent("c")).1);
    assert_eq!(rig.delivered(), ["w"]);
}

#[test]
fn takeover_sends_the_old_will_only_without_delay_or_when_the_session_ends() {
    for (delay_s, clean_start, fires) in
        [(0, false, true), (9, false, false), (9, true, true), (0, true, true)]
    {
        let mut rig = Rig::new(2);
        rig.claim(1, Claim { will: will("w", delay_s), ..persistent("c") });
        rig.claim(2, Claim { clean_start, ..persistent("c") });
        assert_eq!(rig.delivered().len(), usize::from(fires), "delay {delay_s}, clean start {clean_start}");
        assert!(matches!(rig.effects[0], Effect::TakenOver { node: 1, .. }));
    }
    let mut rig = Rig::new(2);
    rig.claim(1, Claim { will: will("w", 9), ..clean("c") });
    rig.claim(2, clean("c"));
    assert_eq!(rig.delivered(), ["w"], "a clean session ends with its connection");
}

#[test]
fn a_will_is_retained_queued_and_expires_like_any_publish() {
    let mut rig = Rig::new(1);
    let (inc, _) = rig.claim(1, persistent("reader"));
    rig.subscribe(1, "reader", inc, &[sub("w", 1)]);
    let will = Will { message: Arc::new(retained("w", "gone", 1)), expiry_s: Some(5), delay_s: 0 };
    let (inc, _) = rig.claim(1, Claim { will: Some(will), ..clean("c") });
    rig.tick(1_000);
    rig.release(1, "c", inc, WillFate::Fire);
    assert_eq!(rig.payloads("reader"), ["gone"]);
    assert_eq!(rig.woken(), ["reader"]);
    let kept = rig.state.retained_get("w").expect("retained");
    assert_eq!(kept.expires_at_ms, 6_000);
    rig.tick(5_000);
    assert!(rig.state.retained_get("w").is_none());
}

// Owners whose node died.

#[test]
fn a_dead_owners_will_fires_when_swept() {
    let mut rig = Rig::new(2);
    rig.claim(2, Claim { will: will("clean", 30), ..clean("a") });
    rig.claim(2, Claim { will: will("persistent", 0), ..persistent("b") });
    rig.claim(2, Claim { will: will("delayed", 30), ..persistent("c") });
    rig.claim(1, Claim { will: will("alive", 0), ..clean("d") });
    rig.down(1, 2);
    assert_eq!(rig.state.owner("b"), None, "ownerless at once");
    let mut due = rig.state.due(rig.state.clock_ms(), &mut SweepCursor::default(), 9).clients;
    due.sort();
    assert_eq!(due, ["a".into(), "b".into(), "c".into()]);
    due.push("d".into());
    rig.run(1, Command::Sweep { clients: due, routes: vec![] });
    assert_eq!(rig.delivered(), ["clean", "persistent"]);
    assert_eq!(rig.state.counts().claims, 3);
    rig.tick(30_000);
    rig.sweep("c");
    assert_eq!(rig.delivered(), ["delayed"]);
}

#[test]
fn time_runs_from_node_down_however_late_the_sweep() {
    let mut rig = Rig::new(2);
    rig.claim(2, Claim { will: will("w", 30), ..persistent("c") });
    rig.down(1, 2);
    rig.tick(40_000);
    rig.sweep("c");
    assert_eq!(rig.delivered(), ["w"]);
    assert_eq!(rig.state.client("c").and_then(|c| c.expires_at_ms), Some(100_000));
}

#[test]
fn a_claim_settles_what_a_dead_owner_left() {
    // (will delay, waited seconds, clean start) → (fires, present)
    let cases = [
        (0, 0, false, 1, true),
        (30, 10, false, 0, true),
        (30, 30, false, 1, true),
        (30, 10, true, 1, false),
        (300, 100, false, 1, false),
    ];
    for (delay_s, waited_s, clean_start, fires, present) in cases {
        let mut rig = Rig::new(2);
        rig.claim(2, Claim { will: will("w", delay_s), ..persistent("c") });
        rig.down(1, 2);
        rig.tick(waited_s * 1000);
        let claimed = rig.claim(1, Claim { clean_start, ..persistent("c") });
        assert_eq!(
            (rig.delivered().len(), claimed.1),
            (fires, present),
            "{delay_s} {waited_s} {clean_start}"
        );
        assert!(!rig.effects.iter().any(|e| matches!(e, Effect::TakenOver { .. })));
        assert!(rig.state.due(rig.state.clock_ms(), &mut SweepCursor::default(), 9).is_empty());
    }
}

#[test]
fn a_node_that_returns_does_not_own_its_old_claims() {
    let mut rig = Rig::new(2);
    let (inc, _) = rig.claim(2, persistent("c"));
    rig.up(2);
    assert_eq!(rig.state.owner("c"), None);
    let (new, present) = rig.claim(2, persistent("c"));
    assert!(present && new > inc);
    assert_eq!(rig.state.owner("c"), Some((2, 2, new)));
}

#[test]
fn clients_are_listed_page_by_page() {
    let mut rig = Rig::new(1);
    let (inc, _) = rig.claim(1, persistent("p"));
    rig.subscribe(1, "p", inc, &[sub("a", 1), sub("$share/g/b", 0)]);
    for i in 0..20 {
        rig.claim(1, clean(&format!("c{i}")));
    }
    let mut all = Vec::new();
    while let Some(page) = Some(rig.state.clients(all.last().map(|c: &ClientInfo| &*c.client), 6)) {
        if page.is_empty() {
            break;
        }
        all.extend(page);
    }
    assert_eq!(all.len(), 21);
    let p = all.iter().find(|c| &*c.client == "p").expect("listed");
    assert_eq!((p.persistent, p.subscriptions, p.owner), (true, 2, Some((1, 1))));
    let filters: Vec<_> = rig.state.subscriptions("p").into_iter().map(|s| s.filter).collect();
    assert_eq!(filters, ["$share/g/b".into(), "a".into()] as [Box<str>; 2]);
}
