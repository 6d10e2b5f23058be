//! `rookery config …`, and the way every command reads a configuration.

use std::fmt::Write as _;
use std::path::Path;

use super::args::{ConfigCommand, Format, SourceArgs};
use super::exit::{Exit, Failure};
use super::out;
use crate::config::{Config, ConfigError, Effective, EffectiveKey};

pub fn run(command: ConfigCommand, format: Format) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check(SourceArgs { config, set }) => {
            let loaded = load(config.as_deref(), &set)?;
            out::show(format, &serde_json::json!({ "ok": true, "node": loaded.node_name() }), |_| {
                "the configuration is good\n".to_owned()
            })
        }
        ConfigCommand::Show { sources, origin } => show(&sources, origin, format),
        ConfigCommand::Example => out::print(&Config::example()),
    }
}

pub fn load(file: Option<&Path>, set: &[String]) -> Result<Config, Failure> {
    Config::load(file, std::env::vars(), set).map_err(wrong)
}

fn wrong(error: ConfigError) -> Failure {
    Failure::new(Exit::Usage, error.to_string())
}

/// What is wrong is told after the values: they, and where they come from, are what helps to mend it.
fn show(sources: &SourceArgs, with_origin: bool, format: Format) -> Result<(), Failure> {
    let effective = Config::read(sources.config.as_deref(), std::env::vars(), &sources.set).map_err(wrong)?;
    match format {
        Format::Table => out::print(&as_file(&effective, with_origin))?,
        Format::Json => out::show(format, &as_json(&effective)?, |_| String::new())?,
    }
    effective.check().map_err(wrong)?;
    Ok(())
}

/// A configuration file. Origins are comments that line up within a section.
fn as_file(effective: &Effective, with_origin: bool) -> String {
    let keys = effective.keys();
    let mut text = String::new();
    for section in keys.chunk_by(|a, b| a.section == b.section) {
        let lines: Vec<String> = section.iter().map(line).collect();
        let width = lines.iter().map(|line| line.chars().count()).filter(|width| *width <= 60).max();
        let width = width.unwrap_or(0);
        let _ = writeln!(text, "{}[{}]", if text.is_empty() { "" } else { "\n" }, section[0].section);
        for (line, key) in lines.iter().zip(section) {
            let _ = match with_origin {
                true => writeln!(text, "{line:width$}  # {}", origin(key)),
                false => writeln!(text, "{line}"),
            };
        }
    }
    text
}

/// A secret is a comment, or else what is shown in its place would be taken for it.
fn line(key: &EffectiveKey<'_>) -> String {
    match &key.value {
        Some(value) => format!("{} = {value}", key.name),
        None => format!("#{} is set, and not shown", key.name),
    }
}

fn origin(key: &EffectiveKey<'_>) -> String {
    key.origin.map_or_else(|| "default".to_owned(), |place| out::escaped(&place.to_string()))
}

/// An array of the keys. A secret has no value.
fn as_json(effective: &Effective) -> Result<serde_json::Value, Failure> {
    let keys = effective.keys();
    let keys = keys.iter().map(|key| {
        let value = key.value.as_deref().map(|value| value.parse::<toml::Value>()).transpose();
        let value = value.map_err(|error| Failure::new(Exit::Error, error.to_string()))?;
        let path = format!("{}.{}", key.section, key.name);
        let is_secret = value.is_none();
        Ok(serde_json::json!({ "key": path, "value": value, "secret": is_secret, "origin": origin(key) }))
    });
    keys.collect()
}
