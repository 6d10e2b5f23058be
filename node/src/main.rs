use std::process::ExitCode;

use clap::Parser;
use rookery::cli::Cli;
use rookery::{cli, logging};

fn main() -> ExitCode {
    logging::abort_on_panic();
    cli::run(Cli::parse()).into()
}
