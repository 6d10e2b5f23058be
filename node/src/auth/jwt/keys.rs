//! The keys that tokens may be signed with, each with the algorithms that it is for: a public key
//! never serves as a secret.

use std::fmt;

use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, VerificationAlgorithm,
};
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::Value;

use super::token::Token;

/// Most keys of a JWKS.
pub const KEYS_MAX: usize = 128;
/// Shortest secret that is taken, bytes.
pub const SECRET_MIN_BYTES: usize = 32;

/// Every algorithm that verifies with a public key.
pub const ASYMMETRIC: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The algorithms that verify with a secret, and how long it has to be, bytes [RFC 7518 3.2].
const SYMMETRIC: [(Algorithm, usize); 3] =
    [(Algorithm::HS256, 32), (Algorithm::HS384, 48), (Algorithm::HS512, 64)];

/// One key.
pub struct Key {
    /// Its `kid`.
    id: Option<Box<str>>,
    algorithms: Box<[Algorithm]>,
    material: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("algorithms", &self.algorithms).finish()
    }
}

impl Key {
    /// A secret, for the algorithms that it is long enough for.
    ///
    /// # Errors
    /// It is too short.
    pub fn from_secret(secret: &[u8]) -> Result<Self, String> {
        let algorithms: Box<[_]> =
            SYMMETRIC.iter().filter(|(_, bytes)| secret.len() >= *bytes).map(|(a, _)| *a).collect();
        let material = DecodingKey::from_secret(secret).ok().filter(|_| !algorithms.is_empty());
        let Some(material) = material else {
            return Err(format!(
                "holds {} bytes, but a secret needs at least {SECRET_MIN_BYTES} that nobody can guess: make one \
                 with `openssl rand -hex 32`",
                secret.len()
            ));
        };
        Ok(Self { id: None, algorithms, material })
    }

    /// The public key in a PEM file.
    ///
    /// # Errors
    /// There is none, more than one, or one that cannot be used.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let holds = |words: &[u8]| pem.windows(words.len()).any(|window| window == words);
        if holds(b"PRIVATE KEY-----") {
            return Err(
                "holds a private key, which the node must not have: `openssl pkey -in FILE -pubout` \
                        gives the public one"
                    .to_owned(),
            );
        }
        let keys: Vec<_> = SubjectPublicKeyInfoDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("is not PEM: {error}"))?;
        match keys.as_slice() {
            [key] => Self::from_spki(key).ok_or_else(|| {
                "holds a key that cannot be used: it has to be RSA with 2048 to 8192 bits, EC on the curve \
                 P-256 or P-384, or Ed25519"
                    .to_owned()
            }),
            [] if holds(b"BEGIN CERTIFICATE") => {
                Err("holds a certificate: `openssl x509 -in FILE -pubkey -noout` gives its key".to_owned())
            }
            [] => Err("holds no public key: it needs a block that begins with -----BEGIN PUBLIC KEY-----"
                .to_owned()),
            _ => Err("holds several public keys: put them into a JWKS, where each has a name".to_owned()),
        }
    }

    fn from_spki(spki: &[u8]) -> Option<Self> {
        let is =
            |algorithm: &'static dyn VerificationAlgorithm| ParsedPublicKey::new(algorithm, spki).is_ok();
        let (algorithms, material): (&[_], _) = if PublicEncryptingKey::from_der(spki).is_ok() {
            (AlgorithmFamily::Rsa.algorithms(), DecodingKey::from_rsa_der(spki))
        } else if is(&ECDSA_P256_SHA256_FIXED) {
            (&[Algorithm::ES256], DecodingKey::from_ec_der(spki))
        } else if is(&ECDSA_P384_SHA384_FIXED) {
            (&[Algorithm::ES384], DecodingKey::from_ec_der(spki))
        } else if is(&ED25519) {
            (&[Algorithm::EdDSA], DecodingKey::from_ed_der(spki))
        } else {
            return None;
        };
        Some(Self { id: None, algorithms: algorithms.into(), material })
    }

    /// A key of a JWKS; `None`: it is none that verifies tokens. Secrets are not: a JWKS is public.
    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        let CommonParameters { public_key_use, key_operations, key_algorithm, key_id, .. } = &jwk.common;
        let verifies = public_key_use.as_ref().is_none_or(|to| *to == PublicKeyUse::Signature)
            && key_operations.as_ref().is_none_or(|to| to.contains(&KeyOperations::Verify));
        if !verifies {
            return None;
        }
        let of_kind: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms(),
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => &[Algorithm::ES256],
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => &[Algorithm::ES384],
            AlgorithmParameters::OctetKeyPair(ed) if ed.curve == EllipticCurve::Ed25519 => {
                &[Algorithm::EdDSA]
            }
            _ => return None,
        };
        let algorithms: Box<[_]> = match key_algorithm {
            None => of_kind.into(),
            Some(only) => {
                let only = Algorithm::try_from(*only).ok().filter(|only| of_kind.contains(only))?;
                [only].into()
            }
        };
        let material = DecodingKey::from_jwk(jwk).ok()?;
        let sound = match material.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                let components = RsaPublicKeyComponents { n: n.as_slice(), e: e.as_slice() };
                components
                    .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
                    .is_ok_and(|parsed| PublicEncryptingKey::from_der(parsed.as_ref()).is_ok())
            }
            DecodingKeyKind::SecretOrDer(point) => {
                let curve: &'static dyn VerificationAlgorithm = match algorithms[0] {
                    Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED,
                    Algorithm::ES384 => &ECDSA_P384_SHA384_FIXED,
                    _ => &ED25519,
                };
                ParsedPublicKey::new(curve, point).is_ok()
            }
        };
        sound.then(|| Self { id: key_id.as_deref().map(Into::into), algorithms, material })
    }

    /// The algorithms that it is for.
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    /// Whether the signature of a token is by this key.
    pub fn signed(&self, token: &Token<'_>) -> bool {
        self.algorithms.contains(&token.algorithm)
            && jsonwebtoken::crypto::verify(token.signature, token.message, &self.material, token.algorithm)
                .unwrap_or(false)
    }
}

