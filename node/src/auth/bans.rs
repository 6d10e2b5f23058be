//! Who is kept out, whatever else is said.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Network;

/// What a ban is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Banned {
    Client(Arc<str>),
    User(Arc<str>),
    Network(Network),
}

impl Banned {
    /// `kind`: `client`, `user` or `address`.
    ///
    /// # Errors
    /// There is no such kind, or the value is none of that kind; for a person.
    pub fn parse(kind: &str, value: &str) -> Result<Self, String> {
        match kind {
            "client" | "user" if value.is_empty() => Err(format!("a {kind} has a name")),
            "client" => Ok(Self::Client(value.into())),
            "user" => Ok(Self::User(value.into())),
            "address" => value.parse().map(Self::Network),
            _ => Err(format!("{kind:?} cannot be banned, but client, user and address can")),
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Client(_) => "client",
            Self::User(_) => "user",
            Self::Network(_) => "address",
        }
    }

    pub fn value(&self) -> String {
        match self {
            Self::Client(name) | Self::User(name) => name.to_string(),
            Self::Network(network) => network.to_string(),
        }
    }
}

impl TryFrom<String> for Banned {
    type Error = String;

    /// The reverse of `Display`.
    fn try_from(text: String) -> Result<Self, String> {
        let (kind, value) = text.split_once(' ').unwrap_or((&text, ""));
        Self::parse(kind, value)
    }
}

impl From<Banned> for String {
    fn from(banned: Banned) -> Self {
        banned.to_string()
    }
}

impl fmt::Display for Banned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.value())
    }
}
