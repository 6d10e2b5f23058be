//! `rookery users …`

use std::num::NonZeroU32;

use serde_json::json;

use super::args::{Format, UsersCommand};
use super::exit::{Exit, Failure};
use super::{out, password};
use crate::auth::UserTable;
use crate::auth::scram::{SALT_BYTES, Verifier};

pub fn run(command: UsersCommand, format: Format) -> Result<(), Failure> {
    let UsersCommand::Scram { name, password_file, iterations } = command;
    let usage = |what: String| Failure::new(Exit::Usage, what);
    let password = String::from_utf8(password::read(&password_file)?)
        .map_err(|_| usage("the password is not UTF-8 text".to_owned()))?;
    let mut salt = [0; SALT_BYTES];
    aws_lc_rs::rand::fill(&mut salt)
        .map_err(|_| Failure::new(Exit::Error, "the system gives no random numbers"))?;
    let iterations =
        NonZeroU32::new(iterations).ok_or_else(|| usage("there must be iterations".to_owned()))?;
    let verifier = Verifier::derive(&password, &salt, iterations)
        .map_err(|error| usage(format!("the password {error}")))?;
    let line = UserTable::line(&name, &verifier).map_err(usage)?;
    out::show(format, &json!({ "user": name, "line": line }), |_| format!("{line}\n"))
}
