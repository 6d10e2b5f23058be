//! Rules that come with the proof of who a client is: in a claim of its token, or in the answer of
//! an HTTP callback. Pure.

use serde::Deserialize;
use serde_json::Value;

use super::{Actions, Effect, Rule, RuleError, Rules, TopicPattern};
use crate::mqtt::QoS;

/// Most rules that a client may bring.
pub const RULES_MAX: usize = 256;

/// A rule as EMQX writes it. What is not known here might be a condition, so it is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    permission: Permission,
    action: Action,
    topic: String,
    #[serde(default)]
    qos: Vec<u8>,
    retain: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Permission {
    Allow,
    Deny,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Publish,
    Subscribe,
    All,
}

/// What may be done and nothing else, as EMQX wrote it before.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    #[serde(default, rename = "pub")]
    publish: Vec<String>,
    #[serde(default, rename = "sub")]
    subscribe: Vec<String>,
    #[serde(default)]
    all: Vec<String>,
}

/// Reads rules in one of these forms:
///
/// - a list of lines such as `"allow subscribe user/%c/#"`, without conditions on the client;
/// - a list of objects such as `{"permission": "allow", "action": "publish", "topic": "a/#"}`, with
///   `qos` (a list) and `retain` if need be; the two may be mixed;
/// - `{"pub": ["a"], "sub": ["b/#"], "all": []}`: this and nothing else.
///
/// # Errors
/// It is none of these, or has more than [`RULES_MAX`] rules. Nothing of it counts then.
pub fn read_acl(acl: &Value) -> Result<Rules, RuleError> {
    let rules: Vec<Rule> = match acl {
        Value::Array(items) if items.len() <= RULES_MAX => {
            items.iter().map(rule).collect::<Result<_, _>>()?
        }
        Value::Object(_) => lists(&Lists::deserialize(acl).map_err(unreadable)?)?,
        Value::Array(items) => return Err(too_many(items.len())),
        _ => return Err(RuleError("rules are a list or an object with pub, sub and all".to_owned())),
    };
    Ok(Rules(rules.into()))
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err wants it")]
fn unreadable(error: serde_json::Error) -> RuleError {
    RuleError(error.to_string())
}

fn too_many(count: usize) -> RuleError {
    RuleError(format!("{count} rules; {RULES_MAX} are the most"))
}

fn rule(item: &Value) -> Result<Rule, RuleError> {
    if let Value::String(line) = item {
        let rule: Rule = line.parse()?;
        if !rule.is_for_everybody() {
            return Err(RuleError(format!("{line:?} has a condition, but it is about this client alone")));
        }
        return Ok(rule);
    }
    if !item.is_object() {
        return Err(RuleError("a rule is a line or an object".to_owned()));
    }
    let entry = Entry::deserialize(item).map_err(unreadable)?;
    let effect = match entry.permission {
        Permission::Allow => Effect::Allow,
        Permission::Deny => Effect::Deny,
    };
    let publish = match (entry.permission, entry.retain) {
        (Permission::Allow, None) => Actions::PUBLISH.and(Actions::RETAIN),
        (Permission::Allow, Some(false)) | (Permission::Deny, None) => Actions::PUBLISH,
        // What else may be published stays as it was.
        (Permission::Deny, Some(true)) => Actions::RETAIN,
        (Permission::Allow, Some(true)) | (Permission::Deny, Some(false)) => {
            return Err(RuleError("a rule cannot be about messages with or without RETAIN alone".to_owned()));
        }
    };
    let actions = match entry.action {
        Action::Publish => publish,
        Action::Subscribe => Actions::SUBSCRIBE,
        Action::All => publish.and(Actions::SUBSCRIBE),
    };
    let level =
        |level: &u8| QoS::from_u8(*level).ok_or_else(|| RuleError(format!("there is no QoS {level}")));
    let levels = entry.qos.iter().map(level).collect::<Result<Vec<_>, _>>()?;
    Ok(Rule::new(effect, actions, vec![topic(&entry.topic)?]).at_qos(&levels))
}

fn lists(lists: &Lists) -> Result<Vec<Rule>, RuleError> {
    let count = lists.publish.len() + lists.subscribe.len() + lists.all.len();
    if count > RULES_MAX {
        return Err(too_many(count));
    }
    let publish = Actions::PUBLISH.and(Actions::RETAIN);
    let mut rules = Vec::new();
    for (list, actions) in
        [(&lists.publish, publish), (&lists.subscribe, Actions::SUBSCRIBE), (&lists.all, Actions::ANY)]
    {
        if !list.is_empty() {
            let topics = list.iter().map(|text| topic(text)).collect::<Result<_, _>>()?;
            rules.push(Rule::new(Effect::Allow, actions, topics));
        }
    }
    // A subscription is denied for a part of what it asks for, so this has to leave out what is allowed.
    rules.push(Rule::new(Effect::Deny, Actions::ANY, vec!["#".parse()?]));
    Ok(rules)
}

fn topic(text: &str) -> Result<TopicPattern, RuleError> {
    // To EMQX the filter itself, not what it matches.
    if text.starts_with("eq ") {
        return Err(RuleError(format!("{text:?}: \"eq\" is not supported")));
    }
    text.parse()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::{Ask, Subject};

    fn lines(acl: &Value) -> Vec<String> {
        read_acl(acl).expect("rules").0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_same_rules_in_every_form() {
        for (acl, rules) in [
            (json!([]), vec![]),
            (
                json!(["allow publish,subscribe a/%c/#", "deny any qos=2 b"]),
                vec!["allow publish,subscribe a/%c/#", "deny any qos=2 b"],
            ),
            (
                json!([{"permission": "allow", "action": "publish", "topic": "t/${clientid}"}]),
                vec!["allow publish,retain t/${clientid}"],
            ),
            (
                json!([{"permission": "allow", "action": "publish", "topic": "a b", "retain": false}]),
                vec!["allow publish \"a b\""],
            ),
            (
                json!([{"permission": "allow", "action": "all", "topic": "t", "qos": [1, 0]}]),
                vec!["allow any qos=0,1 t"],
            ),
            (
                json!([{"permission": "deny", "action": "subscribe", "topic": "#"}, "allow any a"]),
                vec!["deny subscribe #", "allow any a"],
            ),
            (
                json!([{"permission": "deny", "action": "all", "topic": "t"}]),
                vec!["deny publish,subscribe t"],
            ),
            (
                json!([{"permission": "deny", "action": "publish", "topic": "t", "retain": true}]),
                vec!["deny retain t"],
            ),
            (
                json!({"pub": ["a", "b/%u"], "sub": ["c/#"], "all": ["d"]}),
                vec!["allow publish,retain a b/%u", "allow subscribe c/#", "allow any d", "deny any #"],
            ),
            (json!({}), vec!["deny any #"]),
        ] {
            assert_eq!(lines(&acl), rules, "{acl}");
        }
    }

    #[test]
    fn lists_allow_what_they_say_and_nothing_else() {
        let rules = read_acl(&json!({"sub": ["a/+"], "pub": ["x"]})).expect("rules");
        let subject = Subject::default();
        for (filter, decided) in
            [("a/b", Effect::Allow), ("a/+", Effect::Allow), ("a/#", Effect::Deny), ("x", Effect::Deny)]
        {
            let ask = Ask::Subscribe { filter, qos: QoS::AtMostOnce };
            assert_eq!(rules.decide(&subject, ask), Some(decided), "{filter}");
        }
    }

    #[test]
    fn whatever_is_not_understood_is_refused() {
        let many = vec!["allow any a"; RULES_MAX + 1];
        for acl in [
            json!(null),
            json!("allow any #"),
            json!(7),
            json!([7]),
            json!([["allow any #"]]),
            json!([["allow", "publish", "a", [], null]]),
            json!(["allow any a/#/b"]),
            json!(["allow user ann any #"]),
            json!(["allow anonymous any #"]),
            json!([{"permission": "allow", "action": "publish"}]),
            json!([{"permission": "Allow", "action": "publish", "topic": "a"}]),
            json!([{"permission": "allow", "action": "write", "topic": "a"}]),
            json!([{"permission": "allow", "action": "all", "topic": "a", "ipaddr": "10.0.0.0/8"}]),
            json!([{"permission": "allow", "action": "all", "topic": "a", "qos": [3]}]),
            json!([{"permission": "allow", "action": "all", "topic": "a", "qos": 1}]),
            json!([{"permission": "allow", "action": "all", "topic": "eq a/#"}]),
            json!([{"permission": "deny", "action": "publish", "topic": "a", "retain": false}]),
            json!([{"permission": "allow", "action": "all", "topic": "a/${zone}"}]),
            json!({"pub": "a"}),
            json!({"pub": ["a"], "allow": ["b"]}),
            json!({"all": ["$share/g/a"]}),
            json!({"all": many}),
            json!(many),
        ] {
            assert!(read_acl(&acl).is_err(), "{acl}");
        }
        read_acl(&json!(many[1..])).expect("as many as there may be");
    }
}
