//! Clients that show a JSON Web Token [RFC 7519] in CONNECT.

mod claims;
mod keyring;
mod keys;
#[cfg(test)]
mod tests;
mod token;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

pub use claims::Requirement;
pub use jsonwebtoken::Algorithm;

use claims::Expected;
use jsonwebtoken::AlgorithmFamily;
use keyring::{JWKS_MAX_BYTES, Keyring, Newer, Pace, Refresh, Source};
use keys::{ASYMMETRIC, Choice, Key, KeySet};
use token::Token;

use super::gate::Gate;
use super::http::{Client, Url};
use super::setting::{BadSetting, read_file};
use super::{Authenticator, Count, Failure, Judge, Login, Verdict};
use crate::config::JwtConfig;
use crate::env;
use crate::mqtt::ReasonCode;

const NAME: &str = "jwt";
/// Largest file with a secret or a public key that is read, bytes.
const KEY_FILE_MAX_BYTES: usize = 64 << 10;
/// Most log-ins that wait for their signature to be checked.
const WAITING_MAX: usize = 16_384;
/// How long one of them waits.
const PATIENCE: Duration = Duration::from_secs(10);

const SIGNATURE: Failure =
    Failure::new(ReasonCode::BadUserNameOrPassword, "a token whose signature is wrong");
const UNKNOWN_KEY: Failure =
    Failure::new(ReasonCode::BadUserNameOrPassword, "a token that is signed with an unknown key");
const UNNAMED_KEY: Failure =
    Failure::new(ReasonCode::BadUserNameOrPassword, "a token that does not say which key it is signed with");
const NO_KEYS: Failure = Failure::new(ReasonCode::ServerUnavailable, "the keys of tokens cannot be had");
const BUSY: Failure = Failure::new(ReasonCode::ServerBusy, "too many clients are being authenticated");

/// The field of CONNECT that the token is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenField {
    Password,
    Username,
}

/// Judges tokens as `auth.jwt` says.
pub struct Jwt {
    shared: Arc<Shared>,
    runtime: Handle,
}

struct Shared {
    rules: TokenRules,
    keys: Keyring,
    /// Signatures of public keys cost up to a quarter of a millisecond: not on an event loop.
    signatures: Gate,
}

/// Which tokens are taken.
struct TokenRules {
    field: TokenField,
    algorithms: Vec<Algorithm>,
    token_max_bytes: usize,
    expected: Expected,
}

/// What `auth.jwt` names.
enum Keys {
    Fixed(Key),
    Fetched(Source, KeySet),
}

impl Jwt {
    /// Reads what `auth.jwt` names and begins to fetch keys, if they are to be. Blocks.
    ///
    /// # Errors
    /// A file cannot be used, or settings contradict each other.
    pub fn open(config: &JwtConfig, runtime: &Handle) -> Result<Self, BadSetting> {
        let (keys, rules) = prepare(config)?;
        if config.jwks_url.as_ref().is_some_and(Url::is_exposed) {
            tracing::warn!(
                "auth.jwt.jwks_url is not encrypted: whoever is between this node and it can be anybody"
            );
        }
        let keys = match keys {
            Keys::Fixed(key) => Keyring::fixed(KeySet::of(key)),
            Keys::Fetched(source, known) => Keyring::fetched(source, known, pace(config), runtime),
        };
        // The other half is for those who are in.
        let at_a_time = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        let signatures = Gate::new(at_a_time, WAITING_MAX);
        Ok(Self { shared: Arc::new(Shared { rules, keys, signatures }), runtime: runtime.clone() })
    }

    /// Whether [`Jwt::open`] would do. Blocks.
    ///
    /// # Errors
    /// As of it.
    pub fn check(config: &JwtConfig) -> Result<(), BadSetting> {
        prepare(config).map(|_| ())
    }

    /// How often keys were fetched, and how often in vain.
    pub fn refreshes(&self) -> (u64, u64) {
        self.shared.keys.counts()
    }

