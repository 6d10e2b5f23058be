//! What a token has to say, and who its bearer is then. Pure: the time is an argument.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::auth::acl::read_acl;
use crate::auth::{Failure, Login, Principal, Rules};
use crate::mqtt::ReasonCode;

const fn no(what: &'static str) -> Failure {
    Failure::new(ReasonCode::NotAuthorized, what)
}

pub const EXPIRED: Failure = no("an expired token");
pub const NOT_YET_VALID: Failure = no("a token that is not valid yet");
pub const NO_EXPIRY: Failure = no("a token that does not expire");
pub const BAD_TIME: Failure = no("a token with a time that is no number");
pub const ISSUER: Failure = no("a token of another issuer");
pub const AUDIENCE: Failure = no("a token for another audience");
pub const NO_USER: Failure = no("a token that names no user");
pub const ANOTHER: Failure = no("a token for another client");
pub const BAD_RULES: Failure = no("a token with rules that cannot be read");

/// The end of the year 9999: what expires later does not matter.
const LATEST_MS: f64 = 253_402_300_799_000.0;

/// What of CONNECT a claim has to agree with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    ClientId,
    Username,
    CommonName,
}

const FIELDS: [(&str, Field); 3] =
    [("client_id", Field::ClientId), ("username", Field::Username), ("common_name", Field::CommonName)];

/// A claim that has to say the same as the client: `client_id=sub`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub field: Field,
    pub claim: String,
}

impl FromStr for Requirement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let fields = FIELDS.map(|(name, _)| name).join(", ");
            format!("expected FIELD=CLAIM such as client_id=sub, with a field of {fields}, not {text:?}")
        };
        let (field, claim) = text.split_once('=').ok_or_else(wrong)?;
        let (_, field) = *FIELDS.iter().find(|(name, _)| *name == field.trim()).ok_or_else(wrong)?;
        let claim = claim.trim().to_owned();
        if claim.is_empty() { Err(wrong()) } else { Ok(Self { field, claim }) }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = FIELDS.iter().find(|(_, field)| *field == self.field).map_or("", |(name, _)| name);
        write!(f, "{name}={}", self.claim)
    }
}

impl Requirement {
    fn holds(&self, claims: &Map<String, Value>, login: &Login) -> bool {
        let shown = match self.field {
            Field::ClientId => Some(&*login.client_id),
            Field::Username => login.username.as_deref(),
            Field::CommonName => login.common_name(),
        };
        let claimed = claims.get(&self.claim).and_then(Value::as_str);
        shown.is_some_and(|shown| !shown.is_empty() && claimed == Some(shown))
    }
}

/// What is asked of every token beside its signature.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// `iss`; `None`: any.
    pub issuer: Option<String>,
    /// `aud` has to name one of these; empty: any.
    pub audience: Vec<String>,
    /// `exp` may not be left out.
    pub expiry_required: bool,
    /// How far clocks may differ.
    pub leeway_ms: u64,
    pub username_claim: String,
    /// Empty: none is looked at.
    pub acl_claim: String,
    pub requirements: Vec<Requirement>,
}

impl Expected {
    /// Who shows these claims. `now_ms`: since the Unix epoch. The principal is good for as long as
    /// the token would be taken, so the leeway counts too.
    ///
    /// # Errors
    /// They do not say what they have to, or do not any more.
    pub fn judge(
        &self,
        claims: &Map<String, Value>,
        login: &Login,
        now_ms: u64,
        method: &'static str,
    ) -> Result<Principal, Failure> {
        let expires_at_ms = match time_ms(claims, "exp")? {
            None if self.expiry_required => return Err(NO_EXPIRY),
            None => None,
            Some(at_ms) => Some(at_ms.saturating_add(self.leeway_ms)),
        };
        if expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            return Err(EXPIRED);
        }
        if time_ms(claims, "nbf")?.is_some_and(|from_ms| from_ms > now_ms.saturating_add(self.leeway_ms)) {
            return Err(NOT_YET_VALID);
        }
        if let Some(issuer) = &self.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(ISSUER);
        }
        if !self.audience.is_empty() && !self.is_for_us(claims.get("aud")) {
            return Err(AUDIENCE);
        }
        if !self.requirements.iter().all(|requirement| requirement.holds(claims, login)) {
            return Err(ANOTHER);
        }
        let name = claims.get(&self.username_claim).and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() || name.contains(char::is_control) {
            return Err(NO_USER);
        }
        let rules = match claims.get(&self.acl_claim) {
            Some(acl) => read_acl(acl).map_err(|_| BAD_RULES)?,
            None => Rules::default(),
        };
        let common_name = login.common_name().map(Into::into);
        Ok(Principal { name: name.into(), method, common_name, expires_at_ms, rules })
    }

    fn is_for_us(&self, audience: Option<&Value>) -> bool {
        let ours = |audience: &Value| audience.as_str().is_some_and(|a| self.audience.iter().any(|o| o == a));
        match audience {
            Some(Value::Array(several)) => several.iter().any(ours),
            Some(one) => ours(one),
            None => false,
        }
    }
}

