//! Looks at a retained message again and again with a new subscription on one node after the
//! other: it must never be older than what was acknowledged before.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::super::exit::Failure;
use super::history::StreamId;
use super::link::{self, Caller, VERSION};
use super::record::Record;
use super::subscriber::parse;
use crate::mqtt::{Packet, QoS, decode_from_server};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

pub struct Reader {
    pub stream: StreamId,
    pub caller: Caller,
    pub topic: String,
    pub record: Arc<Mutex<Record>>,
    /// Turns true when nothing new is sent.
    pub stop: watch::Receiver<bool>,
}

impl Reader {
    pub async fn run(mut self) {
        let mut stop = self.stop.clone();
        let looking = async {
            loop {
                // A node that cannot be asked tells nothing.
                let _ = self.look().await;
                self.caller.move_on();
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = looking => {}
            // An error means that the run has been given up.
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn look(&self) -> Result<(), Failure> {
        let timeout = self.caller.common.timeout;
        let mut link = self.caller.try_connect(true).await?;
        let acked = self.record.lock().history.last_acked(self.stream);
        if acked.is_none() {
            link.disconnect().await;
            return Ok(());
        }
        link.subscribe(&self.topic, QoS::AtLeastOnce, timeout).await?;
        let got = match tokio::time::timeout(timeout, link.receive()).await {
            Err(_) => None,
            Ok(packet) => match decode_from_server(&packet?, VERSION)? {
                Packet::Publish(publish) => parse(publish.payload).map(|(_, number)| number),
                other => return Err(link::unexpected(&other)),
            },
        };
        self.record.lock().history.read_retained(self.stream, acked, got);
        link.disconnect().await;
        Ok(())
    }
}
