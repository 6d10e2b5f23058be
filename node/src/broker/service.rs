//! What connections ask of the broker.

use std::sync::Arc;

use super::Broker;
use crate::mqtt::Publication;
use crate::session::{AckTicket, Conn, ConnectRequest, Ended, Service, SubscribeItem};
use crate::state::{DeliveryStep, QueueSeq};

/// The broker as its connections see it.
pub struct Front(pub Arc<Broker>);

impl Service for Front {
    fn connect(&self, conn: &Arc<Conn>, request: &ConnectRequest<'_>) {
        self.0.connect_from(conn, request);
    }

    fn publish(
        &self,
        conn: &Arc<Conn>,
        publication: &Publication<'_>,
        expiry_s: Option<u32>,
        ticket: Option<AckTicket>,
        packet_id: u16,
    ) {
        let publication = Publication {
            expires_at_ms: self.0.clock().expires_at_ms(expiry_s),
            publisher: conn.client(),
            ..*publication
        };
        self.0.publish_from(conn, &publication, ticket, packet_id);
    }

    fn release(&self, conn: &Arc<Conn>, packet_id: u16) {
        self.0.release_from(conn, packet_id);
    }

    fn subscribe(&self, conn: &Arc<Conn>, packet_id: u16, subscription_id: u32, items: &[SubscribeItem<'_>]) {
        self.0.subscribe_from(conn, packet_id, subscription_id, items);
    }

    fn unsubscribe(&self, conn: &Arc<Conn>, packet_id: u16, filters: &[&str]) {
        self.0.unsubscribe_from(conn, packet_id, filters);
    }

    fn progress(&self, conn: &Arc<Conn>, steps: &[(QueueSeq, DeliveryStep)]) {
        self.0.progress_from(conn, steps);
    }

    fn wants_more(&self, conn: &Arc<Conn>) {
        self.0.pump(conn);
    }

    fn ended(&self, conn: &Arc<Conn>, why: Ended) {
        self.0.ended_from(conn, why);
    }

    fn clock_ms(&self) -> u64 {
        self.0.clock().now_ms()
    }
}
