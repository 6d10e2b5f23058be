//! What connections ask of the broker.

use std::sync::Arc;

use super::Broker;
use crate::auth::{Access, Outcome};
use crate::mqtt::{Publication, ReasonCode};
use crate::session::{
    AckTicket, AuthStep, Conn, ConnectRequest, Ended, Metric, Service, SubscribeItem, Unacknowledged,
};
use crate::state::{DeliveryStep, QueueSeq};

/// The broker as its connections see it, behind the rule of who is let in.
pub struct Front {
    broker: Arc<Broker>,
    access: Access,
}

impl Front {
    pub fn new(broker: Arc<Broker>, access: Access) -> Self {
        Self { broker, access }
    }
}

impl Service for Front {
    fn authenticate(&self, conn: &Arc<Conn>, step: AuthStep<'_>) {
        let (exchange, data) = match step {
            AuthStep::Continue { exchange, data } => (exchange, data),
            AuthStep::Begin { method, data } => match self.access.begin(method) {
                Ok(exchange) => (exchange, data),
                Err(failure) => return conn.authenticated(Outcome::Failure(failure)),
            },
        };
        let conn = conn.clone();
        exchange.step(data, Box::new(move |outcome| conn.authenticated(outcome)));
    }

    fn connect(&self, conn: &Arc<Conn>, request: &ConnectRequest<'_>) {
        // The place to verify user name and password of a client that has not proved who it is.
        if !self.access.admits(request.identity) {
            conn.context().counters.increment(Metric::AuthenticationFailures);
            return conn.refuse(ReasonCode::NotAuthorized);
        }
        self.broker.connect_from(conn, request);
    }

    fn publish(
        &self,
        conn: &Arc<Conn>,
        publication: &Publication<'_>,
        expiry_s: Option<u32>,
        ticket: Option<AckTicket>,
        packet_id: u16,
    ) -> usize {
        let publication = Publication {
            expires_at_ms: self.broker.clock().expires_at_ms(expiry_s),
            publisher: conn.client(),
            ..*publication
        };
        self.broker.publish_from(conn, &publication, ticket, packet_id)
    }

    fn release(&self, conn: &Arc<Conn>, packet_id: u16) {
        self.broker.release_from(conn, packet_id);
    }

    fn subscribe(&self, conn: &Arc<Conn>, packet_id: u16, subscription_id: u32, items: &[SubscribeItem<'_>]) {
        self.broker.subscribe_from(conn, packet_id, subscription_id, items);
    }

    fn unsubscribe(&self, conn: &Arc<Conn>, packet_id: u16, filters: &[&str]) {
        self.broker.unsubscribe_from(conn, packet_id, filters);
    }

    fn progress(&self, conn: &Arc<Conn>, steps: &[(QueueSeq, DeliveryStep)]) {
        self.broker.progress_from(conn, steps);
    }

    fn refused(&self, conn: &Arc<Conn>, delivery: Unacknowledged) {
        self.broker.refused_from(conn, &delivery);
    }

    fn wants_more(&self, conn: &Arc<Conn>) {
        if conn.is_persistent() {
            self.broker.pump(conn);
        }
        self.broker.go_on_with_retained(conn);
    }

    fn ended(&self, conn: &Arc<Conn>, why: Ended) {
        self.broker.ended_from(conn, why);
    }

    fn clock_ms(&self) -> u64 {
        self.broker.clock().now_ms()
    }
}