/// A NumericDate [RFC 7519 2], milliseconds; `None`: there is no such claim.
fn time_ms(claims: &Map<String, Value>, claim: &str) -> Result<Option<u64>, Failure> {
    let Some(value) = claims.get(claim) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| seconds.is_finite()).ok_or(BAD_TIME)?;
    Ok(Some((seconds * 1000.0).clamp(0.0, LATEST_MS) as u64))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::auth::Certificate;

    const NOW_S: u64 = 1_800_000_000;

    fn expected() -> Expected {
        Expected {
            expiry_required: true,
            username_claim: "sub".to_owned(),
            acl_claim: "acl".to_owned(),
            ..Expected::default()
        }
    }

    fn judge(expected: &Expected, claims: Value) -> Result<Principal, Failure> {
        let login = Login {
            client_id: "c1".into(),
            username: Some("ann".into()),
            certificate: Certificate::named("dev-7").map(Arc::new),
            ..Login::default()
        };
        let Value::Object(claims) = claims else { panic!("{claims}") };
        expected.judge(&claims, &login, NOW_S * 1000, "jwt")
    }

    #[test]
    fn who_it_is() {
        let principal = judge(&expected(), json!({"sub": "ann", "exp": NOW_S + 1, "acl": ["allow any a"]}));
        let principal = principal.expect("good");
        assert_eq!((&*principal.name, principal.method), ("ann", "jwt"));
        assert_eq!(principal.expires_at_ms, Some((NOW_S + 1) * 1000));
        assert_eq!(principal.common_name.as_deref(), Some("dev-7"));
        assert_eq!(principal.rules.0.len(), 1);
        let by_mail = Expected { username_claim: "mail".to_owned(), ..expected() };
        let principal = judge(&by_mail, json!({"sub": "x", "mail": "a@b", "exp": NOW_S + 1})).expect("good");
        assert_eq!(&*principal.name, "a@b");
    }

    #[test]
    fn times() {
        let of = |leeway_ms, claims: Value| {
            let Value::Object(mut all) = json!({"sub": "ann"}) else { panic!() };
            all.extend(claims.as_object().expect("claims").clone());
            let expected = Expected { leeway_ms, ..expected() };
            judge(&expected, Value::Object(all)).map(|principal| principal.expires_at_ms)
        };
        let until = |ms: u64| Ok(Some(ms));
        assert_eq!(of(0, json!({})), Err(NO_EXPIRY));
        assert_eq!(of(0, json!({"exp": NOW_S})), Err(EXPIRED));
        assert_eq!(of(0, json!({"exp": NOW_S + 1})), until((NOW_S + 1) * 1000));
        assert_eq!(of(0, json!({"exp": NOW_S as f64 + 0.5})), until(NOW_S * 1000 + 500));
        assert_eq!(of(5_000, json!({"exp": NOW_S - 4})), until((NOW_S + 1) * 1000));
        assert_eq!(of(5_000, json!({"exp": NOW_S - 5})), Err(EXPIRED));
        assert_eq!(of(0, json!({"exp": -1})), Err(EXPIRED));
        assert_eq!(of(u64::MAX, json!({"exp": 1e300})), until(u64::MAX));
        assert_eq!(of(0, json!({"exp": 1e300})), until(LATEST_MS as u64));
        for strange in [json!("1800000001"), json!(null), json!([1_800_000_001])] {
            assert_eq!(of(0, json!({"exp": strange})), Err(BAD_TIME));
            assert_eq!(of(0, json!({"exp": NOW_S + 1, "nbf": strange})), Err(BAD_TIME));
        }
        assert_eq!(of(0, json!({"exp": NOW_S + 9, "nbf": NOW_S})), until((NOW_S + 9) * 1000));
        assert_eq!(of(0, json!({"exp": NOW_S + 9, "nbf": NOW_S + 1})), Err(NOT_YET_VALID));
        assert!(of(1_000, json!({"exp": NOW_S + 9, "nbf": NOW_S + 1})).is_ok());
        let lasting = Expected { expiry_required: false, ..expected() };
        assert_eq!(judge(&lasting, json!({"sub": "ann"})).expect("good").expires_at_ms, None);
        assert_eq!(judge(&lasting, json!({"sub": "ann", "exp": NOW_S})).err(), Some(EXPIRED));
    }

    #[test]
    fn issuer_and_audience() {
        let strict = Expected {
            issuer: Some("https://id".to_owned()),
            audience: vec!["mqtt".to_owned(), "iot".to_owned()],
            ..expected()
        };
        for (iss, aud, failure) in [
            (json!("https://id"), json!("mqtt"), None),
            (json!("https://id"), json!(["x", "iot"]), None),
            (json!("https://id/"), json!("mqtt"), Some(ISSUER)),
            (json!(["https://id"]), json!("mqtt"), Some(ISSUER)),
            (json!(null), json!("mqtt"), Some(ISSUER)),
            (json!("https://id"), json!("MQTT"), Some(AUDIENCE)),
            (json!("https://id"), json!([]), Some(AUDIENCE)),
            (json!("https://id"), json!({"mqtt": 1}), Some(AUDIENCE)),
            (json!("https://id"), json!(null), Some(AUDIENCE)),
        ] {
            let claims = json!({"sub": "ann", "exp": NOW_S + 1, "iss": iss, "aud": aud});
            assert_eq!(judge(&strict, claims.clone()).err(), failure, "{claims}");
            assert!(judge(&expected(), claims).is_ok(), "nothing is asked of them");
        }
        assert_eq!(judge(&strict, json!({"sub": "ann", "exp": NOW_S + 1})).err(), Some(ISSUER));
    }

    #[test]
    fn a_token_may_be_bound_to_a_client() {
        for (requirement, claim, good) in [
            ("client_id=device", json!("c1"), true),
            ("client_id=device", json!("c2"), false),
            ("client_id=device", json!(["c1"]), false),
            ("username=device", json!("ann"), true),
            ("username=device", json!("c1"), false),
            ("common_name=device", json!("dev-7"), true),
            ("client_id=other", json!("c1"), false),
        ] {
            let bound = Expected { requirements: vec![requirement.parse().expect("one")], ..expected() };
            let judged = judge(&bound, json!({"sub": "x", "exp": NOW_S + 1, "device": claim}));
            assert_eq!(judged.err(), (!good).then_some(ANOTHER), "{requirement} {claim}");
        }
        // A client that is to be assigned an id has none to agree with.
        let bound = Expected { requirements: vec!["client_id=sub".parse().expect("one")], ..expected() };
        let claims = json!({"sub": "", "exp": NOW_S + 1});
        let judged = bound.judge(claims.as_object().expect("claims"), &Login::default(), 0, "jwt");
        assert_eq!(judged.err(), Some(ANOTHER));
    }

    #[test]
    fn a_user_and_rules_that_cannot_be_read() {
        for sub in [json!(""), json!(7), json!(null), json!("a\nb"), json!("a\0")] {
            assert_eq!(judge(&expected(), json!({"sub": sub, "exp": NOW_S + 1})).err(), Some(NO_USER));
        }
        for acl in [json!(null), json!("allow any #"), json!(["allow any"])] {
            let claims = json!({"sub": "ann", "exp": NOW_S + 1, "acl": acl});
            assert_eq!(judge(&expected(), claims.clone()).err(), Some(BAD_RULES), "{claims}");
            let elsewhere = Expected { acl_claim: "rules".to_owned(), ..expected() };
            assert!(judge(&elsewhere, claims).expect("good").rules.0.is_empty());
        }
    }

    #[test]
    fn requirements_are_written_as_they_are_read() {
        for text in ["client_id=sub", "username=a=b", "common_name=x y"] {
            assert_eq!(text.parse::<Requirement>().expect("one").to_string(), text);
        }
        for text in ["", "client_id", "client_id=", "=sub", "clientid=sub"] {
            let error = text.parse::<Requirement>().expect_err(text);
            assert!(error.contains("client_id=sub"), "{error}");
        }
    }
}
