//! Which group has which strategy.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Strategy;

/// What a node is configured to do with shared subscriptions. It is said in the node's `NodeUp`
/// and kept with it: a message is divided by the rules of the node it was published at, on
/// every node alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sharing {
    /// Of groups that no rule names.
    pub strategy: Strategy,
    /// The first one that matches a group counts.
    pub groups: Arc<[GroupRule]>,
    /// A message that a member acknowledges with an error goes to another one. The standard says
    /// that it is discarded [MQTT-4.8.2-6].
    pub redeliver_refused: bool,
}

impl Sharing {
    /// The strategy of a group, named by its whole filter `$share/group/filter`.
    pub fn strategy_of(&self, full: &str) -> Strategy {
        let named = full.strip_prefix("$share/").unwrap_or(full);
        let rule = self.groups.iter().find(|rule| rule.matches(named));
        rule.map_or(self.strategy, |rule| rule.strategy)
    }
}

/// `NAME=STRATEGY` or `NAME/FILTER=STRATEGY`; in both parts `*` stands for any text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRule {
    pattern: Box<str>,
    strategy: Strategy,
}

impl GroupRule {
    /// `named`: `group/filter`.
    fn matches(&self, named: &str) -> bool {
        if self.pattern.contains('/') {
            return glob(&self.pattern, named);
        }
        let name = named.split_once('/').map_or(named, |(name, _)| name);
        glob(&self.pattern, name)
    }
}

impl FromStr for GroupRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!(
                "{what} in {text:?}: expected NAME=STRATEGY or NAME/FILTER=STRATEGY such as \"orders=sticky\""
            )
        };
        let (pattern, strategy) = text.rsplit_once('=').ok_or_else(|| wrong("no '='"))?;
        let (pattern, strategy) = (pattern.trim(), strategy.trim());
        let name = pattern.split('/').next().unwrap_or_default();
        if pattern.starts_with("$share/") {
            return Err(wrong("a group's name comes without \"$share/\""));
        }
        if name.is_empty() || pattern.ends_with('/') {
            return Err(wrong("no name of a group"));
        }
        if name.contains(['+', '#']) {
            return Err(wrong("a group's name has no '+' or '#', any text is '*'"));
        }
        Ok(Self { pattern: pattern.into(), strategy: strategy.parse()? })
    }
}

impl fmt::Display for GroupRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.pattern, self.strategy)
    }
}

/// Whether `text` is `pattern`, in which `*` stands for any text.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last `*` is, and what it has taken so far: it may take more.
    let mut star = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (p, t) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}
