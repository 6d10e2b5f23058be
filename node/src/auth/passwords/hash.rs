//! What is kept of a password that clients send as it is: a slow hash of it.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{constant_time, digest, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, STANDARD_NO_PAD as BASE64_NO_PAD};
use serde::{Deserialize, Serialize};

/// Memory that trying a password takes, KiB: the first choice of OWASP's list for Argon2id.
pub const MEMORY_KIB: u32 = 19_456;
/// Passes over that memory.
pub const PASSES: u32 = 2;
/// Salt of a new hash, bytes.
pub const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// Most memory that a hash made elsewhere may ask for, KiB.
const MEMORY_MAX_KIB: u32 = 256 << 10;
/// Most passes and lanes that one may ask for.
const PASSES_MAX: u32 = 16;
/// Most iterations of PBKDF2 that one may ask for.
const ITERATIONS_MAX: u32 = 10_000_000;
/// Salts and hashes made elsewhere, bytes.
const BYTES: std::ops::RangeInclusive<usize> = 8..=256;
/// Longest hash as text, bytes.
const TEXT_MAX_BYTES: usize = 1024;

/// A password's hash as text: `$argon2id$v=19$…` in the PHC form, or what mosquitto writes: `$7$…`
/// (PBKDF2-SHA512) and `$6$…` (SHA-512 with a salt).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PasswordHash(Box<str>);

/// What is wrong with the text of a hash. Never holds any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHash {
    #[error("is no password hash that is known: $argon2id$v=19$…, or $7$… or $6$… of mosquitto")]
    Form,
    #[error("asks for more work than is allowed")]
    TooMuch,
}

/// How a password is compared.
enum Scheme {
    Argon2id(Params),
    Pbkdf2Sha512(NonZeroU32),
    Sha512,
}

struct Parsed {
    scheme: Scheme,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl PasswordHash {
    /// Of a new password. As slow as trying one: tens of milliseconds, and [`MEMORY_KIB`].
    pub fn derive(password: &[u8], salt: &[u8; SALT_BYTES]) -> Self {
        let params = Params::new(MEMORY_KIB, PASSES, 1, Some(HASH_BYTES)).unwrap_or_default();
        let mut hash = [0; HASH_BYTES];
        argon2id(params, password, salt, &mut hash);
        let (salt, hash) = (BASE64_NO_PAD.encode(salt), BASE64_NO_PAD.encode(hash));
        Self(format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p=1${salt}${hash}").into())
    }

    /// Whether it is of this password. Slow, and as slow whatever the answer.
    pub fn verifies(&self, password: &[u8]) -> bool {
        let Ok(Parsed { scheme, salt, hash }) = parse(&self.0) else { return false };
        match scheme {
            Scheme::Pbkdf2Sha512(iterations) => {
                pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA512, iterations, &salt, password, &hash).is_ok()
            }
            Scheme::Argon2id(params) => {
                let mut tried = vec![0; hash.len()];
                argon2id(params, password, &salt, &mut tried)
                    && constant_time::verify_slices_are_equal(&tried, &hash).is_ok()
            }
            Scheme::Sha512 => {
                let mut tried = digest::Context::new(&digest::SHA512);
                tried.update(password);
                tried.update(&salt);
                constant_time::verify_slices_are_equal(tried.finish().as_ref(), &hash).is_ok()
            }
        }
    }

    /// How it was made, for people.
    pub fn scheme(&self) -> &'static str {
        match parse(&self.0).map(|parsed| parsed.scheme) {
            Ok(Scheme::Argon2id(_)) => "argon2id",
            Ok(Scheme::Pbkdf2Sha512(_)) => "pbkdf2-sha512",
            Ok(Scheme::Sha512) => "sha512",
            Err(_) => "unknown",
        }
    }

