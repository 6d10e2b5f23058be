//! What is asked of the callback, and what its answer means. Pure.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::NAME;
use crate::auth::acl::read_acl;
use crate::auth::{Failure, Login, Principal, Rules, Verdict};
use crate::mqtt::ReasonCode;

/// Largest answer that is read, bytes.
pub const ANSWER_MAX_BYTES: usize = 64 << 10;

const REFUSED: Failure =
    Failure::new(ReasonCode::BadUserNameOrPassword, "refused by the authentication service");
const FORBIDDEN: Failure = Failure::new(ReasonCode::NotAuthorized, "forbidden by the authentication service");

/// What is sent, without what there is none of.
#[derive(Serialize)]
struct Question<'a> {
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    /// Of a password that is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    password_base64: Option<String>,
    /// Without the port, which differs with every connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    common_name: Option<&'a str>,
    node: &'a str,
}

/// The question about a login as JSON; `None`: there is nothing to judge.
pub fn question(login: &Login, node: &str) -> Option<Zeroizing<Vec<u8>>> {
    if login.username.is_none() && login.password.is_none() && login.common_name().is_none() {
        return None;
    }
    let secret = login.password.as_ref().map(|password| password.expose());
    let password = secret.and_then(|secret| std::str::from_utf8(secret).ok());
    let question = Question {
        client_id: &login.client_id,
        username: login.username.as_deref(),
        password,
        password_base64: secret.filter(|_| password.is_none()).map(|secret| STANDARD.encode(secret)),
        address: login.address.map(|address| address.ip().to_canonical().to_string()),
        common_name: login.common_name(),
        node,
    };
    // With room for most, so that no copy of it is left behind as it grows.
    let mut body = Zeroizing::new(Vec::with_capacity(1024));
    serde_json::to_writer(&mut *body, &question).ok()?;
    Some(body)
}

