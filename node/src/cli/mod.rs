//! The command line: parse, do, print. Every command ends with an [`Exit`].

mod args;
mod ban;
mod client;
mod clients;
mod cluster;
mod completions;
mod config;
mod dev;
mod exit;
mod failover;
mod input;
mod log;
mod man;
mod mqtt;
mod node;
mod out;
mod password;
mod retained;
mod rules;
mod serve;
mod users;

pub use args::Cli;
pub use exit::{Exit, Failure};

use args::Command;

/// Carries out a command line; failures are told on stderr.
pub fn run(cli: Cli) -> Exit {
    match dispatch(cli) {
        Ok(()) => Exit::Ok,
        Err(failure) => {
            for line in failure.message.lines() {
                out::say(&format!("rookery: {line}"));
            }
            failure.exit
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    let format = cli.output;
    match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Config(command) => config::run(command, format),
        Command::Completions { shell } => completions::run(shell),
        Command::Man { dir } => man::run(dir.as_deref(), format),
        Command::Users(command) => block_on(users::run(command, format)),
        Command::Rules(command) => block_on(rules::run(command, format)),
        Command::Acl(command) => block_on(rules::run_acl(command, format)),
        Command::Ban(command) => block_on(ban::run(command, format)),
        Command::Dev(args) => block_on(dev::run(args, format)),
        Command::Cluster(command) => block_on(cluster::run(command, format)),
        Command::Node(command) => block_on(node::run(command, format)),
        Command::Clients(command) => block_on(clients::run(command, format)),
        Command::Log(command) => block_on(log::run(command, format)),
        Command::Retained(command) => block_on(retained::run(command, format)),
        Command::Mqtt(command) => block_on(mqtt::run(command, format)),
        Command::Failover(command) => block_on(failover::run(command, format)),
    }
}

/// Commands that only wait need one thread.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}
