//! What this node proves itself by, and whom it believes: one authority, and while it is being replaced
//! two. Made durable before it is used.

use std::fmt;
use std::io;
use std::sync::Arc;

use aws_lc_rs::hmac;
use parking_lot::{Mutex, RwLock};
use rustls::{ClientConfig, ServerConfig};
use serde::{Deserialize, Serialize};

use super::auth::{ClusterId, NoRandomness, RateLimit, fill_random};
use super::authority::{Authority, AuthorityError, Certified, Fingerprint, Roots};
use super::connection::Links;
use super::tls;
use crate::state::NodeId;

/// How the keys are written; others are refused.
const FORMAT: u8 = 1;
const REFUSED_LOG_INTERVAL_MS: u64 = 10_000;

/// Makes the encoded keys durable. Blocks.
pub type Save = Box<dyn Fn(&[u8]) -> io::Result<()> + Send + Sync>;

/// What a member gives a newcomer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub authority: Authority,
    /// From it comes what all nodes must make up alike. It is never replaced, and proves nothing.
    pub seed: [u8; 32],
}

impl Grant {
    /// For a new cluster.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn generate(cluster: ClusterId) -> Result<Self, AuthorityError> {
        let mut seed = [0; 32];
        fill_random(&mut seed)?;
        Ok(Self { authority: Authority::generate(cluster)?, seed })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        seal(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        open(bytes)
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grant({:?})", self.authority)
    }
}

/// One step of a rotation. Each may be taken twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Believe this one as well.
    Trust(Authority),
    /// Use it instead of the one before, which is still believed.
    Use(Fingerprint),
    /// Forget every other.
    KeepOnly(Fingerprint),
}

/// What a node believes and uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub current: Fingerprint,
    /// Believed, and to be used.
    pub next: Option<Fingerprint>,
    /// Still believed.
    pub old: Option<Fingerprint>,
}

impl Standing {
    /// Two authorities are believed.
    pub fn is_rotating(&self) -> bool {
        self.next.is_some() || self.old.is_some()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("a leader of term {promised} rotates the cluster's CA, this call is of term {term}")]
    Superseded { term: u64, promised: u64 },
    #[error("this node still believes the CA before {current}: end that rotation first")]
    Unfinished { current: Fingerprint },
    #[error("this node does not believe the CA {0}")]
    Unknown(Fingerprint),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("the new keys cannot be written: {0}")]
    Disk(#[from] io::Error),
}

/// All that must survive a restart.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Keys {
    seed: [u8; 32],
    current: Authority,
    next: Option<Authority>,
    old: Option<Authority>,
    /// Signed by `current`.
    own: Certified,
    /// No leader of an earlier term is obeyed.
    promised: u64,
}

impl Keys {
    fn standing(&self) -> Standing {
        let of = |authority: &Option<Authority>| authority.as_ref().map(Authority::fingerprint);
        Standing { current: self.current.fingerprint(), next: of(&self.next), old: of(&self.old) }
    }

    fn believed(&self) -> impl Iterator<Item = &Authority> {
        std::iter::once(&self.current).chain(&self.next).chain(&self.old)
    }

    /// The keys after `step`; `None`: it was taken before.
    fn after(&self, step: &Step, (cluster, node): (ClusterId, NodeId)) -> Result<Option<Self>, StepError> {
        let current = self.current.fingerprint();
        match step {
            Step::Trust(authority) => {
                if self.current == *authority || self.next.as_ref() == Some(authority) {
                    return Ok(None);
                }
                if self.old.is_some() {
                    return Err(StepError::Unfinished { current });
                }
                Ok(Some(Self { next: Some(authority.clone()), ..self.clone() }))
            }
            Step::Use(fingerprint) => match &self.next {
                _ if current == *fingerprint => Ok(None),
                Some(next) if next.fingerprint() == *fingerprint => Ok(Some(Self {
                    own: next.issue(cluster, node)?,
                    old: Some(self.current.clone()),
                    current: next.clone(),
                    next: None,
                    ..self.clone()
                })),
                _ => Err(StepError::Unknown(*fingerprint)),
            },
            Step::KeepOnly(fingerprint) if current != *fingerprint => Err(StepError::Unknown(*fingerprint)),
            Step::KeepOnly(_) if self.standing().is_rotating() => {
                Ok(Some(Self { next: None, old: None, ..self.clone() }))
            }
            Step::KeepOnly(_) => Ok(None),
        }
    }
}

