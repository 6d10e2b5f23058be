//! Users of the cluster who send their password.

mod hash;
mod hasher;
mod known;

use std::sync::Arc;

pub use hash::{BadHash, PasswordHash, SALT_BYTES};
pub use hasher::Hasher;
use known::Known;

use super::{Authenticator, Directory, Failure, Judge, Login, Principal, Verdict, prepare};
use crate::mqtt::ReasonCode;

const WRONG: Failure = Failure::new(ReasonCode::BadUserNameOrPassword, "a wrong user name or password");
const BUSY: Failure = Failure::new(ReasonCode::ServerBusy, "too many passwords are being checked");
const TOO_MANY: Failure =
    Failure::new(ReasonCode::ConnectionRateExceeded, "too many failed log-ins from this address");

/// Judges user names and passwords by what the cluster keeps of its users. Passwords are tried on
/// threads of their own; who logs in again with the same is let in at once.
pub struct Passwords {
    directory: Arc<dyn Directory>,
    hasher: Hasher,
    known: Arc<Known>,
    /// Tried for users that do not exist, which shall not be told by the time it takes.
    decoy: Arc<PasswordHash>,
}

impl Passwords {
    /// As [`Principal::method`].
    pub const NAME: &'static str = "users";

    /// # Errors
    /// The system gives no random numbers or no threads.
    pub fn new(directory: Arc<dyn Directory>) -> std::io::Result<Self> {
        let mut random = [0; SALT_BYTES];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| no_randomness())?;
        let decoy = Arc::new(PasswordHash::derive(&random, &random));
        Ok(Self { directory, hasher: Hasher::start()?, known: Arc::new(Known::new()?), decoy })
    }
}

fn no_randomness() -> std::io::Error {
    std::io::Error::other("the system gives no random numbers")
}

impl Authenticator for Passwords {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn judge(&self, login: &Arc<Login>, judge: Judge) {
        let Some(username) = &login.username else { return judge(Verdict::Pass) };
        if self.directory.is_empty() {
            return judge(Verdict::Pass);
        }
        let (Ok(name), Some(_)) = (prepare(username), &login.password) else {
            return judge(Verdict::Deny(WRONG));
        };
        let name: Arc<str> = name.into();
        let hash = self.directory.find(&name).and_then(|user| user.password.map(Arc::new));
        let allowed = Verdict::Allow(Principal::new(name.clone(), Self::NAME));
        let password = login.password.as_ref().map_or(&[][..], |password| password.expose());
        if hash.as_ref().is_some_and(|hash| self.known.contains(&name, password, hash)) {
            return judge(allowed);
        }
        if login.throttled {
            return judge(Verdict::Deny(TOO_MANY));
        }
        let (login, known, decoy) = (login.clone(), self.known.clone(), self.decoy.clone());
        let busy = self.hasher.run(judge, move |judge| {
            let password = login.password.as_ref().map_or(&[][..], |password| password.expose());
            let Some(hash) = hash else {
                decoy.verifies(password);
                // Perhaps somebody else knows the name.
                return judge(Verdict::Pass);
            };
            if !hash.verifies(password) {
                return judge(Verdict::Deny(WRONG));
            }
            known.add(name, password, hash);
            judge(allowed);
        });
        if let Err(judge) = busy {
            judge(Verdict::Deny(BUSY));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::mpsc;

    use parking_lot::Mutex;

    use super::*;
    use crate::auth::{Password, User};

    #[derive(Default)]
    struct Book(Mutex<HashMap<String, User>>);

    impl Directory for Book {
        fn find(&self, name: &str) -> Option<User> {
            self.0.lock().get(name).cloned()
        }

        fn is_empty(&self) -> bool {
            self.0.lock().is_empty()
        }
    }

    fn set(book: &Book, name: &str, password: &str) {
        let password = Some(PasswordHash::derive(password.as_bytes(), &[3; SALT_BYTES]));
        book.0.lock().insert(name.into(), User { password, scram: None });
    }

    fn judge(passwords: &Passwords, login: &Login) -> String {
        let (sender, verdicts) = mpsc::channel();
        passwords.judge(&Arc::new(login.clone()), Box::new(move |verdict| drop(sender.send(verdict))));
        match verdicts.recv().expect("a verdict") {
            Verdict::Pass => "pass".into(),
            Verdict::Allow(principal) => format!("allow {}", principal.name),
            Verdict::Deny(failure) => format!("deny {:?}", failure.reason),
        }
    }

    #[test]
    fn verdicts() {
        let book = Arc::new(Book::default());
        let passwords = Passwords::new(book.clone()).expect("threads");
        let login = |username: &str, password: Option<&str>| Login {
            username: Some(username.into()),
            password: password.map(|password| Password::new(password.as_bytes())),
            ..Login::default()
        };
        assert_eq!(judge(&passwords, &login("ann", Some("x"))), "pass", "nobody is known");
        set(&book, "ann", "secret");
        for (login, verdict) in [
            (Login::default(), "pass"),
            (login("ann", Some("secret")), "allow ann"),
            (login("ann", Some("Secret")), "deny BadUserNameOrPassword"),
            (login("ann", Some("")), "deny BadUserNameOrPassword"),
            (login("ann", None), "deny BadUserNameOrPassword"),
            (login("bob", Some("secret")), "pass"),
            (login("\u{7}", Some("secret")), "deny BadUserNameOrPassword"),
        ] {
            assert_eq!(judge(&passwords, &login), verdict, "{login:?}");
        }
        // Known ones are let in where others are not even tried.
        let throttled = |password| Login { throttled: true, ..login("ann", Some(password)) };
        assert_eq!(judge(&passwords, &throttled("secret")), "allow ann");
        assert_eq!(judge(&passwords, &throttled("other")), "deny ConnectionRateExceeded");
        set(&book, "ann", "new");
        assert_eq!(judge(&passwords, &login("ann", Some("secret"))), "deny BadUserNameOrPassword");
        assert_eq!(judge(&passwords, &login("ann", Some("new"))), "allow ann");
    }
}