    fn judge_later(&self, login: &Arc<Login>, judge: Judge, refresh: Option<Refresh>) {
        let (shared, login) = (self.shared.clone(), login.clone());
        self.runtime.spawn(async move {
            if let Some(refresh) = refresh {
                refresh.ended().await;
            }
            let inside = match shared.signatures.place() {
                Some(place) => place.enter(PATIENCE).await,
                None => None,
            };
            let Some(inside) = inside else { return judge(Verdict::Deny(BUSY)) };
            let verdict = env::blocking(move || shared.decide(&login)).await;
            drop(inside);
            judge(verdict);
        });
    }
}

impl Authenticator for Jwt {
    fn name(&self) -> &'static str {
        NAME
    }

    fn metrics(&self) -> Vec<Count> {
        let (ended, failed) = self.refreshes();
        let counts = [
            ("auth_jwks_refreshes", "Times that the keys of tokens were fetched", ended),
            ("auth_jwks_failures", "Those of them that failed", failed),
        ];
        counts.into_iter().map(|(name, help, value)| Count { name, help, value }).collect()
    }

    fn judge(&self, login: &Arc<Login>, judge: Judge) {
        let shared = &self.shared;
        let token = match shared.rules.token(login) {
            None => return judge(Verdict::Pass),
            Some(Err(failure)) => return judge(Verdict::Deny(failure)),
            Some(Ok(token)) => token,
        };
        match shared.keys.known().choose(token.key_id.as_deref(), token.algorithm) {
            Choice::Key(_) if token.algorithm.family() != AlgorithmFamily::Hmac => {
                self.judge_later(login, judge, None);
            }
            Choice::Unknown => match shared.keys.refresh() {
                Newer::Soon(refresh) => self.judge_later(login, judge, Some(refresh)),
                Newer::Crowded => judge(Verdict::Deny(BUSY)),
                Newer::No => judge(shared.decide(login)),
            },
            Choice::Key(_) | Choice::Unnamed => judge(shared.decide(login)),
        }
    }
}

impl Shared {
    /// With the keys that are known now.
    fn decide(&self, login: &Login) -> Verdict {
        let token = match self.rules.token(login) {
            None => return Verdict::Pass,
            Some(Err(failure)) => return Verdict::Deny(failure),
            Some(Ok(token)) => token,
        };
        let keys = self.keys.known();
        let failure = match keys.choose(token.key_id.as_deref(), token.algorithm) {
            Choice::Key(key) if key.signed(&token) => {
                let principal = token
                    .claims()
                    .and_then(|claims| self.rules.expected.judge(&claims, login, env::wall_ms(), NAME));
                match principal {
                    Ok(principal) => return Verdict::Allow(Arc::new(principal)),
                    Err(failure) => failure,
                }
            }
            Choice::Key(_) => SIGNATURE,
            Choice::Unnamed => UNNAMED_KEY,
            Choice::Unknown if self.keys.is_cut_off() => NO_KEYS,
            Choice::Unknown => UNKNOWN_KEY,
        };
        Verdict::Deny(failure)
    }
}

impl TokenRules {
    /// The client's token; `None`: it shows none.
    fn token<'a>(&self, login: &'a Login) -> Option<Result<Token<'a>, Failure>> {
        let text = match self.field {
            TokenField::Password => login.password.as_ref()?.expose(),
            TokenField::Username => login.username.as_ref()?.as_bytes(),
        };
        let token = Token::parse(text, self.token_max_bytes)?;
        Some(token.and_then(|token| {
            if self.algorithms.contains(&token.algorithm) { Ok(token) } else { Err(token::ALGORITHM) }
        }))
    }
}

fn pace(config: &JwtConfig) -> Pace {
    Pace {
        every: Duration::from_secs(config.jwks_refresh_s.into()),
        cooldown: Duration::from_secs(config.jwks_cooldown_s.into()),
        patience: Duration::from_millis(config.jwks_timeout_ms.into()),
    }
}

