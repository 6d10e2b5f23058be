//! The lists of statements.

/// A standard with numbered statements. 3.1 has none; its rules are those of 3.1.1 where they
/// do not differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    V311,
    V5,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binds {
    Server,
    Client,
    Both,
}

#[derive(Clone, Copy, Debug)]
pub struct Statement {
    /// Without its prefix `MQTT-`.
    pub id: &'static str,
    pub binds: Binds,
}

impl Standard {
    pub const ALL: [Standard; 2] = [Standard::V311, Standard::V5];

    pub fn name(self) -> &'static str {
        match self {
            Standard::V311 => "MQTT 3.1.1",
            Standard::V5 => "MQTT 5.0",
        }
    }

    /// In the order of the standard.
    pub fn statements(self) -> Vec<Statement> {
        let list = match self {
            Standard::V311 => include_str!("mqtt-3.1.1.txt"),
            Standard::V5 => include_str!("mqtt-5.0.txt"),
        };
        list.lines().filter(|line| !line.starts_with('#')).map(statement).collect()
    }

    /// Why a statement that binds a server asks nothing of this one.
    pub fn vacuous(self, id: &str) -> Option<&'static str> {
        let reason = match (self, id) {
            (Standard::V311, "3.8.3-2") => "for servers without wildcard subscriptions",
            (Standard::V311, "4.8.0-2") => "no client can bring about an error of the server's own",
            (Standard::V5, "3.3.4-5") => "for servers that send a copy per overlapping subscription",
            (_, "7.0.0-1") => "for servers that connect to other servers as clients",
            _ => return None,
        };
        Some(reason)
    }
}

fn statement(line: &'static str) -> Statement {
    let (id, binds) = line.split_once(' ').expect("an id and whom it binds");
    let id = id.strip_prefix("MQTT-").expect("an id of MQTT");
    let binds = match binds {
        "server" => Binds::Server,
        "client" => Binds::Client,
        "both" => Binds::Both,
        other => panic!("{id} binds {other}"),
    };
    Statement { id, binds }
}
