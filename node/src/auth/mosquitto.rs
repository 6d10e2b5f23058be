//! Password and ACL files of mosquitto, as users and rules. Pure.

use super::{Actions, Effect, PasswordHash, Rule, TopicPattern};

/// The number of a line, from 1, and what is wrong with it. Never holds a hash.
pub type WrongLine = (usize, String);

/// The users of a password file: `NAME:HASH` by line, the hash as of mosquitto_passwd.
///
/// # Errors
/// The first line that is wrong.
pub fn users(text: &str) -> Result<Vec<(String, PasswordHash)>, WrongLine> {
    let mut users: Vec<(String, PasswordHash)> = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, hash)) = line.split_once(':') else {
            return Err((number, "expected NAME:HASH".to_owned()));
        };
        let hash = hash.parse().map_err(|error| {
            (number, format!("what follows the name {name:?} {error}; make it with mosquitto_passwd -U"))
        })?;
        users.push((name.to_owned(), hash));
    }
    Ok(users)
}

/// The rules that an ACL file amounts to, in an order in which what it denies comes before what it
/// allows, as mosquitto has it.
///
/// One thing is stricter than there: a client that may read a part of what it subscribes to gets
/// that part from mosquitto, and here the whole subscription is refused.
///
/// # Errors
/// The first line that is wrong, or that cannot be said by a rule.
pub fn rules(text: &str) -> Result<Vec<Rule>, WrongLine> {
    let mut user: Option<String> = None;
    let (mut denying, mut allowing) = (Vec::new(), Vec::new());
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: String| (number, what);
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        if rest.is_empty() {
            return Err(wrong(format!("nothing after {word:?}")));
        }
        match word {
            "user" if rest.contains('*') => {
                return Err(wrong(format!("the user {rest:?}: in a rule '*' stands for any text")));
            }
            "user" => user = Some(rest.to_owned()),
            "topic" | "pattern" => {
                let (effect, actions, topic) = access(rest);
                let pattern: TopicPattern = topic.parse().map_err(|error| wrong(format!("{error}")))?;
                if word == "topic" && ["%c", "%u"].iter().any(|placeholder| topic.contains(placeholder)) {
                    return Err(wrong(format!("{topic:?}: in a rule %c and %u are placeholders")));
                }
                let rule = Rule::new(effect, actions, vec![pattern]);
                let rule = match (&user, word) {
                    (_, "pattern") => rule,
                    (Some(user), _) => rule.for_user(user),
                    (None, _) => rule.for_anonymous(),
                };
                if effect == Effect::Deny { denying.push(rule) } else { allowing.push(rule) }
            }
            _ => return Err(wrong(format!("expected user, topic or pattern, not {word:?}"))),
        }
    }
    denying.append(&mut allowing);
    Ok(denying)
}

/// What `read`, `write`, `readwrite` and `deny` stand for, and the topic after them, which may hold
/// blanks.
fn access(rest: &str) -> (Effect, Actions, &str) {
    let (word, topic) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let write = Actions::PUBLISH.and(Actions::RETAIN);
    let (effect, actions) = match word {
        "read" => (Effect::Allow, Actions::SUBSCRIBE),
        "write" => (Effect::Allow, write),
        "readwrite" => (Effect::Allow, Actions::ANY),
        "deny" => (Effect::Deny, Actions::ANY),
        _ => return (Effect::Allow, Actions::ANY, rest),
    };
    match topic.trim_start() {
        // A topic of that name.
        "" => (Effect::Allow, Actions::ANY, rest),
        topic => (effect, actions, topic),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        rules(text).expect("an ACL file").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_acl_file() {
        let text = "# everybody\ntopic read $SYS/#\n\nuser ann\ntopic home/#\ntopic deny home/secret\n\
                    topic write a b/c\nuser bob smith\ntopic readwrite x\npattern read sensor/%u/%c/#\ntopic read\n";
        assert_eq!(
            lines(text),
            [
                "deny user ann any home/secret",
                "allow anonymous subscribe $SYS/#",
                "allow user ann any home/#",
                "allow user ann publish,retain \"a b/c\"",
                "allow user \"bob smith\" any x",
                "allow subscribe sensor/%u/%c/#",
                "allow user \"bob smith\" any read",
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, line, what) in [
            ("topic a\ntopics b", 2, "expected user, topic or pattern"),
            ("user", 1, "nothing after \"user\""),
            ("topic read a/#/b", 1, "is no topic filter"),
            ("topic a/%u", 1, "are placeholders"),
            ("user a*", 1, "stands for any text"),
        ] {
            let (number, said) = rules(text).expect_err(text);
            assert_eq!(number, line, "{text}");
            assert!(said.contains(what), "{said}");
        }
    }

    #[test]
    fn a_password_file() {
        let hash = PasswordHash::derive(b"x", &[1; 16]);
        let text = format!("# users\n\nann:{}\n", hash.expose());
        assert_eq!(users(&text), Ok(vec![("ann".to_owned(), hash)]));
        let (line, said) = users("ann:plain").expect_err("a password");
        assert!(line == 1 && said.contains("\"ann\"") && !said.contains("plain"), "{said}");
        assert_eq!(users("x").expect_err("no colon").1, "expected NAME:HASH");
    }
}
