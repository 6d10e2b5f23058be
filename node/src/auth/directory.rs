//! The users of the cluster, as authenticators see them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::PasswordHash;

/// What is kept of a user. Holds no password, but what passwords can be guessed with.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// For clients that send their password.
    pub password: Option<PasswordHash>,
    /// For SCRAM-SHA-256: a [`Verifier`](super::scram::Verifier) as text.
    pub scram: Option<Box<str>>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scram = self.scram.as_ref().map(|_| "…");
        f.debug_struct("User").field("password", &self.password).field("scram", &scram).finish()
    }
}

/// Where users are looked up. Called on event loops: must not block.
pub trait Directory: Send + Sync + 'static {
    /// `name` is prepared.
    fn find(&self, name: &str) -> Option<User>;

    fn is_empty(&self) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_user_is_no_secret() {
        let password = Some(PasswordHash::derive(b"x", &[1; 16]));
        let user = User { password, scram: Some("SCRAM-SHA-256$…".into()) };
        assert_eq!(
            format!("{user:?}"),
            r#"User { password: Some(PasswordHash(argon2id, …)), scram: Some("…") }"#
        );
    }
}
