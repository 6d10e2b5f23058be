//! `rookery man`: manual pages, made of what `--help` says.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::args::{Cli, Format};
use super::exit::{Exit, Failure};
use super::out;

pub fn run(dir: Option<&Path>, format: Format) -> Result<(), Failure> {
    let mut command = Cli::command().disable_help_subcommand(true);
    // Names subcommands after their parents: rookery-cluster-init.
    command.build();
    let Some(dir) = dir else {
        let page = render(&command)?;
        return out::print(&page);
    };
    let wrong = |error| Failure::new(Exit::Error, format!("{}: {error}", dir.display()));
    fs::create_dir_all(dir).map_err(wrong)?;
    let mut names = Vec::new();
    write_all(&command, dir, &mut names).map_err(wrong)?;
    names.sort();
    out::show(format, &names, |names| names.iter().flat_map(|name| [name, "\n"]).collect())
}

/// Writes the page of a command, and those of the ones below it.
fn write_all(command: &Command, dir: &Path, names: &mut Vec<String>) -> io::Result<()> {
    for below in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        write_all(below, dir, names)?;
    }
    let name = page(command).get_filename();
    fs::write(dir.join(&name), render(command)?)?;
    names.push(name);
    Ok(())
}

fn render(command: &Command) -> io::Result<String> {
    let mut text = Vec::new();
    page(command).render(&mut text)?;
    String::from_utf8(text).map_err(io::Error::other)
}

/// Without a date: pages of the same version are the same, whenever they were made.
fn page(command: &Command) -> Man {
    Man::new(command.clone()).manual("Rookery")
}
