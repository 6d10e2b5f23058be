//! What operators have set, in force on this node: before a change counts as applied here, no
//! client is judged by what was set before, and whom it keeps out is gone.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use super::Broker;
use crate::auth::{Banned, Directory, Network, Passwords, Principal, Rule, Rules, User, scram};
use crate::mqtt::ReasonCode;
use crate::raft::Abandoned;
use crate::session::{Conn, Ended};
use crate::state::{Change, Command, Outcome, State, Unchanged};

/// What clients are judged by.
#[derive(Debug, Default)]
pub struct Policy {
    pub rules: Rules,
    /// The cluster has users, so that clients can prove who they are.
    pub has_users: bool,
    pub looks_at_addresses: bool,
}

/// The policy of now: read with every publish, without a lock.
#[derive(Default)]
pub(super) struct Current(ArcSwap<Policy>);

impl Current {
    pub fn follow(&self, state: &State) {
        let (rules, _) = state.rules();
        let looks_at_addresses = rules.0.iter().any(Rule::looks_at_address);
        let has_users = state.user_count() > 0;
        self.0.store(Arc::new(Policy { rules: rules.clone(), has_users, looks_at_addresses }));
    }

    pub fn load(&self) -> arc_swap::Guard<Arc<Policy>> {
        self.0.load()
    }
}

/// Why an operator's change did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeFailed {
    #[error(transparent)]
    Unchanged(#[from] Unchanged),
    /// It may come about yet.
    #[error(transparent)]
    Abandoned(#[from] Abandoned),
}

impl Directory for Broker {
    fn find(&self, name: &str) -> Option<User> {
        self.state().user(name).cloned()
    }

    fn is_empty(&self) -> bool {
        !self.policy().has_users
    }
}

impl Broker {
    /// What clients are judged by at present.
    pub fn policy(&self) -> arc_swap::Guard<Arc<Policy>> {
        self.policy.load()
    }

    /// Changes what operators set. When it returns, the change is in force on every live node.
    ///
    /// # Errors
    /// See [`ChangeFailed`].
    pub async fn change_settings(self: &Arc<Self>, change: Change) -> Result<(), ChangeFailed> {
        self.change(Command::Settings(change)).await
    }

    /// Has a command of an operator applied on every live node.
    pub(super) async fn change(self: &Arc<Self>, command: Command) -> Result<(), ChangeFailed> {
        let (sender, outcome) = oneshot::channel();
        let broker = self.clone();
        let answer = move |answer| {
            // The caller may have stopped waiting.
            let _ = sender.send(answer);
        };
        self.propose(
            command,
            Box::new(move |result| {
                let applied = match result {
                    Ok(applied) => applied,
                    Err(abandoned) => return answer(Err(abandoned.into())),
                };
                if let Outcome::Unchanged(why) = applied.outcome {
                    return answer(Err(why.into()));
                }
                broker.when_applied_everywhere(applied.at.index, move |life_goes_on| {
                    answer(if life_goes_on { Ok(()) } else { Err(Abandoned.into()) });
                });
            }),
        );
        outcome.await.unwrap_or(Err(Abandoned.into()))
    }

    /// Ends the connections that a change is to end.
    pub(super) fn enforce(&self, change: &Change) {
        match change {
            Change::SetUser { name, .. } | Change::RemoveUser { name } => {
                let what = "the user was changed or removed";
                self.close_those(ReasonCode::NotAuthorized, what, |conn| is_user(conn, name));
            }
            Change::Ban { banned: Banned::Client(client), .. } => {
                if let Some(conn) = self.clients.get(client) {
                    close_banned(&conn);
                }
            }
            Change::Ban { banned: Banned::User(name), .. } => {
                self.close_those(ReasonCode::AdministrativeAction, BANNED, |conn| {
                    conn.principal().is_some_and(|principal| principal.name == *name)
                });
            }
            Change::Ban { banned: Banned::Network(network), .. } => {
                self.close_those(ReasonCode::AdministrativeAction, BANNED, |conn| is_from(conn, network));
            }
            Change::SetRules { .. } | Change::LiftBan { .. } => {}
        }
    }

    /// Whether the client, which has just been let in, has been banned or removed meanwhile: a change
    /// that came before its claim found no connection to end.
    pub(super) fn is_unwanted(&self, conn: &Conn) -> bool {
        let principal = conn.principal();
        let is_gone = |p: &Principal| p.method == Passwords::NAME && self.state().user(&p.name).is_none();
        principal.is_some_and(is_gone)
            || self.is_banned(conn, conn.client(), principal.map(|principal| &*principal.name))
    }

    /// Whether a ban keeps a client out: on where it comes from, on its id, or on the name that it
    /// gives or has proved.
    pub(super) fn is_banned(&self, conn: &Conn, client_id: &str, user: Option<&str>) -> bool {
        // A system call, which nobody has to wait for.
        let address = conn.address().map(|address| address.ip());
        self.state().is_banned(client_id, user, address)
    }

    fn close_those(&self, reason: ReasonCode, what: &str, concerns: impl Fn(&Conn) -> bool) {
        for conn in self.clients.all() {
            if concerns(&conn) {
                conn.close_saying(Ended::Server, reason, what);
            }
        }
    }
}

const BANNED: &str = "banned";

fn close_banned(conn: &Arc<Conn>) {
    conn.close_saying(Ended::Server, ReasonCode::AdministrativeAction, BANNED);
}

/// Whether the client has proved to be the user by what the cluster keeps of users.
fn is_user(conn: &Conn, name: &str) -> bool {
    conn.principal().is_some_and(|principal| {
        *principal.name == *name && [Passwords::NAME, scram::NAME].contains(&principal.method)
    })
}

fn is_from(conn: &Conn, network: &Network) -> bool {
    conn.address().is_some_and(|address| network.contains(address.ip()))
}
