//! `rookery node`

use std::time::Duration;

use clap::Subcommand;

use super::ApiArgs;
use super::value::duration;
use crate::state::Drain;

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List the nodes with the number of their clients.
    Ls(ApiArgs),
    /// Have a node let its clients go and nobody in, before it is stopped. It stays a member, and
    /// serves again after its next start or `undrain`.
    Drain {
        #[command(flatten)]
        api: ApiArgs,
        /// Name or id; without it, the node that is asked.
        node: Option<String>,
        /// How many clients a second; without it, as drain.rate of the node that is asked.
        #[arg(long, value_name = "PER_S", value_parser = drain_rate())]
        rate: Option<u32>,
        /// How long to wait until all clients have gone. Exits with 6 if they have not by then; the
        /// node goes on.
        #[arg(long, default_value = "600s", value_parser = duration)]
        timeout: Duration,
        /// Whether to wait until all clients have gone, or only until it has begun.
        #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
            default_missing_value = "true", action = clap::ArgAction::Set)]
        wait: bool,
    },
    /// Have a node keep its clients and let others in again.
    Undrain {
        #[command(flatten)]
        api: ApiArgs,
        /// Name or id; without it, the node that is asked.
        node: Option<String>,
    },
    /// Take a node out of the cluster for good, once it has let its clients go. Its process ends.
    Decommission {
        #[command(flatten)]
        api: ApiArgs,
        /// Name or id.
        node: String,
        /// How many clients a second; without it, as drain.rate of the node that is asked.
        #[arg(long, value_name = "PER_S", value_parser = drain_rate())]
        rate: Option<u32>,
        /// How long its clients may take to go. Exits with 6 if they have not by then; asked again, it
        /// goes on.
        #[arg(long, default_value = "600s", value_parser = duration)]
        timeout: Duration,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// A rate at which clients may be let go.
fn drain_rate() -> clap::builder::RangedI64ValueParser<u32> {
    let rates = i64::from(*Drain::RATES.start())..=i64::from(*Drain::RATES.end());
    clap::value_parser!(u32).range(rates)
}
