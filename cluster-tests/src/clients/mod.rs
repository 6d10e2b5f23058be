//! Clients that people use, as they come: each with each version of MQTT over each transport plays
//! the same [scenario](scenario::play) against a cluster.

mod driver;
mod scenario;
mod table;

use std::fmt;
use std::process::Command;

use crate::cluster::Cluster;
use crate::tools;

pub use driver::Driver;
pub use table::{Row, table};

/// How a client reaches a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Tls,
    Ws,
    Wss,
}

/// All that the nodes listen on, in the order of the table.
pub const TRANSPORTS: [Transport; 4] = [Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];

impl Transport {
    /// Where node `i` is reached.
    fn url(self, cluster: &Cluster, i: usize) -> String {
        match self {
            Transport::Tcp => format!("mqtt://{}", cluster.mqtt(i)),
            Transport::Tls => format!("mqtts://{}", cluster.tls(i)),
            Transport::Ws => format!("ws://{}/mqtt", cluster.ws(i)),
            Transport::Wss => format!("wss://{}/mqtt", cluster.wss(i)),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Ws => "ws",
            Transport::Wss => "wss",
        })
    }
}

/// A version of MQTT that every one of the clients speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V311,
    V5,
}

pub const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::V311 => "3.1.1",
            Version::V5 => "5.0",
        })
    }
}

/// What a client cannot do by design, so that nobody can ask the broker for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    Transport(Transport),
    /// It cannot set identifiers of subscriptions or does not show them.
    Identifiers,
    /// It may drop what comes to a session together with CONNACK.
    Missed,
}

/// A client and how its driver is started.
pub struct Client {
    pub name: &'static str,
    program: fn() -> Command,
    /// Prints the version of the client.
    version: fn() -> Command,
    lacks: &'static [(Lack, &'static str)],
}

/// The rows of the table.
pub const CLIENTS: [Client; 9] = [
    Client {
        name: "mosquitto_pub, mosquitto_sub",
        program: || python("mosquitto"),
        version: || package_of("mosquitto-clients"),
        lacks: &[
            (Lack::Transport(Transport::Ws), NO_WS_MOSQUITTO),
            (Lack::Transport(Transport::Wss), NO_WS_MOSQUITTO),
        ],
    },
    Client {
        name: "Paho C",
        program: || Command::new(tools::tools_dir().join("paho-c-driver")),
        version: || package_of("libpaho-mqtt-dev"),
        lacks: &[],
    },
    Client {
        name: "paho-mqtt (Python)",
        program: || python("paho-mqtt"),
        version: || pip_version("paho-mqtt"),
        lacks: &[],
    },
    Client {
        name: "aiomqtt (Python)",
        program: || python("aiomqtt"),
        version: || pip_version("aiomqtt"),
        lacks: &[],
    },
    Client {
        name: "gmqtt (Python)",
        program: || python("gmqtt"),
        version: || pip_version("gmqtt"),
        lacks: &[
            (Lack::Transport(Transport::Ws), NO_WS_GMQTT),
            (Lack::Transport(Transport::Wss), NO_WS_GMQTT),
        ],
    },
    Client {
        name: "MQTT.js (Node.js)",
        program: || node("mqttjs"),
        version: || npm_version("mqtt"),
        lacks: &[],
    },
    Client {
        name: "MQTT.js (Chromium)",
        program: chromium,
        version: || package_of("chromium"),
        lacks: &[
            (Lack::Transport(Transport::Tcp), NO_TCP_BROWSER),
            (Lack::Transport(Transport::Tls), NO_TCP_BROWSER),
        ],
    },
    Client {
        name: "Node-RED",
        program: node_red,
        version: || npm_version("node-red"),
        lacks: &[(Lack::Identifiers, NO_IDENTIFIERS_NODE_RED), (Lack::Missed, NO_MISSED_NODE_RED)],
    },
    Client { name: "rumqttc (Rust)", program: rumqttc, version: rumqttc_version, lacks: &[] },
];

