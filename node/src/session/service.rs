//! The border between a connection and the broker behind it.

use std::net::IpAddr;
use std::sync::Arc;

use super::{AuthStep, Conn, LogIn};
use crate::mqtt::{Connect, Publication, QoS, SubOptions, Version};
use crate::state::{DeliveryStep, Incarnation, QueueSeq};

/// A CONNECT that passed the protocol checks, borrowed from the read buffer.
#[derive(Clone, Debug)]
pub struct ConnectRequest<'a> {
    pub version: Version,
    /// Empty: the broker assigns one [MQTT-3.1.3-6].
    pub client_id: &'a str,
    pub clean_start: bool,
    /// Session Expiry Interval in seconds. For 3.x: 0 with clean session, else the configured
    /// expiry of persistent sessions.
    pub expiry_s: u32,
    pub keep_alive_s: u16,
    pub receive_maximum: u16,
    pub will: Option<WillRequest<'a>>,
}

#[derive(Clone, Debug)]
pub struct WillRequest<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    /// Forwardable properties in wire form, as in [`crate::mqtt::Publication`].
    pub properties: &'a [u8],
    pub qos: QoS,
    pub retain: bool,
    pub expiry_s: Option<u32>,
    pub delay_s: u32,
}

/// What the broker grants to a connection.
#[derive(Clone, Debug)]
pub struct Grant {
    pub client_id: Arc<str>,
    /// The client sent no id and must be told the assigned one (5.0).
    pub assigned: bool,
    pub incarnation: Incarnation,
    pub session_present: bool,
    /// The session outlives the connection, or has outlived one before: its deliveries at QoS 1
    /// and 2 come from the replicated queue, its QoS 2 publishes are remembered by the cluster.
    pub persistent: bool,
    pub expiry_s: u32,
    /// First position of the replicated queue that is not over; packet ids derive from it.
    pub queue_head: QueueSeq,
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Copy, Debug)]
pub struct SubscribeItem<'a> {
    pub filter: &'a str,
    pub options: SubOptions,
}

/// Names an inbound PUBLISH of QoS 1 or 2 whose PUBACK or PUBREC is owed. Acknowledgements
/// leave in the order of the publishes whatever the order they are completed in [MQTT-4.6.0-2].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckTicket(pub u64);

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The client's DISCONNECT: with or without its will, and perhaps a new expiry (5.0).
    Disconnect { with_will: bool, expiry_s: Option<u32> },
    /// The client's socket closed or failed, it broke the protocol, or its keep-alive ran out.
    Lost,
    /// Another connection took the client id; the claim is no longer ours.
    TakenOver,
    /// This node closes it (shutdown, its own life declared over, an operator's kick).
    Server,
}

/// The broker, as a connection sees it. Called on the thread that owns the connection, never
/// with one of its locks held; nothing here may block. What cannot be answered at once is
/// answered later, from any thread, through the methods of [`Conn`] that each call names.
pub trait Service: Send + Sync + 'static {
    /// Whether a client at this address, in canonical form, may try at all. Asked before anything of
    /// it is read, behind a proxy when that has said who it is, and before any work for TLS. One
    /// that may not is closed without a word, and nothing else is called for it.
    fn admits_address(&self, _address: IpAddr) -> bool {
        true
    }

    /// Whether this node lets its clients go, and nobody in.
    fn is_draining(&self) -> bool {
        false
    }

    /// A step of an enhanced authentication, the first of a connection before `connect`. Answered
    /// once by [`Conn::authenticated`]. A connection that ends meanwhile is not reported.
    fn authenticate(&self, conn: &Arc<Conn>, step: AuthStep<'_>);

    /// Finds out who a client is from its CONNECT, which names no Authentication Method.
    fn log_in(&self, conn: &Arc<Conn>, connect: &Connect<'_>) -> LogIn {
        let _ = (conn, connect);
        LogIn::Anonymous
    }

    /// A client that has been authenticated, or need not be: [`Conn::principal`] says who it is.
    /// Answered once by [`Conn::accept`] or [`Conn::refuse`]; until then nothing more of the
    /// connection is processed.
    fn connect(&self, conn: &Arc<Conn>, request: &ConnectRequest<'_>);

    /// A PUBLISH. `expiry_s` is its Message Expiry Interval as it came (`expires_at_ms` of the
    /// publication is 0). With a ticket it is answered once by [`Conn::acknowledge`]. QoS 2 of a
    /// clean session comes once per message; that of a persistent session comes as often as the
    /// client sends it, and is told apart by `packet_id`. Returns how many deliveries it made
    /// before it returned, which the publisher's turn is shortened by.
    fn publish(
        &self,
        conn: &Arc<Conn>,
        publication: &Publication<'_>,
        expiry_s: Option<u32>,
        ticket: Option<AckTicket>,
        packet_id: u16,
    ) -> usize;

    /// PUBREL of a persistent session's QoS 2 publish, answered by [`Conn::released`].
    fn release(&self, conn: &Arc<Conn>, packet_id: u16);

    /// Answered by [`Conn::subscribed`] with one code per item. `subscription_id` 0: none.
    fn subscribe(&self, conn: &Arc<Conn>, packet_id: u16, subscription_id: u32, items: &[SubscribeItem<'_>]);

    /// Answered by [`Conn::unsubscribed`] with one code per filter.
    fn unsubscribe(&self, conn: &Arc<Conn>, packet_id: u16, filters: &[&str]);

    /// A persistent session's client acknowledged deliveries; in the order they came, once per
    /// batch that was read. `Received` is answered by [`Conn::received`] once it is recorded.
    fn progress(&self, conn: &Arc<Conn>, steps: &[(QueueSeq, DeliveryStep)]);

    /// The client acknowledged a delivery of a shared subscription with an error; it is over. Only
    /// of clean sessions: [`Service::progress`] has it of persistent ones.
    fn refused(&self, conn: &Arc<Conn>, delivery: super::Unacknowledged);

    /// There is room (again) for stored deliveries from [`Conn::next_seq`] on, or for
    /// [`Conn::send_retained`].
    fn wants_more(&self, conn: &Arc<Conn>);

    /// The connection is over. Exactly once for every connection that called `connect`, after all
    /// its other calls; answers given from now on go nowhere. [`Ended::Disconnect`] is answered by
    /// [`Conn::dismiss`] once it is noted everywhere: a client that has seen the end of the stream
    /// finds its session, on any node, as it left it.
    fn ended(&self, conn: &Arc<Conn>, why: Ended);

    /// The cluster's clock as this node estimates it, milliseconds: what `expires_at_ms` is
    /// compared with. Unlike those before it may be called with a connection locked.
    fn clock_ms(&self) -> u64;

    /// A clock of this node's that never goes back, milliseconds; may be called with a connection
    /// locked as well.
    fn monotonic_ms(&self) -> u64;
}
