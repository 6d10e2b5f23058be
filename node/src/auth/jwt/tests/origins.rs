//! Files and settings that keys come from.

use super::*;

fn refused(config: &JwtConfig) -> String {
    Jwt::check(config).expect_err("refused").to_string()
}

#[test]
fn secrets_have_to_be_long_and_are_not_shown() {
    for (secret, good) in [
        (vec![b'x'; 32], true),
        (vec![b'x'; 31], false),
        (Vec::new(), false),
        ([vec![b'x'; 31], vec![b'\n']].concat(), false),
        ([vec![b'x'; 32], b"\r\n".to_vec()].concat(), true),
        (vec![b'x'; KEY_FILE_MAX_BYTES + 1], false),
    ] {
        let (_dir, path) = file(&secret);
        let config = JwtConfig { secret_file: Some(path), ..JwtConfig::default() };
        let checked = Jwt::check(&config);
        assert_eq!(checked.is_ok(), good, "{} bytes: {checked:?}", secret.len());
        if let Err(error) = checked {
            assert!(
                error.to_string().starts_with("secret_file: ") && !error.to_string().contains("xx"),
                "{error}"
            );
        }
    }
    let key = Key::from_secret(&[b'x'; 32]).expect("a key");
    assert_eq!(format!("{key:?}"), "Key { id: None, algorithms: [HS256] }");
}

/// A longer hash needs a longer secret [RFC 7518 3.2].
#[test]
fn a_secret_is_for_what_it_is_long_enough_for() {
    let (_dir, path) = file([7; 48]);
    let config = |algorithms: &[Algorithm]| JwtConfig {
        secret_file: Some(path.clone()),
        algorithms: algorithms.to_vec(),
        ..JwtConfig::default()
    };
    Jwt::check(&config(&[])).expect("good");
    Jwt::check(&config(&[Algorithm::HS256, Algorithm::HS384])).expect("good");
    let error = refused(&config(&[Algorithm::HS512]));
    assert!(error.contains("algorithms: HS512") && error.contains("HS256, HS384"), "{error}");
    let error = refused(&config(&[Algorithm::RS256]));
    assert!(error.contains("algorithms: RS256 cannot be used with the key of secret_file"), "{error}");
}

#[test]
fn public_keys_and_what_is_mistaken_for_them() {
    for signer in [&*signer::RSA, &Signer::p256(), &Signer::p384(), &Signer::ed()] {
        let key = Key::from_pem(signer.pem().as_bytes()).expect("a key");
        assert!(!key.algorithms().is_empty() && !key.algorithms().contains(&Algorithm::HS256));
    }
    let p256 = Signer::p256();
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    for (text, what) in [
        (String::new(), "holds no public key"),
        ("secret".to_owned(), "holds no public key"),
        (format!("{0}{0}", p256.pem()), "holds several public keys"),
        (own.cert.pem(), "openssl x509"),
        (own.signing_key.serialize_pem(), "openssl pkey"),
        (format!("{}{}", p256.pem(), own.signing_key.serialize_pem()), "a private key"),
        (signer::pem("PUBLIC KEY", b"whatever"), "cannot be used"),
        (signer::pem("PUBLIC KEY", &p256.spki()[1..]), "cannot be used"),
        ("-----BEGIN PUBLIC KEY-----\n*\n-----END PUBLIC KEY-----\n".to_owned(), "is not PEM"),
    ] {
        let (_dir, path) = file(&text);
        let error = refused(&JwtConfig { public_key_file: Some(path), ..JwtConfig::default() });
        assert!(error.starts_with("public_key_file: ") && error.contains(what), "{error}");
    }
    let (_dir, path) = file(p256.pem());
    let config =
        JwtConfig { public_key_file: Some(path), algorithms: vec![Algorithm::HS256], ..JwtConfig::default() };
    assert!(
        refused(&config).contains("HS256 cannot be used with the key of public_key_file, which is for ES256")
    );
}

#[test]
fn keys_come_from_one_place() {
    let (_dir, path) = file([7; 32]);
    let both = JwtConfig { secret_file: Some(path.clone()), jwks_file: Some(path), ..JwtConfig::default() };
    assert!(refused(&both).contains("jwks_file: and secret_file are both set"));
    let all = "one of secret_file, secret, public_key_file, jwks_file, jwks_url is needed";
    assert!(refused(&JwtConfig::default()).contains(all));
    let absent = JwtConfig { jwks_file: Some("/nonexistent".into()), ..JwtConfig::default() };
    assert!(refused(&absent).starts_with("jwks_file: /nonexistent: "));
}

