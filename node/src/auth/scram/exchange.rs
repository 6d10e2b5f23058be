//! The two steps of an exchange.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::message::{ClientFinal, ClientFirst, MALFORMED};
use super::{Decoys, Verifier};
use crate::auth::{Exchange, Failure, Outcome, Principal, Reply, Users, prepare};
use crate::mqtt::ReasonCode;

/// One answer to all that is wrong with a user and a password: which it was is nobody's business.
const WRONG: Failure = Failure::new(ReasonCode::NotAuthorized, "a wrong user name or password");
const FOR_ANOTHER: Failure = Failure::new(ReasonCode::NotAuthorized, "a user that wants to act as another");

/// Before client-first-message.
pub(super) struct AwaitFirst {
    users: Arc<dyn Users>,
    decoys: Arc<Decoys>,
    /// The server's part.
    nonce: String,
    /// The client began without data and was asked for it.
    asked: bool,
}

impl AwaitFirst {
    pub fn new(users: Arc<dyn Users>, decoys: Arc<Decoys>, nonce: String) -> Self {
        Self { users, decoys, nonce, asked: false }
    }

    fn challenge(self, data: &[u8]) -> Result<(String, AwaitFinal), Failure> {
        let first = ClientFirst::parse(data)?;
        let name = prepare(&first.username).map_err(|_| MALFORMED)?;
        if let Some(authzid) = &first.authzid
            && prepare(authzid).as_ref() != Ok(&name)
        {
            return Err(FOR_ANOTHER);
        }
        // Made for every name, so that the time tells nothing either.
        let decoy = self.decoys.verifier(&name, self.users.usual());
        let found = self.users.find(&name);
        let known = found.is_some();
        let verifier = found.unwrap_or_else(|| Arc::new(decoy));
        let nonce = format!("{}{}", first.nonce, self.nonce);
        let salt = BASE64.encode(verifier.salt());
        let challenge = format!("r={nonce},s={salt},i={}", verifier.iterations());
        let signed = format!("{},{challenge}", first.bare);
        let gs2_header = first.gs2_header.into();
        Ok((challenge, AwaitFinal { identity: name.into(), known, verifier, nonce, gs2_header, signed }))
    }
}

impl Exchange for AwaitFirst {
    fn step(mut self: Box<Self>, data: &[u8], reply: Reply) {
        if data.is_empty() && !self.asked {
            // The client speaks first in SCRAM, but need not do so in CONNECT.
            self.asked = true;
            return reply(Outcome::Continue { data: Vec::new(), exchange: self });
        }
        reply(match self.challenge(data) {
            Ok((challenge, next)) => {
                Outcome::Continue { data: challenge.into_bytes(), exchange: Box::new(next) }
            }
            Err(failure) => Outcome::Failure(failure),
        });
    }
}

/// Before client-final-message.
struct AwaitFinal {
    identity: Arc<str>,
    /// Such a user exists.
    known: bool,
    verifier: Arc<Verifier>,
    /// Both parts.
    nonce: String,
    gs2_header: Box<str>,
    /// AuthMessage as far as it has been said.
    signed: String,
}

impl AwaitFinal {
    fn verify(&self, data: &[u8]) -> Result<Vec<u8>, Failure> {
        let last = ClientFinal::parse(data)?;
        let auth_message = format!("{},{}", self.signed, last.without_proof);
        let proven = self.verifier.verifies(&last.proof, auth_message.as_bytes());
        let bound = last.channel_binding == self.gs2_header.as_bytes();
        if !(proven & self.known & bound) || last.nonce != self.nonce {
            return Err(WRONG);
        }
        let signature = BASE64.encode(self.verifier.sign(auth_message.as_bytes()));
        Ok(format!("v={signature}").into_bytes())
    }
}

