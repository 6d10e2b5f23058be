//! Reading the sources of a configuration into it: file, environment, command line.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::error::{Place, Problem, nearest};
use super::origin::Origins;
use super::section::Section;
use super::value::Input;
use super::{Config, SECTIONS};

/// Variables with this prefix name configuration keys, `__` standing for the dots between.
pub(super) const ENV_PREFIX: &str = "ROOKERY__";

/// What the sources read so far say, and what is wrong with them.
#[derive(Default)]
pub(super) struct Reader {
    pub config: Config,
    pub origins: Origins,
    pub problems: Vec<Problem>,
}

impl Reader {
    pub fn file(&mut self, path: &Path, text: &str) {
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            self.problems.push(Problem::in_file(path, line, error.message().replace('\n', "; ")));
        }
        Walk { reader: self, path, text }.table("", root.get_ref());
    }

    pub fn environment(&mut self, variables: impl Iterator<Item = (String, String)>) {
        let mut named: Vec<_> = variables.filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
        named.sort();
        for (name, value) in named {
            let key = name[ENV_PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
            self.set_text(&key, &value, Place::Environment(name), |key| {
                format!("{ENV_PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
            });
        }
    }

    /// `assignments` are of the form `key=value`.
    pub fn assignments(&mut self, assignments: &[String]) {
        for assignment in assignments {
            let Some((key, value)) = assignment.split_once('=') else {
                self.problems.push(Problem::new(Place::Set(assignment.clone()), "expected key=value"));
                continue;
            };
            let place = Place::Set(key.trim().to_owned());
            if is_secret(&self.config, key.trim()) {
                let what = "is a secret, and arguments are seen by everybody on this machine: put it into the \
                            environment or into a file";
                self.problems.push(Problem::new(place, what));
                continue;
            }
            self.set_text(key.trim(), value.trim(), place, str::to_owned);
        }
    }

    fn set_text(&mut self, path: &str, value: &str, place: Place, spell: impl Fn(&str) -> String) {
        let result = self.set(path, &Input::Text(value), || place.clone());
        if let Err(what) = result.unwrap_or_else(|| Err(unknown(&self.config, path, spell))) {
            self.problems.push(Problem::new(place, what));
        }
    }

    /// `None`: there is no such key.
    fn set(
        &mut self,
        path: &str,
        input: &Input<'_>,
        place: impl FnOnce() -> Place,
    ) -> Option<Result<(), String>> {
        let (section, key) = path.rsplit_once('.')?;
        let result = self.config.section_mut(section)?.set(key, input)?;
        if result.is_ok() {
            self.origins.insert(path.to_owned(), place());
        }
        Some(result)
    }
}

fn is_secret(config: &Config, path: &str) -> bool {
    let Some((section, name)) = path.rsplit_once('.') else { return false };
    let keys = config.section(section).map(Section::keys).unwrap_or_default();
    keys.iter().any(|key| key.name == name && key.secret)
}

fn unknown(config: &Config, path: &str, spell: impl Fn(&str) -> String) -> String {
    if SECTIONS.contains(&path) || path_of_sections(path) {
        return format!("{path} is a section of keys, not a key");
    }
    let keys = config.key_paths();
    match nearest(path, keys.iter().map(String::as_str)) {
        Some(near) => format!("unknown key {}, did you mean {}?", spell(path), spell(near)),
        None => format!("unknown key {}; `rookery config example` lists all keys", spell(path)),
    }
}

/// Whether `path` only leads to sections, such as `listeners`.
fn path_of_sections(path: &str) -> bool {
    SECTIONS.iter().any(|s| s.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

struct Walk<'a> {
    reader: &'a mut Reader,
    path: &'a Path,
    text: &'a str,
}

impl Walk<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = if prefix.is_empty() {
                key.get_ref().to_string()
            } else {
                format!("{prefix}.{}", key.get_ref())
            };
            let is_section = SECTIONS.contains(&path.as_str()) || path_of_sections(&path);
            let problem = match value.get_ref() {
                DeValue::Table(inner) if is_section => {
                    self.table(&path, inner);
                    None
                }
                other => {
                    let (file, line) = (self.path, line_of(self.text, value.span().start));
                    let place = || Place::File { path: file.to_owned(), line };
                    match self.reader.set(&path, &Input::Toml(other), place) {
                        Some(Ok(())) => None,
                        Some(Err(what)) => Some((value.span().start, format!("{path}: {what}"))),
                        None => {
                            let what = unknown(&self.reader.config, &path, str::to_owned);
                            Some((key.span().start, what))
                        }
                    }
                }
            };
            if let Some((offset, what)) = problem {
                let line = line_of(self.text, offset);
                self.reader.problems.push(Problem::in_file(self.path, line, what));
            }
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count()
}