fn prepare(config: &JwtConfig) -> Result<(Keys, TokenRules), BadSetting> {
    let sources = [
        ("secret_file", config.secret_file.is_some()),
        ("secret", config.secret.is_some()),
        ("public_key_file", config.public_key_file.is_some()),
        ("jwks_file", config.jwks_file.is_some()),
        ("jwks_url", config.jwks_url.is_some()),
    ];
    let set: Vec<_> = sources.iter().filter(|(_, is_set)| *is_set).map(|(key, _)| *key).collect();
    match set.as_slice() {
        [] => {
            let all = sources.map(|(key, _)| key).join(", ");
            return Err(BadSetting::new("secret_file", format!("one of {all} is needed")));
        }
        [_] => {}
        [first, .., last] => {
            return Err(BadSetting::new(last, format!("and {first} are both set: keys come from one place")));
        }
    }
    let keys = read_keys(config)?;
    let possible = match &keys {
        Keys::Fixed(key) => key.algorithms(),
        Keys::Fetched(..) => &ASYMMETRIC,
    };
    if let Some(other) = config.algorithms.iter().find(|algorithm| !possible.contains(algorithm)) {
        let possible =
            possible.iter().map(|algorithm| format!("{algorithm:?}")).collect::<Vec<_>>().join(", ");
        let what = format!("{other:?} cannot be used with the key of {}, which is for {possible}", set[0]);
        return Err(BadSetting::new("algorithms", what));
    }
    let algorithms = if config.algorithms.is_empty() { possible.to_vec() } else { config.algorithms.clone() };
    let expected = Expected {
        issuer: config.issuer.clone(),
        audience: config.audience.clone(),
        expiry_required: config.require_exp,
        leeway_ms: u64::from(config.leeway_s) * 1000,
        username_claim: config.username_claim.clone(),
        acl_claim: config.acl_claim.clone(),
        requirements: config.verify.clone(),
    };
    let token_max_bytes = config.token_max_bytes as usize;
    Ok((keys, TokenRules { field: config.from, algorithms, token_max_bytes, expected }))
}

fn read_keys(config: &JwtConfig) -> Result<Keys, BadSetting> {
    let fixed = |key: &'static str, path: &Path, parse: fn(&[u8]) -> Result<Key, String>| {
        let bytes = read_file(key, path, KEY_FILE_MAX_BYTES)?;
        let parsed = parse(&bytes);
        parsed.map(Keys::Fixed).map_err(|what| BadSetting::new(key, format!("{} {what}", path.display())))
    };
    if let Some(path) = &config.secret_file {
        // What an editor or a shell puts at the end is not meant.
        return fixed("secret_file", path, |bytes| {
            let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
            Key::from_secret(line.strip_suffix(b"\r").unwrap_or(line))
        });
    }
    if let Some(secret) = &config.secret {
        let key = Key::from_secret(secret.expose()).map_err(|what| BadSetting::new("secret", what))?;
        return Ok(Keys::Fixed(key));
    }
    if let Some(path) = &config.public_key_file {
        return fixed("public_key_file", path, Key::from_pem);
    }
    if let Some(path) = &config.jwks_file {
        let error = |what: String| BadSetting::new("jwks_file", format!("{} {what}", path.display()));
        let document = read_file("jwks_file", path, JWKS_MAX_BYTES)?;
        let known = KeySet::from_jwks(&document).map_err(error)?;
        if known.keys().is_empty() {
            return Err(error("has no key that tokens can be verified with".to_owned()));
        }
        return Ok(Keys::Fetched(Source::File(path.clone()), known));
    }
    let Some(url) = config.jwks_url.clone() else {
        return Err(BadSetting::new("jwks_url", "is needed"));
    };
    let timeout = Duration::from_millis(config.jwks_timeout_ms.into());
    let client = Client::new(&url, config.ca_file.as_deref(), timeout, JWKS_MAX_BYTES)?;
    Ok(Keys::Fetched(Source::Url { client: Box::new(client), url }, KeySet::default()))
}
