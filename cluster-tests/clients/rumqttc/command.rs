//! What the driver is told.

use rumqttc::{TlsConfiguration, Transport};
use serde_json::Value;

use crate::Outcome;

/// One line of the standard input.
pub struct Command(pub Value);

impl Command {
    pub fn text(&self, key: &str) -> Outcome<&str> {
        text(&self.0, key)
    }

    pub fn qos(&self) -> Outcome<u8> {
        qos(&self.0)
    }
}

pub fn text<'a>(value: &'a Value, key: &str) -> Outcome<&'a str> {
    value[key].as_str().ok_or_else(|| format!("no {key}"))
}

fn qos(value: &Value) -> Outcome<u8> {
    value["qos"].as_u64().and_then(|qos| u8::try_from(qos).ok()).ok_or_else(|| "no qos".into())
}

pub fn from_hex(hex: &str) -> Outcome<Vec<u8>> {
    let digits = |at: usize| hex.get(at..at + 2).ok_or_else(|| "half a byte".to_owned());
    let byte = |at: usize| u8::from_str_radix(digits(at)?, 16).map_err(|e| e.to_string());
    (0..hex.len()).step_by(2).map(byte).collect()
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where to connect, and as whom.
pub struct Connect {
    /// The host, or for WebSocket the URL, as rumqttc wants it.
    pub broker: String,
    pub port: u16,
    pub transport: Transport,
    pub id: String,
    pub clean: bool,
    pub will: Option<Published>,
}

impl Connect {
    pub fn from(command: &Command) -> Outcome<Self> {
        let url = command.text("url")?;
        let (scheme, rest) = url.split_once("://").ok_or("no URL")?;
        let authority = rest.split('/').next().unwrap_or(rest);
        let (host, port) = authority.rsplit_once(':').ok_or("no port")?;
        let tls = || {
            let file = std::env::var("CA_FILE").map_err(|e| format!("CA_FILE: {e}"))?;
            let ca = std::fs::read(file).map_err(|e| e.to_string())?;
            Ok::<_, String>(TlsConfiguration::Simple { ca, alpn: None, client_auth: None })
        };
        let transport = match scheme {
            "mqtt" => Transport::Tcp,
            "mqtts" => Transport::Tls(tls()?),
            "ws" => Transport::Ws,
            "wss" => Transport::Wss(tls()?),
            _ => return Err(format!("no transport for {url}")),
        };
        let will = &command.0["will"];
        Ok(Connect {
            broker: if scheme.starts_with("ws") { url } else { host }.to_owned(),
            port: port.parse().map_err(|e| format!("{port}: {e}"))?,
            transport,
            id: command.text("id")?.to_owned(),
            clean: command.0["clean"].as_bool().unwrap_or(true),
            will: (!will.is_null()).then(|| Published::from(&Command(will.clone()))).transpose()?,
        })
    }
}

/// A message to publish.
#[derive(Clone)]
pub struct Published {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    /// Null for none.
    pub properties: Value,
    /// Whether its topic is to have the alias.
    pub by_alias: bool,
}

impl Published {
    pub fn from(command: &Command) -> Outcome<Self> {
        Ok(Published {
            topic: command.text("topic")?.to_owned(),
            payload: from_hex(command.text("payload")?)?,
            qos: command.qos()?,
            retain: command.0["retain"].as_bool().unwrap_or(false),
            properties: command.0["properties"].clone(),
            by_alias: false,
        })
    }
}