/// What connections are made with.
pub(super) struct Ready {
    /// Counts the changes.
    pub revision: u64,
    pub standing: Standing,
    pub roots: Roots,
    pub server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
    /// Of the secret in use, and then of the other that is believed.
    pub secrets: Vec<hmac::Key>,
    /// In the same order.
    authorities: Vec<Authority>,
    seed: [u8; 32],
}

impl Ready {
    fn new(keys: &Keys, cluster: ClusterId, revision: u64) -> Result<Self, AuthorityError> {
        let mut roots = Roots::new(cluster);
        for authority in keys.believed() {
            roots = roots.believe(&authority.certificate())?;
        }
        let ca = keys.current.certificate();
        Ok(Self {
            revision,
            standing: keys.standing(),
            server: tls::server_config(&keys.own, &ca, roots.clone())?,
            client: tls::client_config(&keys.own, roots.clone())?,
            roots,
            secrets: keys.believed().map(|authority| authority.secret().key()).collect(),
            authorities: keys.believed().cloned().collect(),
            seed: keys.seed,
        })
    }
}

/// What a member proves itself by, shared by all that make connections. Cheap to clone.
#[derive(Clone)]
pub struct Keyring(Arc<Inner>);

struct Inner {
    cluster: ClusterId,
    node: NodeId,
    /// Locked while a change is written.
    keys: Mutex<Keys>,
    ready: RwLock<Arc<Ready>>,
    save: Save,
    links: Links,
    log: RateLimit,
}

impl Keyring {
    /// Of a node that founds a cluster or was given `grant` by a member of one. Blocks.
    ///
    /// # Errors
    /// What was given cannot be used; the disk refuses.
    pub fn new(cluster: ClusterId, node: NodeId, grant: Grant, save: Save) -> Result<Self, StepError> {
        let keys = fresh(cluster, node, grant, 0)?;
        let keyring = Self::of(cluster, node, keys, save)?;
        (keyring.0.save)(&seal(&*keyring.0.keys.lock()))?;
        Ok(keyring)
    }

    /// As it was saved.
    ///
    /// # Errors
    /// What was saved is damaged, or of a newer version.
    pub fn load(cluster: ClusterId, node: NodeId, saved: &[u8], save: Save) -> Result<Self, AuthorityError> {
        let damaged = || AuthorityError::Unusable("the file is damaged, or of a newer version".to_owned());
        Self::of(cluster, node, open(saved).ok_or_else(damaged)?, save)
    }

    /// Of a node whose disk is simulated: nothing is kept.
    ///
    /// # Errors
    /// As of [`Self::new`].
    pub fn in_memory(cluster: ClusterId, node: NodeId, authority: Authority) -> Result<Self, StepError> {
        let grant = Grant { authority, seed: [0; 32] };
        Self::new(cluster, node, grant, Box::new(|_| Ok(())))
    }

    fn of(cluster: ClusterId, node: NodeId, keys: Keys, save: Save) -> Result<Self, AuthorityError> {
        let ready = RwLock::new(Arc::new(Ready::new(&keys, cluster, 0)?));
        let (keys, links) = (Mutex::new(keys), Links::default());
        let log = RateLimit::new(REFUSED_LOG_INTERVAL_MS);
        Ok(Self(Arc::new(Inner { cluster, node, keys, ready, save, links, log })))
    }

    pub fn cluster(&self) -> ClusterId {
        self.0.cluster
    }

    pub fn node(&self) -> NodeId {
        self.0.node
    }

    pub fn standing(&self) -> Standing {
        self.ready().standing
    }

    /// What a newcomer gets.
    pub(super) fn grant(&self) -> Grant {
        let ready = self.ready();
        Grant { authority: ready.authorities[0].clone(), seed: ready.seed }
    }

    /// See [`Grant::seed`].
    pub fn seed(&self) -> [u8; 32] {
        self.ready().seed
    }

    pub(super) fn ready(&self) -> Arc<Ready> {
        self.0.ready.read().clone()
    }

    pub(super) fn links(&self) -> &Links {
        &self.0.links
    }

    /// Bounds what is logged about certificates.
    pub(super) fn log(&self) -> &RateLimit {
        &self.0.log
    }

    /// The authority that a rotation is to end with, if there is one that this node knows of: the one
    /// that it uses since, or is to use.
    pub fn target(&self) -> Option<Authority> {
        let ready = self.ready();
        // After the one in use comes the next, while there is no old one.
        let at = if ready.standing.old.is_some() { 0 } else { 1 };
        ready.authorities.get(at).cloned()
    }

