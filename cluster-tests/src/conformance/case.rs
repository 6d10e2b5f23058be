//! A test of statements.

use libtest_mimic::Failed;

use super::{Site, Standard};
use crate::mqtt::Version;

/// Any error with a text fails a case, as a panic does.
pub type Outcome = std::result::Result<(), Failed>;

/// What a function proves. Made with [`case`]; runs with 3.1 and 3.1.1 if it proves statements of
/// 3.1.1, and with 5.0 if it proves some of 5.0.
pub struct Case {
    /// What holds, as a sentence without its full stop.
    pub title: &'static str,
    pub run: fn(&Site) -> Outcome,
    /// Statements of 3.1.1, without their prefix `MQTT-`.
    v3: &'static [&'static str],
    v5: &'static [&'static str],
    /// Whether 3.1 has the rule too; most of the statements of 3.1.1 do, unnumbered.
    with_v31: bool,
}

/// A case without statements; give it some with [`Case::v3`] and [`Case::v5`].
pub const fn case(title: &'static str, run: fn(&Site) -> Outcome) -> Case {
    Case { title, run, v3: &[], v5: &[], with_v31: true }
}

impl Case {
    /// Proves these statements of 3.1.1.
    #[must_use]
    pub const fn v3(mut self, ids: &'static [&'static str]) -> Self {
        self.v3 = ids;
        self
    }

    /// Proves these statements of 5.0.
    #[must_use]
    pub const fn v5(mut self, ids: &'static [&'static str]) -> Self {
        self.v5 = ids;
        self
    }

    /// 3.1 differs.
    #[must_use]
    pub const fn not_in_v31(mut self) -> Self {
        self.with_v31 = false;
        self
    }

    pub fn proves(&self, standard: Standard) -> &'static [&'static str] {
        match standard {
            Standard::V311 => self.v3,
            Standard::V5 => self.v5,
        }
    }

    pub fn versions(&self) -> Vec<Version> {
        let mut versions = Vec::new();
        if !self.v3.is_empty() {
            versions.extend(self.with_v31.then_some(Version::V31));
            versions.push(Version::V311);
        }
        if !self.v5.is_empty() {
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
