//! Users, rules and bans, as operators set them.

use std::sync::Arc;

use super::node::Node;
use crate::admin::settings::{
    BanInfo, BanPage, BanRequest, CheckRequest, Checked, RuleList, RulesRequest, Settings, UserInfo,
    UserPage, UserRequest,
};
use crate::admin::{Answer, ControlError, ErrorKind};
use crate::audit;
use crate::auth::scram::{ITERATIONS_DEFAULT, SALT_BYTES as SCRAM_SALT_BYTES, Verifier};
use crate::auth::{Ask, Banned, Effect, PasswordHash, Rule, Rules, SALT_BYTES, Subject, User, prepare};
use crate::broker::ChangeFailed;
use crate::env;
use crate::mqtt::{QoS, topic};
use crate::state::{Change, Unchanged};

/// Longest name of a user, and longest client id and reason of a ban, bytes.
const NAME_MAX_BYTES: usize = 1_024;
/// Longest password: what fits a CONNECT, bytes.
const PASSWORD_MAX_BYTES: usize = 65_535;

fn invalid(what: impl Into<String>) -> ControlError {
    ControlError::new(ErrorKind::Invalid, what)
}

impl From<ChangeFailed> for ControlError {
    fn from(failed: ChangeFailed) -> Self {
        let kind = match &failed {
            ChangeFailed::Unchanged(Unchanged::NotFound) => ErrorKind::NotFound,
            ChangeFailed::Unchanged(Unchanged::Conflict | Unchanged::Full) => ErrorKind::Conflict,
            ChangeFailed::Abandoned(_) => ErrorKind::Unavailable,
        };
        Self::new(kind, failed.to_string())
    }
}

fn name_of(name: &str) -> Result<Arc<str>, ControlError> {
    let name = prepare(name).map_err(|error| invalid(format!("the user name {error}")))?;
    if name.len() > NAME_MAX_BYTES {
        return Err(invalid(format!("a user name has at most {NAME_MAX_BYTES} bytes")));
    }
    Ok(name.into())
}

/// What is kept of a user. Slow, if it brings a password.
fn user_of(request: UserRequest, before: Option<&User>) -> Result<User, ControlError> {
    let scram = request.scram.map(|text| {
        let verifier: Verifier = text.parse().map_err(|error| invalid(format!("scram: {error}")))?;
        Ok::<_, ControlError>(verifier.to_string().into())
    });
    let scram = scram.transpose()?;
    match (request.password, request.password_hash) {
        (Some(_), Some(_)) => Err(invalid("either password or password_hash, not both")),
        (None, None) if scram.is_none() => Err(invalid("needs password, password_hash or scram")),
        (None, hash) => {
            let hash =
                hash.map(|text| text.parse().map_err(|error| invalid(format!("password_hash {error}"))));
            Ok(User { password: hash.transpose()?, scram })
        }
        (Some(password), None) => {
            if password.is_empty() || password.len() > PASSWORD_MAX_BYTES {
                return Err(invalid(format!("a password has 1 to {PASSWORD_MAX_BYTES} bytes")));
            }
            // Set again, it changes nothing, and nobody who is connected has to go.
            let same = before.filter(|user| {
                user.password.as_ref().is_some_and(|hash| hash.verifies(password.as_bytes()))
                    && (scram.is_none() || user.scram == scram)
            });
            if let Some(same) = same {
                return Ok(same.clone());
            }
            derive(&password, scram)
        }
    }
}

fn derive(password: &str, scram: Option<Box<str>>) -> Result<User, ControlError> {
    let mut salts = [0; SALT_BYTES + SCRAM_SALT_BYTES];
    aws_lc_rs::rand::fill(&mut salts)
        .map_err(|_| ControlError::new(ErrorKind::Internal, "the system gives no random numbers"))?;
    let (salt, scram_salt) = salts.split_at(SALT_BYTES);
    let salt = salt.try_into().unwrap_or(&[0; SALT_BYTES]);
    let iterations = std::num::NonZeroU32::new(ITERATIONS_DEFAULT).unwrap_or(std::num::NonZeroU32::MIN);
    // A password that SASLprep does not allow can still be sent as it is.
    let derived = || Verifier::derive(password, scram_salt, iterations).ok();
    let scram = scram.or_else(|| derived().map(|verifier| verifier.to_string().into()));
    Ok(User { password: Some(PasswordHash::derive(password.as_bytes(), salt)), scram })
}

fn rules_of(lines: &[String]) -> Result<Rules, ControlError> {
    let rules: Result<Vec<Rule>, _> = lines
        .iter()
        .zip(1..)
        .map(|(line, number)| line.parse().map_err(|error| invalid(format!("rule {number}: {error}"))))
        .collect();
    Ok(Rules(rules?.into()))
}

fn banned_of(kind: &str, value: &str) -> Result<Banned, ControlError> {
    if value.len() > NAME_MAX_BYTES {
        return Err(invalid(format!("what is banned has at most {NAME_MAX_BYTES} bytes")));
    }
    Banned::parse(kind, value).map_err(invalid)
}

impl Node {
    /// Changes what operators set, and says so in the audit log.
    async fn change(&self, by: &str, action: &'static str, change: Change) -> Result<(), ControlError> {
        let shown = change.clone();
        let result = match self.of_cluster() {
            Ok(member) => member.broker.change_settings(change).await.map_err(ControlError::from),
            Err(error) => Err(error),
        };
        audit::operator(by, action, &shown, result.as_ref().map(|_| ()).map_err(|e| e as _));
        result
    }

