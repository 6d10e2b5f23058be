//! The driver of rumqttc; what it is told is described in `src/clients/driver.rs`.

mod command;
mod inbox;
mod v311;
mod v5;

use std::collections::HashMap;
use std::io::{BufRead, Write};

use serde_json::{Value, json};

use command::{Command, Connect, Published};

/// What goes wrong, in words.
type Outcome<T> = Result<T, String>;

/// A connected client of either version.
trait Client {
    fn subscribe(&mut self, topic: &str, qos: u8, identifier: Option<u64>) -> Outcome<Value>;
    fn publish(&mut self, message: Published) -> Outcome<()>;
    /// The next message, as it is told.
    fn next(&mut self) -> Outcome<Value>;
    fn disconnect(&mut self) -> Outcome<()>;
}

type Clients = HashMap<String, Box<dyn Client>>;

fn main() -> std::io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("--version") {
        println!("{}", version());
        return Ok(());
    }
    let mut clients = Clients::new();
    for line in std::io::stdin().lock().lines() {
        let done = serde_json::from_str(&line?).map_err(|e| e.to_string());
        let answer = match done.and_then(|command: Value| run(&mut clients, Command(command))) {
            Ok(ok) => json!({ "ok": ok }),
            Err(error) => json!({ "error": error }),
        };
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{answer}")?;
        stdout.flush()?;
    }
    Ok(())
}

/// The version that is locked.
fn version() -> &'static str {
    let lock = include_str!("../../../Cargo.lock");
    let entry = lock.split("name = \"rumqttc\"\nversion = \"").nth(1);
    entry.and_then(|rest| rest.split('"').next()).unwrap_or("unknown")
}

fn run(clients: &mut Clients, command: Command) -> Outcome<Value> {
    let name = command.text("client")?.to_owned();
    let what = command.text("do")?;
    if what == "connect" {
        let connect = Connect::from(&command)?;
        let (client, answer) =
            if command.text("version")? == "5.0" { v5::connect(&connect)? } else { v311::connect(&connect)? };
        clients.insert(name, client);
        return Ok(answer);
    }
    let client = clients.get_mut(&name).ok_or("no such client")?;
    match what {
        "subscribe" => {
            let qos = command.qos()?;
            client.subscribe(command.text("topic")?, qos, command.0["identifier"].as_u64())
        }
        "publish" => client.publish(Published::from(&command)?).map(|()| json!({})),
        "publish_alias" => {
            let first = Published { by_alias: true, ..Published::from(&command)? };
            let second = Published { topic: String::new(), ..first.clone() };
            client.publish(first)?;
            client.publish(second).map(|()| json!({}))
        }
        "next" => client.next(),
        "disconnect" => {
            client.disconnect()?;
            clients.remove(&name);
            Ok(json!({}))
        }
        _ => Err("unknown command".into()),
    }
}
