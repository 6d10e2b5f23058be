//! What clients may do: rules over topics, of which the first that matches decides. Pure.
//!
//! ```text
//! allow user alice publish,subscribe home/alice/#
//! allow subscribe user/%c/inbox
//! deny client "old *" any #
//! ```

mod pattern;
mod rule;
mod text;

use std::net::IpAddr;
use std::sync::Arc;

pub use pattern::TopicPattern;
pub use rule::{Actions, Effect, Rule};
use serde::{Deserialize, Serialize};
pub use text::{RuleError, split_words};

use crate::mqtt::QoS;
use crate::topic::split_shared;

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    pub client_id: &'a str,
    /// Who the client has proved to be; `None`: it is anonymous.
    pub user: Option<&'a str>,
    /// The common name of a certificate that was verified.
    pub common_name: Option<&'a str>,
    /// Where it comes from, as far as is known.
    pub address: Option<IpAddr>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask<'a> {
    /// `topic` is a valid topic name.
    Publish { topic: &'a str, qos: QoS, retain: bool },
    /// `filter` is a valid filter, `$share/group/…` included; the group does not count.
    Subscribe { filter: &'a str, qos: QoS },
}

/// Rules in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules(pub Arc<[Rule]>);

impl Rules {
    /// What the first rule that matches says; `None`: none does.
    pub fn decide(&self, subject: &Subject<'_>, ask: Ask<'_>) -> Option<Effect> {
        self.deciding(subject, ask).map(|rule| rule.effect)
    }

    /// The first rule that matches.
    ///
    /// A message with RETAIN has to be allowed as a publish, and then as `retain` too.
    pub fn deciding(&self, subject: &Subject<'_>, ask: Ask<'_>) -> Option<&Rule> {
        match ask {
            Ask::Subscribe { filter, qos } => {
                let filter = split_shared(filter).map_or(filter, |(_, filter)| filter);
                self.first(subject, Actions::SUBSCRIBE, qos, filter)
            }
            Ask::Publish { topic, qos, retain } => {
                let publish = self.first(subject, Actions::PUBLISH, qos, topic)?;
                if !retain || publish.effect == Effect::Deny {
                    return Some(publish);
                }
                self.first(subject, Actions::RETAIN, qos, topic)
            }
        }
    }

    fn first(&self, subject: &Subject<'_>, action: Actions, qos: QoS, topic: &str) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.matches(subject, action, qos, topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(lines: &[&str]) -> Rules {
        Rules(lines.iter().map(|line| line.parse().expect("a rule")).collect())
    }

    fn publish(topic: &str) -> Ask<'_> {
        Ask::Publish { topic, qos: QoS::AtMostOnce, retain: false }
    }

    fn subscribe(filter: &str) -> Ask<'_> {
        Ask::Subscribe { filter, qos: QoS::AtMostOnce }
    }

    const ALICE: Subject<'_> =
        Subject { client_id: "c1", user: Some("alice"), common_name: Some("dev-7"), address: None };
    const NOBODY: Subject<'_> = Subject { client_id: "c1", user: None, common_name: None, address: None };

    #[test]
    fn the_first_that_matches_decides() {
        let rules = rules(&["deny publish a/b", "allow publish a/#", "deny any #"]);
        let of = |ask| rules.decide(&ALICE, ask);
        assert_eq!(of(publish("a/b")), Some(Effect::Deny));
        assert_eq!(of(publish("a/c")), Some(Effect::Allow));
        assert_eq!(of(publish("b")), Some(Effect::Deny));
        assert_eq!(of(publish("$x/b")), None);
        assert_eq!(Rules::default().decide(&ALICE, publish("a")), None);
    }

    #[test]
    fn conditions() {
        let addressed = Subject { address: "10.1.2.3".parse().ok(), ..ALICE };
        for (line, subject, matches) in [
            ("allow user alice any #", ALICE, true),
            ("allow user al* any #", ALICE, true),
            ("allow user bob any #", ALICE, false),
            ("allow user * any #", ALICE, true),
            ("allow user * any #", NOBODY, false),
            ("allow client c1 any #", NOBODY, true),
            ("allow client c2 any #", NOBODY, false),
            ("allow user alice client c2 any #", ALICE, false),
            ("allow anonymous any #", NOBODY, true),
            ("allow anonymous any #", ALICE, false),
            ("allow address 10.0.0.0/8 any #", addressed, true),
            ("allow address 10.1.2.4 any #", addressed, false),
            // Where an address is not known, it is of no network that is let in, and of every one kept out.
            ("allow address 0.0.0.0/0 any #", ALICE, false),
            ("deny address 10.0.0.0/8 any #", ALICE, true),
        ] {
            let decided = rules(&[line]).decide(&subject, publish("x"));
            assert_eq!(decided.is_some(), matches, "{line} {subject:?}");
        }
    }

    #[test]
    fn a_retained_message_needs_both() {
        let retained = |lines: &[&str]| {
            rules(lines).decide(&ALICE, Ask::Publish { topic: "a", qos: QoS::AtMostOnce, retain: true })
        };
        assert_eq!(retained(&["allow publish a"]), None);
        assert_eq!(retained(&["allow retain a"]), None);
        assert_eq!(retained(&["allow publish,retain a"]), Some(Effect::Allow));
        assert_eq!(retained(&["deny publish a", "allow any a"]), Some(Effect::Deny));
        assert_eq!(retained(&["deny retain a", "allow any a"]), Some(Effect::Deny));
    }

    #[test]
    fn qos_is_a_condition() {
        let rules = rules(&["allow publish,subscribe qos=0,1 a"]);
        for (qos, decided) in [
            (QoS::AtMostOnce, Some(Effect::Allow)),
            (QoS::AtLeastOnce, Some(Effect::Allow)),
            (QoS::ExactlyOnce, None),
        ] {
            assert_eq!(rules.decide(&ALICE, Ask::Publish { topic: "a", qos, retain: false }), decided);
            assert_eq!(rules.decide(&ALICE, Ask::Subscribe { filter: "$share/g/a", qos }), decided);
        }
    }

    /// Nothing of what a rule denies gets through by a filter that is wider.
    #[test]
    fn a_subscription_is_allowed_as_a_whole_and_denied_for_a_part() {
        let rules = rules(&["deny subscribe a/secret", "allow subscribe a/#"]);
        for (filter, decided) in [
            ("a/b", Some(Effect::Allow)),
            ("a/b/+", Some(Effect::Allow)),
            ("a/secret", Some(Effect::Deny)),
            ("a/+", Some(Effect::Deny)),
            ("a/#", Some(Effect::Deny)),
            ("#", Some(Effect::Deny)),
            ("$share/g/a/+", Some(Effect::Deny)),
            ("+/b", None),
            ("b", None),
        ] {
            assert_eq!(rules.decide(&ALICE, subscribe(filter)), decided, "{filter}");
        }
    }

    #[test]
    fn placeholders_cannot_be_broken_out_of() {
        let lines =
            ["allow any user/%u/#", "allow any dev-%c/x", "allow any cn/${cert.cn}", "allow any %u/y"];
        let rules = rules(&lines);
        let of = |user: &'static str, client: &'static str, topic: &'static str| {
            let subject =
                Subject { client_id: client, user: Some(user), common_name: Some(user), address: None };
            (rules.decide(&subject, publish(topic)), rules.decide(&subject, subscribe(topic)))
        };
        let allowed = (Some(Effect::Allow), Some(Effect::Allow));
        assert_eq!(of("alice", "c", "user/alice/a"), allowed);
        assert_eq!(of("alice", "c", "dev-c/x"), allowed);
        assert_eq!(of("alice", "c", "cn/alice"), allowed);
        for (user, client, topic) in [
            ("alice", "c", "user/bob/a"),
            ("a/b", "c", "user/a/b"),
            ("a/b", "c", "user/a/b/c"),
            ("", "c", "user//a"),
            ("", "", "dev-/x"),
            ("$SYS", "c", "$SYS/y"),
            ("x", "y/x", "dev-y/x"),
        ] {
            assert_eq!(of(user, client, topic), (None, None), "{user:?} {client:?} {topic}");
        }
        for (user, client, filter) in [
            ("+", "c", "user/+/a"),
            ("#", "c", "user/#"),
            ("#", "c", "cn/#"),
            ("x", "+", "dev-+/x"),
            ("x", "#", "dev-#"),
        ] {
            let subject =
                Subject { client_id: client, user: Some(user), common_name: Some(user), address: None };
            assert_eq!(rules.decide(&subject, subscribe(filter)), None, "{user:?} {client:?} {filter}");
        }
    }

    /// A name that fits no level keeps nobody out of what a rule denies.
    #[test]
    fn a_placeholder_that_cannot_be_filled_denies_every_level() {
        let rules = rules(&["deny publish admin/%u/#", "allow publish #"]);
        let of = |user| rules.decide(&Subject { user, ..NOBODY }, publish("admin/x/y"));
        assert_eq!(of(Some("bob")), Some(Effect::Allow));
        assert_eq!(of(Some("x")), Some(Effect::Deny));
        assert_eq!(of(Some("a/b")), Some(Effect::Deny));
        assert_eq!(of(None), Some(Effect::Deny));
    }
}
