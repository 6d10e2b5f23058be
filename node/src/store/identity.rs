//! Who this node is: what it was given once and must never confuse.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::DataDir;
use super::error::OpenError;
use super::files::{create_private_dir, replace_private, sync_dir};
use super::memory::MemoryDisk;
use crate::env;

/// Version of the data directory that is written; older ones are read.
const FORMAT: u32 = 1;
/// Bytes of page cache; everything kept here is tiny.
const CACHE_BYTES: u64 = 1 << 20;
/// Bytes of the encoded address book. Far below what sled moves to files it never syncs.
const MAX_PEERS_LEN: usize = 32 << 10;

const NODE_ID: &[u8] = b"node_id";
const EPOCH: &[u8] = b"epoch";
const NAME: &[u8] = b"name";
const CLUSTER_ID: &[u8] = b"cluster_id";
const FORGOTTEN: &[u8] = b"forgotten";
const PEERS: &[u8] = b"peers";

/// What this node proves itself by and what its cluster's members share, encoded by who knows what it
/// is.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKeys(pub Vec<u8>);

impl fmt::Debug for ClusterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKeys(…)")
    }
}

/// A member as this node last knew it, to find the cluster again after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPeer {
    pub name: String,
    /// host:port of the peer listener.
    pub peer_addr: String,
}

#[derive(Clone, Debug)]
pub(super) struct Stored {
    node_id: u64,
    epoch: u64,
    name: String,
    cluster_id: Option<[u8; 16]>,
    keys: Option<ClusterKeys>,
    forgotten: bool,
    peers: BTreeMap<u64, KnownPeer>,
}

/// The identity of this node. A setter returns when its change is durable; setters of one value
/// are to be called from one place at a time.
pub struct Identity {
    backing: Backing,
    stored: Mutex<Stored>,
}

enum Backing {
    Disk(Disk),
    Memory(MemoryDisk),
}

struct Disk {
    db: sled::Db,
    /// The file whose sync makes what sled wrote durable.
    db_file: PathBuf,
    keys: PathBuf,
    /// Held as long as this process uses the directory.
    _lock: File,
}

impl Disk {
    /// sled's own flush stops short of the device's cache and of the file's length.
    fn sync(&self) -> io::Result<()> {
        self.db.flush()?;
        File::open(&self.db_file)?.sync_data()
    }

    fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.db.insert(key, value)?;
        self.sync()
    }
}

impl Identity {
    /// Opens the identity in the data directory `dir`, making a new one if the directory is
    /// empty, and begins a new epoch, which is durable when this returns.
    ///
    /// # Errors
    /// [`OpenError`]: another process uses the directory, a newer version wrote it, something
    /// is damaged or missing.
    pub fn open(dir: &DataDir) -> Result<Self, OpenError> {
        let root = dir.root();
        create_private_dir(root).map_err(OpenError::io(root))?;
        let lock = lock(&dir.lock())?;
        check_format(&dir.format())?;
        let meta = dir.meta();
        create_private_dir(&meta).map_err(OpenError::io(&meta))?;
        let db_file = meta.join("db");
        let db = sled::Config::new()
            .path(&meta)
            .flush_every_ms(None)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            .open()
            .map_err(in_sled(&db_file))?;
        if !db.contains_key(NODE_ID).map_err(in_sled(&db_file))? {
            if !db.is_empty() || holds_data(&dir.log()) || holds_data(&dir.snapshots()) {
                return Err(OpenError::IdentityLost { path: root.to_owned() });
            }
            db.insert(NODE_ID, &new_node_id().to_be_bytes()).map_err(in_sled(&db_file))?;
        }
        let epoch = db.update_and_fetch(EPOCH, |old| Some(next_epoch(old))).map_err(in_sled(&db_file))?;
        let disk = Disk { db, db_file, keys: dir.keys(), _lock: lock };
        disk.sync().map_err(OpenError::io(&disk.db_file))?;
        sync_dir(&meta).and_then(|()| sync_dir(root)).map_err(OpenError::io(root))?;
        let stored = load(&disk, epoch.as_deref())?;
        Ok(Self { backing: Backing::Disk(disk), stored: Mutex::new(stored) })
    }

