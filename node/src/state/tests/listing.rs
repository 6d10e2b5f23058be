//! Retained messages are listed in bounded steps.

use super::*;
use crate::state::limits::REPLAY_VISITS_MAX;

#[test]
fn a_listing_looks_at_no_more_topics_at_a_time_than_it_may() {
    let mut rig = Rig::new(1);
    let count = 2 * REPLAY_VISITS_MAX + 1;
    for i in 0..count {
        let last = if i + 1 == count { "wanted" } else { "other" };
        rig.publish(1, retained(&format!("{i:05}/{last}"), "x", 1));
    }
    let (mut from, mut steps, mut found) = (Some(Box::<str>::default()), 0, Vec::new());
    while let Some(next) = from {
        from = rig.state.list_retained("+/wanted", &next, |message| {
            found.push(message.topic.to_string());
            true
        });
        steps += 1;
    }
    // Each topic costs a look, and perhaps another at what it makes the search jump to.
    assert!(steps >= count.div_ceil(REPLAY_VISITS_MAX), "{steps}");
    assert_eq!(found, [format!("{:05}/wanted", count - 1)]);
}

#[test]
fn what_is_not_taken_comes_first_on_the_next_page() {
    let mut rig = Rig::new(1);
    for topic in ["b", "a", "c", "$d"] {
        rig.publish(1, retained(topic, "x", 1));
    }
    let page = |filter: &str, from: &str| {
        let mut found = Vec::new();
        let next = rig.state.list_retained(filter, from, |message| {
            let has_room = found.len() < 2;
            if has_room {
                found.push(message.topic.to_string());
            }
            has_room
        });
        (found, next)
    };
    assert_eq!(page("#", ""), (vec!["a".to_owned(), "b".to_owned()], Some("c".into())));
    assert_eq!(page("#", "c"), (vec!["c".to_owned()], None));
    assert_eq!(page("$d", ""), (vec!["$d".to_owned()], None));
    assert_eq!(page("b", "c"), (Vec::new(), None));
}
