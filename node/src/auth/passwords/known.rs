//! Passwords that were right.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use aws_lc_rs::hmac;
use parking_lot::Mutex;

use super::{PasswordHash, no_randomness};

/// Users that are remembered; beyond it somebody else is forgotten.
const USERS_MAX: usize = 100_000;
const KEY_BYTES: usize = 32;

struct Entry {
    tag: hmac::Tag,
    /// What it was right for: another password hash, another user.
    hash: Arc<PasswordHash>,
}

/// Remembers each user's last right password, by a keyed hash whose key is nowhere but in this
/// process's memory, so that a client that comes back costs no slow hash.
pub(super) struct Known {
    key: hmac::Key,
    entries: Mutex<HashMap<Arc<str>, Entry>>,
}

impl Known {
    /// # Errors
    /// The system gives no random numbers.
    pub fn new() -> io::Result<Self> {
        let mut key = [0; KEY_BYTES];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| no_randomness())?;
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key), entries: Mutex::default() })
    }

    pub fn add(&self, name: Arc<str>, password: &[u8], hash: Arc<PasswordHash>) {
        let tag = hmac::sign(&self.key, password);
        let mut entries = self.entries.lock();
        if entries.len() >= USERS_MAX
            && !entries.contains_key(&name)
            && let Some(any) = entries.keys().next().cloned()
        {
            entries.remove(&any);
        }
        entries.insert(name, Entry { tag, hash });
    }

    pub fn contains(&self, name: &str, password: &[u8], hash: &PasswordHash) -> bool {
        let entries = self.entries.lock();
        let known = entries.get(name).filter(|entry| *entry.hash == *hash);
        known.is_some_and(|entry| hmac::verify(&self.key, password, entry.tag.as_ref()).is_ok())
    }
}