/// The keys that are known at a time.
#[derive(Debug, Default)]
pub struct KeySet(Box<[Key]>);

/// Which key a token has to be checked with.
#[derive(Debug)]
pub enum Choice<'a> {
    Key(&'a Key),
    /// None that is known.
    Unknown,
    /// It does not name its key, and there are several.
    Unnamed,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    pub fn of(key: Key) -> Self {
        Self([key].into())
    }

    /// Reads a JWKS [RFC 7517 5]. What is of no use in it is passed over.
    ///
    /// # Errors
    /// It is no JWKS, or has more than [`KEYS_MAX`] keys.
    pub fn from_jwks(document: &[u8]) -> Result<Self, String> {
        let Document { keys } =
            serde_json::from_slice(document).map_err(|error| format!("is no JWKS: {error}"))?;
        if keys.len() > KEYS_MAX {
            return Err(format!("has {} keys, of which {KEYS_MAX} are the most", keys.len()));
        }
        let keys = keys.into_iter().filter_map(|key| Key::from_jwk(&serde_json::from_value(key).ok()?));
        Ok(Self(keys.collect()))
    }

    pub fn keys(&self) -> &[Key] {
        &self.0
    }

    /// The key that a token says it was signed with. A key without a name is meant by any.
    pub fn choose(&self, key_id: Option<&str>, algorithm: Algorithm) -> Choice<'_> {
        let fits = |key: &&Key| {
            let named = match (key_id, key.id.as_deref()) {
                (Some(wanted), Some(id)) => wanted == id,
                (None, _) | (_, None) => true,
            };
            named && key.algorithms.contains(&algorithm)
        };
        let mut fitting = self.0.iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (None, _) => Choice::Unknown,
            (Some(key), None) => Choice::Key(key),
            (Some(_), Some(_)) => {
                let by_name = |key: &&Key| key_id.is_some() && key.id.as_deref() == key_id && fits(key);
                self.0.iter().find(by_name).map_or(Choice::Unnamed, Choice::Key)
            }
        }
    }
}
