//! A test of statements.

use libtest_mimic::Failed;

use super::{Ground, Site, Standard};
use crate::mqtt::Version;

/// Any error with a text fails a case, as a panic does.
pub type Outcome = std::result::Result<(), Failed>;

/// What a function proves. Made with [`case`]; runs with the versions it names statements of, an
/// empty list being what users expect although no statement says it.
pub struct Case {
    /// What holds, as a sentence without its full stop.
    pub title: &'static str,
    pub run: fn(&Site) -> Outcome,
    /// Statements of 3.1.1, without their prefix `MQTT-`.
    v3: Option<&'static [&'static str]>,
    v5: Option<&'static [&'static str]>,
    /// Whether 3.1 has the rule too; most of the statements of 3.1.1 do, unnumbered.
    with_v31: bool,
    /// Whether it is about WebSocket.
    only_websocket: bool,
}

/// A case that does not run yet; give it statements with [`Case::v3`] and [`Case::v5`].
pub const fn case(title: &'static str, run: fn(&Site) -> Outcome) -> Case {
    Case { title, run, v3: None, v5: None, with_v31: true, only_websocket: false }
}

impl Case {
    /// Proves these statements of 3.1.1.
    #[must_use]
    pub const fn v3(mut self, ids: &'static [&'static str]) -> Self {
        self.v3 = Some(ids);
        self
    }

    /// Proves these statements of 5.0.
    #[must_use]
    pub const fn v5(mut self, ids: &'static [&'static str]) -> Self {
        self.v5 = Some(ids);
        self
    }

    /// 3.1 differs.
    #[must_use]
    pub const fn not_in_v31(mut self) -> Self {
        self.with_v31 = false;
        self
    }

    /// Runs where the near end is a WebSocket.
    #[must_use]
    pub const fn only_websocket(mut self) -> Self {
        self.only_websocket = true;
        self
    }

    pub fn proves(&self, standard: Standard) -> &'static [&'static str] {
        match standard {
            Standard::V311 => self.v3.unwrap_or_default(),
            Standard::V5 => self.v5.unwrap_or_default(),
        }
    }

    pub fn versions_at(&self, ground: Ground) -> Vec<Version> {
        let mut versions = Vec::new();
        if self.only_websocket && ground != Ground::WebSocket {
            return versions;
        }
        if self.v3.is_some() {
            versions.extend(self.with_v31.then_some(Version::V31));
            versions.push(Version::V311);
        }
        if self.v5.is_some() {
            versions.push(Version::V5);
        }
        versions
    }
}

/// The cases of one file.
pub struct Suite {
    /// The file's name.
    pub name: &'static str,
    pub cases: &'static [Case],
}
