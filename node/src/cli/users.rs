//! `rookery users …`

use std::num::NonZeroU32;
use std::path::Path;

use serde_json::json;

use super::args::{Format, UsersCommand};
use super::client::{Api, escape};
use super::exit::{Exit, Failure};
use super::{input, out, password};
use crate::admin::settings::{UserInfo, UserPage, UserRequest};
use crate::auth::scram::{SALT_BYTES, Verifier};
use crate::auth::{UserTable, mosquitto};

/// Users asked for at a time.
const PAGE: usize = 1_000;

pub async fn run(command: UsersCommand, format: Format) -> Result<(), Failure> {
    match command {
        UsersCommand::Ls(api) => {
            let users = list(&Api::new(api.api)).await?;
            out::show(format, &users, |users| table(users))
        }
        UsersCommand::Add { api, name, password_file } => {
            let password = Some(text_password(&password_file)?);
            let user = UserRequest { password, ..UserRequest::default() };
            Api::new(api.api).put::<()>(&path(&name), &user).await?;
            out::say(&format!("{} can log in", out::printable(&name)));
            out::show(format, &json!({ "user": name }), |_| String::new())
        }
        UsersCommand::Rm { api, name } => {
            Api::new(api.api).delete::<()>(&path(&name)).await?;
            out::say(&format!("{} is removed, and its clients are disconnected", out::printable(&name)));
            out::show(format, &json!({ "removed": name }), |_| String::new())
        }
        UsersCommand::Import { api, file } => {
            let users = mosquitto::users(&input::text(&file)?)
                .map_err(|(line, what)| input::wrong(&file, line, &what))?;
            let api = Api::new(api.api);
            for (name, hash) in &users {
                let password_hash = Some(hash.expose().to_owned());
                api.put::<()>(&path(name), &UserRequest { password_hash, ..UserRequest::default() }).await?;
            }
            out::say(&format!("{} users can log in", users.len()));
            out::show(format, &json!({ "imported": users.len() }), |_| String::new())
        }
        UsersCommand::Scram { name, password_file, iterations } => {
            scram(&name, &password_file, iterations, format)
        }
    }
}

fn path(name: &str) -> String {
    format!("/api/v1/users/{}", escape(name))
}

fn usage(what: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, what)
}

fn text_password(file: &Path) -> Result<String, Failure> {
    let password =
        String::from_utf8(password::read(file)?).map_err(|_| usage("the password is not UTF-8 text"))?;
    if password.is_empty() { Err(usage("the password is empty")) } else { Ok(password) }
}

async fn list(api: &Api) -> Result<Vec<UserInfo>, Failure> {
    let mut users = Vec::new();
    let mut cursor = String::new();
    loop {
        let page: UserPage = api.get(&format!("/api/v1/users?limit={PAGE}{cursor}")).await?;
        users.extend(page.users);
        let Some(next) = page.next else { return Ok(users) };
        cursor = format!("&cursor={}", escape(&next));
    }
}

fn table(users: &[UserInfo]) -> String {
    let rows = users.iter().map(|user| {
        let scram = if user.scram { "yes" } else { "no" };
        [user.name.clone(), user.password.clone().unwrap_or_default(), scram.to_owned()]
    });
    out::table(["USER", "PASSWORD", "SCRAM"], rows)
}

fn scram(name: &str, password_file: &Path, iterations: u32, format: Format) -> Result<(), Failure> {
    let password = text_password(password_file)?;
    let mut salt = [0; SALT_BYTES];
    aws_lc_rs::rand::fill(&mut salt)
        .map_err(|_| Failure::new(Exit::Error, "the system gives no random numbers"))?;
    let iterations = NonZeroU32::new(iterations).ok_or_else(|| usage("there must be iterations"))?;
    let verifier = Verifier::derive(&password, &salt, iterations)
        .map_err(|error| usage(format!("the password {error}")))?;
    let line = UserTable::line(name, &verifier).map_err(usage)?;
    out::show(format, &json!({ "user": name, "line": line }), |_| format!("{line}\n"))
}
