//! The topics of a rule: a topic filter with placeholders in it.

use std::fmt;
use std::str::FromStr;

use super::{RuleError, Subject};
use crate::mqtt::topic::{MAX_TOPIC_BYTES, valid_filter};

/// Placeholders as they are written; several may stand for the same.
const PLACEHOLDERS: [(&str, Placeholder); 5] = [
    ("%c", Placeholder::Client),
    ("%u", Placeholder::User),
    ("${clientid}", Placeholder::Client),
    ("${username}", Placeholder::User),
    ("${cert.cn}", Placeholder::CommonName),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placeholder {
    Client,
    User,
    CommonName,
}

impl Placeholder {
    /// What it stands for within a level. `None`: it has no value, or one that is not within a level.
    fn value<'a>(self, subject: &Subject<'a>) -> Option<&'a str> {
        let value = match self {
            Self::Client => Some(subject.client_id),
            Self::User => subject.user,
            Self::CommonName => subject.common_name,
        };
        value.filter(|value| !value.is_empty() && !value.contains(['/', '+', '#', '\0']))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Placeholder(Placeholder),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Text(Box<str>),
    /// `+`
    One,
    /// `#`
    Rest,
    /// With placeholders.
    Parts(Box<[Part]>),
}

/// How a level compares with a level of a topic filter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compared {
    Same,
    Different,
    /// It has no text of its own for this subject.
    Unfilled,
}

impl Level {
    /// `first`: of the topic, which no value of a placeholder may make one of the server's own.
    fn compare(&self, word: &str, first: bool, subject: &Subject<'_>) -> Compared {
        let same = |same| if same { Compared::Same } else { Compared::Different };
        let parts = match self {
            Self::Text(text) => return same(**text == *word),
            Self::One => return same(word != "#"),
            Self::Rest => return Compared::Same,
            Self::Parts(parts) => parts,
        };
        let mut rest = Some(word);
        for (index, part) in parts.iter().enumerate() {
            let text = match part {
                Part::Text(text) => text,
                Part::Placeholder(placeholder) => match placeholder.value(subject) {
                    Some(value) if !(first && index == 0 && value.starts_with('$')) => value,
                    _ => return Compared::Unfilled,
                },
            };
            rest = rest.and_then(|rest| rest.strip_prefix(text));
        }
        same(rest == Some(""))
    }
}

/// A topic filter whose levels may hold placeholders: `%c` or `${clientid}`, `%u` or
/// `${username}`, `${cert.cn}`. What they stand for never reaches beyond its level.
#[derive(Clone, PartialEq, Eq)]
pub struct TopicPattern {
    text: Box<str>,
    levels: Box<[Level]>,
}

impl TopicPattern {
    /// Whether it matches everything that the filter does. A placeholder without a usable value
    /// matches nothing.
    pub(super) fn covers(&self, filter: &str, subject: &Subject<'_>) -> bool {
        if filter.starts_with('$') && self.begins_with_a_wildcard() {
            return false; // [MQTT-4.7.2-1]
        }
        let mut words = filter.split('/');
        for (index, level) in self.levels.iter().enumerate() {
            if *level == Level::Rest {
                return true;
            }
            let Some(word) = words.next() else { return false };
            if level.compare(word, index == 0, subject) != Compared::Same {
                return false;
            }
        }
        words.next().is_none()
    }

    /// Whether there is a topic that it and the filter match. A placeholder without a usable value
    /// matches any level.
    pub(super) fn overlaps(&self, filter: &str, subject: &Subject<'_>) -> bool {
        let mine = self.levels.first();
        let theirs = filter.split('/').next();
        let wild = |theirs: Option<&str>| matches!(theirs, Some("+" | "#"));
        let servers_own = match mine {
            Some(Level::Text(text)) => text.starts_with('$') && wild(theirs),
            Some(Level::One | Level::Rest) => filter.starts_with('$'),
            _ => false,
        };
        if servers_own {
            return false; // [MQTT-4.7.2-1]
        }
        let mut words = filter.split('/');
        let mut levels = self.levels.iter().enumerate();
        loop {
            match (levels.next(), words.next()) {
                (None, None) => return true,
                // `a/#` matches `a` too.
                (Some((_, Level::Rest)), _) | (_, Some("#")) => return true,
                (Some((index, level)), Some(word)) => {
                    let meets =
                        word == "+" || level.compare(word, index == 0, subject) != Compared::Different;
                    if !meets {
                        return false;
                    }
                }
                (Some(_), None) | (None, Some(_)) => return false,
            }
        }
    }

