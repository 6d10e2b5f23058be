//! How hard-pressed a node is, as its connections see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::RwLock;

/// By how much the windows shrink.
const SHRINKS_TO: u16 = 16;
/// And how far, at most: a publisher with less would wait for each of its messages.
const WINDOW_MIN: u16 = 8;

/// How hard-pressed a node is; each level does what those below it do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    #[default]
    Normal,
    /// Publishers get smaller windows.
    Shrink,
    /// Nobody is accepted: who comes waits in the system's backlog.
    Pause,
    /// Who comes is told to come later, or to go elsewhere.
    Refuse,
}

impl Level {
    pub const ALL: [Self; 4] = [Self::Normal, Self::Shrink, Self::Pause, Self::Refuse];

    /// In one word, for logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Shrink => "shrink windows",
            Self::Pause => "pause accepting",
            Self::Refuse => "refuse clients",
        }
    }
}

/// What was last decided, for everybody who has to act by it.
#[derive(Debug, Default)]
pub struct Pressure {
    level: AtomicU8,
    elsewhere: RwLock<Option<Arc<str>>>,
}

impl Pressure {
    pub fn level(&self) -> Level {
        Level::ALL[usize::from(self.level.load(Ordering::Relaxed))]
    }

    pub fn set_level(&self, level: Level) {
        self.level.store(level as u8, Ordering::Relaxed);
    }

    /// The Server Reference of a node with more room, if there is one [MQTT 5.0, 4.11].
    pub fn elsewhere(&self) -> Option<Arc<str>> {
        self.elsewhere.read().clone()
    }

    pub fn set_elsewhere(&self, reference: Option<&str>) {
        if self.elsewhere.read().as_deref() != reference {
            *self.elsewhere.write() = reference.map(Arc::from);
        }
    }

    /// What is left at this level of a window of `full` messages.
    pub fn window(&self, full: u16) -> u16 {
        if self.level() == Level::Normal { full } else { (full / SHRINKS_TO).max(WINDOW_MIN).min(full) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_shrink_and_never_close() {
        let pressure = Pressure::default();
        for level in Level::ALL {
            pressure.set_level(level);
            assert_eq!(pressure.level(), level);
            let windows = [1, 20, 1024].map(|full| pressure.window(full));
            assert_eq!(windows, if level == Level::Normal { [1, 20, 1024] } else { [1, 8, 64] });
        }
    }
}