    /// The identity on a simulated disk; otherwise as [`Self::open`].
    pub fn in_memory(disk: &MemoryDisk) -> Self {
        let mut stored = disk.identity().unwrap_or_else(|| Stored {
            node_id: new_node_id(),
            epoch: 0,
            name: String::new(),
            cluster_id: None,
            keys: None,
            forgotten: false,
            peers: BTreeMap::new(),
        });
        stored.epoch += 1;
        disk.set_identity(stored.clone());
        Self { backing: Backing::Memory(disk.clone()), stored: Mutex::new(stored) }
    }

    /// 64 random bits, never 0.
    pub fn node_id(&self) -> u64 {
        self.stored.lock().node_id
    }

    /// Counts the lives of this node; higher with every [`Self::open`].
    pub fn epoch(&self) -> u64 {
        self.stored.lock().epoch
    }

    /// Begins a new life without a restart, and returns its epoch.
    ///
    /// # Errors
    /// Those of the disk; the old epoch then stands.
    pub fn advance_epoch(&self) -> io::Result<u64> {
        let epoch = match &self.backing {
            Backing::Disk(disk) => {
                let bytes = disk.db.update_and_fetch(EPOCH, |old| Some(next_epoch(old)))?;
                disk.sync()?;
                number(bytes.as_deref()).unwrap_or(1)
            }
            Backing::Memory(_) => self.epoch() + 1,
        };
        self.publish(|stored| stored.epoch = epoch);
        Ok(epoch)
    }

    /// Empty until it was set.
    pub fn name(&self) -> String {
        self.stored.lock().name.clone()
    }

    /// # Errors
    /// Those of the disk.
    pub fn set_name(&self, name: &str) -> io::Result<()> {
        self.save(NAME, name.as_bytes())?;
        self.publish(|stored| stored.name = name.to_owned());
        Ok(())
    }

    /// The cluster this node is or was a member of; `None` before it was founded or joined.
    pub fn cluster_id(&self) -> Option<[u8; 16]> {
        self.stored.lock().cluster_id
    }

    pub fn keys(&self) -> Option<ClusterKeys> {
        self.stored.lock().keys.clone()
    }

    /// Makes this node one of the cluster that its keys are for.
    ///
    /// # Errors
    /// Those of the disk; the node then is of no cluster, or already of this one.
    pub fn join_cluster(&self, id: [u8; 16]) -> io::Result<()> {
        self.save(CLUSTER_ID, &id)?;
        self.publish(|stored| stored.cluster_id = Some(id));
        Ok(())
    }

    /// To be called before [`Self::join_cluster`]: a node that knows its cluster must be able to talk
    /// to it.
    ///
    /// # Errors
    /// Those of the disk; the keys before stay.
    pub fn set_keys(&self, keys: ClusterKeys) -> io::Result<()> {
        if let Backing::Disk(disk) = &self.backing {
            replace_private(&disk.keys, &keys.0)?;
        }
        self.publish(|stored| stored.keys = Some(keys));
        Ok(())
    }

    /// The cluster removed this node; its data must not be used to join again.
    pub fn is_forgotten(&self) -> bool {
        self.stored.lock().forgotten
    }

    /// # Errors
    /// Those of the disk.
    pub fn set_forgotten(&self) -> io::Result<()> {
        self.save(FORGOTTEN, &[1])?;
        self.publish(|stored| stored.forgotten = true);
        Ok(())
    }

    /// By node id.
    pub fn peers(&self) -> BTreeMap<u64, KnownPeer> {
        self.stored.lock().peers.clone()
    }

    /// # Errors
    /// Those of the disk; more than 32 KiB of peers.
    pub fn set_peers(&self, peers: &BTreeMap<u64, KnownPeer>) -> io::Result<()> {
        let bytes = postcard::to_stdvec(peers).map_err(io::Error::other)?;
        if bytes.len() > MAX_PEERS_LEN {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the address book is too large"));
        }
        self.save(PEERS, &bytes)?;
        self.publish(|stored| stored.peers = peers.clone());
        Ok(())
    }

