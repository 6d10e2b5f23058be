//! `rookery failover`

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::ApiArgs;
use super::value::duration;

#[derive(Debug, Subcommand)]
pub enum FailoverCommand {
    /// Publish and subscribe on all nodes, write down what is acknowledged and what arrives, and
    /// check it, while you kill nodes. Exits with 8 if anything acknowledged was lost, came twice
    /// at QoS 2, or came out of order.
    Test(FailoverTestArgs),
}

#[derive(Args, Clone, Debug)]
pub struct FailoverTestArgs {
    #[command(flatten)]
    pub api: ApiArgs,
    /// Nodes to connect to, as HOST:PORT, mqtt://HOST:PORT or ws://HOST:PORT/mqtt; without it, the
    /// MQTT addresses of all members, as --api knows them.
    #[arg(long, value_name = "HOST:PORT", num_args = 1..)]
    pub mqtt: Vec<String>,
    #[arg(long, short = 'u', env = "ROOKERY_USERNAME")]
    pub username: Option<String>,
    /// A file with the password, or - for stdin; also ROOKERY_PASSWORD.
    #[arg(long, value_name = "FILE|-")]
    pub password_file: Option<PathBuf>,
    /// How long to publish; without it, until Ctrl-C.
    #[arg(long, value_parser = duration)]
    pub duration: Option<Duration>,
    /// A command for sh, to be run again and again: a script that kills a node, say.
    #[arg(long, value_name = "COMMAND")]
    pub exec: Option<String>,
    /// The time between two runs of the command.
    #[arg(long, default_value = "20s", value_parser = duration, requires = "exec")]
    pub every: Duration,
    /// Messages published a second, on all nodes together.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// A client takes its connection for dead when an answer takes longer: longer than a lease,
    /// so that a node that is slow is not left.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub timeout: Duration,
    /// How long what was acknowledged may take to arrive at the end.
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub drain: Duration,
}
