//! `rookery mqtt`

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::value::duration;

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
