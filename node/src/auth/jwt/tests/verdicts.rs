//! What becomes of tokens, by algorithm and by claim.

use super::*;

#[tokio::test]
async fn every_algorithm_with_its_key() {
    let secret = vec![7; 64];
    let (p256, p384, ed, hmac) =
        (Signer::p256(), Signer::p384(), Signer::ed(), Signer::Secret(secret.clone()));
    let rsa: &Signer = &signer::RSA;
    for (algorithm, signer) in [
        (Algorithm::HS256, &hmac),
        (Algorithm::HS384, &hmac),
        (Algorithm::HS512, &hmac),
        (Algorithm::RS256, rsa),
        (Algorithm::RS384, rsa),
        (Algorithm::RS512, rsa),
        (Algorithm::PS256, rsa),
        (Algorithm::PS384, rsa),
        (Algorithm::PS512, rsa),
        (Algorithm::ES256, &p256),
        (Algorithm::ES384, &p384),
        (Algorithm::EdDSA, &ed),
    ] {
        let jwt = match signer {
            Signer::Secret(secret) => open_secret(secret),
            _ => open_pem(signer),
        };
        let token = signer.token(algorithm, &claims_of("ann"));
        let principal = allowed(shown(&jwt, &token).await);
        assert_eq!((&*principal.name, principal.method), ("ann", "jwt"), "{algorithm:?}");
        // Another's claims under the same signature, another signature under the same claims.
        let (message, signature) = token.rsplit_once('.').expect("dots");
        let (other, _) = signer
            .token(algorithm, &claims_of("bob"))
            .rsplit_once('.')
            .map(|(m, s)| (m.to_owned(), s.to_owned()))
            .expect("dots");
        let mut flipped = signer.sign(algorithm, message.as_bytes());
        flipped[0] ^= 1;
        for forged in [
            format!("{other}.{signature}"),
            format!("{message}.{}", signer::encode(&flipped)),
            format!("{message}.{}", signer::encode(&flipped[1..])),
            format!("{message}."),
        ] {
            assert_eq!(denied(shown(&jwt, &forged).await), (BAD, SIGNATURE.what), "{algorithm:?}");
        }
    }
}

#[tokio::test]
async fn only_algorithms_that_are_named() {
    let (_dir, path) = file(signer::RSA.pem());
    let algorithms = vec![Algorithm::PS256, Algorithm::RS512];
    let jwt = open(&JwtConfig { public_key_file: Some(path), algorithms, ..JwtConfig::default() });
    allowed(shown(&jwt, &signer::RSA.token(Algorithm::PS256, &claims_of("ann"))).await);
    allowed(shown(&jwt, &signer::RSA.token(Algorithm::RS512, &claims_of("ann"))).await);
    for other in [Algorithm::RS256, Algorithm::PS512] {
        let verdict = shown(&jwt, &signer::RSA.token(other, &claims_of("ann"))).await;
        assert_eq!(denied(verdict), (BAD, token::ALGORITHM.what));
    }
}

#[tokio::test]
async fn who_shows_no_token_is_passed_on() {
    let jwt = open_secret(&[7; 32]);
    let good = Signer::Secret(vec![7; 32]).token(Algorithm::HS256, &claims_of("ann"));
    for login in [
        Login::default(),
        Login { username: Some(good.as_str().into()), ..Login::default() },
        login("c", "ann", "secret"),
        login("c", "ann", "www.example.org"),
        login("c", "ann", ""),
    ] {
        assert!(matches!(judged(&jwt, login).await, Verdict::Pass));
    }
}

#[tokio::test]
async fn the_token_may_be_the_user_name() {
    let (_dir, path) = file([7; 32]);
    let jwt =
        open(&JwtConfig { secret_file: Some(path), from: TokenField::Username, ..JwtConfig::default() });
    let token = Signer::Secret(vec![7; 32]).token(Algorithm::HS256, &claims_of("ann"));
    let by_name = Login { username: Some(token.as_str().into()), ..Login::default() };
    assert_eq!(&*allowed(judged(&jwt, by_name).await).name, "ann");
    assert!(matches!(judged(&jwt, login("c", "ann", &token)).await, Verdict::Pass));
}

#[tokio::test]
async fn what_a_token_must_say() {
    let (_dir, path) = file([7; 32]);
    let jwt = open(&JwtConfig {
        secret_file: Some(path),
        leeway_s: 10,
        issuer: Some("https://id".to_owned()),
        audience: vec!["mqtt".to_owned()],
        verify: vec!["client_id=device".parse().expect("a requirement")],
        ..JwtConfig::default()
    });
    let signer = Signer::Secret(vec![7; 32]);
    let now_s = env::wall_ms() / 1000;
    let good = json!({
        "sub": "ann", "exp": now_s + 60, "nbf": now_s, "iss": "https://id", "aud": ["x", "mqtt"], "device": "c1",
        "acl": ["allow publish a/%u"],
    });
    let principal = allowed(shown(&jwt, &signer.token(Algorithm::HS256, &good)).await);
    assert_eq!(principal.expires_at_ms, Some((now_s + 70) * 1000));
    assert_eq!(principal.rules.0[0].to_string(), "allow publish a/%u");
    // Of a token that has just expired, what is left of the leeway.
    let just = json!({"exp": now_s - 2});
    for (claim, what) in [
        (json!({"exp": now_s - 3600}), "an expired token"),
        (json!({"exp": null}), claims::BAD_TIME.what),
        (json!({"nbf": now_s + 3600}), "a token that is not valid yet"),
        (json!({"iss": "https://other"}), "a token of another issuer"),
        (json!({"aud": "other"}), "a token for another audience"),
        (json!({"device": "c2"}), "a token for another client"),
        (json!({"sub": ""}), "a token that names no user"),
        (json!({"acl": ["allow any"]}), "a token with rules that cannot be read"),
        (just, ""),
    ] {
        let mut claims = good.clone();
        claims.as_object_mut().expect("claims").extend(claim.as_object().expect("a claim").clone());
        let verdict = shown(&jwt, &signer.token(Algorithm::HS256, &claims)).await;
        if what.is_empty() {
            allowed(verdict);
        } else {
            assert_eq!(denied(verdict), (ReasonCode::NotAuthorized, what), "{claim}");
        }
        // Whoever cannot sign learns nothing of the claims.
        let forged = Signer::Secret(vec![8; 32]).token(Algorithm::HS256, &claims);
        assert_eq!(denied(shown(&jwt, &forged).await), (BAD, SIGNATURE.what));
    }
}

#[tokio::test]
async fn nobody_waits_without_bounds() {
    let jwt = open_pem(&Signer::p256());
    // Nobody gets in, and all the places are taken.
    let places: Vec<_> = std::iter::from_fn(|| jwt.shared.signatures.place()).collect();
    assert!(places.len() > WAITING_MAX);
    let token = Signer::p256().token(Algorithm::ES256, &claims_of("ann"));
    assert_eq!(denied(shown(&jwt, &token).await), (ReasonCode::ServerBusy, BUSY.what));
    drop(places);
    assert_eq!(denied(shown(&jwt, &token).await), (BAD, SIGNATURE.what));
}
