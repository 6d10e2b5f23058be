//! SCRAM-SHA-256 [RFC 5802, RFC 7677], the server's side. The client proves that it knows the
//! password, and the server that it knows the verifier, and neither tells the other. It costs the
//! server a few hashes; deriving keys from the password is the client's work.

mod decoy;
mod exchange;
mod message;
mod verifier;

use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

pub use decoy::Decoys;
pub use verifier::{BadVerifier, ITERATIONS_DEFAULT, ITERATIONS_MAX, ITERATIONS_MIN, SALT_BYTES, Verifier};

use super::{Exchange, Mechanism, Nonce, Users};
use exchange::AwaitFirst;

/// The Authentication Method.
pub const NAME: &str = "SCRAM-SHA-256";

/// Of every key, signature and proof, bytes.
pub const KEY_BYTES: usize = digest::SHA256_OUTPUT_LEN;

type Key = [u8; KEY_BYTES];

/// The mechanism.
pub struct Scram {
    users: Arc<dyn Users>,
    decoys: Arc<Decoys>,
}

impl Scram {
    pub fn new(users: Arc<dyn Users>, decoys: Decoys) -> Self {
        Self { users, decoys: Arc::new(decoys) }
    }
}

impl Mechanism for Scram {
    fn name(&self) -> &'static str {
        NAME
    }

    fn is_offered(&self) -> bool {
        !self.users.is_empty()
    }

    fn begin(&self, nonce: Nonce) -> Box<dyn Exchange> {
        let nonce = BASE64.encode(nonce.0);
        Box::new(AwaitFirst::new(self.users.clone(), self.decoys.clone(), nonce))
    }
}

fn mac(key: &[u8], data: &[u8]) -> Key {
    bytes(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref())
}

fn hash(data: &[u8]) -> Key {
    bytes(digest::digest(&digest::SHA256, data).as_ref())
}

fn bytes(output: &[u8]) -> Key {
    let mut key = [0; KEY_BYTES];
    key.copy_from_slice(output);
    key
}