    fn rule_list(&self) -> Result<RuleList, ControlError> {
        let member = self.of_cluster()?;
        let state = member.broker.state();
        let (rules, revision) = state.rules();
        Ok(RuleList { revision, rules: rules.0.iter().map(ToString::to_string).collect() })
    }
}

impl Settings for Arc<Node> {
    fn users(&self, cursor: Option<String>, limit: usize) -> Answer<'_, UserPage> {
        Box::pin(async move {
            let member = self.of_cluster()?;
            let page = member.broker.state().users(cursor.as_deref(), limit);
            let next = (page.len() == limit).then(|| page.last().map(|(name, _)| name.to_string())).flatten();
            let shown = |(name, user): (Arc<str>, User)| UserInfo {
                name: name.to_string(),
                password: user.password.map(|hash| hash.scheme().to_owned()),
                scram: user.scram.is_some(),
            };
            Ok(UserPage { users: page.into_iter().map(shown).collect(), next })
        })
    }

    fn set_user(&self, by: String, name: String, user: UserRequest) -> Answer<'_, ()> {
        Box::pin(async move {
            let name = name_of(&name)?;
            let before = self.of_cluster()?.broker.state().user(&name).cloned();
            let user = env::blocking(move || user_of(user, before.as_ref())).await?;
            self.change(&by, "user_set", Change::SetUser { name, user }).await
        })
    }

    fn remove_user(&self, by: String, name: String) -> Answer<'_, ()> {
        Box::pin(async move {
            let name = name_of(&name)?;
            self.change(&by, "user_removed", Change::RemoveUser { name }).await
        })
    }

    fn rules(&self) -> Answer<'_, RuleList> {
        Box::pin(async move { self.rule_list() })
    }

    fn set_rules(&self, by: String, rules: RulesRequest) -> Answer<'_, RuleList> {
        Box::pin(async move {
            let change = Change::SetRules { rules: rules_of(&rules.rules)?, expected: rules.revision };
            self.change(&by, "rules_set", change).await?;
            self.rule_list()
        })
    }

    fn bans(&self, cursor: Option<String>, limit: usize) -> Answer<'_, BanPage> {
        Box::pin(async move {
            let after = cursor.map(Banned::try_from).transpose().map_err(invalid)?;
            let member = self.of_cluster()?;
            let state = member.broker.state();
            let page = state.bans(after.as_ref(), limit);
            let next =
                (page.len() == limit).then(|| page.last().map(|(banned, _)| banned.to_string())).flatten();
            let clock_ms = state.clock_ms();
            let in_force = page.into_iter().filter(|(_, ban)| ban.until_ms.is_none_or(|ms| ms > clock_ms));
            let bans = in_force.map(|(banned, ban)| BanInfo {
                kind: banned.kind().to_owned(),
                value: banned.value(),
                reason: ban.reason.into(),
                ends_in_s: ban.until_ms.map(|until_ms| (until_ms - clock_ms).div_ceil(1_000)),
            });
            Ok(BanPage { bans: bans.collect(), next })
        })
    }

    fn ban(&self, by: String, kind: String, value: String, ban: BanRequest) -> Answer<'_, ()> {
        Box::pin(async move {
            let banned = banned_of(&kind, &value)?;
            if ban.reason.len() > NAME_MAX_BYTES {
                return Err(invalid(format!("a reason has at most {NAME_MAX_BYTES} bytes")));
            }
            let for_ms = ban.for_s.map(|for_s| for_s.saturating_mul(1_000));
            self.change(&by, "ban_set", Change::Ban { banned, reason: ban.reason.into(), for_ms }).await
        })
    }

    fn lift_ban(&self, by: String, kind: String, value: String) -> Answer<'_, ()> {
        Box::pin(async move {
            let banned = banned_of(&kind, &value)?;
            self.change(&by, "ban_lifted", Change::LiftBan { banned }).await
        })
    }

    fn check(&self, check: CheckRequest) -> Answer<'_, Checked> {
        Box::pin(async move {
            let levels_max = usize::from(self.config().limits.topic_levels);
            let qos = QoS::from_u8(check.qos).ok_or_else(|| invalid("qos is 0, 1 or 2"))?;
            let wrong = |error: topic::TopicError| invalid(format!("topic: {error}"));
            let ask = match &*check.action {
                "publish" => {
                    topic::valid_name(&check.topic, levels_max).map_err(wrong)?;
                    Ask::Publish { topic: &check.topic, qos, retain: check.retain }
                }
                "subscribe" => {
                    topic::valid_filter(&check.topic, levels_max).map_err(wrong)?;
                    Ask::Subscribe { filter: &check.topic, qos }
                }
                other => return Err(invalid(format!("action is publish or subscribe, not {other:?}"))),
            };
            let address = check.address.as_deref().map(str::parse).transpose();
            let subject = Subject {
                client_id: &check.client_id,
                user: check.user.as_deref(),
                common_name: check.common_name.as_deref(),
                address: address.map_err(|_| invalid("address is no IP address"))?,
            };
            let member = self.of_cluster()?;
            let policy = member.broker.policy();
            let decided = policy.rules.deciding(&subject, ask);
            Ok(match decided {
                Some(rule) => Checked { allowed: rule.effect == Effect::Allow, rule: Some(rule.to_string()) },
                None => Checked { allowed: member.broker.permits_unmatched(policy.has_users), rule: None },
            })
        })
    }
}
