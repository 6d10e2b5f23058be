//! What a node counts, in the form that `/metrics` gives.

use std::fmt;
use std::sync::Weak;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::node::Node;
use super::overload::Overload;
use crate::auth::{Chain, Count};
use crate::mqtt::ReasonCode;
use crate::overload::Level;
use crate::session::Metric;

/// Reads the node's counters whenever they are asked for.
pub struct NodeCollector(pub Weak<Node>);

impl fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCollector")
    }
}

/// Counters of connections: metric, name, help.
const COUNTERS: &[(Metric, &str, &str)] = &[
    (Metric::SocketsAccepted, "sockets_accepted", "Sockets accepted from clients"),
    (Metric::SocketsRefused, "sockets_refused", "Sockets closed before their CONNECT for want of room"),
    (Metric::TlsFailures, "tls_failures", "Sockets closed because the client broke TLS or did not speak it"),
    (
        Metric::ProxySourcesRefused,
        "proxy_sources_refused",
        "Sockets closed because they came to a listener for proxies from elsewhere",
    ),
    (
        Metric::ProxyHeadersRefused,
        "proxy_headers_refused",
        "Sockets of proxies closed because they did not begin with a PROXY header",
    ),
    (Metric::AddressesRefused, "addresses_refused", "Sockets closed because of the client's address"),
    (Metric::OriginsRefused, "origins_refused", "WebSockets refused because of the page they are from"),
    (Metric::ConnectAccepted, "connects_accepted", "CONNECTs that were let in"),
    (Metric::ConnectRefused, "connects_refused", "CONNECTs that were refused"),
    (Metric::ConnectTimeouts, "connect_timeouts", "Sockets closed because no CONNECT came in time"),
    (Metric::KeepAliveTimeouts, "keep_alive_timeouts", "Connections whose keep-alive ran out"),
    (Metric::StallTimeouts, "stall_timeouts", "Connections closed because they did not take what was sent"),
    (Metric::BytesReceived, "received_bytes", "Bytes received from clients"),
    (Metric::BytesSent, "sent_bytes", "Bytes sent to clients"),
    (Metric::PacketsReceived, "packets_received", "MQTT packets received from clients"),
    (Metric::PacketsSent, "packets_sent", "MQTT packets sent to clients"),
    (Metric::PublishReceived, "publishes_received", "PUBLISH packets received from clients"),
    (Metric::PublishSent, "publishes_sent", "PUBLISH packets sent to clients"),
    (Metric::DroppedOutboxFull, "dropped_outbox_full", "QoS 0 deliveries dropped at slow clients"),
    (Metric::DroppedQueueFull, "dropped_queue_full", "Deliveries dropped beyond a clean session's queue"),
    (Metric::DroppedExpired, "dropped_expired", "Deliveries whose message had expired"),
    (Metric::DroppedTooLarge, "dropped_too_large", "Deliveries larger than the client takes"),
    (Metric::DroppedClosed, "dropped_closed", "Deliveries to connections that were closing"),
    (Metric::UnknownPacketIds, "unknown_packet_ids", "Acknowledgements of packet ids that were not in use"),
    (
        Metric::AuthenticationFailures,
        "authentication_failures",
        "Clients turned away because they did not prove who they are",
    ),
    (Metric::AuthorizationsExpired, "authorizations_expired", "Connections whose authorization ran out"),
    (Metric::PublishDenied, "publishes_denied", "PUBLISH packets that no rule allows"),
    (Metric::SubscribeDenied, "subscriptions_denied", "Subscriptions that no rule allows"),
    (Metric::Banned, "connects_banned", "CONNECTs of banned clients, users and addresses"),
    (Metric::ConnectNoRoom, "connects_refused_overload", "CONNECTs refused with 0x97 for want of room"),
    (Metric::ConnectRedirected, "connects_redirected", "CONNECTs sent to another node for want of room"),
    (
        Metric::PublishersSlowed,
        "publishers_slowed",
        "Times that a client was not read for a while because it published faster than it may",
    ),
];

