//! A subscriber whose session expires: it is away for long enough, again and again.

use super::Stage;
use super::attendance::Attendance;
use super::cast::SESSION_EXPIRY_S;
use crate::mqtt::{Options, Prop, prop};
use crate::sim::client::{Client, Parting};

/// Runs until the scenario is over.
pub async fn run(name: &'static str, filter: &'static str, mut stage: Stage) -> turmoil::Result {
    let mut options = Options::v5(name).prop(prop::SESSION_EXPIRY_S, Prop::U32(SESSION_EXPIRY_S));
    options.clean_start = false;
    let mut attendance = Attendance::new(filter, 1);
    loop {
        let node = stage.any_node();
        if let Some(mut client) = Client::connect(name, node, &options, None, &stage).await {
            let stay_ms = stage.rng.between(200, 1_500);
            let how = attendance.attend(&mut client, stay_ms, Parting::Polite, &stage).await;
            client.end(how).await;
        }
        stage.pause(1_000, 2_000 * u64::from(SESSION_EXPIRY_S)).await;
    }
}
