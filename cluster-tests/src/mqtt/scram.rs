//! The client's side of SCRAM-SHA-256 [RFC 5802, RFC 7677], for names and passwords that SASLprep
//! leaves as they are.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// The Authentication Method.
pub const SCRAM: &str = "SCRAM-SHA-256";

/// One exchange.
#[derive(Debug)]
pub struct Scram {
    password: String,
    first_bare: String,
    /// What the server must say to prove that it knows the user.
    last_word: Option<String>,
}

impl Scram {
    pub fn new(user: &str, password: &str) -> Self {
        let nonce = crate::fresh("nonce");
        Scram { password: password.into(), first_bare: format!("n={user},r={nonce}"), last_word: None }
    }

    /// client-first-message
    pub fn first(&self) -> Vec<u8> {
        format!("n,,{}", self.first_bare).into_bytes()
    }

    /// client-final-message
    ///
    /// # Panics
    /// When the challenge is none.
    pub fn answer(&mut self, challenge: &[u8]) -> Vec<u8> {
        let challenge = std::str::from_utf8(challenge).expect("a text");
        let mut parts = challenge.split(',');
        let mut part = |prefix| {
            let part = parts.next().and_then(|part| part.strip_prefix(prefix));
            part.unwrap_or_else(|| panic!("no {prefix} in {challenge}"))
        };
        let (nonce, salt, iterations) = (part("r="), part("s="), part("i="));
        let own = self.first_bare.rsplit_once("r=").map(|(_, nonce)| nonce).expect("a nonce");
        assert!(nonce.starts_with(own) && nonce.len() > own.len() + 16, "a nonce of both: {nonce}");
        let salt = BASE64.decode(salt).expect("Base64");
        let iterations: NonZeroU32 = iterations.parse().expect("a number");
        let mut salted = [0; 32];
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(algorithm, iterations, &salt, self.password.as_bytes(), &mut salted);
        let without_proof = format!("c=biws,r={nonce}");
        let message = format!("{},{challenge},{without_proof}", self.first_bare);
        let client_key = mac(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, &client_key);
        let signature = mac(stored_key.as_ref(), message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        let server = mac(&mac(&salted, b"Server Key"), message.as_bytes());
        self.last_word = Some(format!("v={}", BASE64.encode(server)));
        format!("{without_proof},p={}", BASE64.encode(proof)).into_bytes()
    }

    /// Whether the server has proved that it knows the user.
    pub fn trusts(&self, last_word: &[u8]) -> bool {
        self.last_word.as_deref().is_some_and(|expected| expected.as_bytes() == last_word)
    }
}

fn mac(key: &[u8], data: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref().to_vec()
}
