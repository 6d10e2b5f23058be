//! Reading the sources of a configuration into it: file, environment, command line.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::error::{Place, Problem, nearest};
use super::value::Input;
use super::{Config, SECTIONS};

/// Variables with this prefix name configuration keys, `__` standing for the dots between.
pub(super) const ENV_PREFIX: &str = "ROOKERY__";

pub(super) fn read_file(config: &mut Config, path: &Path, text: &str, problems: &mut Vec<Problem>) {
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        problems.push(Problem::in_file(path, line, error.message().replace('\n', "; ")));
    }
    Walk { config, path, text, problems }.table("", root.get_ref());
}

pub(super) fn read_environment(
    config: &mut Config,
    variables: impl Iterator<Item = (String, String)>,
    problems: &mut Vec<Problem>,
) {
    let mut named: Vec<_> = variables.filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
    named.sort();
    for (name, value) in named {
        let key = name[ENV_PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
        let place = Place::Environment(name);
        if let Err(what) = set_text(config, &key, &value, |key| {
            format!("{ENV_PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
        }) {
            problems.push(Problem::new(place, what));
        }
    }
}

/// `assignments` are of the form `key=value`.
pub(super) fn read_assignments(config: &mut Config, assignments: &[String], problems: &mut Vec<Problem>) {
    for assignment in assignments {
        let Some((key, value)) = assignment.split_once('=') else {
            problems.push(Problem::new(Place::Set(assignment.clone()), "expected key=value"));
            continue;
        };
        if let Err(what) = set_text(config, key.trim(), value.trim(), str::to_owned) {
            problems.push(Problem::new(Place::Set(key.trim().to_owned()), what));
        }
    }
}

fn set_text(
    config: &mut Config,
    path: &str,
    value: &str,
    spell: impl Fn(&str) -> String,
) -> Result<(), String> {
    match set(config, path, &Input::Text(value)) {
        Some(result) => result,
        None => Err(unknown(config, path, spell)),
    }
}

/// `None`: there is no such key.
fn set(config: &mut Config, path: &str, input: &Input<'_>) -> Option<Result<(), String>> {
    let (section, key) = path.rsplit_once('.')?;
    config.section_mut(section)?.set(key, input)
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
    config: &'a mut Config,
    path: &'a Path,
    text: &'a str,
    problems: &'a mut Vec<Problem>,
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
                other => match set(self.config, &path, &Input::Toml(other)) {
                    Some(Ok(())) => None,
                    Some(Err(what)) => Some((value.span().start, format!("{path}: {what}"))),
                    None => Some((key.span().start, unknown(self.config, &path, str::to_owned))),
                },
            };
            if let Some((offset, what)) = problem {
                let line = line_of(self.text, offset);
                self.problems.push(Problem::in_file(self.path, line, what));
            }
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count()
}
