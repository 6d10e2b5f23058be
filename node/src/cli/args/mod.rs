//! The command line as clap parses it.

mod access;
mod cluster;
mod failover;
mod log;
mod mqtt;
mod node;
mod retained;
mod value;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub use access::{AclCommand, BanCommand, RulesCommand, UsersCommand};
pub use cluster::ClusterCommand;
pub use failover::{FailoverCommand, FailoverTestArgs};
pub use log::LogCommand;
pub use mqtt::{MqttArgs, MqttCommand, Protocol};
pub use node::NodeCommand;
pub use retained::RetainedCommand;

use super::exit::EXIT_HELP;
use value::duration;

/// A clustered MQTT broker.
#[derive(Debug, Parser)]
#[command(name = "rookery", version, after_long_help = EXIT_HELP, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// How results are printed.
    #[arg(short = 'o', long = "output", global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// How results are printed on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole cluster on this machine, to try it out or to test against.
    Dev(DevArgs),
    /// Run one node.
    Serve(ServeArgs),
    /// Form, extend and look after a cluster.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Look at nodes, have their clients go elsewhere, or take a node out.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Look at clients, or end their connections.
    #[command(subcommand)]
    Clients(ClientsCommand),
    /// Look at retained messages, or remove them.
    #[command(subcommand)]
    Retained(RetainedCommand),
    /// Say who can log in.
    #[command(subcommand)]
    Users(UsersCommand),
    /// Say what clients may do.
    #[command(subcommand)]
    Rules(RulesCommand),
    /// Find out what a client may do.
    #[command(subcommand)]
    Acl(AclCommand),
    /// Keep clients, users and addresses out.
    #[command(subcommand)]
    Ban(BanCommand),
    /// Look at what a node logs, or change it.
    #[command(subcommand)]
    Log(LogCommand),
    /// Publish and subscribe.
    #[command(subcommand)]
    Mqtt(MqttCommand),
    /// Prove that nothing is lost when nodes of this cluster die.
    #[command(subcommand)]
    Failover(FailoverCommand),
    /// Check or explain a configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the script by which a shell completes commands and options.
    Completions { shell: Shell },
    /// Print the manual page, or write the pages of all commands.
    Man {
        /// Write a page for each command into this directory, and print their names.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub struct DevArgs {
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub nodes: u16,
    /// MQTT port of the first node; the others follow. 0 for this or another: any free ports.
    #[arg(long, default_value_t = 1883)]
    pub mqtt_port: u16,
    /// WebSocket port of the first node.
    #[arg(long, default_value_t = 8083)]
    pub ws_port: u16,
    /// HTTP API port of the first node.
    #[arg(long, default_value_t = 18083)]
    pub api_port: u16,
    /// Peer port of the first node.
    #[arg(long, default_value_t = 17883)]
    pub peer_port: u16,
    /// Keep the nodes' data and logs here; a later run goes on with them. Without it, everything
    /// is in a temporary directory that goes with the cluster.
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// Print one line of JSON, instead of a table, once the cluster serves.
    #[arg(long)]
    pub json: bool,
    /// Start a node that died again.
    #[arg(long)]
    pub restart: bool,
    /// Configuration for every node.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// How long the cluster may take until it serves.
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub timeout: Duration,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The configuration file (TOML). Without it: the defaults, which listen on loopback only.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Set one configuration key; comes after the file and the environment.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Stop when stdin is closed, so that a node never outlives the process that started it.
    #[arg(long, hide = true)]
    pub stop_on_stdin_close: bool,
}

/// Which node to talk to.
#[derive(Args, Clone, Debug)]
pub struct ApiArgs {
    /// HOST:PORT of a node's HTTP API.
    #[arg(long, env = "ROOKERY_API", default_value = "127.0.0.1:18083")]
    pub api: String,
}