#[derive(Deserialize)]
struct Answer {
    result: Decision,
    username: Option<String>,
    expires_in_s: Option<u64>,
    acl: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Decision {
    Allow,
    Deny,
    Ignore,
}

/// What the answer says of the login. `now_ms`: since the Unix epoch.
///
/// # Errors
/// It says nothing that is understood: what is wrong with it.
pub fn verdict(status: StatusCode, body: &[u8], login: &Login, now_ms: u64) -> Result<Verdict, String> {
    let answer = match status {
        StatusCode::OK => serde_json::from_slice::<Map<String, Value>>(body)
            .and_then(|answer| serde_json::from_value(Value::Object(answer)))
            .map_err(|error| format!("an answer that is not understood: {error}"))?,
        StatusCode::NO_CONTENT => {
            Answer { result: Decision::Allow, username: None, expires_in_s: None, acl: None }
        }
        StatusCode::UNAUTHORIZED => return Ok(Verdict::Deny(REFUSED)),
        StatusCode::FORBIDDEN => return Ok(Verdict::Deny(FORBIDDEN)),
        other => return Err(format!("status {other}")),
    };
    match answer.result {
        Decision::Allow => {}
        Decision::Deny => return Ok(Verdict::Deny(REFUSED)),
        Decision::Ignore => return Ok(Verdict::Pass),
    }
    let rules = match &answer.acl {
        Some(acl) => read_acl(acl).map_err(|error| format!("rules that cannot be read: {error}"))?,
        None => Rules::default(),
    };
    // Not the client id, which anyone may choose.
    let named = answer.username.map(Into::into).or_else(|| login.username.clone());
    let name: Arc<str> = named
        .or_else(|| login.common_name().map(Into::into))
        .filter(|name: &Arc<str>| !name.is_empty() && !name.contains(char::is_control))
        .ok_or("a client is let in, but nobody says as which user")?;
    let expires_at_ms = answer.expires_in_s.map(|s| now_ms.saturating_add(s.saturating_mul(1000)));
    let common_name = login.common_name().map(Into::into);
    Ok(Verdict::Allow(Arc::new(Principal { name, method: NAME, common_name, expires_at_ms, rules })))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    use crate::auth::{Certificate, Password};

    fn ann() -> Login {
        Login {
            client_id: "c1".into(),
            username: Some("ann".into()),
            password: Some(Password::new(b"secret")),
            address: "[::ffff:10.0.0.1]:4711".parse().ok(),
            certificate: None,
            throttled: false,
        }
    }

    fn asked(login: &Login) -> Option<Value> {
        question(login, "n1").map(|body| serde_json::from_slice(&body).expect("JSON"))
    }

    #[test]
    fn what_is_asked() {
        let mut login = ann();
        let whole = json!({
            "client_id": "c1", "username": "ann", "password": "secret", "address": "10.0.0.1", "node": "n1"
        });
        assert_eq!(asked(&login), Some(whole));
        login.password = Some(Password::new(&[0xff, 0xfe]));
        let binary = asked(&login).expect("something to judge");
        assert_eq!((&binary["password"], &binary["password_base64"]), (&json!(null), &json!("//4=")));
        let certified = Login { certificate: Certificate::named("dev-7").map(Arc::new), ..Login::default() };
        let asked_about = asked(&certified).expect("something to judge");
        assert_eq!(asked_about, json!({"client_id": "", "common_name": "dev-7", "node": "n1"}));
        assert_eq!(asked(&Login { client_id: "c1".into(), ..Login::default() }), None);
    }

    fn name(verdict: Result<Verdict, String>) -> String {
        match verdict.expect("understood") {
            Verdict::Allow(principal) => principal.name.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_answers_mean() {
        let of = |status: u16, body: &str| {
            verdict(StatusCode::from_u16(status).expect("a status"), body.as_bytes(), &ann(), 1_000)
        };
        assert_eq!(name(of(204, "")), "ann");
        assert_eq!(name(of(200, r#"{"result":"allow"}"#)), "ann");
        assert_eq!(name(of(200, r#"{"result":"allow","username":"bob","more":1}"#)), "bob");
        assert_eq!(name(of(200, r#"{"result":"ignore"}"#)), "Pass");
        let denied = |code: ReasonCode, verdict: Result<Verdict, String>| matches!(verdict, Ok(Verdict::Deny(failure)) if failure.reason == code);
        assert!(denied(ReasonCode::BadUserNameOrPassword, of(200, r#"{"result":"deny","username":"bob"}"#)));
        assert!(denied(ReasonCode::BadUserNameOrPassword, of(401, "whatever")));
        assert!(denied(ReasonCode::NotAuthorized, of(403, "")));
        let Ok(Verdict::Allow(limited)) =
            of(200, r#"{"result":"allow","expires_in_s":5,"acl":["allow any a"]}"#)
        else {
            panic!("let in")
        };
        assert_eq!((limited.expires_at_ms, limited.rules.0.len()), (Some(6_000), 1));
        for (status, body) in [
            (200, ""),
            (200, "allow"),
            (200, "{}"),
            (200, r#"{"result":true}"#),
            (200, r#"{"result":"Allow"}"#),
            (200, r#"{"result":"allow","expires_in_s":-1}"#),
            (200, r#"{"result":"allow","acl":"allow any #"}"#),
            (200, r#"{"result":"allow","acl":["allow"]}"#),
            (200, r#"{"result":"allow","username":""}"#),
            (200, r#"{"result":"allow","username":"a\u0000"}"#),
            (200, r#"["allow"]"#),
            (200, r#"["allow",null,null,null]"#),
            (200, "[]"),
            (201, ""),
            (302, ""),
            (404, ""),
            (500, r#"{"result":"allow"}"#),
        ] {
            assert!(of(status, body).is_err(), "{status} {body}");
        }
        let nameless = Login { username: None, ..ann() };
        assert!(verdict(StatusCode::NO_CONTENT, b"", &nameless, 0).is_err());
        let certified = Login { certificate: Certificate::named("dev-7").map(Arc::new), ..nameless };
        assert_eq!(name(verdict(StatusCode::NO_CONTENT, b"", &certified, 0)), "dev-7");
    }
}
