use std::process::ExitCode;

use clap::Parser;
use rookery::cli::Cli;
use rookery::{cli, logging};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    logging::abort_on_panic();
    cli::run(Cli::parse()).into()
}
