//! `rookery log`

use std::time::Duration;

use clap::Subcommand;

use super::ApiArgs;
use super::value::duration;

#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Print what a node logs, or change it while it runs, until it stops.
    Level {
        #[command(flatten)]
        api: ApiArgs,
        /// A level (error, warn, info, debug, trace, off), or several of these and TARGET=LEVEL,
        /// separated by commas: info,rookery::peer=debug.
        filter: Option<String>,
        /// How long, before what is configured is in force again.
        #[arg(long = "for", value_name = "TIME", value_parser = duration, requires = "filter")]
        lasting: Option<Duration>,
        /// Put what is configured in force again.
        #[arg(long, conflicts_with = "filter")]
        reset: bool,
    },
}
