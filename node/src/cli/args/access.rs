//! `rookery users`, `rules`, `acl` and `ban`: who is let in, and what clients may do

use std::path::PathBuf;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};

use super::ApiArgs;
use super::value::{duration, number};
use crate::auth::scram::{ITERATIONS_DEFAULT, ITERATIONS_MAX, ITERATIONS_MIN};

#[derive(Debug, Subcommand)]
pub enum UsersCommand {
    /// List the cluster's users.
    Ls(ApiArgs),
    /// Add a user to the cluster, or give one another password.
    Add {
        #[command(flatten)]
        api: ApiArgs,
        /// The user name.
        name: String,
        /// A file with the password, or - for stdin.
        #[arg(long, value_name = "FILE|-", default_value = "-")]
        password_file: PathBuf,
    },
    /// Remove a user from the cluster and disconnect its clients.
    Rm {
        #[command(flatten)]
        api: ApiArgs,
        name: String,
    },
    /// Add the users of a password file of mosquitto.
    Import {
        #[command(flatten)]
        api: ApiArgs,
        /// A file that mosquitto_passwd made.
        file: PathBuf,
    },
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

#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// List the rules in their order; the first that matches decides.
    Ls(ApiArgs),
    /// Replace all rules.
    Set {
        #[command(flatten)]
        api: ApiArgs,
        /// A file with a rule on each line, or - for stdin.
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
    },
    /// Add a rule, such as: allow user alice publish,subscribe home/alice/#
    Add {
        #[command(flatten)]
        api: ApiArgs,
        /// The number that it gets; without it, it comes last.
        #[arg(long, value_parser = number)]
        at: Option<usize>,
        #[arg(required = true)]
        rule: Vec<String>,
    },
    /// Remove a rule by its number.
    Rm {
        #[command(flatten)]
        api: ApiArgs,
        #[arg(value_parser = number)]
        number: usize,
    },
    /// Replace all rules by what an ACL file of mosquitto says.
    Import {
        #[command(flatten)]
        api: ApiArgs,
        file: PathBuf,
        /// Print the rules and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum AclCommand {
    /// Say whether the rules allow something, and which of them. Exits with 7 if not.
    Check {
        #[command(flatten)]
        api: ApiArgs,
        #[arg(long, short = 'i', default_value = "")]
        client_id: String,
        /// Who the client has proved to be; without it, nobody.
        #[arg(long, short = 'u')]
        user: Option<String>,
        /// The common name of its certificate.
        #[arg(long)]
        common_name: Option<String>,
        /// Where it comes from.
        #[arg(long)]
        address: Option<String>,
        #[arg(long, short = 'q', default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
        qos: u8,
        #[arg(long, short = 'r')]
        retain: bool,
        action: AclAction,
        /// A topic, or for subscribe a filter.
        topic: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AclAction {
    Publish,
    Subscribe,
}

impl AclAction {
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum BanCommand {
    /// List the bans that are in force.
    Ls(ApiArgs),
    /// Keep somebody out, and end the connections that are there.
    Add {
        #[command(flatten)]
        api: ApiArgs,
        kind: BanKind,
        /// A client id, a user name, an address or a network such as 10.0.0.0/8.
        value: String,
        #[arg(long, default_value = "")]
        reason: String,
        /// For how long; without it, until the ban is removed.
        #[arg(long, value_parser = duration)]
        r#for: Option<Duration>,
    },
    /// Let somebody in again.
    Rm {
        #[command(flatten)]
        api: ApiArgs,
        kind: BanKind,
        value: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BanKind {
    Client,
    User,
    Address,
}

impl BanKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::User => "user",
            Self::Address => "address",
        }
    }
}