const GAUGES: &[(Metric, &str, &str)] = &[
    (Metric::Sockets, "sockets", "Sockets of clients"),
    (Metric::Handshakes, "handshakes", "Sockets that have not become clients yet"),
    (Metric::Connections, "connections", "Connected clients"),
];

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(node) = self.0.upgrade() else { return Ok(()) };
        if let Some(counters) = node.counters() {
            for (metric, name, help) in COUNTERS {
                counter(&mut encoder, name, help, counters.get(*metric))?;
            }
            for (metric, name, help) in GAUGES {
                gauge(&mut encoder, name, help, counters.get(*metric))?;
            }
            let errors = ConstCounter::new(0u64);
            let mut family = encoder.encode_descriptor(
                "protocol_errors",
                "Connections closed because of what the client sent, by reason code",
                None,
                errors.metric_type(),
            )?;
            for (code, n) in counters.protocol_errors() {
                let reason = ReasonCode::from_u8(code).map_or("unknown", ReasonCode::name);
                let labels = [("reason", reason)];
                ConstCounter::new(n).encode(family.encode_family(&labels)?)?;
            }
        }
        for Count { name, help, value } in node.chain().into_iter().flat_map(Chain::metrics) {
            counter(&mut encoder, name, help, value)?;
        }
        self::overload(&mut encoder, node.overload())?;
        let Some(member) = node.member() else { return Ok(()) };
        let counts = member.broker.state().counts();
        let forward = member.forwarder.stats();
        let snapshots = member.raft.snapshots();
        let gauges = [
            ("sessions", "Client ids with an owner or a session, in the cluster", counts.claims as u64),
            ("persistent_sessions", "Persistent sessions in the cluster", counts.persistent_sessions as u64),
            ("retained_messages", "Retained messages", counts.retained_messages as u64),
            ("retained_message_bytes", "Bytes of retained messages", counts.retained_bytes as u64),
            ("routes", "Filters with a clean subscriber anywhere", counts.routes as u64),
            (
                "shared_waiting",
                "Messages that wait for a member of a shared subscription, in the cluster",
                counts.shared_waiting as u64,
            ),
            (
                "local_filters",
                "Filters with a clean subscriber on this node",
                member.broker.local_filters() as u64,
            ),
            (
                "queue_memory_bytes",
                "Bytes of persistent sessions' messages held in memory",
                member.broker.queue_memory_bytes(),
            ),
            ("forward_queue_bytes", "Bytes waiting for other nodes", forward.queued_bytes),
            (
                "forward_lanes_relayed",
                "Streams to other nodes that go by way of a third, for want of a direct one",
                forward.relayed_lanes,
            ),
            ("draining", "1 while this node lets its clients go", u64::from(member.broker.is_draining())),
            ("leader", "1 on the node that leads", u64::from(member.raft.is_leader())),
            ("lease_valid", "1 while this node may acknowledge", u64::from(member.lease.is_valid())),
            ("disk_free_bytes", "Bytes free for this node's data", node.disk().free_bytes()),
            ("disk_short", "1 while the disk has too little room", u64::from(node.disk().is_short())),
            ("log_waits_for_disk", "1 while the log waits for room", u64::from(node.disk().is_waiting())),
            ("applied_index", "Last log position applied here", member.raft.applied_index()),
            ("snapshot_bytes", "Size of the newest snapshot of the state", snapshots.bytes),
            ("snapshot_writing", "1 while a snapshot is written", u64::from(snapshots.writing)),
        ];
        for (name, help, value) in gauges {
            gauge(&mut encoder, name, help, value)?;
        }
        let counters = [
            (
                "connections_drained",
                "Connections ended because this node let its clients go",
                member.broker.clients_let_go(),
            ),
            ("forwards_sent", "Publishes sent to other nodes", forward.sent),
            ("forwards_received", "Publishes received from other nodes", forward.received),
            ("forwards_dropped", "QoS 0 publishes to other nodes that were dropped", forward.dropped_qos0),
            (
                "forwards_refused",
                "QoS 1 and 2 publishes to other nodes refused for want of room",
                forward.congested,
            ),
            ("snapshots_written", "Snapshots of the state that were written", snapshots.written),
            (
                "snapshots_received",
                "Snapshots of other nodes that became this node's state, since it lagged too far",
                snapshots.received,
            ),
        ];
        let counters = counters.into_iter().chain([(
            "retained_refused",
            "Publishes not retained, because of the limits, since this node started",
            counts.retained_refused,
        )]);
        for (name, help, value) in counters {
            counter(&mut encoder, name, help, value)?;
        }
        Ok(())
    }
}

fn overload(encoder: &mut DescriptorEncoder<'_>, overload: &Overload) -> fmt::Result {
    let ((resident, limit), (loops, consensus)) = (overload.memory_bytes(), overload.lag_us());
    let gauges = [
        (
            "overload_level",
            "0 normal, 1 windows shrink, 2 accepting pauses, 3 clients are refused",
            overload.level() as u64,
        ),
        ("memory_bytes", "Resident memory", resident),
        ("memory_limit_bytes", "Memory that this node may use; 0: not known", limit),
        ("event_loop_lag_microseconds", "Longest turn of an event loop in the last 100 ms", loops),
        (
            "consensus_lag_microseconds",
            "How late tasks of consensus were at worst in the last 100 ms",
            consensus,
        ),
    ];
    for (name, help, value) in gauges {
        gauge(encoder, name, help, value)?;
    }
    counter(
        encoder,
        "accept_pauses",
        "Times that accepting was paused by overload",
        overload.reached(Level::Pause),
    )
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = ConstGauge::new(value.cast_signed());
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}
