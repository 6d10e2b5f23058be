//! Shared subscriptions on this node: which node gets a message that does not go through the log,
//! which member here, and what becomes of it when none can take it, or the one that had it is
//! lost.

use std::sync::Arc;

use smallvec::SmallVec;

use super::Broker;
use super::deliver::Fanout;
use super::local::Subscriber;
use crate::mqtt::{Message, Publication, QoS, SubOptions};
use crate::peer::forward::{Frame, Share};
use crate::session::{self, Conn, Metric, Unacknowledged};
use crate::sharing::{Slot, Strategy, choose, key_of, key_of_node};
use crate::state::limits::{HANDED_OUT_MAX, MOVES_MAX};
use crate::state::{Command, NodeId};

/// Shared subscriptions with waiting messages that are looked at in one go.
const DRAWN_AT_ONCE: usize = 256;
/// Waiting messages that are asked for a member that gets them at QoS 0, at a time.
const DRAWN_AT_QOS_0: u32 = 64;

/// What became of a message for a shared subscription's members on this node.
enum Taken {
    Yes,
    /// Nobody here could; why the first that was asked could not.
    No(Option<(Arc<Conn>, Metric)>),
}

impl Broker {
    fn strategy_of(&self, filter: &str) -> Strategy {
        self.wiring().map_or_else(Strategy::default, |wiring| wiring.sharing.strategy_of(filter))
    }

    /// The node whose members get a message of a client of this one: each with as many chances as
    /// it has members. At QoS 1 and 2 one that can be reached, if there is one.
    pub(super) fn choose_node(
        &self,
        filter: &str,
        nodes: &[(NodeId, u32)],
        publication: &Publication<'_>,
    ) -> Option<NodeId> {
        if let [(only, _)] = nodes {
            return Some(*only);
        }
        let wiring = self.wiring()?;
        let strategy = self.strategy_of(filter);
        if strategy == Strategy::Local && nodes.iter().any(|(node, _)| *node == wiring.me) {
            return Some(wiring.me);
        }
        let slots: SmallVec<[Slot; 8]> = nodes
            .iter()
            .map(|(node, members)| Slot { key: key_of_node(*node), weight: (*members).max(1) })
            .collect();
        let key = strategy.key(filter, publication);
        let mut memory = self.node_turns.of(filter);
        let unlogged = publication.qos == QoS::AtMostOnce;
        let reachable = |at: usize| {
            let node = nodes[at].0;
            unlogged || node == wiring.me || wiring.forwarder.is_up(node)
        };
        let at = choose(strategy, &slots, key, &mut memory, reachable);
        at.or_else(|| choose(strategy, &slots, key, &mut memory, |_| true)).map(|at| nodes[at].0)
    }

    /// Delivers to one member of a shared subscription on this node, or passes the message on;
    /// whether anybody is to have it.
    pub(super) fn deliver_shared(&self, share: Share<'_>, publication: &Publication<'_>) -> bool {
        match self.deliver_to_member(share, publication, None) {
            Taken::Yes => true,
            Taken::No(why) => self.pass_on(share, publication, why),
        }
    }

    /// Delivers to one member of a shared subscription on this node: the one chosen, or where that
    /// cannot take it another. Members are the clean sessions here and, where it comes to QoS 0,
    /// the persistent ones that are online. `except`: a connection that has refused it.
    fn deliver_to_member(
        &self,
        share: Share<'_>,
        publication: &Publication<'_>,
        except: Option<u64>,
    ) -> Taken {
        let online = self.online_at_qos_0(share.filter, publication.qos);
        let fanout = Fanout::new(self, publication);
        let mut unable: SmallVec<[u64; 4]> = except.into_iter().collect();
        let mut why = None;
        while let Some((member, group)) = self.choose_member(share.filter, &online, &unable, publication) {
            let share = group.map(|group| session::Share { group, moves: share.moves });
            match fanout.offer(&member, share) {
                Ok(_) => return Taken::Yes,
                Err(Metric::DroppedExpired) => {
                    member.conn.context().counters.increment(Metric::DroppedExpired);
                    return Taken::Yes;
                }
                Err(metric) => {
                    unable.push(member.conn.id());
                    why.get_or_insert((member.conn, metric));
                }
            }
        }
        Taken::No(why)
    }

    /// The member here that is to have the message, and the group's number if it is a clean one.
    /// Where any will do, one that can be sent it at once is preferred.
    fn choose_member(
        &self,
        filter: &str,
        online: &[Subscriber],
        unable: &[u64],
        publication: &Publication<'_>,
    ) -> Option<(Subscriber, Option<u32>)> {
        let strategy = self.strategy_of(filter);
        let key = strategy.key(filter, publication);
        let local = self.local.read();
        let members = local.members(filter);
        let (clean, slots, group) =
            members.map_or((&[][..], &[][..], 0), |m| (m.subscribers, m.slots, m.group));
        let all: SmallVec<[Slot; 8]>;
        let slots = if online.is_empty() {
            slots
        } else {
            let more = online.iter().map(|s| Slot { key: key_of(s.conn.client()), weight: 1 });
            all = slots.iter().copied().chain(more).collect();
            &all
        };
        let member = |at: usize| clean.get(at).unwrap_or_else(|| &online[at - clean.len()]);
        let is_able = |at: usize| !unable.contains(&member(at).conn.id());
        let has_room = |at: usize| {
            let member = member(at);
            member.conn.room(member.options.qos.min(publication.qos)) > 0
        };
        let mut memory = self.member_turns.of(filter);
        let free = if strategy.is_affine() {
            None
        } else {
            choose(strategy, slots, key, &mut memory, |at| is_able(at) && has_room(at))
        };
        let at = free.or_else(|| choose(strategy, slots, key, &mut memory, is_able))?;
        Some((member(at).clone(), (at < clean.len()).then_some(group)))
    }

