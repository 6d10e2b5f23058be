//! The command line as clap parses it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::exit::EXIT_HELP;
use crate::auth::scram::{ITERATIONS_DEFAULT, ITERATIONS_MAX, ITERATIONS_MIN};

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
    /// Look at clients, or end their connections.
    #[command(subcommand)]
    Clients(ClientsCommand),
    /// Make entries for users.
    #[command(subcommand)]
    Users(UsersCommand),
    /// Publish and subscribe.
    #[command(subcommand)]
    Mqtt(MqttCommand),
    /// Prove that nothing is lost when nodes of this cluster die.
    #[command(subcommand)]
    Failover(FailoverCommand),
    /// Check or explain a configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
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
    /// Hand leadership to another voter.
    TransferLeader {
        #[command(flatten)]
        api: ApiArgs,
        /// Name or id; without it the most up-to-date voter.
        #[arg(long)]
        to: Option<String>,
    },
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
pub enum UsersCommand {
    /// Print a user's line for the file that auth.scram_users_file names. It does not hold the
    /// password, but is to be kept secret.
    Scram {
        /// The user name.
        name: String,
        /// A file with the password, or - for stdin.
        #[arg(long, value_name = "FILE|-", default_value = "-")]
        password_file: PathBuf,
        /// How much work it is to try a password: for a thief of the file, and for a client that
        /// connects.
        #[arg(long, value_name = "N", default_value_t = ITERATIONS_DEFAULT,
            value_parser = clap::value_parser!(u32).range(i64::from(ITERATIONS_MIN)..=i64::from(ITERATIONS_MAX)))]
        iterations: u32,
    },
}

/// How an MQTT client connects.
#[derive(Args, Clone, Debug)]
pub struct MqttArgs {
    /// mqtt://HOST:PORT or ws://HOST:PORT/mqtt.
    #[arg(long, env = "ROOKERY_URL", default_value = "mqtt://127.0.0.1:1883")]
    pub url: String,
    /// Client id; without it a random one.
    #[arg(long, short = 'i')]
    pub client_id: Option<String>,
    /// Protocol version.
    #[arg(long, value_enum, default_value_t = Protocol::V5)]
    pub protocol: Protocol,
    #[arg(long, short = 'u', env = "ROOKERY_USERNAME")]
    pub username: Option<String>,
    /// A file with the password, or - for stdin; also ROOKERY_PASSWORD.
    #[arg(long, value_name = "FILE|-")]
    pub password_file: Option<PathBuf>,
    /// Keep the session for this long after the connection ends.
    #[arg(long, value_parser = duration)]
    pub session_expiry: Option<Duration>,
    /// Quality of service.
    #[arg(long, short = 'q', default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// How long to wait for an answer of the broker.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    #[value(name = "3.1.1", alias = "4")]
    V311,
    #[value(name = "5.0", alias = "5")]
    V5,
}

#[derive(Debug, Subcommand)]
pub enum MqttCommand {
    /// Publish one message.
    Pub {
        #[command(flatten)]
        connection: MqttArgs,
        topic: String,
        /// The message; without it, stdin is sent.
        message: Option<String>,
        #[arg(long, short = 'r')]
        retain: bool,
    },
    /// Print messages as they come, one per line: the topic and the payload, or with -o json
    /// everything, payloads that are not text in hexadecimal.
    Sub {
        #[command(flatten)]
        connection: MqttArgs,
        #[arg(required = true)]
        filters: Vec<String>,
        /// End after so many messages.
        #[arg(long, short = 'n')]
        count: Option<u64>,
        /// End with code 6 if the messages did not come within this time.
        #[arg(long, value_parser = duration)]
        within: Option<Duration>,
    },
}

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

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether a node would start with this configuration.
    Check {
        #[arg(long)]
        config: Option<PathBuf>,
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// Print a file with every key, its default and what it does.
    Example,
}

/// Parses `90`, `90s`, `250ms`, `15m`, `1h`, `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let wrong = || format!("expected a duration such as 250ms, 90s, 15m, 1h or 7d, not {text:?}");
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit_ms = match &text[digits..] {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wrong)
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
            "rookery clients ls --limit 0",
            "rookery clients show c",
            "rookery clients kick c",
            "rookery users scram u --password-file f --iterations 15000",
            "rookery config check --config f",
            "rookery -o json config example",
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
            "rookery users scram",
            "rookery users scram u --password secret",
            "rookery users scram u --iterations 4095",
            "rookery mqtt pub -q 3 a b",
            "rookery failover",
            "rookery failover test --rate 0",
            "rookery failover test --every 10s",
        ] {
            assert_eq!(parse(line).err().map(|e| e.exit_code()), Some(2), "{line}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7_200)));
        for wrong in ["", "s", "1w", "-1s", "1.5s", "99999999999999999999", "18446744073709551615d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