    /// The authority with this fingerprint, if this node believes it.
    pub fn authority(&self, fingerprint: Fingerprint) -> Option<Authority> {
        let ready = self.ready();
        ready.authorities.iter().find(|authority| authority.fingerprint() == fingerprint).cloned()
    }

    /// From now on no leader of a term before `term` is obeyed. Blocks.
    ///
    /// # Errors
    /// That was promised to a leader of a later term; the disk refuses.
    pub fn promise(&self, term: u64) -> Result<(), StepError> {
        let mut keys = self.0.keys.lock();
        if term < keys.promised {
            return Err(StepError::Superseded { term, promised: keys.promised });
        }
        if term > keys.promised {
            let changed = Keys { promised: term, ..keys.clone() };
            (self.0.save)(&seal(&changed))?;
            *keys = changed;
        }
        Ok(())
    }

    /// Takes a step of a rotation by the leader of `term`. Connections stay as they are until
    /// [`Self::renew_connections`]. Blocks.
    ///
    /// # Errors
    /// See [`StepError`]; nothing has changed.
    pub fn step(&self, step: &Step, term: u64) -> Result<(), StepError> {
        let mut keys = self.0.keys.lock();
        if term < keys.promised {
            return Err(StepError::Superseded { term, promised: keys.promised });
        }
        match keys.after(step, (self.0.cluster, self.0.node))? {
            Some(changed) => self.change(&mut keys, Keys { promised: term, ..changed }),
            None => Ok(()),
        }
    }

    /// Uses the next authority, as another member does already. Blocks.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn follow(&self, authority: Fingerprint) -> Result<(), StepError> {
        let mut keys = self.0.keys.lock();
        match keys.after(&Step::Use(authority), (self.0.cluster, self.0.node))? {
            Some(changed) => self.change(&mut keys, changed),
            None => Ok(()),
        }
    }

    /// Starts over with what a member has given: the cluster's authority was replaced while this
    /// node was away. Blocks.
    ///
    /// # Errors
    /// What was given cannot be used; the disk refuses.
    pub fn replace(&self, grant: Grant) -> Result<(), StepError> {
        let mut keys = self.0.keys.lock();
        let promised = keys.promised;
        self.change(&mut keys, fresh(self.0.cluster, self.0.node, grant, promised)?)
    }

    fn change(&self, keys: &mut Keys, changed: Keys) -> Result<(), StepError> {
        let revision = self.ready().revision + 1;
        let ready = Ready::new(&changed, self.0.cluster, revision)?;
        (self.0.save)(&seal(&changed))?;
        *keys = changed;
        *self.0.ready.write() = Arc::new(ready);
        Ok(())
    }

    /// Ends connections that are proved by what is not used or not believed any more, one by one; they
    /// are made anew by whoever needs them.
    pub async fn renew_connections(&self) {
        self.0.links.renew(&self.ready()).await;
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({})", self.standing().current)
    }
}

fn fresh(cluster: ClusterId, node: NodeId, grant: Grant, promised: u64) -> Result<Keys, AuthorityError> {
    let own = grant.authority.issue(cluster, node)?;
    Ok(Keys { seed: grant.seed, current: grant.authority, next: None, old: None, own, promised })
}

