//! What is kept of a password: enough to verify a proof of it, and not enough to give one.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use aws_lc_rs::{constant_time, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{KEY_BYTES, Key, NAME, hash, mac};
use crate::auth::{NotPrepared, prepare};

/// Fewest iterations accepted: what RFC 7677 asks for.
pub const ITERATIONS_MIN: u32 = 4096;
/// Most accepted: a client would be busy for many seconds.
pub const ITERATIONS_MAX: u32 = 10_000_000;
/// Of a new verifier.
pub const ITERATIONS_DEFAULT: u32 = ITERATIONS_MIN;
/// Salt of a new verifier, bytes.
pub const SALT_BYTES: usize = 16;
/// Longest salt accepted, bytes.
const SALT_MAX_BYTES: usize = 1024;

/// A user's verifier. As text (RFC 5803, as PostgreSQL writes it):
/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, all but the number in Base64.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Box<[u8]>,
    stored_key: Key,
    server_key: Key,
}

impl Verifier {
    pub(super) fn new(iterations: u32, salt: Box<[u8]>, stored_key: Key, server_key: Key) -> Self {
        Self { iterations, salt, stored_key, server_key }
    }

    /// Of a password. As slow as `iterations` make it.
    ///
    /// # Errors
    /// SASLprep does not allow the password.
    pub fn derive(password: &str, salt: &[u8], iterations: NonZeroU32) -> Result<Self, NotPrepared> {
        let password = prepare(password)?;
        let mut salted = [0; KEY_BYTES];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password.as_bytes(), &mut salted);
        let stored_key = hash(&mac(&salted, b"Client Key"));
        Ok(Self::new(iterations.get(), salt.into(), stored_key, mac(&salted, b"Server Key")))
    }

    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// Whether the proof is of the password, for this AuthMessage. Takes the same time however
    /// wrong it is.
    pub(super) fn verifies(&self, proof: &Key, auth_message: &[u8]) -> bool {
        let mut client_key = mac(&self.stored_key, auth_message);
        client_key.iter_mut().zip(proof).for_each(|(byte, proof)| *byte ^= proof);
        constant_time::verify_slices_are_equal(&hash(&client_key), &self.stored_key).is_ok()
    }

    /// ServerSignature.
    pub(super) fn sign(&self, auth_message: &[u8]) -> Key {
        mac(&self.server_key, auth_message)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// For the users' file, and for nothing else: with it passwords can be guessed, and the server
/// impersonated.
impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (salt, stored) = (BASE64.encode(&self.salt), BASE64.encode(self.stored_key));
        let server = BASE64.encode(self.server_key);
        write!(f, "{NAME}${}:{salt}${stored}:{server}", self.iterations)
    }
}

/// What is wrong with the text of a verifier. Never holds any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadVerifier {
    #[error("expected {NAME}$ITERATIONS:SALT$STOREDKEY:SERVERKEY")]
    Form,
    #[error("the number of iterations must be from {ITERATIONS_MIN} to {ITERATIONS_MAX}")]
    Iterations,
    #[error("the salt must be 1 to {SALT_MAX_BYTES} bytes in Base64")]
    Salt,
    #[error("StoredKey and ServerKey must each be {KEY_BYTES} bytes in Base64")]
    Keys,
}

impl FromStr for Verifier {
    type Err = BadVerifier;

    fn from_str(text: &str) -> Result<Self, BadVerifier> {
        let mut parts = text.split('$');
        let (Some(NAME), Some(salting), Some(keys), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(BadVerifier::Form);
        };
        let (iterations, salt) = salting.split_once(':').ok_or(BadVerifier::Form)?;
        let (stored, server) = keys.split_once(':').ok_or(BadVerifier::Form)?;
        let iterations = iterations.parse().map_err(|_| BadVerifier::Iterations)?;
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return Err(BadVerifier::Iterations);
        }
        let salt = BASE64.decode(salt).map_err(|_| BadVerifier::Salt)?;
        if !(1..=SALT_MAX_BYTES).contains(&salt.len()) {
            return Err(BadVerifier::Salt);
        }
        let key = |text| BASE64.decode(text).ok().and_then(|key| Key::try_from(key).ok());
        let (stored_key, server_key) = key(stored).zip(key(server)).ok_or(BadVerifier::Keys)?;
        Ok(Self::new(iterations, salt.into(), stored_key, server_key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As PostgreSQL 16 stores `pencil` with the salt of RFC 7677.
    const PENCIL: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
        WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn a_known_password_gives_the_known_verifier() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let iterations = NonZeroU32::new(4096).unwrap();
        let verifier = Verifier::derive("pencil", &salt, iterations).unwrap();
        assert_eq!(verifier.to_string(), PENCIL);
        assert_eq!(PENCIL.parse(), Ok(verifier.clone()));
        assert_eq!(Verifier::derive("pen\u{AD}cil", &salt, iterations), Ok(verifier.clone()));
        assert_eq!(Verifier::derive("", &salt, iterations), Err(NotPrepared::Empty));
        assert!(!format!("{verifier:?}").contains("WG5d"));
    }

    #[test]
    fn texts_that_are_no_verifier() {
        let cases = [
            (PENCIL.replace("256", "1"), BadVerifier::Form),
            (PENCIL.replacen(':', "$", 1), BadVerifier::Form),
            (format!("{PENCIL}$"), BadVerifier::Form),
            (PENCIL.replace("4096", "4095"), BadVerifier::Iterations),
            (PENCIL.replace("4096", "10000001"), BadVerifier::Iterations),
            (PENCIL.replace("4096", "-1"), BadVerifier::Iterations),
            (PENCIL.replace("W22ZaJ0SNY7soEsUEjb6gQ==", ""), BadVerifier::Salt),
            (PENCIL.replace("gQ==", "gQ="), BadVerifier::Salt),
            (PENCIL.replace("WG5d", ""), BadVerifier::Keys),
            (PENCIL.replace("wfPL", "wf L"), BadVerifier::Keys),
            (String::new(), BadVerifier::Form),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Verifier>(), Err(error), "{text}");
        }
    }
}
