//! Tokens of those who would like to be let in.

use proptest::prelude::*;

use super::*;

/// A secret that everybody knows: the public key, in every form in which it is had.
#[tokio::test]
async fn a_public_key_is_no_secret() {
    let rsa: &Signer = &signer::RSA;
    let (p256, ed) = (Signer::p256(), Signer::ed());
    for signer in [rsa, &p256, &ed] {
        let (_dir, jwks) = file(signer::jwks(&[signer.jwk("k")]));
        let jwks = open(&JwtConfig { jwks_file: Some(jwks), ..JwtConfig::default() });
        let pem = open_pem(signer);
        let text = signer.pem();
        for secret in [
            text.as_bytes(),
            text.trim_end().as_bytes(),
            &signer.spki(),
            signer.jwk("k").to_string().as_bytes(),
        ] {
            let secret = Signer::Secret(secret.to_vec());
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                for jwt in [&pem, &jwks] {
                    let verdict = shown(jwt, &secret.token_by("k", algorithm, &claims_of("ann"))).await;
                    assert_eq!(denied(verdict), (BAD, token::ALGORITHM.what));
                }
            }
        }
    }
}

#[tokio::test]
async fn a_signature_counts_for_its_own_algorithm_only() {
    let rsa: &Signer = &signer::RSA;
    let claims = claims_of("ann");
    let jwt = open_pem(rsa);
    for (said, done) in [
        (Algorithm::RS256, Algorithm::PS256),
        (Algorithm::PS512, Algorithm::RS512),
        (Algorithm::RS384, Algorithm::RS256),
    ] {
        let token = rsa.token_with(done, &json!({"alg": format!("{said:?}")}), &claims);
        assert_eq!(denied(shown(&jwt, &token).await), (BAD, SIGNATURE.what), "{said:?}");
    }
    // A key of another kind: there is none for what the token says.
    let token = Signer::p256().token(Algorithm::ES256, &claims);
    assert_eq!(denied(shown(&jwt, &token).await), (BAD, token::ALGORITHM.what));
}

#[tokio::test]
async fn no_signature_is_none() {
    let claims = signer::encode(claims_of("ann").to_string());
    for jwt in [open_secret(&[7; 32]), open_pem(&Signer::ed())] {
        for none in ["none", "None", "NONE", "nOnE", "", "null"] {
            let header = signer::encode(json!({"alg": none, "typ": "JWT"}).to_string());
            for signature in ["", "AA"] {
                let verdict = shown(&jwt, &format!("{header}.{claims}.{signature}")).await;
                assert_eq!(denied(verdict), (BAD, token::ALGORITHM.what), "{none}");
            }
        }
    }
}

/// A key in the header, or an address of one, is the sender's own word.
#[tokio::test]
async fn a_key_that_comes_with_the_token_does_not_count() {
    let jwt = open_pem(&Signer::p256());
    let own = Signer::p256();
    let header = json!({
        "alg": "ES256", "jwk": own.jwk("k"), "jku": "http://127.0.0.1:9/jwks", "x5u": "http://127.0.0.1:9/x",
        "x5c": ["AAAA"], "kid": "../../dev/null",
    });
    let token = own.token_with(Algorithm::ES256, &header, &claims_of("ann"));
    assert_eq!(denied(shown(&jwt, &token).await), (BAD, SIGNATURE.what));
}

/// ECDSA with r = s = 0, which some libraries took for good (CVE-2022-21449).
#[tokio::test]
async fn a_signature_of_zeros() {
    for (signer, algorithm, bytes) in [
        (Signer::p256(), Algorithm::ES256, 64),
        (Signer::p384(), Algorithm::ES384, 96),
        (Signer::ed(), Algorithm::EdDSA, 64),
    ] {
        let jwt = open_pem(&signer);
        let token = signer.token(algorithm, &claims_of("ann"));
        let (message, _) = token.rsplit_once('.').expect("dots");
        let forged = format!("{message}.{}", signer::encode(vec![0; bytes]));
        assert_eq!(denied(shown(&jwt, &forged).await), (BAD, SIGNATURE.what));
    }
}

/// Judged here and now, since a secret is quick.
fn judged_at_once(jwt: &Jwt, password: &[u8]) -> Verdict {
    let login = Login { password: Some(crate::auth::Password::new(password)), ..Login::default() };
    let (sender, verdict) = std::sync::mpsc::channel();
    jwt.judge(&Arc::new(login), Box::new(move |verdict| drop(sender.send(verdict))));
    verdict.try_recv().expect("at once")
}

fn json_text() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "\"alg\"",
        "\"HS256\"",
        "\"kid\"",
        "\"none\"",
        "\"crit\"",
        "\"exp\"",
        "\"sub\"",
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "1e999",
        "-1",
        "null",
        "\"\\u0000\"",
        "\"a\"",
        "{{{{{{{{",
        "[[[[[[[[",
    ]);
    prop::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn garbage_is_never_let_in(password in prop::collection::vec(any::<u8>(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let _in = runtime.enter();
        let jwt = open_secret(&[7; 32]);
        prop_assert!(!matches!(judged_at_once(&jwt, &password), Verdict::Allow(_)));
    }

    #[test]
    fn nor_is_what_looks_like_a_token(header in json_text(), claims in json_text(), rest in ".{0,8}") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let _in = runtime.enter();
        let jwt = open_secret(&[7; 32]);
        for header in [header, json!({"alg": "HS256"}).to_string()] {
            let message = format!("{}.{}", signer::encode(&header), signer::encode(&claims));
            let signed = Signer::Secret(vec![7; 32]).sign(Algorithm::HS256, message.as_bytes());
            for signature in [signer::encode(signed), rest.clone()] {
                let verdict = judged_at_once(&jwt, format!("{message}.{signature}").as_bytes());
                prop_assert!(!matches!(verdict, Verdict::Allow(_)), "{} {}", header, claims);
            }
        }
    }

    #[test]
    fn nor_is_a_token_that_was_changed(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let _in = runtime.enter();
        let jwt = open_secret(&[7; 32]);
        let token = Signer::Secret(vec![7; 32]).token(Algorithm::HS256, &claims_of("ann"));
        prop_assert!(matches!(judged_at_once(&jwt, token.as_bytes()), Verdict::Allow(_)));
        let mut changed = token.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] = byte;
        if changed != token.as_bytes() {
            prop_assert!(!matches!(judged_at_once(&jwt, &changed), Verdict::Allow(_)));
        }
    }
}