#[derive(Debug, Subcommand)]
pub enum ClientsCommand {
    /// List the cluster's clients.
    Ls {
        #[command(flatten)]
        api: ApiArgs,
        /// Most clients listed; 0 lists all.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
    /// Print what is known of a client.
    Show {
        #[command(flatten)]
        api: ApiArgs,
        client: String,
    },
    /// End a client's connection and session.
    Kick {
        #[command(flatten)]
        api: ApiArgs,
        client: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether a node would start with this configuration.
    Check(SourceArgs),
    /// Print the configuration in force, as a file that says the same but for secrets, which are not
    /// shown. Exits with 2 if no node would start with it.
    Show {
        #[command(flatten)]
        sources: SourceArgs,
        /// Say where each value comes from.
        #[arg(long)]
        origin: bool,
    },
    /// Print a file with every key, its default and what it does.
    Example,
}

/// Where a configuration comes from, besides the environment.
#[derive(Args, Clone, Debug)]
pub struct SourceArgs {
    /// The configuration file (TOML).
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Set one configuration key; comes after the file and the environment.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_parse() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        for line in [
            "rookery dev",
            "rookery dev --nodes 5 --mqtt-port 0 --json --restart --data-dir /x --set log.level=debug",
            "rookery serve --config f --set a=b --set c=d",
            "rookery cluster init --api 127.0.0.1:1",
            "rookery cluster token --ttl 1h -o json",
            "rookery cluster join a:1 b:2 --token-file -",
            "rookery cluster status -o json",
            "rookery cluster status --wait --nodes 3 --timeout 5s",
            "rookery cluster members",
            "rookery cluster leave --yes",
            "rookery cluster forget n3 --force",
            "rookery cluster transfer-leader --to n2",
            "rookery node ls",
            "rookery node drain",
            "rookery node drain n1 --rate 1000 --timeout 60 --wait",
            "rookery node drain --wait=false -o json",
            "rookery node undrain n1 --api a:1",
            "rookery node decommission n1 --yes --timeout 90s",
            "rookery clients ls --limit 0",
            "rookery clients show c",
            "rookery clients kick c",
            "rookery retained ls",
            "rookery retained ls --filter plant/# --limit 0 -o json",
            "rookery retained show plant/1 --raw",
            "rookery retained rm plant/1 --api a:1",
            "rookery users scram u --password-file f --iterations 15000",
            "rookery users ls",
            "rookery users add u --password-file f",
            "rookery users rm u -o json",
            "rookery users import f",
            "rookery rules ls",
            "rookery rules set -",
            "rookery rules add --at 1 allow user u publish,subscribe a/#",
            "rookery rules rm 2",
            "rookery rules import f --dry-run",
            "rookery acl check -u u -i c publish a/b -q 1 -r",
            "rookery ban ls",
            "rookery ban add address 10.0.0.0/8 --reason x --for 1h",
            "rookery ban rm client c",
            "rookery log level",
            "rookery log level info,rookery::peer=debug --for 10m --api a:1",
            "rookery log level --reset -o json",
            "rookery config check --config f",
            "rookery -o json config example",
            "rookery config show --config f --set a=b --origin -o json",
            "rookery completions zsh",
            "rookery man --dir d",
            "rookery mqtt pub -q 1 -r a/b hello",
            "rookery mqtt sub -n 1 --protocol 3.1.1 a/# b",
            "rookery failover test",
            "rookery failover test --mqtt a:1 b:2 --mqtt ws://c --duration 30s -o json",
            "rookery failover test --api a:1 -u me --exec ./kill --every 10s --rate 50",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
        for line in [
            "rookery",
            "rookery cluster",
            "rookery dev --nodes 0",
            "rookery cluster join",
            "rookery cluster join a:1 --token secret",
            "rookery cluster token --ttl soon",
            "rookery node drain --rate 0",
            "rookery node decommission --yes",
            "rookery retained show",
            "rookery retained rm",
            "rookery users scram",
            "rookery users scram u --password secret",
            "rookery users add u secret",
            "rookery rules rm 0",
            "rookery ban add host x",
            "rookery log level debug --reset",
            "rookery log level --for 10m",
            "rookery users scram u --iterations 4095",
            "rookery mqtt pub -q 3 a b",
            "rookery failover",
            "rookery completions csh",
            "rookery failover test --rate 0",
            "rookery failover test --every 10s",
        ] {
            assert_eq!(parse(line).err().map(|e| e.exit_code()), Some(2), "{line}");
        }
    }
}
