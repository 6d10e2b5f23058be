//! What operators set for the whole cluster: the documents of users, rules and bans.

pub(super) mod handlers;

use serde::{Deserialize, Serialize};

use super::Answer;

/// What operators may ask of a node about users, rules and bans. Changes are in force on every
/// node when they are answered.
pub trait Settings: Send + Sync + 'static {
    /// Users in a fixed order, at most `limit` of them, that come after `cursor` (the last name of
    /// the page before).
    fn users(&self, cursor: Option<String>, limit: usize) -> Answer<'_, UserPage>;

    /// Adds a user, or replaces one. `by`: who asks, for the audit log.
    fn set_user(&self, by: String, name: String, user: UserRequest) -> Answer<'_, ()>;

    /// # Errors
    /// [`ErrorKind::NotFound`](super::ErrorKind::NotFound).
    fn remove_user(&self, by: String, name: String) -> Answer<'_, ()>;

    fn rules(&self) -> Answer<'_, RuleList>;

    /// Replaces all rules.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`](super::ErrorKind::Conflict): they are not those of the revision that
    /// the caller has read.
    fn set_rules(&self, by: String, rules: RulesRequest) -> Answer<'_, RuleList>;

    /// Bans that are in force, in a fixed order, at most `limit`, that come after `cursor`.
    fn bans(&self, cursor: Option<String>, limit: usize) -> Answer<'_, BanPage>;

    /// Keeps somebody out, and ends the connections that are there.
    fn ban(&self, by: String, kind: String, value: String, ban: BanRequest) -> Answer<'_, ()>;

    /// # Errors
    /// [`ErrorKind::NotFound`](super::ErrorKind::NotFound).
    fn lift_ban(&self, by: String, kind: String, value: String) -> Answer<'_, ()>;

    /// What the rules say of a client that would want to do something.
    fn check(&self, check: CheckRequest) -> Answer<'_, Checked>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPage {
    pub users: Vec<UserInfo>,
    /// The cursor of the next page; `None`: this was the last.
    pub next: Option<String>,
}

/// A user, without anything that is secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserInfo {
    pub name: String,
    /// How the password is kept; `None`: it has none to send.
    pub password: Option<String>,
    /// SCRAM-SHA-256 can be used.
    pub scram: bool,
}

/// Body of `PUT /api/v1/users/{name}`: the password, or what is to be kept of it. Not `Debug`: it
/// holds a secret.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// `$argon2id$…`, or `$7$…` or `$6$…` of mosquitto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<String>,
    /// `SCRAM-SHA-256$…`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scram: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleList {
    /// How often they have been replaced.
    pub revision: u64,
    /// In their order; the first that matches decides.
    pub rules: Vec<String>,
}

/// Body of `PUT /api/v1/rules`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulesRequest {
    pub rules: Vec<String>,
    /// Only if they still are of this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanPage {
    pub bans: Vec<BanInfo>,
    /// The cursor of the next page; `None`: this was the last.
    pub next: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanInfo {
    /// client, user or address.
    pub kind: String,
    pub value: String,
    pub reason: String,
    /// Seconds from now; `None`: until it is lifted.
    pub ends_in_s: Option<u64>,
}

/// Body of `PUT /api/v1/bans/{kind}/{value}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanRequest {
    #[serde(default)]
    pub reason: String,
    /// For how long, seconds; without it, until it is lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<u64>,
}

/// Body of `POST /api/v1/acl/check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckRequest {
    #[serde(default)]
    pub client_id: String,
    /// Who it has proved to be; without it, nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// publish or subscribe.
    pub action: String,
    /// A topic, or for subscribe a filter.
    pub topic: String,
    #[serde(default)]
    pub qos: u8,
    #[serde(default)]
    pub retain: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    pub allowed: bool,
    /// The rule that decided; `None`: no rule says anything of it.
    pub rule: Option<String>,
}
