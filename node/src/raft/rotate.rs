//! Replacing what the members prove themselves by: the leader's part.
//!
//! Three rounds, each of which all members have to end before the next begins: believe the new
//! authority as well; use it; forget the old one. So any two members accept each other at every moment.
//! What a round has done is on each member's disk, and what there is to do next is read off them: a
//! rotation that lost its leader in the middle harms nobody, and whoever leads next goes on with it.
//! A leader that was replaced without knowing it is held off by the promise that members give to the
//! term that asks first.

use std::collections::BTreeMap;
use std::time::Duration;

use rookery_proto::consensus as pb;
use rookery_proto::consensus::keys_client::KeysClient;
use tracing::{info, warn};

use super::node::{ChangeError, Node};
use super::wire::{GROUP, WIRE_VERSION};
use crate::peer::{Authority, Fingerprint, Keyring, Member, PeerChannel, Standing, Step, rotation};
use crate::state::NodeId;

/// For a member to say what it believes.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);
/// For a member to take a step, all its connections renewed.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);
/// Attempts at one step: the connection that it is asked over may be renewed at that moment.
const ATTEMPTS: usize = 5;
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What a member said.
struct Looked {
    standing: Standing,
    target: Option<Authority>,
}

impl Node {
    /// What each member believes and uses; `None`: it does not answer.
    pub async fn standings(&self) -> Vec<(Member, Option<Standing>)> {
        let members: Vec<Member> = self.status().members().cloned().collect();
        let asked = members.into_iter().map(|member| async move {
            let standing = self.look(member.node, 0).await.ok().map(|looked| looked.standing);
            (member, standing)
        });
        futures::future::join_all(asked).await
    }

    /// Replaces the authority `from`, or ends a rotation that was begun before. If `from` has been
    /// replaced already, nothing is done.
    pub(super) async fn rotate(&self, from: Fingerprint, force: bool) -> Result<(), ChangeError> {
        // Whoever joined now would learn too little.
        let _no_joins = self.lock_membership().await;
        let status = self.leading()?;
        let term = status.term;
        let keyring = self.channels().identity().keyring.clone();
        keyring.promise_soon(term).await.map_err(|e| ChangeError::Refused(e.to_string()))?;
        let mut rotation = Rotation { node: self, keyring, term, force, behind: BTreeMap::new() };

        let looked = rotation.look_at_all().await?;
        let Some(target) = rotation.target(&looked, from)? else { return Ok(()) };
        let new = target.fingerprint();
        info!(ca = %new, "replacing the cluster's CA");
        let mut told: Vec<NodeId> = Vec::new();
        loop {
            let members = rotation.others();
            let untold: Vec<Member> = members.into_iter().filter(|m| !told.contains(&m.node)).collect();
            told.extend(untold.iter().map(|member| member.node));
            rotation.step(Step::Trust(target.clone()), untold).await?;
            // Whoever joined through another leader meanwhile is among the members by now; and
            // nobody joins from now on, because members refuse it while they believe two.
            self.quorum_round().await?;
            if rotation.others().iter().all(|member| told.contains(&member.node)) {
                break;
            }
        }
        for step in [Step::Use(new), Step::KeepOnly(new)] {
            rotation.step(step, rotation.others()).await?;
        }
        info!(ca = %new, "the cluster's CA is replaced");
        Ok(())
    }

    async fn look(&self, node: NodeId, term: u64) -> Result<Looked, String> {
        if node == self.id() {
            let keyring = &self.channels().identity().keyring;
            return Ok(Looked { standing: keyring.standing(), target: keyring.target() });
        }
        let request = pb::KeysLook { wire: WIRE_VERSION, group: GROUP, term };
        let mut client = self.keys_client(node)?;
        let answer = match tokio::time::timeout(LOOK_TIMEOUT, client.look(request)).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return Err(status.message().to_owned()),
            Err(_) => return Err("it does not answer".to_owned()),
        };
        let standing = rotation::standing_in(&answer).ok_or("its answer makes no sense")?;
        Ok(Looked { standing, target: Authority::decode(&answer.target) })
    }

    fn keys_client(&self, node: NodeId) -> Result<KeysClient<PeerChannel>, String> {
        let channel = self.channels().consensus(node).ok_or("its address is not known")?;
        Ok(KeysClient::new(channel))
    }
}

struct Rotation<'a> {
    node: &'a Node,
    keyring: Keyring,
    term: u64,
    /// Members that do not answer are left behind.
    force: bool,
    /// Those, and why.
    behind: BTreeMap<NodeId, String>,
}

