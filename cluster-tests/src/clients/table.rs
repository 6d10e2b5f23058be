//! What came out, for people.

use std::fmt::Write as _;

use super::{Cell, Client, TRANSPORTS, Version};

/// A client with one version of MQTT: a cell per transport.
#[derive(Debug)]
pub struct Row {
    pub client: &'static str,
    pub version: Version,
    pub cells: Vec<Cell>,
}

impl Row {
    /// What failed: where, and how.
    pub fn failures(&self) -> Vec<String> {
        let cells = TRANSPORTS.iter().zip(&self.cells);
        cells
            .filter_map(|(transport, cell)| match cell {
                Cell::Failed(error) => {
                    Some(format!("{}, {} over {transport}: {error}", self.client, self.version))
                }
                Cell::Ok | Cell::NotApplicable(_) => None,
            })
            .collect()
    }
}

/// The rows as Markdown, with the reasons for what is not applicable below.
pub fn table(rows: &[Row]) -> String {
    let mut notes: Vec<&str> = Vec::new();
    let mut number = |why: &'static str| {
        let found = notes.iter().position(|note| *note == why);
        1 + found.unwrap_or_else(|| {
            notes.push(why);
            notes.len() - 1
        })
    };
    let mut text = String::from("| client | version | MQTT |");
    for transport in TRANSPORTS {
        let _ = write!(text, " {transport} |");
    }
    let _ = writeln!(text, "\n|{}", "---|".repeat(3 + TRANSPORTS.len()));
    for row in rows {
        let client = Client::named(row.client);
        let _ = write!(text, "| {} | {} | {} |", row.client, client.version(), row.version);
        let left_out: Vec<String> =
            client.left_out(row.version).map(|why| format!(" ({})", number(why))).collect();
        for cell in &row.cells {
            let _ = match cell {
                Cell::Ok => write!(text, " ok{} |", left_out.concat()),
                Cell::Failed(_) => write!(text, " **fail** |"),
                Cell::NotApplicable(why) => write!(text, " n/a ({}) |", number(why)),
            };
        }
        text.push('\n');
    }
    for (i, note) in notes.iter().enumerate() {
        let _ = write!(text, "\n({}) {note}.  ", i + 1);
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::{CLIENTS, Transport};

    #[test]
    fn a_failure_and_a_reason_are_seen() {
        let cells = |cell: fn(Transport) -> Cell| TRANSPORTS.iter().map(|t| cell(*t)).collect();
        let rows = [
            Row { client: CLIENTS[0].name, version: Version::V311, cells: cells(|_| Cell::Ok) },
            Row {
                client: CLIENTS[1].name,
                version: Version::V5,
                cells: cells(|t| match t {
                    Transport::Tcp => Cell::Failed("no answer".into()),
                    _ => Cell::NotApplicable("too old"),
                }),
            },
        ];
        let text = table(&rows);
        assert!(text.contains("**fail** |") && text.contains(" n/a (1) |"), "{text}");
        assert!(text.contains("(1) too old."), "{text}");
        assert_eq!(rows[0].failures(), Vec::<String>::new());
        assert_eq!(rows[1].failures(), [format!("{}, 5.0 over tcp: no answer", CLIENTS[1].name)]);
    }
}