    fn save(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        match &self.backing {
            Backing::Disk(disk) => disk.set(key, value),
            Backing::Memory(_) => Ok(()),
        }
    }

    fn publish(&self, change: impl FnOnce(&mut Stored)) {
        let mut stored = self.stored.lock();
        change(&mut stored);
        if let Backing::Memory(disk) = &self.backing {
            disk.set_identity(stored.clone());
        }
    }
}

fn new_node_id() -> u64 {
    env::random_u64().max(1)
}

fn number(bytes: Option<&[u8]>) -> Option<u64> {
    bytes.and_then(|b| b.try_into().ok()).map(u64::from_be_bytes)
}

fn next_epoch(old: Option<&[u8]>) -> Vec<u8> {
    match (old, number(old)) {
        (None, _) => 1u64.to_be_bytes().to_vec(),
        (Some(_), Some(epoch)) => (epoch + 1).to_be_bytes().to_vec(),
        // Left as it is, to be reported as damage.
        (Some(damaged), None) => damaged.to_vec(),
    }
}

fn in_sled(db_file: &Path) -> impl FnOnce(sled::Error) -> OpenError + '_ {
    move |error| match error {
        sled::Error::Io(source) => OpenError::Io { path: db_file.to_owned(), source },
        other => OpenError::damaged(db_file, 0, other.to_string()),
    }
}

