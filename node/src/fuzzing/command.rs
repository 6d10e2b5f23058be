//! Packs of the replicated log: any bytes as a pack, and any commands applied to a state.

use std::sync::Arc;

use bytes::Bytes;

use super::source::Source;
use super::topic_filter::replayed;
use crate::mqtt::QoS;
use crate::state::{Command, Frozen, NodeId, NodeInfo, Pack, PackError, PublishMatch, State, SweepCursor};

const NODES: NodeId = 3;
const COMMANDS_MAX: usize = 256;

/// Input: how the rest is meant, and a pack, or commands in their wire form one after the other.
pub fn command(input: &[u8]) {
    let mut source = Source::new(input);
    if source.bool() {
        whole_pack(source.rest());
    } else {
        commands(&mut source);
    }
}

fn whole_pack(bytes: &[u8]) {
    let Ok(pack) = Pack::decode(bytes) else { return };
    assert_eq!(Pack::decode(&pack.encode()).as_ref(), Ok(&pack));
    let mut replicas = Replicas::new();
    if replicas.both(&pack).is_ok() {
        replicas.agree();
    }
}

/// From one node after the other. An incarnation of 0 stands for the client's present one, which
/// no input could guess.
fn commands(source: &mut Source<'_>) {
    let restart_at = usize::from(source.u8());
    let mut replicas = Replicas::new();
    let mut rest = source.rest();
    for count in 0..COMMANDS_MAX {
        let Ok((mut command, after)) = postcard::take_from_bytes::<Command>(rest) else { break };
        rest = after;
        replicas.be_present(&mut command);
        let pieces = if count % 4 == 3 { in_parts(&command) } else { vec![command] };
        for piece in pieces {
            if replicas.next(count as u64 % NODES + 1, piece).is_err() {
                return;
            }
            if count == restart_at {
                replicas.restart();
            }
        }
    }
    replicas.agree();
}

fn in_parts(command: &Command) -> Vec<Command> {
    let bytes = Bytes::from(postcard::to_stdvec(command).expect("what was decoded can be encoded"));
    let half = bytes.len() / 2;
    vec![
        Command::Part { bytes: bytes.slice(..half), last: false },
        Command::Part { bytes: bytes.slice(half..), last: true },
    ]
}

/// Two states that are fed the same log, one of them restored from a snapshot on the way.
struct Replicas {
    states: [State; 2],
    index: u64,
    /// Sequence and epoch that each node's next pack has.
    next: [(u64, u64); NODES as usize],
}

impl Replicas {
    /// With all nodes up.
    fn new() -> Self {
        let mut replicas = Self { states: Default::default(), index: 0, next: Default::default() };
        for node in 1..=NODES {
            let taken = replicas.next(node, Command::NodeUp { info: NodeInfo::default() });
            assert_eq!(taken, Ok(()));
        }
        replicas
    }

    /// Applies a pack of one command, which begins a new life if the node has none.
    ///
    /// # Errors
    /// As [`Replicas::both`].
    fn next(&mut self, node: NodeId, command: Command) -> Result<(), PackError> {
        let (seq, epoch) = &mut self.next[node as usize - 1];
        let is_up = self.states[0].is_live(node, *epoch);
        let mut commands = vec![command];
        if !is_up || matches!(commands[0], Command::NodeUp { .. }) {
            (*seq, *epoch) = (0, *epoch + 1);
            if !is_up {
                commands.insert(0, Command::NodeUp { info: NodeInfo::default() });
            }
        }
        let pack = Pack { origin: node, epoch: *epoch, seq: *seq, commands };
        *seq += 1;
        assert_eq!(Pack::decode(&pack.encode()).as_ref(), Ok(&pack));
        assert!(self.both(&pack)?, "a pack in sequence is taken");
        assert!(!self.both(&pack)?, "and once only");
        Ok(())
    }

    /// Says whether the pack counted.
    ///
    /// # Errors
    /// It had the last part of what is no command, and the states are of no use any more.
    fn both(&mut self, pack: &Pack) -> Result<bool, PackError> {
        self.index += 1;
        let [a, b] = &mut self.states;
        let (mut effects, mut others) = (Vec::new(), Vec::new());
        let outcomes = a.apply(self.index, 1, pack, &mut effects);
        assert_eq!(b.apply(self.index, 1, pack, &mut others), outcomes);
        assert_eq!(effects, others);
        let outcomes = outcomes?;
        if let Some(outcomes) = &outcomes {
            assert_eq!(outcomes.len(), pack.commands.len());
        }
        Ok(outcomes.is_some())
    }

    fn be_present(&self, command: &mut Command) {
        let present = |client: &Arc<str>| self.states[0].client(client).map_or(0, |info| info.incarnation);
        match command {
            Command::Release { client, incarnation: of @ 0, .. }
            | Command::Subscribe { client, incarnation: of @ 0, .. }
            | Command::Unsubscribe { client, incarnation: of @ 0, .. }
            | Command::Forget { client, incarnation: of @ 0, .. }
            | Command::Replay { client, incarnation: of @ 0 }
            | Command::Progress { client, incarnation: of @ 0, .. } => *of = present(client),
            Command::Publish { message, exactly_once: Some((of @ 0, _)), .. } => {
                *of = present(&Arc::from(&*message.publisher));
            }
            _ => {}
        }
    }

    fn restart(&mut self) {
        let bytes = written(&self.states[1].freeze());
        self.states[1] = State::read(&mut &bytes[..], Arc::default()).expect("what was written can be read");
    }

    /// Both hold the same, and answer every question without harm.
    fn agree(mut self) {
        let [a, b] = &self.states;
        let bytes = written(&a.freeze());
        assert!(bytes == written(&b.freeze()), "the replicas differ");
        assert_eq!(a.counts(), b.counts());
        for state in &self.states {
            query(state);
        }
        self.restart();
        assert!(bytes == written(&self.states[1].freeze()), "a restored state is another one");
    }
}

fn written(frozen: &Frozen) -> Vec<u8> {
    let mut bytes = Vec::new();
    frozen.write(&mut bytes).expect("memory takes it");
    bytes
}

fn query(state: &State) {
    let clients = state.clients(None, usize::MAX);
    for info in &clients {
        let page = state.stored(&info.client, info.incarnation, 0, usize::MAX);
        assert!(page.items.len() + page.expired.len() <= info.queued);
        assert!(page.items.iter().all(|stored| stored.qos > QoS::AtMostOnce));
        assert_eq!(state.subscriptions(&info.client).len(), info.subscriptions);
        assert_eq!(state.owner(&info.client).map(|owner| (owner.0, owner.1)), info.owner);
        let mut found = PublishMatch::default();
        state.match_publish(&info.client, &info.client, QoS::AtLeastOnce, &mut found);
        for subscription in state.subscriptions(&info.client) {
            replayed(state, &subscription.filter);
            state.match_publish(&subscription.filter, "", QoS::AtMostOnce, &mut found);
            assert!(found.shared.iter().all(|shared| !shared.nodes.is_empty()));
        }
    }
    let due = state.due(state.clock_ms(), &mut SweepCursor::default(), usize::MAX);
    assert!(due.clients.len() <= clients.len() * 2);
}
