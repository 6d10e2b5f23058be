//! `rookery ban …`

use serde_json::json;

use super::args::{BanCommand, Format};
use super::client::{Api, escape};
use super::exit::Failure;
use super::out;
use crate::admin::settings::{BanInfo, BanPage, BanRequest};

/// Bans asked for at a time.
const PAGE: usize = 1_000;

pub async fn run(command: BanCommand, format: Format) -> Result<(), Failure> {
    match command {
        BanCommand::Ls(api) => {
            let bans = list(&Api::new(api.api)).await?;
            out::show(format, &bans, |bans| table(bans))
        }
        BanCommand::Add { api, kind, value, reason, r#for } => {
            let ban = BanRequest { reason, for_s: r#for.map(|time| time.as_secs().max(1)) };
            Api::new(api.api).put::<()>(&path(kind.name(), &value), &ban).await?;
            out::say(&format!("{} {} is banned", kind.name(), out::printable(&value)));
            out::show(format, &json!({ "banned": { "kind": kind.name(), "value": value } }), |_| {
                String::new()
            })
        }
        BanCommand::Rm { api, kind, value } => {
            Api::new(api.api).delete::<()>(&path(kind.name(), &value)).await?;
            out::say(&format!("{} {} is no longer banned", kind.name(), out::printable(&value)));
            out::show(format, &json!({ "lifted": { "kind": kind.name(), "value": value } }), |_| {
                String::new()
            })
        }
    }
}

fn path(kind: &str, value: &str) -> String {
    format!("/api/v1/bans/{kind}/{}", escape(value))
}

async fn list(api: &Api) -> Result<Vec<BanInfo>, Failure> {
    let mut bans = Vec::new();
    let mut cursor = String::new();
    loop {
        let page: BanPage = api.get(&format!("/api/v1/bans?limit={PAGE}{cursor}")).await?;
        bans.extend(page.bans);
        let Some(next) = page.next else { return Ok(bans) };
        cursor = format!("&cursor={}", escape(&next));
    }
}

fn table(bans: &[BanInfo]) -> String {
    let rows = bans.iter().map(|ban| {
        let ends = ban.ends_in_s.map_or("never".to_owned(), |s| format!("in {s} s"));
        [ban.kind.clone(), ban.value.clone(), ends, ban.reason.clone()]
    });
    out::table(["KIND", "WHO", "ENDS", "REASON"], rows)
}
