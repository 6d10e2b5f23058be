//! The configuration as it is in force, and which source each of its values comes from.

use std::collections::BTreeMap;

use super::check::check;
use super::error::{ConfigError, Place};
use super::section::Section;
use super::{Config, SECTIONS};

/// Where keys were set last, by their dotted paths; what is absent has its default.
pub(super) type Origins = BTreeMap<String, Place>;

/// What all sources say together. It need not be a configuration with which a node starts.
#[derive(Clone, Debug)]
pub struct Effective {
    pub(super) config: Config,
    pub(super) origins: Origins,
}

/// A key with its value.
#[derive(Debug)]
pub struct EffectiveKey<'a> {
    /// The dotted path of its section.
    pub section: &'static str,
    pub name: &'static str,
    /// The value as TOML; `None`: there is one, which is a secret.
    pub value: Option<String>,
    /// `None`: it is the default.
    pub origin: Option<&'a Place>,
}

impl Effective {
    /// The configuration, if a node can start with it.
    ///
    /// # Errors
    /// What is wrong with its values together.
    pub fn check(self) -> Result<Config, ConfigError> {
        let mut problems = Vec::new();
        check(&self.config, &mut problems);
        if problems.is_empty() { Ok(self.config) } else { Err(ConfigError { problems }) }
    }

    /// Every key, in the order of the example file.
    pub fn keys(&self) -> Vec<EffectiveKey<'_>> {
        let mut keys = Vec::new();
        for section in SECTIONS {
            for key in self.config.section(section).map(Section::keys).unwrap_or_default() {
                let origin = self.origins.get(&format!("{section}.{}", key.name));
                // A secret that was never set, or taken back, is no secret.
                let is_hidden = key.secret && key.value != "\"\"";
                let value = (!is_hidden).then_some(key.value);
                keys.push(EffectiveKey { section, name: key.name, value, origin });
            }
        }
        keys
    }
}
