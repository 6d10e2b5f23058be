//! Authenticators asked one after the other.

use std::sync::Arc;

use super::{Authenticator, Count, Judge, Login, Verdict};

/// Authenticators in the order in which they are asked; the first that does not pass decides.
#[derive(Clone, Default)]
pub struct Chain(Arc<[Box<dyn Authenticator>]>);

impl Chain {
    pub fn new(authenticators: Vec<Box<dyn Authenticator>>) -> Self {
        Self(authenticators.into())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Asks them all about a login; [`Verdict::Pass`]: none had anything to say.
    pub fn judge(&self, login: Arc<Login>, judge: Judge) {
        self.clone().ask(0, login, judge);
    }

    /// What all of them have counted.
    pub fn metrics(&self) -> impl Iterator<Item = Count> {
        self.0.iter().flat_map(|authenticator| authenticator.metrics())
    }

    fn ask(self, index: usize, login: Arc<Login>, judge: Judge) {
        let Some(authenticator) = self.0.get(index) else { return judge(Verdict::Pass) };
        let (chain, next) = (self.clone(), login.clone());
        let decide = move |verdict| match verdict {
            Verdict::Pass => chain.ask(index + 1, next, judge),
            decided => judge(decided),
        };
        authenticator.judge(&login, Box::new(decide));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::auth::{Failure, Principal};
    use crate::mqtt::ReasonCode;

    /// Knows one user, and nothing of others.
    struct Only(&'static str, Verdict);

    impl Authenticator for Only {
        fn name(&self) -> &'static str {
            "only"
        }

        fn judge(&self, login: &Arc<Login>, judge: Judge) {
            let mine = login.username.as_deref() == Some(self.0);
            judge(if mine { self.1.clone() } else { Verdict::Pass });
        }
    }

    #[test]
    fn the_first_that_knows_the_client_decides() {
        let allow = Verdict::Allow(Arc::new(Principal { name: "a".into(), ..Principal::default() }));
        let deny = Verdict::Deny(Failure::new(ReasonCode::NotAuthorized, "no"));
        let chain = Chain::new(vec![
            Box::new(Only("a", allow.clone())),
            Box::new(Only("b", deny.clone())),
            Box::new(Only("a", deny.clone())),
        ]);
        let of = |username: Option<&str>| {
            let (sender, verdicts) = mpsc::channel();
            let login = Login { username: username.map(Into::into), ..Login::default() };
            chain.judge(Arc::new(login), Box::new(move |verdict| drop(sender.send(verdict))));
            format!("{:?}", verdicts.recv().expect("a verdict"))
        };
        assert_eq!(of(Some("a")), format!("{allow:?}"));
        assert_eq!(of(Some("b")), format!("{deny:?}"));
        assert_eq!(of(Some("c")), "Pass");
        assert_eq!(of(None), "Pass");
    }
}
