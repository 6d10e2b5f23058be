//! A node's configuration: defaults, then the file, then the environment
//! (`ROOKERY__LISTENERS__TCP__BIND`), then `--set key=value`; later sources win. Nothing unknown
//! or out of bounds is accepted from any of them.

mod check;
mod error;
mod origin;
mod section;
mod sections;
mod sources;
mod value;

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

pub use error::{ConfigError, Place, Problem};
pub use origin::{Effective, EffectiveKey};
pub(crate) use sections::log_level;
pub use sections::{
    ApiConfig, AuthConfig, ClusterConfig, DrainConfig, HttpAuthConfig, JwtConfig, LimitsConfig, LogConfig,
    MqttConfig, NodeConfig, SharedConfig, TcpConfig, TlsConfig, WsConfig,
};
pub use value::{AuthMethod, HostPort, LogFormat};

use section::Section;
use sources::Reader;

use crate::net::Kind;

/// Everything a node is told from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    pub node: NodeConfig,
    pub drain: DrainConfig,
    pub listeners: ListenersConfig,
    pub api: ApiConfig,
    pub cluster: ClusterConfig,
    pub auth: AuthConfig,
    /// `auth.jwt.*`
    pub auth_jwt: JwtConfig,
    /// `auth.http.*`
    pub auth_http: HttpAuthConfig,
    pub mqtt: MqttConfig,
    pub shared: SharedConfig,
    pub limits: LimitsConfig,
    pub log: LogConfig,
}

/// `listeners.*`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenersConfig {
    pub tcp: TcpConfig,
    pub ws: WsConfig,
    pub tls: TlsConfig,
    pub wss: TlsConfig,
}

impl ListenersConfig {
    /// The encrypted ones that are offered: section, the key of the address, what is spoken.
    pub fn encrypted(
        &self,
    ) -> impl Iterator<Item = (SocketAddr, &'static str, &'static str, Kind, &TlsConfig)> {
        [
            ("listeners.tls", "listeners.tls.bind", Kind::Tcp, &self.tls),
            ("listeners.wss", "listeners.wss.bind", Kind::WebSocket, &self.wss),
        ]
        .into_iter()
        .filter_map(|(section, key, kind, config)| Some((config.bind?, section, key, kind, config)))
    }
}

/// Every section, in the order of the example file.
const SECTIONS: [&str; 15] = [
    "node",
    "drain",
    "listeners.tcp",
    "listeners.ws",
    "listeners.tls",
    "listeners.wss",
    "api",
    "cluster",
    "auth",
    "auth.jwt",
    "auth.http",
    "mqtt",
    "shared",
    "limits",
    "log",
];

