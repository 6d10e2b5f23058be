//! Counters of what happens on connections.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::mqtt::ReasonCode;

/// What is counted. Gauges go up and down; everything else only up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Metric {
    /// Gauge: sockets in the hands of the loops.
    Sockets,
    /// Gauge: sockets whose client has not been accepted yet.
    Handshakes,
    /// Gauge: accepted clients.
    Connections,
    SocketsAccepted,
    /// Closed on arrival, or while the CONNECT was awaited, to make room: too many handshakes or
    /// connections, or out of descriptors.
    SocketsRefused,
    /// Connections closed because their client broke TLS or did not speak it.
    TlsFailures,
    /// Sockets that came to a listener for proxies from where none is trusted.
    ProxySourcesRefused,
    /// Sockets of trusted proxies that did not begin with a PROXY header.
    ProxyHeadersRefused,
    /// Sockets whose address is not admitted.
    AddressesRefused,
    /// WebSockets of pages that may not open one.
    OriginsRefused,
    ConnectAccepted,
    ConnectRefused,
    ConnectTimeouts,
    KeepAliveTimeouts,
    StallTimeouts,
    BytesReceived,
    BytesSent,
    PacketsReceived,
    PacketsSent,
    PublishReceived,
    PublishSent,
    /// QoS 0 not sent because the client does not read fast enough.
    DroppedOutboxFull,
    /// QoS 1 or 2 of a clean session beyond its queue.
    DroppedQueueFull,
    DroppedExpired,
    /// Beyond the client's Maximum Packet Size [MQTT-3.1.2-25].
    DroppedTooLarge,
    /// The connection was closing or closed.
    DroppedClosed,
    /// Acknowledgements of packet ids that nothing is known of.
    UnknownPacketIds,
    /// Clients that were turned away because they did not prove who they are.
    AuthenticationFailures,
    /// Clients that were let in for a time, which was over.
    AuthorizationsExpired,
    /// Publishes and subscriptions that no rule allows.
    PublishDenied,
    SubscribeDenied,
    /// Clients that are banned, on arrival.
    Banned,
    /// CONNECTs that found no room and were refused.
    ConnectNoRoom,
    /// CONNECTs that found no room and were sent to another node.
    ConnectRedirected,
    /// Times that a client was not read for a while because of its rate of publishes.
    PublishersSlowed,
}

impl Metric {
    pub const COUNT: usize = Self::ALL.len();

    /// In the order of their numbers.
    pub const ALL: [Self; 35] = [
        Self::Sockets,
        Self::Handshakes,
        Self::Connections,
        Self::SocketsAccepted,
        Self::SocketsRefused,
        Self::TlsFailures,
        Self::ProxySourcesRefused,
        Self::ProxyHeadersRefused,
        Self::AddressesRefused,
        Self::OriginsRefused,
        Self::ConnectAccepted,
        Self::ConnectRefused,
        Self::ConnectTimeouts,
        Self::KeepAliveTimeouts,
        Self::StallTimeouts,
        Self::BytesReceived,
        Self::BytesSent,
        Self::PacketsReceived,
        Self::PacketsSent,
        Self::PublishReceived,
        Self::PublishSent,
        Self::DroppedOutboxFull,
        Self::DroppedQueueFull,
        Self::DroppedExpired,
        Self::DroppedTooLarge,
        Self::DroppedClosed,
        Self::UnknownPacketIds,
        Self::AuthenticationFailures,
        Self::AuthorizationsExpired,
        Self::PublishDenied,
        Self::SubscribeDenied,
        Self::Banned,
        Self::ConnectNoRoom,
        Self::ConnectRedirected,
        Self::PublishersSlowed,
    ];

    /// It goes down, too.
    pub const fn is_gauge(self) -> bool {
        matches!(self, Self::Sockets | Self::Handshakes | Self::Connections)
    }
}

/// Threads that count without sharing a cache line.
const SHARDS: usize = 8;

#[repr(align(128))]
struct Shard([AtomicU64; Metric::COUNT]);

/// All counters of the process. Adding is one uncontended atomic; reading sums the shards.
pub struct Counters {
    shards: [Shard; SHARDS],
    protocol_errors: [AtomicU64; 256],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Shard(std::array::from_fn(|_| AtomicU64::new(0)))),
            protocol_errors: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: usize = NEXT.fetch_add(1, Relaxed) % SHARDS);
    MINE.with(|mine| *mine)
}

impl Counters {
    pub fn add(&self, metric: Metric, n: u64) {
        self.shards[shard()].0[metric as usize].fetch_add(n, Relaxed);
    }

    pub fn increment(&self, metric: Metric) {
        self.add(metric, 1);
    }

    /// For gauges. The shards wrap; their sum does not.
    pub fn decrement(&self, metric: Metric) {
        self.shards[shard()].0[metric as usize].fetch_sub(1, Relaxed);
    }

    pub fn get(&self, metric: Metric) -> u64 {
        self.shards.iter().fold(0, |sum, shard| sum.wrapping_add(shard.0[metric as usize].load(Relaxed)))
    }

    /// A connection was closed because of what its client sent.
    pub fn protocol_error(&self, reason: ReasonCode) {
        self.protocol_errors[usize::from(reason as u8)].fetch_add(1, Relaxed);
    }

    /// Reason codes for which connections were closed, with their numbers; never a zero.
    pub fn protocol_errors(&self) -> impl Iterator<Item = (u8, u64)> + '_ {
        (0..=u8::MAX)
            .map(|code| (code, self.protocol_errors[usize::from(code)].load(Relaxed)))
            .filter(|(_, n)| *n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_place_of_its_own() {
        for (index, metric) in Metric::ALL.into_iter().enumerate() {
            assert_eq!(metric as usize, index);
        }
        let counters = Counters::default();
        std::thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| {
                    counters.increment(Metric::Connections);
                    counters.add(Metric::BytesSent, 5);
                });
            }
        });
        (0..10).for_each(|_| counters.decrement(Metric::Connections));
        assert_eq!((counters.get(Metric::Connections), counters.get(Metric::BytesSent)), (0, 50));
    }
}