    /// For storing it, and for nothing else: with it, passwords can be guessed.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// False: the parameters are none, and `hash` is as it was.
fn argon2id(params: Params, password: &[u8], salt: &[u8], hash: &mut [u8]) -> bool {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(password, salt, hash).is_ok()
}

fn parse(text: &str) -> Result<Parsed, BadHash> {
    if text.len() > TEXT_MAX_BYTES {
        return Err(BadHash::Form);
    }
    let parts: Vec<&str> = text.split('$').collect();
    let bytes = |engine: &base64::engine::GeneralPurpose, text: &str| {
        engine.decode(text).ok().filter(|bytes| BYTES.contains(&bytes.len())).ok_or(BadHash::Form)
    };
    match parts[..] {
        ["", "argon2id", "v=19", params, salt, hash] => {
            let hash = bytes(&BASE64_NO_PAD, hash)?;
            let scheme = Scheme::Argon2id(argon2_params(params, hash.len())?);
            Ok(Parsed { scheme, salt: bytes(&BASE64_NO_PAD, salt)?, hash })
        }
        ["", "7", iterations, salt, hash] => {
            let iterations: NonZeroU32 = iterations.parse().map_err(|_| BadHash::Form)?;
            if iterations.get() > ITERATIONS_MAX {
                return Err(BadHash::TooMuch);
            }
            let scheme = Scheme::Pbkdf2Sha512(iterations);
            Ok(Parsed { scheme, salt: bytes(&BASE64, salt)?, hash: bytes(&BASE64, hash)? })
        }
        ["", "6", salt, hash] => {
            Ok(Parsed { scheme: Scheme::Sha512, salt: bytes(&BASE64, salt)?, hash: bytes(&BASE64, hash)? })
        }
        _ => Err(BadHash::Form),
    }
}

fn argon2_params(text: &str, hash_bytes: usize) -> Result<Params, BadHash> {
    let mut numbers = text.split(',').zip(["m=", "t=", "p="]).map(|(part, name)| {
        part.strip_prefix(name).and_then(|number| number.parse::<u32>().ok()).ok_or(BadHash::Form)
    });
    let mut next = || numbers.next().unwrap_or(Err(BadHash::Form));
    let (memory_kib, passes, lanes) = (next()?, next()?, next()?);
    if text.split(',').count() != 3 {
        return Err(BadHash::Form);
    }
    if memory_kib > MEMORY_MAX_KIB || passes > PASSES_MAX || lanes > PASSES_MAX {
        return Err(BadHash::TooMuch);
    }
    Params::new(memory_kib, passes, lanes, Some(hash_bytes)).map_err(|_| BadHash::Form)
}

impl FromStr for PasswordHash {
    type Err = BadHash;

    fn from_str(text: &str) -> Result<Self, BadHash> {
        parse(text)?;
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for PasswordHash {
    type Error = BadHash;

    fn try_from(text: String) -> Result<Self, BadHash> {
        text.parse()
    }
}

impl From<PasswordHash> for String {
    fn from(hash: PasswordHash) -> Self {
        hash.0.into()
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordHash({}, …)", self.scheme())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_derived_verifies() {
        let hash = PasswordHash::derive(b"secret", &[7; SALT_BYTES]);
        assert!(hash.verifies(b"secret") && !hash.verifies(b"Secret") && !hash.verifies(b""));
        assert_eq!(hash.expose().parse::<PasswordHash>().as_ref(), Ok(&hash));
        assert_eq!(format!("{hash:?}"), "PasswordHash(argon2id, …)");
        assert_eq!(postcard::from_bytes(&postcard::to_stdvec(&hash).unwrap()), Ok(hash));
    }

    /// Made by the reference implementation of Argon2 and by mosquitto_passwd.
    #[test]
    fn hashes_made_elsewhere() {
        for (hash, password) in [
            (
                "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
                "password",
            ),
            (
                "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc",
                "password",
            ),
        ] {
            let hash: PasswordHash = hash.parse().expect(hash);
            assert!(hash.verifies(password.as_bytes()) && !hash.verifies(b"Password"), "{hash:?}");
        }
    }

    #[test]
    fn what_is_no_hash() {
        let good = PasswordHash::derive(b"secret", &[7; SALT_BYTES]).expose().to_owned();
        for (text, error) in [
            (String::new(), BadHash::Form),
            ("secret".to_owned(), BadHash::Form),
            (good.replace("argon2id", "argon2i"), BadHash::Form),
            (good.replace("v=19", "v=16"), BadHash::Form),
            (good.replace(",p=1", ""), BadHash::Form),
            (good.replace(",p=1", ",p=1,keyid=a"), BadHash::Form),
            (good.replace("m=19456", "m=4000000"), BadHash::TooMuch),
            (good.replace("t=2", "t=99999"), BadHash::TooMuch),
            (good.replace("t=2", "t=0"), BadHash::Form),
            ("$7$99999999$c2FsdHNhbHQ=$aGFzaGhhc2g=".to_owned(), BadHash::TooMuch),
            ("$7$0$c2FsdHNhbHQ=$aGFzaGhhc2g=".to_owned(), BadHash::Form),
            ("$6$c2FsdA==$aGFzaGhhc2g=".to_owned(), BadHash::Form),
        ] {
            assert_eq!(text.parse::<PasswordHash>(), Err(error), "{text}");
        }
    }
}