impl Exchange for AwaitFinal {
    fn step(self: Box<Self>, data: &[u8], reply: Reply) {
        reply(match self.verify(data) {
            Ok(data) => Outcome::success(data, Principal::new(self.identity, super::NAME)),
            Err(failure) => Outcome::Failure(failure),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::mpsc;

    use super::*;
    use crate::auth::UserTable;
    use crate::auth::scram::{Key, hash, mac};

    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CHALLENGE: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const LAST_WORD: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn verifier(password: &str) -> Verifier {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        Verifier::derive(password, &salt, NonZeroU32::new(4096).unwrap()).unwrap()
    }

    fn begin(users: &[(&str, &str)]) -> Box<dyn Exchange> {
        let lines: Vec<String> =
            users.iter().map(|(name, password)| format!("{name}:{}\n", verifier(password))).collect();
        let table = UserTable::parse(&lines.concat()).unwrap();
        Box::new(AwaitFirst::new(Arc::new(table), Arc::new(Decoys::new(b"secret")), NONCE.to_owned()))
    }

    fn step(exchange: Box<dyn Exchange>, data: &str) -> Outcome {
        let (sender, outcome) = mpsc::channel();
        exchange.step(data.as_bytes(), Box::new(move |outcome| sender.send(outcome).unwrap()));
        outcome.recv().unwrap()
    }

    fn challenged(exchange: Box<dyn Exchange>, data: &str) -> (String, Box<dyn Exchange>) {
        match step(exchange, data) {
            Outcome::Continue { data, exchange } => (String::from_utf8(data).unwrap(), exchange),
            other => panic!("{data}: {other:?}"),
        }
    }

    fn failed(exchange: Box<dyn Exchange>, data: &str) -> Failure {
        match step(exchange, data) {
            Outcome::Failure(failure) => failure,
            other => panic!("{data}: {other:?}"),
        }
    }

    /// What a client with that password answers.
    fn answer(password: &str, first_bare: &str, challenge: &str, header: &str) -> String {
        let nonce = challenge.split(',').next().unwrap();
        let without_proof = format!("c={},{nonce}", BASE64.encode(header));
        let auth_message = format!("{first_bare},{challenge},{without_proof}");
        let mut salted = [0; 32];
        let salt = challenge.split(',').nth(1).unwrap().strip_prefix("s=").unwrap();
        aws_lc_rs::pbkdf2::derive(
            aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA256,
            NonZeroU32::new(4096).unwrap(),
            &BASE64.decode(salt).unwrap(),
            password.as_bytes(),
            &mut salted,
        );
        let mut proof: Key = mac(&salted, b"Client Key");
        let signature = mac(&hash(&proof), auth_message.as_bytes());
        proof.iter_mut().zip(signature).for_each(|(byte, other)| *byte ^= other);
        format!("{without_proof},p={}", BASE64.encode(proof))
    }

    /// RFC 7677, section 3.
    #[test]
    fn the_exchange_of_the_standard() {
        let (challenge, exchange) = challenged(begin(&[("user", "pencil")]), FIRST);
        assert_eq!(challenge, CHALLENGE);
        let Outcome::Success { data, principal: Some(who), .. } = step(exchange, FINAL) else {
            panic!("refused")
        };
        assert_eq!((data.as_slice(), &*who.name), (LAST_WORD.as_bytes(), "user"));
        assert_eq!(answer("pencil", &FIRST[3..], CHALLENGE, "n,,"), FINAL, "the client of the other tests");
    }

    #[test]
    fn a_client_that_waits_to_be_asked() {
        let (question, exchange) = challenged(begin(&[("user", "pencil")]), "");
        assert_eq!(question, "");
        let (challenge, exchange) = challenged(exchange, FIRST);
        assert_eq!(challenge, CHALLENGE);
        assert!(matches!(step(exchange, FINAL), Outcome::Success { .. }));
        let (_, exchange) = challenged(begin(&[]), "");
        assert_eq!(failed(exchange, ""), MALFORMED);
    }

    #[test]
    fn what_is_wrong_is_not_told() {
        let cases = [
            // Another password.
            (FIRST, "user", "pencils", FINAL.to_owned()),
            // Somebody else's nonce.
            (FIRST, "user", "pencil", FINAL.replace("rOpr", "rOps")),
            // Not the header that was sent.
            (FIRST, "user", "pencil", FINAL.replace("biws", "eSws")),
            // No such user, with the password that its neighbour has.
            (FIRST, "other", "pencil", FINAL.to_owned()),
        ];
        for (first, name, password, last) in cases {
            let (_, exchange) = challenged(begin(&[(name, password)]), first);
            assert_eq!(failed(exchange, &last), WRONG, "{name} {password} {last}");
        }
        // A proof that is right for a message that was tampered with.
        let (challenge, exchange) = challenged(begin(&[("user", "pencil")]), FIRST);
        assert_eq!(failed(exchange, &answer("pencil", &FIRST[3..], &challenge, "y,,")), WRONG);
    }

    #[test]
    fn an_unknown_user_is_challenged_like_a_known_one() {
        let users = [("user", "pencil")];
        let (known, _) = challenged(begin(&users), FIRST);
        let (unknown, exchange) = challenged(begin(&users), "n,,n=nobody,r=rOprNGfwEbeRWgbNEkqO");
        assert_eq!(unknown.len(), known.len());
        assert!(unknown.ends_with(",i=4096"));
        let last = answer("pencil", "n=nobody,r=rOprNGfwEbeRWgbNEkqO", &unknown, "n,,");
        assert_eq!(failed(exchange, &last), WRONG);
        let (again, _) = challenged(begin(&users), "n,,n=nobody,r=rOprNGfwEbeRWgbNEkqO");
        assert_eq!(again, unknown, "the salt is always the same");
        let (another, _) = challenged(begin(&users), "n,,n=noboda,r=rOprNGfwEbeRWgbNEkqO");
        assert_ne!(another, unknown);
    }

    #[test]
    fn names_and_passwords_are_prepared() {
        // U+2168 is the Roman numeral nine.
        let (name, password) = ("I\u{AD}X", "\u{2168}");
        let bare = "n=\u{2168},r=abc";
        let (challenge, exchange) = challenged(begin(&[(name, password)]), &format!("n,,{bare}"));
        let Outcome::Success { principal: Some(who), .. } =
            step(exchange, &answer("IX", bare, &challenge, "n,,"))
        else {
            panic!("refused");
        };
        assert_eq!(&*who.name, "IX");
        assert_eq!(failed(begin(&[]), "n,,n=a\u{7},r=abc"), MALFORMED);
        assert_eq!(failed(begin(&[]), "n,,n=\u{AD},r=abc"), MALFORMED);
    }

    #[test]
    fn channel_binding_and_authorization() {
        let users = [("a,b", "pencil")];
        for header in ["n,,", "y,,", "n,a=a=2Cb,"] {
            let bare = "n=a=2Cb,r=abc";
            let (challenge, exchange) = challenged(begin(&users), &format!("{header}{bare}"));
            let last = answer("pencil", bare, &challenge, header);
            assert!(matches!(step(exchange, &last), Outcome::Success { .. }), "{header}");
        }
        assert_eq!(failed(begin(&users), "n,a=admin,n=a=2Cb,r=abc"), FOR_ANOTHER);
        let refused = failed(begin(&users), "p=tls-exporter,,n=a=2Cb,r=abc");
        assert_eq!(refused.reason, ReasonCode::ImplementationSpecificError);
    }
}