    /// The persistent members that are online here and get a message of `qos` at QoS 0.
    fn online_at_qos_0(&self, filter: &str, qos: QoS) -> SmallVec<[Subscriber; 4]> {
        let me = self.wiring().map_or(0, |wiring| wiring.me);
        let mut found: SmallVec<[(Arc<str>, u32, bool); 4]> = SmallVec::new();
        self.state().online_shared_qos0(filter, me, qos, |client, id, retain_as_published| {
            found.push((client.clone(), id, retain_as_published));
        });
        let subscriber = |(client, id, retain_as_published): (Arc<str>, u32, bool)| {
            let options = SubOptions { qos: QoS::AtMostOnce, retain_as_published, ..SubOptions::default() };
            Some(Subscriber { conn: self.clients.get(&client)?, options, id })
        };
        found.into_iter().filter_map(subscriber).collect()
    }

    /// Nobody here can take it. With persistent members in the group it waits in the log for the
    /// first that can; otherwise the next node may try. Whether anybody is to have it.
    pub(super) fn pass_on(
        &self,
        share: Share<'_>,
        publication: &Publication<'_>,
        why: Option<(Arc<Conn>, Metric)>,
    ) -> bool {
        let Share { filter, moves, hops } = share;
        let Some(wiring) = self.wiring() else { return false };
        let (durable, nodes) = {
            let state = self.state();
            (state.is_shared_durably(filter), state.shared_nodes(filter, publication.qos))
        };
        if durable && publication.qos > QoS::AtMostOnce {
            let message = publication.to_message();
            self.propose_quietly(Command::Redeliver { filter: filter.into(), message, moves });
            return true;
        }
        // Round the ring of nodes, so that each is asked once.
        let others: SmallVec<[NodeId; 8]> = nodes.into_iter().filter(|node| *node != wiring.me).collect();
        let next = others.iter().find(|node| **node > wiring.me).or(others.first());
        if let Some(node) = next.filter(|_| usize::from(hops) < others.len()) {
            let share = Share { hops: hops + 1, ..share };
            let frame = Frame { publication: *publication, barrier: 0, share: Some(share) };
            // With an end to be told of, it is carried as reliably as any QoS 1.
            let done = (publication.qos > QoS::AtMostOnce).then(|| Box::new(|_| {}) as _);
            if wiring.forwarder.send(*node, 0, frame, done).is_ok() {
                return true;
            }
        }
        if let Some((conn, metric)) = why {
            conn.context().counters.increment(metric);
        }
        false
    }

    /// What a lost member of shared subscriptions had not acknowledged, with their filters: at
    /// QoS 2 only what it was not sent [MQTT-4.8.2-4, MQTT-4.8.2-5].
    pub(super) fn unacknowledged_shared(&self, conn: &Conn) -> Vec<(Box<str>, Arc<Message>)> {
        let movable = |lost: &Unacknowledged| lost.qos == QoS::AtLeastOnce || !lost.sent;
        let lost = conn.take_unacknowledged().into_iter().filter(movable);
        let local = self.local.read();
        lost.filter_map(|lost| Some((local.group_filter(lost.share.group)?, lost.message))).collect()
    }

    /// Gives what a lost member had to another one, here or elsewhere.
    pub(super) fn reassign(&self, filter: &str, message: &Arc<Message>) {
        self.deliver_shared(Share::new(filter), &message.borrow());
    }

    /// A clean member refused a delivery: another one gets it, where that is asked for. Otherwise
    /// it is discarded [MQTT-4.8.2-6].
    pub(super) fn refused_from(&self, conn: &Arc<Conn>, refused: &Unacknowledged) {
        let moves = refused.share.moves.saturating_add(1);
        if moves > MOVES_MAX || !self.wiring().is_some_and(|wiring| wiring.sharing.redeliver_refused) {
            return;
        }
        let Some(filter) = self.local.read().group_filter(refused.share.group) else { return };
        let (share, publication) = (Share { moves, ..Share::new(&filter) }, refused.message.borrow());
        if let Taken::No(why) = self.deliver_to_member(share, &publication, Some(conn.id())) {
            self.pass_on(share, &publication, why);
        }
    }

    /// Asks for messages that wait in shared subscriptions with members here that have room.
    pub(super) fn draw_waiting(self: &Arc<Self>) {
        if !self.may_acknowledge() {
            return;
        }
        let waiting = self.state().waiting_shared(DRAWN_AT_ONCE);
        for (filter, _) in waiting {
            let max = self.room_of(&filter).min(HANDED_OUT_MAX as u32);
            if max == 0 || !self.drawing.lock().insert(filter.clone()) {
                continue;
            }
            let broker = self.clone();
            let command = Command::Draw { filter: (&*filter).into(), max };
            self.propose(
                command,
                Box::new(move |_| {
                    broker.drawing.lock().remove(&filter);
                }),
            );
        }
    }

    /// How many messages the members here have room for.
    fn room_of(&self, filter: &str) -> u32 {
        let online = self.online_at_qos_0(filter, QoS::ExactlyOnce);
        let at_qos_0 = online.iter().filter(|member| member.conn.room(QoS::AtMostOnce) > 0).count();
        let local = self.local.read();
        let clean = local.members(filter).map_or(&[][..], |members| members.subscribers);
        let clean = clean.iter().map(|member| match member.options.qos {
            QoS::AtMostOnce => member.conn.room(QoS::AtMostOnce) * DRAWN_AT_QOS_0,
            qos => member.conn.room(qos),
        });
        let clean = clean.fold(0, u32::saturating_add);
        clean.saturating_add((at_qos_0 as u32).saturating_mul(DRAWN_AT_QOS_0))
    }
}
