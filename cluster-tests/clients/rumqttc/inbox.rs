//! What a connection has seen, in order.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rumqttc::Outgoing;
use serde_json::Value;

use crate::Outcome;

/// For the broker to answer.
const ANSWER: Duration = Duration::from_secs(20);

/// An event of either version, whose packets are `P`.
pub enum Seen<P> {
    Incoming(P),
    Outgoing(Outgoing),
    /// The connection has ended, and why.
    Ended(String),
}

/// Runs a connection in a thread of its own and keeps what it says until it is asked for.
pub struct Inbox<P> {
    seen: Receiver<Seen<P>>,
    messages: VecDeque<Value>,
    /// How a packet is told if it is a message.
    message: fn(&P) -> Option<Value>,
}

impl<P: Send + 'static> Inbox<P> {
    pub fn new(message: fn(&P) -> Option<Value>, run: impl FnOnce(Sender<Seen<P>>) + Send + 'static) -> Self {
        let (sender, seen) = channel();
        std::thread::spawn(move || run(sender));
        Inbox { seen, messages: VecDeque::new(), message }
    }

    /// The next event that is not a message.
    fn event(&mut self, end: Instant) -> Outcome<Option<Seen<P>>> {
        let left = end.saturating_duration_since(Instant::now());
        let seen = self.seen.recv_timeout(left).map_err(|e| e.to_string())?;
        if let Seen::Incoming(packet) = &seen
            && let Some(message) = (self.message)(packet)
        {
            self.messages.push_back(message);
            return Ok(None);
        }
        Ok(Some(seen))
    }

    /// What `want` finds in an event.
    pub fn until<T>(&mut self, mut want: impl FnMut(&Seen<P>) -> Option<Outcome<T>>) -> Outcome<T> {
        let end = Instant::now() + ANSWER;
        loop {
            let Some(seen) = self.event(end)? else { continue };
            match (want(&seen), seen) {
                (Some(found), _) => return found,
                (None, Seen::Ended(error)) => return Err(error),
                (None, _) => {}
            }
        }
    }

    pub fn next(&mut self) -> Outcome<Value> {
        let end = Instant::now() + ANSWER;
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Ok(message);
            }
            if let Some(Seen::Ended(error)) = self.event(end)? {
                return Err(error);
            }
        }
    }
}
