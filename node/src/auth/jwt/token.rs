//! A token as it comes: three parts in base64url, of which nothing is believed yet [RFC 7515 3.1].

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use crate::auth::Failure;
use crate::mqtt::ReasonCode;

const fn bad(what: &'static str) -> Failure {
    Failure::new(ReasonCode::BadUserNameOrPassword, what)
}

pub const MALFORMED: Failure = bad("a token that is malformed");
pub const TOO_LONG: Failure = bad("a token that is too long");
pub const ALGORITHM: Failure = bad("a token with an algorithm that is not allowed");
pub const CRITICAL: Failure = bad("a token that needs an extension");

/// A token whose signature is still to be checked.
pub struct Token<'a> {
    pub algorithm: Algorithm,
    /// Which key signed it.
    pub key_id: Option<String>,
    /// What is signed.
    pub message: &'a [u8],
    /// In base64url.
    pub signature: &'a str,
    claims: &'a str,
}

impl<'a> Token<'a> {
    /// Takes a token apart; `None`: it does not even look like one.
    ///
    /// # Errors
    /// It looks like a token and cannot be judged.
    pub fn parse(text: &'a [u8], max_bytes: usize) -> Option<Result<Self, Failure>> {
        let text = std::str::from_utf8(text).ok()?;
        let (message, signature) = text.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let base64url =
            |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if header.is_empty() || ![header, claims, signature].into_iter().all(base64url) {
            return None;
        }
        let header = URL_SAFE_NO_PAD.decode(header).ok()?;
        let header: Map<String, Value> = serde_json::from_slice(&header).ok()?;
        let algorithm = header.get("alg")?;
        if text.len() > max_bytes {
            return Some(Err(TOO_LONG));
        }
        // Keys and addresses of keys in it are the sender's own word, and not looked at.
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Some(Err(MALFORMED)),
        };
        // Whoever does not understand an extension that is critical has to refuse [RFC 7515 4.1.11],
        // and none is understood, that of a payload without base64 included.
        if header.contains_key("crit") || header.get("b64").is_some_and(|b64| *b64 != Value::Bool(true)) {
            return Some(Err(CRITICAL));
        }
        let Some(algorithm) = algorithm.as_str() else { return Some(Err(MALFORMED)) };
        let Ok(algorithm) = algorithm.parse() else { return Some(Err(ALGORITHM)) };
        Some(Ok(Self { algorithm, key_id, message: message.as_bytes(), signature, claims }))
    }

    /// What it says. To be asked once the signature is good.
    ///
    /// # Errors
    /// It is no JSON object.
    pub fn claims(&self) -> Result<Map<String, Value>, Failure> {
        let json = URL_SAFE_NO_PAD.decode(self.claims).map_err(|_| MALFORMED)?;
        serde_json::from_slice(&json).map_err(|_| MALFORMED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, rest: &str) -> String {
        format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header))
    }

    #[test]
    fn what_looks_like_a_token_and_what_does_not() {
        for text in [
            "".to_owned(),
            "secret".to_owned(),
            "a.b".to_owned(),
            "..".to_owned(),
            "a.b.c".to_owned(),
            token(r#"{"typ":"JWT"}"#, "e30.c2ln"),
            token(r#"["alg"]"#, "e30.c2ln"),
            token(r#"{"alg":"HS256"}"#, "e30"),
            token(r#"{"alg":"HS256"}"#, "e30.c2ln.c2ln"),
            token(r#"{"alg":"HS256"}"#, "e3 0.c2ln"),
            token(r#"{"alg":"HS256"}"#, "e30=.c2ln"),
            format!(" {}", token(r#"{"alg":"HS256"}"#, "e30.c2ln")),
        ] {
            assert!(Token::parse(text.as_bytes(), 1000).is_none(), "{text}");
        }
        assert!(Token::parse(b"\xff.b.c", 1000).is_none());
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        for (header, failure) in [
            (r#"{"alg":"none"}"#, ALGORITHM),
            (r#"{"alg":"None"}"#, ALGORITHM),
            (r#"{"alg":"hs256"}"#, ALGORITHM),
            (r#"{"alg":"ES512"}"#, ALGORITHM),
            (r#"{"alg":""}"#, ALGORITHM),
            (r#"{"alg":7}"#, MALFORMED),
            (r#"{"alg":null}"#, MALFORMED),
            (r#"{"alg":"HS256","kid":7}"#, MALFORMED),
            (r#"{"alg":"HS256","crit":["exp"]}"#, CRITICAL),
            (r#"{"alg":"HS256","crit":[]}"#, CRITICAL),
            (r#"{"alg":"HS256","b64":false}"#, CRITICAL),
        ] {
            let text = token(header, "e30.");
            let parsed = Token::parse(text.as_bytes(), 1000).expect("it looks like one");
            assert_eq!(parsed.err(), Some(failure), "{header}");
        }
        let text = token(r#"{"alg":"HS256"}"#, "e30.c2ln");
        assert!(Token::parse(text.as_bytes(), text.len()).expect("one").is_ok());
        assert_eq!(Token::parse(text.as_bytes(), text.len() - 1).expect("one").err(), Some(TOO_LONG));
    }

    #[test]
    fn its_parts() {
        let text = token(r#"{"alg":"ES256","kid":"k1","jku":"https://evil.example"}"#, "eyJhIjoxfQ.c2ln");
        let token = Token::parse(text.as_bytes(), 1000).expect("one").expect("good");
        assert_eq!((token.algorithm, token.key_id.as_deref()), (Algorithm::ES256, Some("k1")));
        assert_eq!(token.signature, "c2ln");
        assert_eq!(token.message, text.rsplit_once('.').expect("dots").0.as_bytes());
        assert_eq!(token.claims().expect("claims")["a"], 1);
        for claims in ["", "e30x", "W10", "Nw"] {
            let text = format!("{}.{claims}.", text.split('.').next().expect("a header"));
            let token = Token::parse(text.as_bytes(), 1000).expect("one").expect("good");
            assert_eq!(token.claims().err(), Some(MALFORMED), "{claims}");
        }
    }
}