fn holds_data(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let io = || OpenError::io(path);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io())?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // Only for the message.
            let read = file.read_to_string(&mut text);
            let holder = read.ok().and_then(|_| text.trim().parse().ok());
            return Err(OpenError::Locked { path: path.to_owned(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(io()(error)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io())?;
    Ok(file)
}

fn check_format(path: &Path) -> Result<(), OpenError> {
    match fs::read_to_string(path) {
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(found) if found > FORMAT => {
                Err(OpenError::NewerFormat { path: path.to_owned(), found, known: FORMAT })
            }
            Ok(_) => Ok(()),
            Err(_) => Err(OpenError::damaged(path, 0, "it is not a number")),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            replace_private(path, format!("{FORMAT}\n").as_bytes()).map_err(OpenError::io(path))
        }
        Err(e) => Err(OpenError::io(path)(e)),
    }
}

fn load(disk: &Disk, epoch: Option<&[u8]>) -> Result<Stored, OpenError> {
    let path = &disk.db_file;
    let damaged = |what: &str| OpenError::damaged(path, 0, format!("{what} is unreadable"));
    let get = |key: &[u8]| disk.db.get(key).map_err(in_sled(path));
    let node_id = number(get(NODE_ID)?.as_deref()).filter(|id| *id != 0);
    let cluster_id = match get(CLUSTER_ID)? {
        Some(bytes) => Some(<[u8; 16]>::try_from(&*bytes).map_err(|_| damaged("the cluster's id"))?),
        None => None,
    };
    let keys = match fs::read(&disk.keys) {
        Ok(bytes) => Some(ClusterKeys(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound && cluster_id.is_none() => None,
        Err(e) => return Err(OpenError::io(&disk.keys)(e)),
    };
    let name = match get(NAME)? {
        Some(bytes) => String::from_utf8(bytes.to_vec()).map_err(|_| damaged("the node's name"))?,
        None => String::new(),
    };
    let peers = match get(PEERS)? {
        Some(bytes) => postcard::from_bytes(&bytes).map_err(|_| damaged("the address book"))?,
        None => BTreeMap::new(),
    };
    Ok(Stored {
        node_id: node_id.ok_or_else(|| damaged("the node's id"))?,
        epoch: number(epoch).ok_or_else(|| damaged("the epoch"))?,
        name,
        cluster_id,
        keys,
        forgotten: get(FORGOTTEN)?.is_some(),
        peers,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn peers() -> BTreeMap<u64, KnownPeer> {
        let peer = KnownPeer { name: "n2".into(), peer_addr: "n2:17883".into() };
        [(4, peer)].into()
    }

    /// What a fresh identity goes through, and how it is opened again.
    fn lives(mut open: impl FnMut() -> Identity) {
        let first = open();
        let id = first.node_id();
        assert!(id != 0 && first.epoch() == 1);
        assert!(first.cluster_id().is_none() && first.keys().is_none() && !first.is_forgotten());
        first.set_name("n1").unwrap();
        first.set_keys(ClusterKeys(vec![5; 32])).unwrap();
        first.join_cluster([3; 16]).unwrap();
        first.set_peers(&peers()).unwrap();
        assert_eq!(first.advance_epoch().unwrap(), 2);
        drop(first);
        let mut epoch = 2;
        for _ in 0..3 {
            let again = open();
            assert_eq!((again.node_id(), again.name().as_str()), (id, "n1"));
            assert!(again.epoch() > epoch);
            epoch = again.advance_epoch().unwrap();
            assert_eq!(again.epoch(), epoch);
            assert_eq!(again.cluster_id(), Some([3; 16]));
            assert_eq!(again.keys(), Some(ClusterKeys(vec![5; 32])));
            assert_eq!(again.peers(), peers());
            again.set_forgotten().unwrap();
        }
        assert!(open().is_forgotten());
    }

    /// sled lets go of its lock a moment after the database is dropped, on a thread of its own.
    fn reopen(data: &DataDir) -> Identity {
        let deadline = env::now() + std::time::Duration::from_secs(10);
        loop {
            match Identity::open(data) {
                Err(OpenError::Io { source, .. })
                    if source.to_string().contains("acquire lock") && env::now() < deadline =>
                {
                    std::thread::yield_now();
                }
                opened => return opened.unwrap(),
            }
        }
    }

    #[test]
    fn an_identity_survives_and_its_epoch_only_grows() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path().join("data"));
        lives(|| reopen(&data));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(data.root()), 0o700);
        assert_eq!(mode(&data.keys()), 0o600);
    }

    #[test]
    fn a_simulated_identity_does_the_same() {
        let disk = MemoryDisk::default();
        lives(|| {
            disk.crash();
            Identity::in_memory(&disk)
        });
    }

    #[test]
    fn two_processes_cannot_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path());
        let held = Identity::open(&data).unwrap();
        let error = Identity::open(&data).err().unwrap();
        assert!(matches!(&error, OpenError::Locked { holder, .. } if *holder == Some(std::process::id())));
        drop(held);
        reopen(&data);
    }

    #[test]
    fn what_cannot_be_trusted_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path());
        let open = || Identity::open(&data).err().unwrap();
        let identity = Identity::open(&data).unwrap();
        identity.set_keys(ClusterKeys(vec![2; 32])).unwrap();
        identity.join_cluster([1; 16]).unwrap();
        drop(identity);

        fs::write(data.format(), "2\n").unwrap();
        assert!(matches!(open(), OpenError::NewerFormat { found: 2, known: 1, .. }));
        fs::write(data.format(), "1\n").unwrap();

        fs::remove_file(data.keys()).unwrap();
        assert!(open().to_string().contains("cluster.keys"));

        fs::remove_dir_all(data.meta()).unwrap();
        fs::create_dir_all(data.log()).unwrap();
        fs::write(data.log().join("0000000001.log"), "log").unwrap();
        assert!(matches!(open(), OpenError::IdentityLost { .. }));
    }

    #[test]
    fn an_address_book_that_sled_would_not_sync_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(&DataDir::new(dir.path())).unwrap();
        let long = KnownPeer { name: "n".repeat(MAX_PEERS_LEN), peer_addr: String::new() };
        assert!(identity.set_peers(&[(1, long)].into()).is_err());
        assert!(identity.peers().is_empty());
    }

    #[test]
    fn keys_are_not_printed() {
        assert!(!format!("{:?}", ClusterKeys(vec![99; 32])).contains("99"));
    }
}