    fn begins_with_a_wildcard(&self) -> bool {
        matches!(self.levels.first(), Some(Level::One | Level::Rest))
    }
}

fn level(word: &str) -> Level {
    match word {
        "+" => return Level::One,
        "#" => return Level::Rest,
        _ => {}
    }
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = word;
    while let Some(next) = rest.chars().next() {
        let found = PLACEHOLDERS.iter().find(|(written, _)| rest.starts_with(written));
        let Some((written, placeholder)) = found else {
            text.push(next);
            rest = &rest[next.len_utf8()..];
            continue;
        };
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text).into()));
        }
        parts.push(Part::Placeholder(*placeholder));
        rest = &rest[written.len()..];
    }
    if parts.is_empty() {
        return Level::Text(text.into());
    }
    if !text.is_empty() {
        parts.push(Part::Text(text.into()));
    }
    Level::Parts(parts.into())
}

impl FromStr for TopicPattern {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        valid_filter(text, MAX_TOPIC_BYTES)
            .map_err(|error| RuleError(format!("{text:?} is no topic filter: {error}")))?;
        if text.starts_with("$share/") {
            return Err(RuleError(format!(
                "{text:?}: a rule names topics; shared subscriptions are matched by their filter, without \
                 \"$share/GROUP/\""
            )));
        }
        if let Some(at) = text.find("${")
            && !PLACEHOLDERS.iter().any(|(written, _)| text[at..].starts_with(written))
        {
            let known = PLACEHOLDERS.map(|(written, _)| written).join(", ");
            return Err(RuleError(format!(
                "{text:?} has a placeholder that is not known; there are {known}"
            )));
        }
        Ok(Self { text: text.into(), levels: text.split('/').map(level).collect() })
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topic::filter_matches;

    const WORDS: [&str; 3] = ["a", "b", "$a"];

    /// Every topic of up to three levels.
    fn topics() -> Vec<String> {
        let mut all: Vec<String> = WORDS.iter().map(|w| (*w).to_owned()).collect();
        for from in [0, 3] {
            let more: Vec<String> =
                all[from..].iter().flat_map(|t| WORDS.iter().map(move |w| format!("{t}/{w}"))).collect();
            all.extend(more);
        }
        all
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["a", "b", "$a", "+", "+"]);
        (prop::collection::vec(level, 0..3), any::<bool>()).prop_map(|(mut levels, rest)| {
            if rest || levels.is_empty() {
                levels.push("#");
            }
            levels.join("/")
        })
    }

    proptest! {
        #[test]
        fn as_if_every_topic_were_tried(pattern in filter(), filter in filter()) {
            let parsed: TopicPattern = pattern.parse().expect("a filter");
            let subject = Subject::default();
            let both = topics().iter().any(|t| filter_matches(&pattern, t) && filter_matches(&filter, t));
            let all = topics().iter().all(|t| !filter_matches(&filter, t) || filter_matches(&pattern, t));
            prop_assert_eq!(parsed.overlaps(&filter, &subject), both);
            // The same as `#`, which is not seen; nobody writes it.
            prop_assert!(parsed.covers(&filter, &subject) == all || (pattern == "+/#" && all));
        }

        #[test]
        fn a_topic_is_matched_alike(pattern in filter(), topic in prop::sample::select(topics())) {
            let parsed: TopicPattern = pattern.parse().expect("a filter");
            let matches = filter_matches(&pattern, &topic);
            prop_assert_eq!(parsed.covers(&topic, &Subject::default()), matches);
            prop_assert_eq!(parsed.overlaps(&topic, &Subject::default()), matches);
        }
    }

    #[test]
    fn what_is_no_pattern() {
        for text in ["", "a/#/b", "a+", "x/%c+", "$share/g/a", "a/${password}", "a\0"] {
            assert!(text.parse::<TopicPattern>().is_err(), "{text:?}");
        }
    }
}
