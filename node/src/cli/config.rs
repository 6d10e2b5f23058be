//! `rookery config …`, and the way every command reads a configuration.

use std::path::Path;

use super::args::{ConfigCommand, Format};
use super::exit::{Exit, Failure};
use super::out;
use crate::config::Config;

pub fn run(command: ConfigCommand, format: Format) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check { config, set } => {
            let loaded = load(config.as_deref(), &set)?;
            out::show(format, &serde_json::json!({ "ok": true, "node": loaded.node_name() }), |_| {
                "the configuration is good\n".to_owned()
            })
        }
        ConfigCommand::Example => out::print(&Config::example()),
    }
}

pub fn load(file: Option<&Path>, set: &[String]) -> Result<Config, Failure> {
    Config::load(file, std::env::vars(), set).map_err(|error| Failure::new(Exit::Usage, error.to_string()))
}