impl Config {
    /// Reads all sources and checks the result. `environment` is normally `std::env::vars()`;
    /// only names that begin with `ROOKERY__` are looked at.
    ///
    /// # Errors
    /// Everything that is wrong in any source, at once; of a configuration whose values are each
    /// good, what is wrong with them together.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        assignments: &[String],
    ) -> Result<Self, ConfigError> {
        Self::read(file, environment, assignments)?.check()
    }

    /// Reads all sources and says where each value comes from; does not ask whether the values go
    /// together.
    ///
    /// # Errors
    /// Everything that is wrong in any source, at once.
    pub fn read(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        assignments: &[String],
    ) -> Result<Effective, ConfigError> {
        let mut reader = Reader::default();
        if let Some(path) = file {
            match std::fs::read_to_string(path) {
                Ok(text) => reader.file(path, &text),
                Err(error) => {
                    let place = Place::WholeFile(path.to_owned());
                    reader.problems.push(Problem::new(place, error.to_string()));
                }
            }
        }
        reader.environment(environment);
        reader.assignments(assignments);
        let Reader { config, origins, problems } = reader;
        if problems.is_empty() { Ok(Effective { config, origins }) } else { Err(ConfigError { problems }) }
    }

    /// A file that says what the defaults say, with every key explained.
    pub fn example() -> String {
        let config = Self::default();
        let mut text = String::from(
            "# Rookery's configuration. Every key is shown with its default; remove the '#' before a key to\n\
             # change it. The environment (ROOKERY__LISTENERS__TCP__BIND=...) and --set key=value come after\n\
             # this file and win.\n",
        );
        for name in SECTIONS {
            let _ = write!(text, "\n[{name}]\n");
            for key in config.section(name).into_iter().flat_map(Section::keys) {
                for line in key.doc {
                    let _ = writeln!(text, "#{line}");
                }
                let _ = writeln!(text, "#{} = {}\n", key.name, key.value);
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }

    /// The node's name: as configured, else the machine's host name.
    pub fn node_name(&self) -> String {
        if !self.node.name.is_empty() {
            return self.node.name.clone();
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name: String = host
            .trim()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
            .take(63)
            .collect();
        if name.is_empty() { "rookery".to_owned() } else { name }
    }

    /// The peer address that other nodes are told.
    pub fn advertised_peer(&self) -> HostPort {
        self.cluster.advertise.clone().unwrap_or_else(|| HostPort {
            host: self.cluster.bind.ip().to_string(),
            port: self.cluster.bind.port(),
        })
    }

    /// How others are told to reach a listener bound to `bound`: at its own address, or, when it
    /// listens on all addresses, at the host that the peer address names.
    pub fn advertised(&self, bound: SocketAddr) -> HostPort {
        let host =
            if bound.ip().is_unspecified() { self.advertised_peer().host } else { bound.ip().to_string() };
        HostPort { host, port: bound.port() }
    }

    /// The longest a cluster of this configuration is without a leader once one died,
    /// milliseconds: the old leader's lease, which is the largest election time-out, then a
    /// random time-out, then a heartbeat until all have heard of the new leader.
    pub fn worst_election_ms(&self) -> u64 {
        2 * self.cluster.election_max_ms + self.cluster.heartbeat_ms
    }

    fn section(&self, name: &str) -> Option<&dyn Section> {
        Some(match name {
            "node" => &self.node,
            "drain" => &self.drain,
            "listeners.tcp" => &self.listeners.tcp,
            "listeners.ws" => &self.listeners.ws,
            "listeners.tls" => &self.listeners.tls,
            "listeners.wss" => &self.listeners.wss,
            "api" => &self.api,
            "cluster" => &self.cluster,
            "auth" => &self.auth,
            "auth.jwt" => &self.auth_jwt,
            "auth.http" => &self.auth_http,
            "mqtt" => &self.mqtt,
            "shared" => &self.shared,
            "limits" => &self.limits,
            "log" => &self.log,
            _ => return None,
        })
    }

    fn section_mut(&mut self, name: &str) -> Option<&mut dyn Section> {
        Some(match name {
            "node" => &mut self.node,
            "drain" => &mut self.drain,
            "listeners.tcp" => &mut self.listeners.tcp,
            "listeners.ws" => &mut self.listeners.ws,
            "listeners.tls" => &mut self.listeners.tls,
            "listeners.wss" => &mut self.listeners.wss,
            "api" => &mut self.api,
            "cluster" => &mut self.cluster,
            "auth" => &mut self.auth,
            "auth.jwt" => &mut self.auth_jwt,
            "auth.http" => &mut self.auth_http,
            "mqtt" => &mut self.mqtt,
            "shared" => &mut self.shared,
            "limits" => &mut self.limits,
            "log" => &mut self.log,
            _ => return None,
        })
    }

    /// The dotted paths of all keys.
    fn key_paths(&self) -> Vec<String> {
        SECTIONS
            .iter()
            .flat_map(|name| {
                let keys = self.section(name).map(Section::keys).unwrap_or_default();
                keys.into_iter().map(move |key| format!("{name}.{}", key.name))
            })
            .collect()
    }
}