#[test]
fn what_a_jwks_may_hold() {
    let (p256, p384, ed, rsa) = (Signer::p256(), Signer::p384(), Signer::ed(), &*signer::RSA);
    let with = |signer: &Signer, more: Value| {
        let mut jwk = signer.jwk("k");
        jwk.as_object_mut().expect("a JWK").extend(more.as_object().expect("members").clone());
        jwk
    };
    let algorithms = |jwk: &Value| {
        let keys = KeySet::from_jwks(signer::jwks(std::slice::from_ref(jwk)).as_bytes()).expect("a JWKS");
        keys.keys().first().map(|key| key.algorithms().to_vec())
    };
    for (jwk, usable) in [
        (p256.jwk("k"), Some(vec![Algorithm::ES256])),
        (p384.jwk("k"), Some(vec![Algorithm::ES384])),
        (ed.jwk("k"), Some(vec![Algorithm::EdDSA])),
        (rsa.jwk("k"), Some(AlgorithmFamily::Rsa.algorithms().to_vec())),
        (with(rsa, json!({"alg": "PS256"})), Some(vec![Algorithm::PS256])),
        (
            with(rsa, json!({"alg": "PS256", "use": "sig", "key_ops": ["verify"], "x": 1})),
            Some(vec![Algorithm::PS256]),
        ),
        // For something else, or contradicting itself.
        (with(rsa, json!({"use": "enc"})), None),
        (with(rsa, json!({"key_ops": ["encrypt"]})), None),
        (with(rsa, json!({"alg": "RSA-OAEP"})), None),
        (with(rsa, json!({"alg": "HS256"})), None),
        (with(rsa, json!({"alg": "ES512"})), None),
        (with(&p256, json!({"alg": "ES384"})), None),
        (with(&p256, json!({"crv": "P-384"})), None),
        (with(&p256, json!({"crv": "secp256k1"})), None),
        (with(&p256, json!({"x": "AAAA"})), None),
        (with(&p256, json!({"x": 7})), None),
        (with(&p256, json!({"y": p256.jwk("k")["x"]})), None),
        (with(&ed, json!({"x": "AAAA"})), None),
        (with(rsa, json!({"n": "AQAB"})), None),
        (with(rsa, json!({"n": "!"})), None),
        (with(rsa, json!({"e": ""})), None),
        (Signer::Secret(vec![7; 64]).jwk("k"), None),
        (json!({"kty": "RSA"}), None),
        (json!({}), None),
        (json!(7), None),
    ] {
        assert_eq!(algorithms(&jwk), usable, "{jwk}");
    }
    for document in ["", "[]", "{}", "{\"keys\":{}}", "{\"keys\":[}"] {
        KeySet::from_jwks(document.as_bytes()).expect_err(document);
    }
    let many = vec![json!({}); keys::KEYS_MAX + 1];
    KeySet::from_jwks(signer::jwks(&many).as_bytes()).expect_err("too many");
    KeySet::from_jwks(signer::jwks(&many[1..]).as_bytes()).expect("as many as there may be");
    // What cannot be used does not stand in the way of what can.
    let mixed = [json!({"kty": "new"}), p256.jwk("k1"), json!(null), ed.jwk("k2")];
    assert_eq!(KeySet::from_jwks(signer::jwks(&mixed).as_bytes()).expect("a JWKS").keys().len(), 2);
}

#[tokio::test]
async fn the_key_that_is_named() {
    let (a, b, nameless) = (Signer::p256(), Signer::p256(), Signer::ed());
    let mut without = nameless.jwk("");
    without.as_object_mut().expect("a JWK").remove("kid");
    let (_dir, path) = file(signer::jwks(&[a.jwk("a"), b.jwk("b"), without]));
    let jwt = open(&JwtConfig { jwks_file: Some(path), ..JwtConfig::default() });
    let claims = claims_of("ann");
    allowed(shown(&jwt, &a.token_by("a", Algorithm::ES256, &claims)).await);
    allowed(shown(&jwt, &b.token_by("b", Algorithm::ES256, &claims)).await);
    allowed(shown(&jwt, &nameless.token(Algorithm::EdDSA, &claims)).await);
    allowed(shown(&jwt, &nameless.token_by("any", Algorithm::EdDSA, &claims)).await);
    let verdict = shown(&jwt, &a.token_by("b", Algorithm::ES256, &claims)).await;
    assert_eq!(denied(verdict), (BAD, SIGNATURE.what));
    let verdict = shown(&jwt, &a.token(Algorithm::ES256, &claims)).await;
    assert_eq!(denied(verdict), (BAD, UNNAMED_KEY.what), "two keys may be meant");
}
