//! What lets a new node in: a token that an operator carries from a member to the newcomer.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::auth::{ClusterId, Identity, NoRandomness, Secret, fill_random};
use super::authority::Fingerprint;

const PREFIX: &str = "rkj2.";
const ID_LEN: usize = 16;
const KEY_LEN: usize = 32;
const FIXED_LEN: usize = 16 + 8 + ID_LEN + KEY_LEN + 32;
/// Seed addresses in a token, at most.
const MAX_SEEDS: usize = 16;

/// Lets its bearer join one cluster until it expires. It is made from the cluster's secret, so
/// members check it without having stored it; and the secret cannot be found from it.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub cluster: ClusterId,
    /// Seconds since the Unix epoch.
    pub expires_s: u64,
    pub id: [u8; ID_LEN],
    key: [u8; KEY_LEN],
    /// Of the cluster's CA: whoever cannot show a certificate of it is no member.
    pub ca: Fingerprint,
    /// Peer addresses (host:port) of members.
    pub seeds: Vec<String>,
}

impl JoinToken {
    /// A new token; `expires_s` in seconds since the Unix epoch.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn issue(member: &Identity, expires_s: u64, mut seeds: Vec<String>) -> Result<Self, NoRandomness> {
        let mut id = [0; ID_LEN];
        fill_random(&mut id)?;
        let authority = member.keyring.grant().authority;
        let key = key(&authority.secret(), member.cluster, &id, expires_s);
        seeds.truncate(MAX_SEEDS);
        Ok(Self { cluster: member.cluster, expires_s, id, key, ca: authority.fingerprint(), seeds })
    }

    pub(super) fn signing_key(&self) -> hmac::Key {
        signing_key(&self.key)
    }
}

/// The key of the token with this id, as every member can compute it.
pub(super) fn member_key(member: &Identity, id: &[u8; ID_LEN], expires_s: u64) -> hmac::Key {
    signing_key(&key(&member.keyring.grant().authority.secret(), member.cluster, id, expires_s))
}

fn signing_key(key: &[u8; KEY_LEN]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key)
}

fn key(secret: &Secret, cluster: ClusterId, id: &[u8; ID_LEN], expires_s: u64) -> [u8; KEY_LEN] {
    let mut message = Vec::with_capacity(64);
    message.extend_from_slice(b"rookery join token\x01");
    message.extend_from_slice(&cluster.0);
    message.extend_from_slice(id);
    message.extend_from_slice(&expires_s.to_be_bytes());
    let tag = hmac::sign(&secret.key(), &message);
    let mut key = [0; KEY_LEN];
    key.copy_from_slice(tag.as_ref());
    key
}

/// Shows everything but the key.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("cluster", &self.cluster)
            .field("expires_s", &self.expires_s)
            .field("ca", &self.ca)
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}

/// The form to hand over. It contains the key: show it only to whom it is meant for.
impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(FIXED_LEN + 64);
        bytes.extend_from_slice(&self.cluster.0);
        bytes.extend_from_slice(&self.expires_s.to_be_bytes());
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(&self.key);
        bytes.extend_from_slice(&self.ca.0);
        bytes.extend_from_slice(self.seeds.join(",").as_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    #[error("not a join token: it does not begin with {PREFIX}")]
    Prefix,
    #[error("the join token is damaged; was it copied whole?")]
    Damaged,
}

impl FromStr for JoinToken {
    type Err = BadToken;

    fn from_str(s: &str) -> Result<Self, BadToken> {
        let encoded = s.trim().strip_prefix(PREFIX).ok_or(BadToken::Prefix)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| BadToken::Damaged)?;
        let (bytes, crc) = bytes.split_last_chunk::<4>().ok_or(BadToken::Damaged)?;
        if crc32c::crc32c(bytes) != u32::from_be_bytes(*crc) {
            return Err(BadToken::Damaged);
        }
        let (cluster, rest) = bytes.split_first_chunk::<16>().ok_or(BadToken::Damaged)?;
        let (expires, rest) = rest.split_first_chunk::<8>().ok_or(BadToken::Damaged)?;
        let (id, rest) = rest.split_first_chunk::<ID_LEN>().ok_or(BadToken::Damaged)?;
        let (key, rest) = rest.split_first_chunk::<KEY_LEN>().ok_or(BadToken::Damaged)?;
        let (ca, seeds) = rest.split_first_chunk::<32>().ok_or(BadToken::Damaged)?;
        let seeds = std::str::from_utf8(seeds).map_err(|_| BadToken::Damaged)?;
        Ok(Self {
            cluster: ClusterId(*cluster),
            expires_s: u64::from_be_bytes(*expires),
            id: *id,
            key: *key,
            ca: Fingerprint(*ca),
            seeds: seeds.split(',').filter(|s| !s.is_empty()).take(MAX_SEEDS).map(str::to_owned).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Identity {
        crate::peer::testing::identity(1, "a:1")
    }

    #[test]
    fn a_token_survives_being_copied_and_damage_is_noticed() {
        let token = JoinToken::issue(&member(), 123, vec!["a:1".into(), "b:2".into()]).expect("randomness");
        let text = token.to_string();
        assert_eq!(format!(" {text}\n").parse(), Ok(token.clone()));
        assert_eq!("x".parse::<JoinToken>(), Err(BadToken::Prefix));
        assert_eq!(text[..text.len() - 1].parse::<JoinToken>(), Err(BadToken::Damaged));
        assert_eq!(PREFIX.parse::<JoinToken>(), Err(BadToken::Damaged));
        assert!(!format!("{token:?}").contains("key"));
    }

    #[test]
    fn members_compute_the_same_key() {
        let member = member();
        let token = JoinToken::issue(&member, 123, Vec::new()).expect("randomness");
        let tag = hmac::sign(&token.signing_key(), b"x");
        assert!(hmac::verify(&member_key(&member, &token.id, 123), b"x", tag.as_ref()).is_ok());
        assert!(hmac::verify(&member_key(&member, &token.id, 124), b"x", tag.as_ref()).is_err());
    }
}
