//! What operators set for the whole cluster: users, rules and bans.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::cow::CowMap;
use super::limits::{BANS_LIFTED_PER_TICK, BANS_MAX, RULES_MAX, USERS_MAX};
use crate::auth::{Banned, Network, Rules, User};

/// How long somebody is kept out, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    pub reason: Box<str>,
    /// By the replicated clock, milliseconds; `None`: until it is lifted.
    pub until_ms: Option<u64>,
}

/// One change of what operators set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Adds a user, or replaces what is kept of one.
    SetUser {
        name: Arc<str>,
        user: User,
    },
    RemoveUser {
        name: Arc<str>,
    },
    /// Replaces all rules; only if they are those of revision `expected`, when it names one.
    SetRules {
        rules: Rules,
        expected: Option<u64>,
    },
    /// `for_ms`: `None`: until it is lifted.
    Ban {
        banned: Banned,
        reason: Box<str>,
        for_ms: Option<u64>,
    },
    LiftBan {
        banned: Banned,
    },
}

/// Why a [`Change`] changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unchanged {
    #[error("there is none")]
    NotFound,
    #[error("the rules have been changed meanwhile; read them again")]
    Conflict,
    #[error("there are as many as there can be")]
    Full,
}

/// Users, rules and bans.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    users: CowMap<User>,
    rules: Rules,
    /// Of the rules: how often they have been replaced.
    revision: u64,
    bans: CowMap<Ban>,
    /// When bans end, of those that do.
    ends: BTreeSet<(u64, Arc<str>)>,
    /// Lengths of the prefixes of banned networks, with how many have each.
    prefixes: Vec<(Prefix, usize)>,
}

type Prefix = (bool, u8);

fn prefix(network: &Network) -> Prefix {
    (network.is_ipv4(), network.prefix_bits())
}

/// The key of a ban.
fn key(banned: &Banned) -> String {
    banned.to_string()
}

/// The reverse of [`key`].
fn banned(key: &str) -> Option<Banned> {
    Banned::try_from(key.to_owned()).ok()
}

impl Settings {
    /// Whether anything is otherwise than before.
    pub(super) fn change(&mut self, change: &Change, clock_ms: u64) -> Result<bool, Unchanged> {
        match change {
            Change::SetUser { name, user } => match self.users.get(name) {
                Some(before) if before == user => return Ok(false),
                None if self.users.len() >= USERS_MAX => return Err(Unchanged::Full),
                _ => drop(self.users.insert(Arc::clone(name), user.clone())),
            },
            Change::RemoveUser { name } => {
                self.users.remove(name).ok_or(Unchanged::NotFound)?;
            }
            Change::SetRules { rules, expected } => {
                if expected.is_some_and(|expected| expected != self.revision) {
                    return Err(Unchanged::Conflict);
                }
                if rules.0.len() > RULES_MAX {
                    return Err(Unchanged::Full);
                }
                self.set_rules(rules.clone(), self.revision + 1);
            }
            Change::Ban { banned, reason, for_ms } => {
                if self.bans.len() >= BANS_MAX && self.bans.get(&key(banned)).is_none() {
                    return Err(Unchanged::Full);
                }
                let until_ms = for_ms.map(|for_ms| clock_ms.saturating_add(for_ms));
                self.ban(banned, Ban { reason: reason.clone(), until_ms });
            }
            Change::LiftBan { banned } => {
                if !self.lift(&key(banned)) {
                    return Err(Unchanged::NotFound);
                }
            }
        }
        Ok(true)
    }

    pub(super) fn set_user(&mut self, name: Arc<str>, user: User) {
        self.users.insert(name, user);
    }

    pub(super) fn set_rules(&mut self, rules: Rules, revision: u64) {
        (self.rules, self.revision) = (rules, revision);
    }

    pub(super) fn ban(&mut self, banned: &Banned, ban: Ban) {
        let key: Arc<str> = key(banned).into();
        self.lift(&key);
        if let Some(until_ms) = ban.until_ms {
            self.ends.insert((until_ms, Arc::clone(&key)));
        }
        if let Banned::Network(network) = banned {
            let prefix = prefix(network);
            match self.prefixes.iter_mut().find(|(known, _)| *known == prefix) {
                Some((_, count)) => *count += 1,
                None => self.prefixes.push((prefix, 1)),
            }
        }
        self.bans.insert(key, ban);
    }

    fn lift(&mut self, key: &str) -> bool {
        let Some(ban) = self.bans.remove(key) else { return false };
        if let Some(until_ms) = ban.until_ms {
            self.ends.remove(&(until_ms, key.into()));
        }
        if let Some(Banned::Network(network)) = banned(key) {
            let prefix = prefix(&network);
            self.prefixes.iter_mut().filter(|(known, _)| *known == prefix).for_each(|(_, count)| *count -= 1);
            self.prefixes.retain(|(_, count)| *count > 0);
        }
        true
    }

    /// Forgets bans that are over, a bounded number of them; the others do not count any more.
    pub(super) fn expire(&mut self, clock_ms: u64) {
        for _ in 0..BANS_LIFTED_PER_TICK {
            match self.ends.first() {
                Some((until_ms, key)) if *until_ms <= clock_ms => {
                    let key = Arc::clone(key);
                    self.lift(&key);
                }
                _ => return,
            }
        }
    }

    pub(super) fn users(&self) -> &CowMap<User> {
        &self.users
    }

