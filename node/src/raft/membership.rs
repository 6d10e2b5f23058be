//! Who votes: the rules by which the leader changes membership. Without I/O.

use super::status::{FollowerStatus, Status};
use crate::state::NodeId;

/// A learner that lacks at most so many entries has caught up.
pub const CAUGHT_UP_ENTRIES: u64 = 256;
/// A node that has answered within this time is alive, milliseconds.
pub const ALIVE_MS: u64 = 1_000;

/// The learners to promote together now; empty: none.
///
/// The number of voters stays odd, because an even one survives no more failures than the odd
/// one below it and needs one answer more: a single voter waits for two learners and takes both,
/// so a cluster of two nodes is one voter and one learner (a loss of the learner then harms
/// nobody; with two voters the loss of either would stop the cluster). An even number, as after
/// a removal, takes one.
pub fn to_promote(status: &Status, target: usize) -> Vec<NodeId> {
    let voters = status.voters.len();
    if !status.is_leader() || status.changing || voters >= target {
        return Vec::new();
    }
    let mut ready: Vec<NodeId> = status
        .followers
        .iter()
        .filter(|f| !status.is_voter(f.node) && status.is_member(f.node) && caught_up(f))
        .map(|f| f.node)
        .collect();
    ready.sort_unstable();
    let wanted = if voters % 2 == 1 { 2 } else { 1 };
    if ready.len() < wanted || voters + wanted > target {
        return Vec::new();
    }
    ready.truncate(wanted);
    ready
}

/// Why a node cannot be removed, or the learner that takes its vote (if it had one and there is
/// a learner that has caught up).
///
/// # Errors
/// The voters that stay and are alive would be no quorum.
pub fn check_removal(status: &Status, node: NodeId) -> Result<Option<NodeId>, String> {
    if !status.is_voter(node) {
        return Ok(None);
    }
    let heir = status
        .followers
        .iter()
        .find(|f| f.node != node && !status.is_voter(f.node) && status.is_member(f.node) && caught_up(f))
        .map(|f| f.node);
    let staying: Vec<NodeId> =
        status.voters.iter().map(|m| m.node).filter(|n| *n != node).chain(heir).collect();
    if staying.is_empty() {
        return Err("it is the last voter; a cluster cannot be left by its last voter".to_owned());
    }
    let living = staying
        .iter()
        .filter(|n| **n == status.node || status.followers.iter().any(|f| f.node == **n && alive(f)))
        .count();
    let quorum = staying.len() / 2 + 1;
    if living < quorum {
        return Err(format!(
            "of the {} voters that would stay only {living} answer, {quorum} are needed for a quorum; bring back the others first",
            staying.len()
        ));
    }
    Ok(heir)
}

/// The voter that can best take over from this leader.
pub fn successor(status: &Status) -> Option<NodeId> {
    status
        .followers
        .iter()
        .filter(|f| status.is_voter(f.node) && alive(f))
        .min_by_key(|f| (f.lag, f.node))
        .map(|f| f.node)
}

fn alive(follower: &FollowerStatus) -> bool {
    follower.answered_ms_ago.is_some_and(|ms| ms <= ALIVE_MS)
}

fn caught_up(follower: &FollowerStatus) -> bool {
    alive(follower) && follower.matched.is_some() && follower.lag <= CAUGHT_UP_ENTRIES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_voter_waits_for_two_learners() {
        assert!(to_promote(&Status::led_by_1(&[1], &[2], &[(2, 0, 1)]), 3).is_empty());
        assert_eq!(to_promote(&Status::led_by_1(&[1], &[2, 3], &[(2, 0, 1), (3, 9, 1)]), 3), [2, 3]);
        assert!(to_promote(&Status::led_by_1(&[1], &[2, 3], &[(2, 0, 1), (3, 9999, 1)]), 3).is_empty());
        assert!(to_promote(&Status::led_by_1(&[1], &[2, 3], &[(2, 0, 1), (3, 0, 5000)]), 3).is_empty());
    }

    #[test]
    fn the_number_of_voters_becomes_odd_and_stays_within_the_target() {
        assert_eq!(
            to_promote(&Status::led_by_1(&[1, 2], &[3, 4], &[(2, 0, 1), (3, 0, 1), (4, 0, 1)]), 3),
            [3]
        );
        assert!(to_promote(&Status::led_by_1(&[1, 2, 3], &[4, 5], &[(4, 0, 1), (5, 0, 1)]), 3).is_empty());
        assert_eq!(to_promote(&Status::led_by_1(&[1, 2, 3], &[4, 5], &[(4, 0, 1), (5, 0, 1)]), 5), [4, 5]);
        assert!(to_promote(&Status::led_by_1(&[1, 2, 3], &[4], &[(4, 0, 1)]), 5).is_empty());
    }

    #[test]
    fn removal_keeps_a_quorum() {
        let all = [(2, 0, 1), (3, 0, 1)];
        assert_eq!(check_removal(&Status::led_by_1(&[1, 2, 3], &[], &all), 3), Ok(None));
        assert_eq!(
            check_removal(&Status::led_by_1(&[1, 2, 3], &[], &[(2, 0, 1), (3, 0, 9000)]), 3),
            Ok(None)
        );
        assert!(check_removal(&Status::led_by_1(&[1, 2, 3], &[], &[(2, 0, 1), (3, 0, 9000)]), 2).is_err());
        assert!(check_removal(&Status::led_by_1(&[1], &[], &[]), 1).is_err());
        assert_eq!(check_removal(&Status::led_by_1(&[1], &[2], &[(2, 0, 9000)]), 2), Ok(None), "a learner");
    }

    #[test]
    fn a_learner_inherits_the_vote() {
        let followers = [(2, 0, 1), (3, 0, 9000), (4, 3, 1)];
        assert_eq!(check_removal(&Status::led_by_1(&[1, 2, 3], &[4], &followers), 3), Ok(Some(4)));
    }

    #[test]
    fn the_most_advanced_living_voter_succeeds() {
        let followers = [(2, 5, 1), (3, 0, 9000), (4, 0, 1), (5, 1, 1)];
        assert_eq!(successor(&Status::led_by_1(&[1, 2, 3, 5], &[4], &followers)), Some(5));
        assert_eq!(successor(&Status::led_by_1(&[1], &[4], &followers)), None);
    }
}
