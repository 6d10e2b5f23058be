//! One rule.

use super::{Subject, TopicPattern};
use crate::auth::Network;
use crate::mqtt::QoS;
use crate::sharing::glob;

/// What a rule says of what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Allow,
    Deny,
}

/// A set of things that can be done with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actions(u8);

impl Actions {
    pub const PUBLISH: Self = Self(1);
    pub const SUBSCRIBE: Self = Self(2);
    /// Publish with RETAIN, besides the right to publish.
    pub const RETAIN: Self = Self(4);
    pub const ANY: Self = Self(7);
    pub(super) const NONE: Self = Self(0);

    pub(super) const NAMED: [(&'static str, Self); 3] =
        [("publish", Self::PUBLISH), ("subscribe", Self::SUBSCRIBE), ("retain", Self::RETAIN)];

    #[must_use]
    pub const fn and(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    pub(super) const fn has(self, one: Self) -> bool {
        self.0 & one.0 != 0
    }
}

/// Whom a rule is about: every condition has to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Who {
    /// A client that has proved to be a user of this name; `*` stands for any text.
    pub user: Option<Box<str>>,
    /// Of this client id; `*` stands for any text.
    pub client: Option<Box<str>>,
    pub network: Option<Network>,
    /// One that has not proved who it is.
    pub anonymous: bool,
}

impl Who {
    /// What cannot be known of the subject is taken as is worse for it.
    fn matches(&self, subject: &Subject<'_>, effect: Effect) -> bool {
        let user = self.user.as_deref().is_none_or(|user| subject.user.is_some_and(|name| glob(user, name)));
        let client = self.client.as_deref().is_none_or(|client| glob(client, subject.client_id));
        let network = self.network.is_none_or(|network| match subject.address {
            Some(address) => network.contains(address),
            None => effect == Effect::Deny,
        });
        user && client && network && !(self.anonymous && subject.user.is_some())
    }
}

/// Says who may or may not do what with which topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub effect: Effect,
    pub(super) who: Who,
    pub(super) actions: Actions,
    /// One bit per level, the lowest QoS 0; 0: whatever the QoS.
    pub(super) qos: u8,
    /// At least one.
    pub(super) topics: Box<[TopicPattern]>,
}

impl Rule {
    /// A rule for everybody.
    pub fn new(effect: Effect, actions: Actions, topics: Vec<TopicPattern>) -> Self {
        Self { effect, who: Who::default(), actions, qos: 0, topics: topics.into() }
    }

    /// The same for some levels of QoS alone; none of them: whatever the QoS.
    #[must_use]
    pub fn at_qos(mut self, levels: &[QoS]) -> Self {
        self.qos = levels.iter().fold(0, |all, level| all | 1 << *level as u8);
        self
    }

    /// Whether it has no condition on who the client is.
    pub fn is_for_everybody(&self) -> bool {
        self.who == Who::default()
    }

    /// The same for one user alone.
    #[must_use]
    pub fn for_user(mut self, user: &str) -> Self {
        self.who.user = Some(user.into());
        self
    }

    /// The same for clients that have not proved who they are.
    #[must_use]
    pub fn for_anonymous(mut self) -> Self {
        self.who.anonymous = true;
        self
    }

    /// Whether it depends on where a client comes from.
    pub fn looks_at_address(&self) -> bool {
        self.who.network.is_some()
    }

    /// `topic`: a topic name for what is published, a filter for a subscription.
    pub(super) fn matches(&self, subject: &Subject<'_>, action: Actions, qos: QoS, topic: &str) -> bool {
        if !self.actions.has(action) || (self.qos != 0 && self.qos & (1 << qos as u8) == 0) {
            return false;
        }
        // A topic name is a filter that matches itself and nothing else.
        let mut topics = self.topics.iter();
        let matches = match self.effect {
            Effect::Allow => topics.any(|pattern| pattern.covers(topic, subject)),
            Effect::Deny => topics.any(|pattern| pattern.overlaps(topic, subject)),
        };
        matches && self.who.matches(subject, self.effect)
    }
}
