//! What a client may do, by its own rules and then by those of the cluster.

use super::Broker;
use crate::audit::Refusal;
use crate::auth::{Ask, Effect, Subject};
use crate::session::{Conn, Metric};

/// What holds for a client that no rule says anything of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoMatch {
    /// It may do nothing, if it could have proved who it is: this node asks clients who they are,
    /// or the cluster has users. Else everything.
    #[default]
    Auto,
    Allow,
    Deny,
}

/// What a node's configuration says of what clients may do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Permissions {
    pub no_match: NoMatch,
    /// The configuration asks clients who they are.
    pub asks: bool,
}

impl Broker {
    /// Whether the client of this connection may do this.
    pub fn permits(&self, conn: &Conn, ask: Ask<'_>) -> bool {
        self.permits_as(conn, conn.client(), ask)
    }

    /// The same before the client id is its own.
    pub fn permits_as(&self, conn: &Conn, client_id: &str, ask: Ask<'_>) -> bool {
        let policy = self.policy();
        let principal = conn.principal();
        let own = principal.map(|principal| &principal.rules).filter(|rules| !rules.0.is_empty());
        if own.is_none() && policy.rules.0.is_empty() {
            return self.permits_unmatched(policy.has_users);
        }
        let subject = Subject {
            client_id,
            user: principal.map(|principal| &*principal.name),
            common_name: principal.and_then(|principal| principal.common_name.as_deref()),
            // A system call.
            address: if policy.looks_at_addresses { conn.address().map(|a| a.ip()) } else { None },
        };
        let own = own.and_then(|rules| rules.decide(&subject, ask));
        match own.or_else(|| policy.rules.decide(&subject, ask)) {
            Some(effect) => effect == Effect::Allow,
            None => self.permits_unmatched(policy.has_users),
        }
    }

    /// A client may not do something, and is or is not told.
    pub(super) fn note_denied(&self, conn: &Conn, ask: Ask<'_>) {
        let (event, topic, metric) = match ask {
            Ask::Publish { topic, .. } => ("publish", topic, Metric::PublishDenied),
            Ask::Subscribe { filter, .. } => ("subscribe", filter, Metric::SubscribeDenied),
        };
        conn.context().counters.increment(metric);
        self.refusals.note(|| Refusal {
            event,
            address: conn.peer(),
            client: conn.client(),
            user: conn.principal().map(|principal| &*principal.name),
            topic: Some(topic),
            reason: &"no rule allows it",
        });
    }

    /// Whether a client may do what no rule says anything of.
    pub fn permits_unmatched(&self, has_users: bool) -> bool {
        let permissions = self.wiring().map(|wiring| wiring.permissions).unwrap_or_default();
        match permissions.no_match {
            NoMatch::Allow => true,
            NoMatch::Deny => false,
            NoMatch::Auto => !self.asks_clients(has_users),
        }
    }

    /// Whether clients can prove who they are: this node asks them, or the cluster has users.
    pub(super) fn asks_clients(&self, has_users: bool) -> bool {
        has_users || self.wiring().is_some_and(|wiring| wiring.permissions.asks)
    }
}
