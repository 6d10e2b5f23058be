//! `rookery retained`

use clap::Subcommand;

use super::ApiArgs;

#[derive(Debug, Subcommand)]
pub enum RetainedCommand {
    /// List retained messages in the order of their topics.
    Ls {
        #[command(flatten)]
        api: ApiArgs,
        /// Only those whose topics match. Topics that begin with $ match only a filter that does.
        #[arg(long, default_value = "#")]
        filter: String,
        /// Most messages listed; 0 lists all.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
    /// Print a topic's retained message.
    Show {
        #[command(flatten)]
        api: ApiArgs,
        topic: String,
        /// Write the payload, byte for byte, and nothing else.
        #[arg(long)]
        raw: bool,
    },
    /// Remove a topic's retained message, on all nodes.
    Rm {
        #[command(flatten)]
        api: ApiArgs,
        topic: String,
    },
}
