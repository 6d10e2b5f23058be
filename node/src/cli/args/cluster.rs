//! `rookery cluster`

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use super::ApiArgs;
use super::value::duration;

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Form a new cluster; the node is its first member.
    Init(ApiArgs),
    /// Print a secret that lets nodes join.
    Token {
        #[command(flatten)]
        api: ApiArgs,
        /// How long it is good for.
        #[arg(long, default_value = "1h", value_parser = duration)]
        ttl: Duration,
    },
    /// Make the node join a cluster. The token comes from a file, stdin, or ROOKERY_TOKEN.
    Join {
        #[command(flatten)]
        api: ApiArgs,
        /// Peer address of any member.
        #[arg(value_name = "HOST:PEERPORT", required = true)]
        seeds: Vec<String>,
        /// A file with the token, or - for stdin.
        #[arg(long, value_name = "FILE|-")]
        token_file: Option<PathBuf>,
    },
    /// Print the cluster's state. Exits with 4 if it is not healthy.
    Status {
        #[command(flatten)]
        api: ApiArgs,
        /// Wait until the cluster is healthy.
        #[arg(long)]
        wait: bool,
        /// Healthy means at least so many members.
        #[arg(long, value_name = "N", default_value_t = 1)]
        nodes: usize,
        /// How long to wait.
        #[arg(long, default_value = "60s", value_parser = duration)]
        timeout: Duration,
    },
    /// Print the members.
    Members(ApiArgs),
    /// Take the node out of its cluster for good.
    Leave {
        #[command(flatten)]
        api: ApiArgs,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Take another node, which is down, out of the cluster for good.
    Forget {
        #[command(flatten)]
        api: ApiArgs,
        /// Name or id.
        node: String,
        /// Even if acknowledged data may be lost by it.
        #[arg(long)]
        force: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Replace the cluster's own CA, by which its nodes know each other, and the cluster's secret, or go
    /// on with doing so. For when a node's disk was lost or its operator is no longer trusted.
    RotateCa {
        #[command(flatten)]
        api: ApiArgs,
        /// Leave members behind that do not answer: they get in again with a token only.
        #[arg(long)]
        force: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Hand leadership to another voter.
    TransferLeader {
        #[command(flatten)]
        api: ApiArgs,
        /// Name or id; without it the most up-to-date voter.
        #[arg(long)]
        to: Option<String>,
    },
}
