//! Bounds of one connection and of all connections together.

use crate::overload::Rate;

/// What a connection may use. Every value is a hard bound; the defaults suit clients in the
/// open. Taken over by each connection when it is made, so a change applies to new ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest packet accepted from a client, bytes of the whole packet; announced as Maximum
    /// Packet Size.
    pub packet_max_bytes: u32,
    /// Levels of a topic name or filter.
    pub topic_levels_max: u16,
    /// Longest topic name or filter (`$share/group/` included), bytes.
    pub topic_max_bytes: u16,
    /// User properties of one packet; those of a will count with its CONNECT's.
    pub user_properties_max: u16,
    /// Their bytes as they are sent: identifiers and lengths included.
    pub user_properties_max_bytes: u32,
    /// Filters of one SUBSCRIBE or UNSUBSCRIBE.
    pub filters_max: u16,
    /// Subscriptions of one clean session. Those of a persistent one are bounded where they are
    /// kept, see [`NodeLimits`](crate::state::limits::NodeLimits).
    pub subscriptions_max: u32,
    /// Payload of a will, bytes.
    pub will_max_bytes: u16,
    /// Refuse payloads that are said to be text and are not UTF-8, as the standard allows
    /// (5.0, 3.3.2.3.2): each has to be looked through.
    pub check_payload_format: bool,
    /// Longest client id, bytes.
    pub client_id_max_bytes: u16,
    /// QoS 1 and 2 publishes a client may have unacknowledged; announced as Receive Maximum. A
    /// 5.0 client that exceeds it is disconnected with 0x93, a 3.x client is not read meanwhile.
    pub receive_maximum: u16,
    /// SUBSCRIBE, UNSUBSCRIBE and PUBREL packets that may wait for the broker's answer before
    /// the connection is not read until one is given; every 16 filters count as one more.
    pub requests_max: u16,
    /// Topic aliases a client may define; announced as Topic Alias Maximum.
    pub topic_alias_max: u16,
    /// Topic aliases used towards a client, at most; the client's own maximum bounds them too.
    pub outbound_alias_max: u16,
    /// QoS 1 and 2 deliveries in flight to one client, at most; its Receive Maximum bounds them
    /// too.
    pub inflight_max: u16,
    /// QoS 1 and 2 deliveries waiting for room in a clean session's window.
    pub queue_max: u32,
    /// Bytes held by the messages of that queue, unless there is only one.
    pub queue_max_bytes: u32,
    /// Unsent bytes above which QoS 0 is dropped and QoS 1 and 2 wait. A packet more than four
    /// times this, which only a client's own requests can cause, and the client is not read.
    pub outbox_max_bytes: u32,
    /// Keep Alive granted at most, seconds; above it a 5.0 client is told the Server Keep Alive.
    /// `u16::MAX`: whatever the client asks for, none included.
    pub keep_alive_max_s: u16,
    /// Session Expiry Interval granted at most, seconds; also the expiry of 3.x sessions that
    /// are not clean. `u32::MAX`: never.
    pub session_expiry_max_s: u32,
    /// From the accepted socket to the whole CONNECT packet (WebSocket upgrade included).
    pub connect_timeout_ms: u32,
    /// From CONNECT to the broker's answer; afterwards the client gets 0x88.
    pub answer_timeout_ms: u32,
    /// How long a connection may not be read because of its own backlog before it is closed. Its
    /// keep-alive is suspended meanwhile.
    pub stall_timeout_ms: u32,
    /// How long a closed connection waits for the client's end of stream, so that the last
    /// packet is not lost to a reset.
    pub linger_ms: u32,
    /// Sockets that have not been accepted as clients yet, in the whole process.
    pub handshakes_max: u32,
    /// Client connections in the whole process.
    pub connections_max: u32,
    /// Sockets beyond that, which are only told that there is no room.
    pub surplus_max: u32,
    /// New connections in the whole process; what is beyond waits in the system's backlog. `None`:
    /// as many as come.
    pub accept_rate: Option<Rate>,
    /// PUBLISH packets of one client; beyond it the client is not read for a while. `None`: as many
    /// as come.
    pub publish_rate: Option<Rate>,
    /// Bytes of the PUBLISH packets of one client, as `publish_rate`.
    pub publish_bytes_rate: Option<Rate>,
}

impl Limits {
    /// As many as come in this time may come at once, milliseconds.
    pub const ACCEPT_BURST_MS: u64 = 100;
    /// The same of what one client publishes.
    pub const PUBLISH_BURST_MS: u64 = 1_000;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_max_bytes: 1 << 20,
            topic_levels_max: 128,
            topic_max_bytes: u16::MAX,
            user_properties_max: 1024,
            user_properties_max_bytes: 1 << 20,
            filters_max: 10_000,
            subscriptions_max: 100_000,
            will_max_bytes: u16::MAX,
            check_payload_format: false,
            client_id_max_bytes: 1024,
            receive_maximum: 1024,
            requests_max: 64,
            topic_alias_max: 64,
            outbound_alias_max: 16,
            inflight_max: 1024,
            queue_max: 1000,
            queue_max_bytes: 8 << 20,
            outbox_max_bytes: 2 << 20,
            keep_alive_max_s: u16::MAX,
            session_expiry_max_s: u32::MAX,
            connect_timeout_ms: 10_000,
            answer_timeout_ms: 20_000,
            stall_timeout_ms: 30_000,
            linger_ms: 1_000,
            handshakes_max: 10_000,
            connections_max: 1_000_000,
            surplus_max: 256,
            accept_rate: None,
            publish_rate: None,
            publish_bytes_rate: None,
        }
    }
}
