//! `rookery clients …`

use serde_json::json;

use super::args::{ClientsCommand, Format};
use super::client::{Api, escape};
use super::exit::Failure;
use super::out;
use crate::admin::{ClientInfo, ClientPage};

/// Clients asked for at a time.
const PAGE: usize = 1_000;

pub async fn run(command: ClientsCommand, format: Format) -> Result<(), Failure> {
    match command {
        ClientsCommand::Ls { api, limit } => {
            let (clients, more) = list(&Api::new(api.api), limit).await?;
            if more {
                out::say(&format!("only the first {limit} clients are shown; --limit 0 shows all"));
            }
            out::show(format, &clients, |clients| client_table(clients))
        }
        ClientsCommand::Show { api, client } => {
            let info: ClientInfo = Api::new(api.api).get(&path(&client)).await?;
            out::show(format, &info, describe)
        }
        ClientsCommand::Kick { api, client } => {
            Api::new(api.api).delete::<()>(&path(&client)).await?;
            out::say(&format!("{} is disconnected and its session ended", out::printable(&client)));
            out::show(format, &json!({ "kicked": client }), |_| String::new())
        }
    }
}

fn path(client: &str) -> String {
    format!("/api/v1/clients/{}", escape(client))
}

/// At most `limit` clients (0: all), and whether there are more.
async fn list(api: &Api, limit: usize) -> Result<(Vec<ClientInfo>, bool), Failure> {
    let mut clients = Vec::new();
    let mut cursor = String::new();
    loop {
        let wanted = if limit == 0 { PAGE } else { PAGE.min(limit - clients.len()) };
        let page: ClientPage = api.get(&format!("/api/v1/clients?limit={wanted}{cursor}")).await?;
        clients.extend(page.clients);
        match page.next {
            None => return Ok((clients, false)),
            Some(_) if limit != 0 && clients.len() >= limit => return Ok((clients, true)),
            Some(next) => cursor = format!("&cursor={}", escape(&next)),
        }
    }
}

fn client_table(clients: &[ClientInfo]) -> String {
    let rows = clients.iter().map(|c| {
        [
            c.id.clone(),
            c.node.clone().unwrap_or_default(),
            if c.connected { "connected" } else { "away" }.to_owned(),
            if c.persistent { "persistent" } else { "clean" }.to_owned(),
            c.subscriptions.to_string(),
            c.queued.to_string(),
        ]
    });
    out::table(["CLIENT", "NODE", "STATE", "SESSION", "SUBSCRIPTIONS", "QUEUED"], rows)
}

fn describe(client: &ClientInfo) -> String {
    let expiry = match client.expiry_s {
        u32::MAX => "never".to_owned(),
        seconds => format!("{seconds} s"),
    };
    let rows = [
        ("client", out::printable(&client.id)),
        ("state", if client.connected { "connected" } else { "away" }.to_owned()),
        ("node", client.node.as_deref().map_or("-".to_owned(), out::printable)),
        ("address", client.address.as_deref().map_or("-".to_owned(), out::printable)),
        ("user", client.username.as_deref().map_or("-".to_owned(), out::printable)),
        ("session", if client.persistent { "persistent" } else { "clean" }.to_owned()),
        ("expiry", expiry),
        ("incarnation", client.incarnation.to_string()),
        ("subscriptions", client.subscriptions.to_string()),
        ("queued", format!("{} ({} bytes)", client.queued, client.queued_bytes)),
    ];
    rows.iter().map(|(name, value)| format!("{name:<14} {value}\n")).collect()
}
