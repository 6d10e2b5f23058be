//! A client whose node dies while it has not acknowledged what it was sent.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::probe::granted;
use crate::mqtt::{Client, Options, Publish};
use crate::{fresh, wait};

/// Messages that wait for it.
const MESSAGES: usize = 100;

/// For the client to have all of them.
const PATIENCE: Duration = Duration::from_secs(20);

/// How it went for the client.
pub struct Back {
    pub connected: Instant,
    pub complete: Instant,
    /// The same messages came under the same packet ids, in order, with DUP.
    pub right: bool,
}

pub struct Waiting {
    client: Client,
    options: Options,
    had: Vec<Publish>,
}

impl Waiting {
    /// A client on `node` that has been sent messages and acknowledges none.
    pub fn prepare(node: SocketAddr, publish_at: SocketAddr) -> Self {
        let topic = fresh("waiting");
        let options = Options::v5(&fresh("waiting")).persistent();
        let mut client = Client::connect(node, &options).expect("connects");
        client.auto_ack = false;
        client.subscribe(&[(&topic, 2)]).expect("SUBACK");
        let mut publisher = Client::connect(publish_at, &Options::v5(&fresh("publisher"))).expect("connects");
        for number in 0..MESSAGES {
            // Of both kinds.
            let qos = 1 + (number % 2) as u8;
            publisher.publish(&topic, number.to_string(), qos).and_then(granted).expect("acknowledged");
        }
        let had = (0..MESSAGES).map(|_| client.recv(PATIENCE).expect("a delivery")).collect();
        Waiting { client, options, had }
    }

    /// Goes to another node as soon as the connection ends.
    pub fn come_back(mut self, node: SocketAddr) -> JoinHandle<Back> {
        std::thread::spawn(move || {
            self.client.ending(PATIENCE).expect("the end of a connection to a dead node");
            let mut client = wait::eventually("another node accepts", PATIENCE, || {
                Client::connect(node, &self.options).ok()
            });
            let connected = Instant::now();
            let got: Vec<Publish> = (0..MESSAGES).map_while(|_| client.recv(PATIENCE).ok()).collect();
            let complete = Instant::now();
            self.had.iter_mut().for_each(|message| message.dup = true);
            let right = client.session_present && got == self.had;
            // Its session ends with it.
            client.disconnect().expect("leaves");
            let clean = Options::v5(&self.options.client_id);
            Client::connect(node, &clean).and_then(Client::disconnect).expect("the session ends");
            Back { connected, complete, right }
        })
    }
}
