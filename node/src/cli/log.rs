//! `rookery log …`

use super::args::{Format, LogCommand};
use super::client::Api;
use super::exit::Failure;
use super::out;
use crate::admin::LogRequest;
use crate::logging::InForce;

const PATH: &str = "/api/v1/log";

pub async fn run(command: LogCommand, format: Format) -> Result<(), Failure> {
    let LogCommand::Level { api, filter, lasting, reset } = command;
    let api = Api::new(api.api);
    let in_force: InForce = match filter {
        Some(filter) => {
            let for_s = lasting.map(|lasting| lasting.as_secs());
            api.put(PATH, &LogRequest { filter, for_s }).await?
        }
        None if reset => api.delete(PATH).await?,
        None => api.get(PATH).await?,
    };
    out::show(format, &in_force, describe)
}

fn describe(in_force: &InForce) -> String {
    let InForce { filter, configured, for_s } = in_force;
    let lasting = for_s.map_or(String::new(), |seconds| format!(", for {seconds} s"));
    let rows = [
        ("in force", format!("{}{lasting}", out::printable(filter))),
        ("configured", out::printable(configured)),
    ];
    rows.iter().map(|(name, value)| format!("{name:<14} {value}\n")).collect()
}