    pub(super) fn rules(&self) -> (&Rules, u64) {
        (&self.rules, self.revision)
    }

    /// Up to `limit` bans that follow `after`.
    pub(super) fn ban_page(&self, after: Option<&Banned>, limit: usize) -> Vec<(Banned, Ban)> {
        let after = after.map(key);
        let page = self.bans.page(after.as_deref(), limit).into_iter();
        page.filter_map(|(key, ban)| Some((banned(key)?, ban.clone()))).collect()
    }

    fn is_in_force(&self, banned: &Banned, clock_ms: u64) -> bool {
        self.bans.get(&key(banned)).is_some_and(|ban| ban.until_ms.is_none_or(|until_ms| until_ms > clock_ms))
    }

    /// Whether a ban on any network that it is of keeps an address out.
    pub(super) fn is_address_banned(&self, address: IpAddr, clock_ms: u64) -> bool {
        let address = address.to_canonical();
        let lengths = self.prefixes.iter().filter(|((is_ipv4, _), _)| *is_ipv4 == address.is_ipv4());
        let mut networks = lengths.filter_map(|((_, length), _)| Network::of(address, *length));
        networks.any(|network| self.is_in_force(&Banned::Network(network), clock_ms))
    }

    /// Whether a ban keeps out who has this id, this name or this address.
    pub(super) fn is_banned(
        &self,
        client: &str,
        user: Option<&str>,
        address: Option<IpAddr>,
        clock_ms: u64,
    ) -> bool {
        self.bans.len() > 0
            && (self.is_in_force(&Banned::Client(client.into()), clock_ms)
                || user.is_some_and(|user| self.is_in_force(&Banned::User(user.into()), clock_ms))
                || address.is_some_and(|address| self.is_address_banned(address, clock_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Effect;

    fn network(text: &str) -> Banned {
        Banned::parse("address", text).expect("a network")
    }

    fn ban(settings: &mut Settings, banned: Banned, for_ms: Option<u64>, clock_ms: u64) {
        let change = Change::Ban { banned, reason: "because".into(), for_ms };
        assert_eq!(settings.change(&change, clock_ms), Ok(true));
    }

    #[test]
    fn bans_end_when_they_are_over_or_lifted() {
        let mut settings = Settings::default();
        let client = Banned::Client("a b".into());
        ban(&mut settings, client.clone(), Some(100), 1_000);
        ban(&mut settings, Banned::User("u".into()), None, 1_000);
        let is_banned = |settings: &Settings, clock_ms| settings.is_banned("a b", None, None, clock_ms);
        assert!(is_banned(&settings, 1_099));
        assert!(!is_banned(&settings, 1_100), "even before it is forgotten");
        assert!(!settings.is_banned("x", Some("a b"), None, 1_000));
        assert!(settings.is_banned("x", Some("u"), None, 1_000));
        ban(&mut settings, client.clone(), Some(1_000), 1_050);
        settings.expire(1_100);
        assert!(is_banned(&settings, 1_100), "the later word counts");
        settings.expire(2_050);
        assert_eq!(settings.bans.len(), 1);
        let lift = Change::LiftBan { banned: Banned::User("u".into()) };
        assert_eq!(settings.change(&lift, 0), Ok(true));
        assert_eq!(settings.change(&lift, 0), Err(Unchanged::NotFound));
    }

    #[test]
    fn an_address_is_banned_by_any_network_that_it_is_of() {
        let mut settings = Settings::default();
        for text in ["10.1.0.0/16", "10.2.3.4", "2001:db8::/32"] {
            ban(&mut settings, network(text), None, 0);
        }
        let is_banned =
            |settings: &Settings, text: &str| settings.is_address_banned(text.parse().unwrap(), 5);
        for (address, banned) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.3.4", true),
            ("10.2.3.5", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(is_banned(&settings, address), banned, "{address}");
        }
        settings.change(&Change::LiftBan { banned: network("10.1.0.0/16") }, 0).unwrap();
        assert!(!is_banned(&settings, "10.1.2.3") && is_banned(&settings, "10.2.3.4"));
        assert_eq!(settings.prefixes.len(), 2);
    }

    #[test]
    fn a_user_that_is_set_as_it_was_is_no_change() {
        let mut settings = Settings::default();
        let set = |scram: &str| {
            let user = User { scram: Some(scram.into()), ..User::default() };
            Change::SetUser { name: "ann".into(), user }
        };
        for (scram, changes) in [("a", true), ("a", false), ("b", true)] {
            assert_eq!(settings.change(&set(scram), 0), Ok(changes), "{scram}");
        }
    }

    #[test]
    fn rules_are_replaced_as_they_were_read() {
        let mut settings = Settings::default();
        let rules = Rules(Arc::new(["allow any #".parse().unwrap()]));
        let set = |expected| Change::SetRules { rules: rules.clone(), expected };
        assert_eq!(settings.change(&set(Some(1)), 0), Err(Unchanged::Conflict));
        assert_eq!(settings.change(&set(Some(0)), 0), Ok(true));
        assert_eq!(settings.change(&set(Some(0)), 0), Err(Unchanged::Conflict));
        assert_eq!(settings.change(&set(None), 0), Ok(true));
        let (rules, revision) = settings.rules();
        assert_eq!((rules.0[0].effect, revision), (Effect::Allow, 2));
    }
}
