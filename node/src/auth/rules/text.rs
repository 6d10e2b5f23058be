//! Rules as people write them: one line each, which is also how they are stored.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::rule::Who;
use super::{Actions, Effect, Rule, TopicPattern};

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RuleError(pub String);

/// Every level.
const ALL_QOS: u8 = 7;

const FORM: &str = "allow|deny [user NAME] [client ID] [address NETWORK] [anonymous] \
                    publish|subscribe|retain|any[,…] [qos=0,1,2] TOPIC…";

/// The words of a line: apart by blanks; in double quotes, blanks belong to the word, and `\"` and
/// `\\` stand for a quote and a backslash.
///
/// # Errors
/// A quote is not closed.
pub fn split_words(line: &str) -> Result<Vec<String>, RuleError> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let Some(first) = chars.peek() else { return Ok(words) };
        let mut word = String::new();
        if *first != '"' {
            while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
                word.push(c);
            }
            words.push(word);
            continue;
        }
        chars.next();
        loop {
            match chars.next() {
                None => return Err(RuleError(format!("a quote is not closed in {line:?}"))),
                Some('"') => break,
                Some('\\') => word.extend(chars.next()),
                Some(c) => word.push(c),
            }
        }
        words.push(word);
    }
}

struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(word) = self;
        if !word.is_empty() && !word.starts_with('"') && !word.contains(char::is_whitespace) {
            return f.write_str(word);
        }
        f.write_str("\"")?;
        for c in word.chars() {
            if matches!(c, '"' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        f.write_str("\"")
    }
}

fn actions(word: &str) -> Option<Actions> {
    if word == "any" {
        return Some(Actions::ANY);
    }
    word.split(',').try_fold(Actions::NONE, |all, name| {
        Actions::NAMED.iter().find(|(known, _)| *known == name).map(|(_, action)| all.and(*action))
    })
}

fn qos(list: &str) -> Option<u8> {
    list.split(',').try_fold(0, |all, level| match level {
        "0" => Some(all | 1),
        "1" => Some(all | 2),
        "2" => Some(all | 4),
        _ => None,
    })
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(line: &str) -> Result<Self, RuleError> {
        Self::from_words(&split_words(line)?)
    }
}