/// A version, the value, a checksum.
fn seal(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = postcard::to_extend(value, vec![FORMAT]).expect("bytes and numbers have an encoding");
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

fn open<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Option<T> {
    let (bytes, crc) = bytes.split_last_chunk::<4>()?;
    let whole = crc32c::crc32c(bytes) == u32::from_be_bytes(*crc);
    let (FORMAT, value) = bytes.split_first().filter(|_| whole).map(|(f, v)| (*f, v))? else { return None };
    postcard::from_bytes(value).ok()
}

impl Authority {
    /// For another member, over a connection between members.
    pub fn encode(&self) -> Vec<u8> {
        seal(self)
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        open(bytes)
    }
}

impl From<NoRandomness> for StepError {
    fn from(error: NoRandomness) -> Self {
        Self::Authority(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId([5; 16]);

    fn authority() -> Authority {
        Authority::generate(CLUSTER).expect("randomness")
    }

    /// A keyring and what it last saved.
    fn kept(grant: Grant) -> (Keyring, Arc<Mutex<Vec<u8>>>) {
        let disk = Arc::new(Mutex::new(Vec::new()));
        let to = disk.clone();
        let save = Box::new(move |bytes: &[u8]| {
            *to.lock() = bytes.to_vec();
            Ok(())
        });
        (Keyring::new(CLUSTER, 7, grant, save).expect("usable"), disk)
    }

    fn again(disk: &Mutex<Vec<u8>>) -> Keyring {
        Keyring::load(CLUSTER, 7, &disk.lock(), Box::new(|_| Ok(()))).expect("as saved")
    }

    #[test]
    fn a_rotation_goes_step_by_step_and_each_step_is_durable_and_may_be_repeated() {
        let (a, b) = (authority(), authority());
        let (fa, fb) = (a.fingerprint(), b.fingerprint());
        let (keyring, disk) = kept(Grant { authority: a, seed: [3; 32] });
        let standing = |current, next, old| Standing { current, next, old };
        assert_eq!(again(&disk).standing(), standing(fa, None, None));
        assert!(matches!(keyring.step(&Step::Use(fb), 1), Err(StepError::Unknown(_))), "not believed yet");
        for (step, then) in [
            (Step::Trust(b.clone()), standing(fa, Some(fb), None)),
            (Step::Use(fb), standing(fb, None, Some(fa))),
            (Step::KeepOnly(fb), standing(fb, None, None)),
        ] {
            for _ in 0..2 {
                keyring.step(&step, 1).expect("taken");
                assert_eq!(keyring.standing(), then);
                assert_eq!(again(&disk).standing(), then);
            }
        }
        assert_eq!((keyring.seed(), again(&disk).seed()), ([3; 32], [3; 32]));
        assert!(matches!(keyring.step(&Step::KeepOnly(fa), 1), Err(StepError::Unknown(_))), "forgotten");
    }

    #[test]
    fn what_is_used_by_some_is_not_given_up_for_another() {
        let (a, b, c) = (authority(), authority(), authority());
        let (keyring, _) = kept(Grant { authority: a, seed: [0; 32] });
        keyring.step(&Step::Trust(c), 1).expect("taken");
        // Nobody uses it yet.
        keyring.step(&Step::Trust(b.clone()), 1).expect("taken");
        keyring.step(&Step::Use(b.fingerprint()), 1).expect("taken");
        let refused = keyring.step(&Step::Trust(authority()), 1);
        assert!(matches!(refused, Err(StepError::Unfinished { .. })), "{refused:?}");
        assert_eq!(keyring.target(), Some(b));
    }

    #[test]
    fn a_leader_of_the_past_is_not_obeyed_even_after_a_restart() {
        let (keyring, disk) = kept(Grant { authority: authority(), seed: [0; 32] });
        keyring.promise(5).expect("the first");
        keyring.promise(5).expect("the same");
        for keyring in [keyring, again(&disk)] {
            assert!(matches!(keyring.promise(4), Err(StepError::Superseded { .. })));
            let refused = keyring.step(&Step::Trust(authority()), 4);
            assert!(matches!(refused, Err(StepError::Superseded { .. })), "{refused:?}");
            assert!(!keyring.standing().is_rotating());
        }
    }

    #[test]
    fn what_the_disk_refuses_has_not_happened() {
        let grant = Grant { authority: authority(), seed: [0; 32] };
        let full = Arc::new(Mutex::new(false));
        let is_full = full.clone();
        let save =
            Box::new(move |_: &[u8]| if *is_full.lock() { Err(io::Error::other("full")) } else { Ok(()) });
        let keyring = Keyring::new(CLUSTER, 7, grant, save).expect("usable");
        *full.lock() = true;
        let before = keyring.standing();
        assert!(matches!(keyring.step(&Step::Trust(authority()), 1), Err(StepError::Disk(_))));
        assert_eq!((keyring.standing(), keyring.target()), (before, None));
    }

    #[test]
    fn damage_is_noticed() {
        let (_, disk) = kept(Grant { authority: authority(), seed: [0; 32] });
        let saved = disk.lock().clone();
        let load = |bytes: &[u8]| Keyring::load(CLUSTER, 7, bytes, Box::new(|_| Ok(())));
        for broken in [&saved[1..], &saved[..saved.len() - 1], b""] {
            assert!(load(broken).is_err());
        }
        let mut newer = saved;
        newer[0] = FORMAT + 1;
        assert!(load(&newer).is_err());
    }
}