const NO_WS_MOSQUITTO: &str = "the mosquitto clients of this version have no WebSocket";
const NO_WS_GMQTT: &str = "gmqtt has no WebSocket";
const NO_TCP_BROWSER: &str = "a page in a browser can open WebSockets only";
const NO_IDENTIFIERS_NODE_RED: &str =
    "Node-RED numbers its subscriptions itself and does not show the identifiers of a message";
/// MQTT.js reports the connection in a later turn than it read CONNACK, and only then listens
/// Node-RED to messages.
const NO_MISSED_NODE_RED: &str =
    "told to connect, Node-RED drops messages of the session that come together with CONNACK";

impl Client {
    /// The client of that name.
    ///
    /// # Panics
    /// When there is none.
    pub fn named(name: &str) -> &'static Client {
        CLIENTS.iter().find(|client| client.name == name).unwrap_or_else(|| panic!("no client {name}"))
    }

    /// Why it cannot do this; `None` if it can.
    pub fn lacks(&self, what: Lack) -> Option<&'static str> {
        self.lacks.iter().find_map(|(lack, why)| (*lack == what).then_some(*why))
    }

    /// Why this step is left out with this version, for each that is.
    fn left_out(&self, version: Version) -> impl Iterator<Item = &'static str> {
        let left_out = move |lack| match lack {
            Lack::Transport(_) => false,
            Lack::Identifiers => version == Version::V5,
            Lack::Missed => true,
        };
        self.lacks.iter().filter(move |(lack, _)| left_out(*lack)).map(|(_, why)| *why)
    }

    /// As its package tells.
    pub fn version(&self) -> String {
        let output = (self.version)().output().ok();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.filter(|text| !text.is_empty()).unwrap_or_else(|| "not installed".into())
    }

    /// Plays the scenario over every transport that the client has, in both versions.
    pub fn play_all(&self, cluster: &Cluster) -> Vec<Row> {
        VERSIONS.iter().map(|version| self.play_version(cluster, *version)).collect()
    }

    /// Plays the scenario over every transport that the client has.
    pub fn play_version(&self, cluster: &Cluster, version: Version) -> Row {
        let cells = TRANSPORTS.iter().enumerate().map(|(i, transport)| {
            if let Some(why) = self.lacks(Lack::Transport(*transport)) {
                return Cell::NotApplicable(why);
            }
            // Each cell begins on another node.
            match scenario::play(cluster, self, version, *transport, i + version as usize) {
                Ok(()) => Cell::Ok,
                Err(error) => Cell::Failed(error),
            }
        });
        Row { client: self.name, version, cells: cells.collect() }
    }

    fn driver(&self, cluster: &Cluster) -> Result<Driver, String> {
        Driver::start((self.program)(), &cluster.ca_file())
    }
}

/// How a client did.
#[derive(Debug, PartialEq, Eq)]
pub enum Cell {
    Ok,
    Failed(String),
    /// And why.
    NotApplicable(&'static str),
}

fn python(name: &str) -> Command {
    let mut command = tools::python();
    command.arg(tools::script(name).join("driver.py"));
    command
}

fn node(name: &str) -> Command {
    let mut command = tools::node();
    command.arg(tools::script(name).join("driver.mjs"));
    command
}

fn chromium() -> Command {
    let mut command = node("chromium");
    command.env("MQTTJS_BUNDLE", tools::tools_dir().join("mqttjs-bundle.mjs"));
    command
}

fn node_red() -> Command {
    let mut command = tools::node();
    command.arg(tools::tools_dir().join("node_modules/node-red/red.js"));
    command.arg("--settings").arg(tools::script("node-red").join("settings.js"));
    command
}

fn rumqttc() -> Command {
    Command::new(tools::built("rumqttc-driver"))
}

fn rumqttc_version() -> Command {
    let mut command = rumqttc();
    command.arg("--version");
    command
}

fn package_of(name: &str) -> Command {
    let mut command = Command::new("dpkg-query");
    command.args(["-W", "-f", "${Version}", name]);
    command
}

fn pip_version(name: &str) -> Command {
    let mut command = tools::python();
    command.args(["-c", "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))", name]);
    command
}

fn npm_version(name: &str) -> Command {
    let mut command = tools::node();
    command.args(["-p", "require(process.argv[1] + '/package.json').version", name]);
    command
}