impl Rule {
    /// A rule of the words of its line, without their quotes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_words(words: &[String]) -> Result<Self, RuleError> {
        let wrong = |what: String| RuleError(format!("{what} in {:?}; a rule is {FORM}", words.join(" ")));
        let mut words = words.iter().map(String::as_str).peekable();
        let effect = match words.next() {
            Some("allow") => Effect::Allow,
            Some("deny") => Effect::Deny,
            other => {
                return Err(wrong(format!("neither allow nor deny but {:?}", other.unwrap_or_default())));
            }
        };
        let mut who = Who::default();
        let actions = loop {
            let Some(word) = words.next() else { return Err(wrong("no action".to_owned())) };
            if let Some(actions) = actions(word) {
                break actions;
            }
            if word == "anonymous" {
                who.anonymous = true;
                continue;
            }
            let value = words.next().ok_or_else(|| wrong(format!("nothing after {word:?}")))?;
            let twice = match word {
                "user" => who.user.replace(value.into()).is_some(),
                "client" => who.client.replace(value.into()).is_some(),
                "address" => {
                    let network = value.parse().map_err(wrong)?;
                    who.network.replace(network).is_some()
                }
                _ => return Err(wrong(format!("{word:?} is neither a condition nor an action"))),
            };
            if twice {
                return Err(wrong(format!("{word:?} twice")));
            }
        };
        if who.anonymous && who.user.is_some() {
            return Err(wrong("a user who is anonymous".to_owned()));
        }
        let mut levels = 0;
        if let Some(list) = words.peek().and_then(|word| word.strip_prefix("qos=")) {
            levels = qos(list).ok_or_else(|| wrong(format!("{list:?} is no list of QoS levels")))?;
            if levels == ALL_QOS {
                levels = 0;
            }
            words.next();
        }
        let topics: Box<[TopicPattern]> = words.map(str::parse).collect::<Result<_, _>>()?;
        if topics.is_empty() {
            return Err(wrong("no topic".to_owned()));
        }
        Ok(Self { effect, who, actions, qos: levels, topics })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.effect {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
        })?;
        if let Some(user) = &self.who.user {
            write!(f, " user {}", Word(user))?;
        }
        if let Some(client) = &self.who.client {
            write!(f, " client {}", Word(client))?;
        }
        if let Some(network) = self.who.network {
            write!(f, " address {network}")?;
        }
        if self.who.anonymous {
            f.write_str(" anonymous")?;
        }
        if self.actions == Actions::ANY {
            f.write_str(" any")?;
        } else {
            let named = Actions::NAMED.iter().filter(|(_, action)| self.actions.has(*action));
            for (index, (name, _)) in named.enumerate() {
                write!(f, "{}{name}", if index == 0 { " " } else { "," })?;
            }
        }
        // A topic must not be taken for the levels.
        let hides = self.qos == 0 && self.topics.first().is_some_and(|t| t.to_string().starts_with("qos="));
        let qos = if hides { ALL_QOS } else { self.qos };
        let levels = (0..3).filter(|level| qos & (1 << level) != 0);
        for (index, level) in levels.enumerate() {
            write!(f, "{}{level}", if index == 0 { " qos=" } else { "," })?;
        }
        self.topics.iter().try_for_each(|topic| write!(f, " {}", Word(&topic.to_string())))
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_written_as_it_was_read() {
        for line in [
            "allow user alice publish,subscribe home/alice/#",
            "allow subscribe user/%c/inbox",
            "deny client \"old *\" any #",
            "allow address 10.0.0.0/8 publish qos=0 telemetry/+ other",
            "deny anonymous publish,retain qos=1,2 \"with blank\"",
            "allow user \"a \\\"b\\\\\" any x",
            "allow user \"\" any x",
        ] {
            let rule: Rule = line.parse().expect("a rule");
            assert_eq!(rule.to_string(), line);
            assert_eq!(postcard::from_bytes::<Rule>(&postcard::to_stdvec(&rule).unwrap()), Ok(rule));
        }
    }

    #[test]
    fn a_topic_is_not_taken_for_levels() {
        let rule: Rule = "allow any qos=0,1,2 qos=1 x".parse().unwrap();
        assert_eq!(rule.to_string(), "allow any qos=0,1,2 qos=1 x");
        assert_eq!("allow any qos=0,1,2 x".parse::<Rule>().unwrap().to_string(), "allow any x");
    }

    #[test]
    fn order_and_blanks_do_not_matter() {
        let rule: Rule = "  allow  client c user u\tretain,publish,subscribe  qos=2,0  a ".parse().unwrap();
        assert_eq!(rule.to_string(), "allow user u client c any qos=0,2 a");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, what) in [
            ("", "neither allow nor deny"),
            ("permit any #", "neither allow nor deny but \"permit\""),
            ("allow", "no action"),
            ("allow user", "nothing after \"user\""),
            ("allow user a user b any #", "\"user\" twice"),
            ("allow user a anonymous any #", "a user who is anonymous"),
            ("allow group g any #", "\"group\" is neither a condition nor an action"),
            ("allow publish,write #", "neither a condition nor an action"),
            ("allow address 10.0.0.0/33 any #", "10.0.0.0/33"),
            ("allow any", "no topic"),
            ("allow any qos=3 #", "\"3\" is no list of QoS levels"),
            ("allow any a/#/b", "is no topic filter"),
            ("allow user \"a any #", "a quote is not closed"),
        ] {
            let error = line.parse::<Rule>().expect_err(line).to_string();
            assert!(error.contains(what), "{line}: {error}");
        }
    }
}
