//! Which connections of this node own which client ids.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::session::Conn;
use crate::state::Incarnation;

/// The node's accepted connections by client id.
#[derive(Default)]
pub struct Clients(Mutex<HashMap<Arc<str>, Arc<Conn>>>);

impl Clients {
    /// Registers the owner of a client id. A connection registered before is not closed here: its
    /// own takeover effect does that.
    pub fn insert(&self, client: Arc<str>, conn: Arc<Conn>) {
        let mut clients = self.0.lock();
        match clients.get(&client) {
            Some(newer) if newer.incarnation() > conn.incarnation() => {}
            _ => {
                clients.insert(client, conn);
            }
        }
    }

    /// The connection that owns the client id in exactly this incarnation.
    pub fn owner(&self, client: &str, incarnation: Incarnation) -> Option<Arc<Conn>> {
        self.0.lock().get(client).filter(|c| c.incarnation() == incarnation).cloned()
    }

    pub fn get(&self, client: &str) -> Option<Arc<Conn>> {
        self.0.lock().get(client).cloned()
    }

    /// Removes the client id if it still belongs to this incarnation.
    pub fn remove(&self, client: &str, incarnation: Incarnation) {
        let mut clients = self.0.lock();
        if clients.get(client).is_some_and(|c| c.incarnation() == incarnation) {
            clients.remove(client);
        }
    }

    /// The connections of persistent sessions, the oldest first.
    pub fn persistent(&self) -> Vec<Arc<Conn>> {
        let mut all: Vec<_> = self.0.lock().values().filter(|conn| conn.is_persistent()).cloned().collect();
        all.sort_unstable_by_key(|conn| conn.id());
        all
    }

    /// Every connection, the oldest first.
    pub fn all(&self) -> Vec<Arc<Conn>> {
        let mut all: Vec<_> = self.0.lock().values().cloned().collect();
        all.sort_unstable_by_key(|conn| conn.id());
        all
    }

    /// Every connection, the oldest first; the registry is empty afterwards.
    pub fn drain(&self) -> Vec<Arc<Conn>> {
        let mut all: Vec<_> = std::mem::take(&mut *self.0.lock()).into_values().collect();
        all.sort_unstable_by_key(|conn| conn.id());
        all
    }

    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
