//! The strategies.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::hash::key_of;
use crate::mqtt::Publication;

/// How a group's next member is chosen. New ones go to the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// Any, each as likely as the others.
    Random,
    /// One after the other.
    #[default]
    RoundRobin,
    /// The same one as long as it is there.
    Sticky,
    /// One after the other of those connected to the publisher's node, if there are any.
    Local,
    /// The same one for every message of a publisher.
    HashClientId,
    /// The same one for every message of a topic.
    HashTopic,
}

impl Strategy {
    pub const ALL: [Self; 6] =
        [Self::Random, Self::RoundRobin, Self::Sticky, Self::Local, Self::HashClientId, Self::HashTopic];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::RoundRobin => "round_robin",
            Self::Sticky => "sticky",
            Self::Local => "local",
            Self::HashClientId => "hash_client_id",
            Self::HashTopic => "hash_topic",
        }
    }

    /// Whether it matters which member gets a message, so that one that is merely busy is not
    /// passed over.
    pub const fn is_affine(self) -> bool {
        matches!(self, Self::Sticky | Self::HashClientId | Self::HashTopic)
    }

    /// What the choice depends on: messages of equal keys go to the same member.
    pub fn key(self, group: &str, publication: &Publication<'_>) -> u64 {
        match self {
            Self::HashClientId => key_of(publication.publisher),
            Self::HashTopic => key_of(publication.topic),
            // All nodes begin with the same member.
            Self::Sticky => key_of(group),
            Self::Random | Self::RoundRobin | Self::Local => 0,
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Strategy {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|strategy| strategy.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("expected one of {names}, not {name:?}")
        })
    }
}