impl Rotation<'_> {
    /// The members beside this one that are not left behind.
    fn others(&self) -> Vec<Member> {
        let status = self.node.status();
        let there = |m: &&Member| m.node != self.node.id() && !self.behind.contains_key(&m.node);
        status.members().filter(there).cloned().collect()
    }

    /// What all say, this node first.
    async fn look_at_all(&mut self) -> Result<Vec<Looked>, ChangeError> {
        let own = Looked { standing: self.keyring.standing(), target: self.keyring.target() };
        let others = self.others();
        let asked = others.iter().map(|member| self.node.look(member.node, self.term));
        let mut looked = vec![own];
        let answers = futures::future::join_all(asked).await;
        for (member, answer) in others.iter().zip(answers) {
            match answer {
                Ok(standing) => looked.push(standing),
                Err(why) if self.force => self.leave_behind(member, why),
                Err(why) => {
                    return Err(ChangeError::Refused(format!(
                        "{} does not answer ({why}) and would be left behind: start it, or forget it if it \
                         does not come back; nothing was changed",
                        member.name
                    )));
                }
            }
        }
        Ok(looked)
    }

    fn leave_behind(&mut self, member: &Member, why: String) {
        warn!("{} is left behind while the cluster's CA is replaced: {why}", member.name);
        self.behind.insert(member.node, why);
    }

    /// What the rotation is to end with; `None`: it is over already.
    fn target(&self, looked: &[Looked], from: Fingerprint) -> Result<Option<Authority>, ChangeError> {
        match unfinished(looked.iter().map(|l| l.standing)) {
            Some(wanted) => {
                let own = self.keyring.authority(wanted);
                let known = looked.iter().filter_map(|l| l.target.clone());
                let found = own.or_else(|| known.into_iter().find(|target| target.fingerprint() == wanted));
                let lost = || ChangeError::Refused(format!("no member that answers has the CA {wanted}"));
                found.map(Some).ok_or_else(lost)
            }
            None if self.keyring.standing().current != from => Ok(None),
            None => Authority::generate(self.keyring.cluster())
                .map(Some)
                .map_err(|e| ChangeError::Refused(e.to_string())),
        }
    }

    /// Has `others` take a step, and this node after them.
    async fn step(&mut self, step: Step, others: Vec<Member>) -> Result<(), ChangeError> {
        let asked = others.iter().map(|member| self.ask(member.node, &step));
        let answers = futures::future::join_all(asked).await;
        for (member, answer) in others.iter().zip(answers) {
            match answer {
                Ok(()) => {}
                Err(why) if self.force => self.leave_behind(member, why),
                Err(why) => return Err(unfinished_by(&member.name, &why)),
            }
        }
        let own = self.keyring.carry_out(step, self.term).await;
        own.map_err(|e| unfinished_by("the leader", &e.to_string()))
    }

    async fn ask(&self, node: NodeId, step: &Step) -> Result<(), String> {
        let request = pb::KeysStep {
            wire: WIRE_VERSION,
            group: GROUP,
            term: self.term,
            step: Some(rotation::step_out(step)),
        };
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            let mut client = self.node.keys_client(node)?;
            match tokio::time::timeout(STEP_TIMEOUT, client.step(request.clone())).await {
                Ok(Ok(_)) => return Ok(()),
                // It has heard and refuses.
                Ok(Err(status)) if status.code() == tonic::Code::FailedPrecondition => {
                    return Err(status.message().to_owned());
                }
                Ok(Err(status)) => last = status.message().to_owned(),
                Err(_) => last = "it does not answer".to_owned(),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        Err(last)
    }
}

fn unfinished_by(name: &str, why: &str) -> ChangeError {
    ChangeError::Unfinished(format!(
        "{name} did not take part ({why}). The cluster works with both CAs meanwhile; ask again to go on"
    ))
}

/// With which authority a rotation that was begun before is to end.
fn unfinished(standings: impl Iterator<Item = Standing> + Clone) -> Option<Fingerprint> {
    // What is used by one must be used by all; what is only believed may be given up, and of several
    // any will do, unless it is in use somewhere.
    let used = standings.clone().find(|s| s.old.is_some()).map(|s| s.current);
    let believed = || {
        let nexts = standings.clone().filter_map(|s| s.next);
        nexts.max_by_key(|next| (standings.clone().any(|s| s.current == *next), *next))
    };
    used.or_else(believed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f(byte: u8) -> Fingerprint {
        Fingerprint([byte; 32])
    }

    #[test]
    fn what_was_begun_is_told_from_what_the_members_believe() {
        let stable = |current| Standing { current: f(current), next: None, old: None };
        let trusts = |current, next| Standing { next: Some(f(next)), ..stable(current) };
        let uses = |current, old| Standing { old: Some(f(old)), ..stable(current) };
        let ends_with = |standings: &[Standing]| unfinished(standings.iter().copied()).map(|f| f.0[0]);
        assert_eq!(ends_with(&[stable(1), stable(1)]), None);
        assert_eq!(ends_with(&[stable(1), trusts(1, 2), stable(1)]), Some(2), "the first round");
        assert_eq!(ends_with(&[trusts(1, 2), uses(2, 1)]), Some(2), "the second");
        assert_eq!(ends_with(&[uses(2, 1), stable(2)]), Some(2), "the third");
        assert_eq!(ends_with(&[trusts(1, 2), trusts(1, 3)]), Some(3), "begun twice, used by nobody");
        assert_eq!(ends_with(&[trusts(1, 3), trusts(1, 2), uses(2, 1)]), Some(2), "used by one");
        assert_eq!(ends_with(&[trusts(1, 3), stable(2), trusts(1, 2)]), Some(2), "one was left behind");
    }
}
