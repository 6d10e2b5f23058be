//! Messages that an operator publishes or removes, without a connection: all go through the log, as
//! wills do, so that no path of a publisher has to be kept in order.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Broker, ChangeFailed};
use crate::mqtt::{Message, QoS, ReasonCode, topic};
use crate::raft::Abandoned;
use crate::state::{Command, Outcome};

/// What became of an operator's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Somebody subscribes to its topic.
    pub matched: bool,
    /// What a client would be told.
    pub reason: ReasonCode,
}

impl Published {
    fn refused(reason: ReasonCode) -> Self {
        Self { matched: false, reason }
    }
}

impl Broker {
    /// Publishes a message; those of later calls come after it. The answer comes when a client would
    /// get its acknowledgement: a retained message can be seen on every live node then.
    ///
    /// # Errors
    /// [`Abandoned`]: it may be published yet.
    pub fn publish_as_operator(
        self: &Arc<Self>,
        message: Arc<Message>,
    ) -> impl Future<Output = Result<Published, Abandoned>> + Send + 'static {
        let (sender, outcome) = oneshot::channel();
        let answer = move |answer| {
            // The caller may have stopped waiting.
            let _ = sender.send(answer);
        };
        if topic::is_servers(&message.topic) {
            answer(Ok(Published::refused(ReasonCode::NotAuthorized)));
        } else if self.refuses_writes() || self.wiring().is_none_or(|w| w.proposer.is_congested()) {
            answer(Ok(Published::refused(ReasonCode::QuotaExceeded)));
        } else {
            let broker = self.clone();
            let command =
                Command::Publish { message: Arc::clone(&message), exactly_once: None, or_refuse: true };
            self.propose(
                command,
                Box::new(move |result| {
                    let applied = match result {
                        Ok(applied) => applied,
                        Err(abandoned) => return answer(Err(abandoned)),
                    };
                    let published = broker.published(&applied.outcome, &message);
                    if !message.retain || published.reason == ReasonCode::QuotaExceeded {
                        return answer(Ok(published));
                    }
                    broker.when_applied_everywhere(applied.at.index, move |life_goes_on| {
                        answer(if life_goes_on { Ok(published) } else { Err(Abandoned) });
                    });
                }),
            );
        }
        async { outcome.await.unwrap_or(Err(Abandoned)) }
    }

    fn published(&self, outcome: &Outcome, message: &Message) -> Published {
        let queued = match outcome {
            Outcome::Refused => return Published::refused(ReasonCode::QuotaExceeded),
            Outcome::Published { matched, .. } => *matched,
            _ => 0,
        };
        let matched = queued > 0 || self.has_unqueued_subscribers(message);
        // A retained message is kept for those to come.
        let reason =
            if matched || message.retain { ReasonCode::Success } else { ReasonCode::NoMatchingSubscribers };
        Published { matched, reason }
    }

    /// Removes a topic's retained message, as a client's empty retained publish does. When it returns,
    /// no live node has it any more.
    ///
    /// # Errors
    /// [`ChangeFailed::Abandoned`]: it may be removed yet.
    pub async fn remove_retained(self: &Arc<Self>, topic: &str) -> Result<(), ChangeFailed> {
        let message = Arc::new(Message {
            topic: topic.into(),
            payload: Box::default(),
            properties: Box::default(),
            qos: QoS::AtLeastOnce,
            retain: true,
            expires_at_ms: 0,
            publisher: Box::default(),
        });
        self.change(Command::Publish { message, exactly_once: None, or_refuse: false }).await
    }
}
