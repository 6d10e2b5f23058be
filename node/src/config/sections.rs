//! Every configuration key with its default, bounds and explanation.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::section::section;
use super::value::{HostPort, LogFormat, one_of, range};
use crate::broker::{LapseRules, Minority};
use crate::net::TlsFiles;
use crate::session::{Durability, Limits};
use crate::sharing::{GroupRule, Sharing, Strategy};
use crate::state::limits::{NodeLimits, QueueLimits, WhenFull};

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

section! {
    /// `node.*`
    NodeConfig {
        /// What the node is called, unique in its cluster: letters, digits, '.', '_' and '-'.
        /// Empty: the machine's host name.
        name: String = String::new(), node_name;
        /// Where everything that must survive a restart is kept. One node per directory.
        data_dir: PathBuf = PathBuf::from("rookery-data");
        /// With less than this free on the disk of data_dir, the node refuses what would have to be
        /// written for its clients, hands leadership over and is not ready, bytes.
        disk_free_min_bytes: u64 = 67_108_864;
    }
}

section! {
    /// `listeners.tcp.*`
    TcpConfig {
        /// MQTT over TCP: IP address and port. Empty: not offered.
        bind: Option<SocketAddr> = Some(loopback(1883));
        /// What PUBACK and PUBREC stand for when a message goes to persistent sessions. quorum: it
        /// is on the disks of a majority. leader: on that of the client's node. memory: that node
        /// has taken it over. The latter two are faster, and lose what was acknowledged in the moment
        /// in which that node dies. Told to clients of MQTT 5.0 in CONNACK.
        durability: Durability = Durability::Quorum;
    }
}

section! {
    /// `listeners.ws.*`
    WsConfig {
        /// MQTT over WebSocket, path /mqtt: IP address and port. Empty: not offered.
        bind: Option<SocketAddr> = Some(loopback(8083));
        /// What PUBACK and PUBREC stand for when a message goes to persistent sessions. quorum: it
        /// is on the disks of a majority. leader: on that of the client's node. memory: that node
        /// has taken it over. The latter two are faster, and lose what was acknowledged in the moment
        /// in which that node dies. Told to clients of MQTT 5.0 in CONNACK.
        durability: Durability = Durability::Quorum;
    }
}

section! {
    /// `listeners.tls.*` and `listeners.wss.*`
    TlsConfig {
        /// MQTT over TLS (listeners.tls, usually port 8883), or over WebSocket in TLS, path /mqtt
        /// (listeners.wss, usually port 8084): IP address and port. TLS 1.2 and 1.3. Empty: not
        /// offered.
        bind: Option<SocketAddr> = None;
        /// PEM file with the server's certificate, then those between it and the root. SIGHUP
        /// makes a node read its certificates and keys again, for new connections.
        cert_file: Option<PathBuf> = None;
        /// PEM file with the private key of that certificate, not encrypted.
        key_file: Option<PathBuf> = None;
        /// PEM file with the authorities that sign clients' certificates. With it clients are asked
        /// for a certificate, and one that does not verify is refused. Empty: they are not asked.
        ca_file: Option<PathBuf> = None;
        /// Refuse clients that show no certificate; needs ca_file.
        require_client_cert: bool = false;
        /// What PUBACK and PUBREC stand for when a message goes to persistent sessions. quorum: it
        /// is on the disks of a majority. leader: on that of the client's node. memory: that node
        /// has taken it over. The latter two are faster, and lose what was acknowledged in the moment
        /// in which that node dies. Told to clients of MQTT 5.0 in CONNACK.
        durability: Durability = Durability::Quorum;
    }
}

impl TlsConfig {
    /// What is to be loaded; `section` is the one that this is, for errors.
    pub fn files(&self, section: &'static str) -> TlsFiles {
        TlsFiles {
            section,
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            ca_file: self.ca_file.clone(),
            require_client_cert: self.require_client_cert,
        }
    }
}

section! {
    /// `api.*`
    ApiConfig {
        /// The HTTP API with health and metrics: IP address and port. Changes are accepted from
        /// this machine only.
        bind: SocketAddr = loopback(18083);
    }
}

section! {
    /// `cluster.*`
    ClusterConfig {
        /// Where other nodes reach this one: IP address and port to listen on.
        bind: SocketAddr = loopback(17883);
        /// The HOST:PORT that other nodes are told. Empty: cluster.bind.
        advertise: Option<HostPort> = None;
        /// Peer addresses (HOST:PORT) of nodes to join through, when the node is of no cluster yet.
        seeds: Vec<HostPort> = Vec::new();
        /// The number of nodes that must have found each other before a new cluster is formed
        /// from the seeds; not supported yet. 0: clusters are formed by `rookery cluster init`.
        expect: u32 = 0, range(0..=64);
        /// A file with a token of `rookery cluster token`, to join by oneself at the start.
        token_file: Option<PathBuf> = None;
        /// How many nodes vote, the others only follow: 3 survives one loss, 5 survives two.
        voters: u32 = 3, one_of(&[3, 5]);
        /// How often a leader is heard, milliseconds.
        heartbeat_ms: u64 = 50, range(10..=1_000);
        /// A follower that hears no leader for a random time in election_min_ms..election_max_ms
        /// asks for votes, milliseconds.
        election_min_ms: u64 = 200, range(50..=10_000);
        /// See election_min_ms.
        election_max_ms: u64 = 400, range(100..=20_000);
        /// How long after a node's death its wills may take to fire, at most, milliseconds. Slower
        /// elections than the default ones need a higher value here, so that what is promised to
        /// clients is a decision and not an accident.
        failover_promise_ms: u64 = 3_000, range(3_000..=60_000);
        /// A snapshot of the cluster's state is written when the log since the last one has grown by
        /// that one's size and by this many bytes. More means less writing and a longer restart.
        snapshot_log_bytes: u64 = 67_108_864, range(1_048_576..=1_099_511_627_776);
        /// Bytes of log kept besides, so that a node that was away for a while gets what it missed
        /// and not the whole state.
        kept_log_bytes: u64 = 67_108_864, range(1_048_576..=1_099_511_627_776);
        /// What a node does for its clients while it is cut off from the majority of its cluster.
        /// qos0: it passes QoS 0 between them and acknowledges nothing. close: it closes their
        /// connections, so that they go to another node, and lets nobody in. available: as qos0,
        /// and it acknowledges what concerns clean sessions of this node alone: the other nodes'
        /// subscribers miss such a message, and such a subscription gets what is published on this
        /// node only, until the nodes hear each other again.
        minority: Minority = Minority::Qos0;
        /// How long CONNECT, SUBSCRIBE, UNSUBSCRIBE and PUBLISH at QoS 1 and 2 wait when that has
        /// just happened, since most often it is soon over, milliseconds.
        lease_patience_ms: u64 = LapseRules::DEFAULT_PATIENCE_MS, range(0..=60_000);
    }
}

section! {
    /// `auth.*`
    AuthConfig {
        /// Let anyone who can reach a listener beyond this machine publish and subscribe.
        /// Listeners on loopback addresses always accept everyone.
        allow_anonymous: bool = false;
        /// Refuse every client that has not proved who it is, whatever else is said here and on
        /// loopback addresses too.
        required: bool = false;
        /// A file of users for the authentication method SCRAM-SHA-256 of MQTT 5.0, with one line
        /// of `rookery users scram` for each; every node has its own copy, read at its start.
        /// Empty: authentication methods are refused.
        scram_users_file: Option<PathBuf> = None;
    }
}

section! {
    /// `mqtt.*`
    MqttConfig {
        /// Look through payloads whose Payload Format Indicator says that they are text, and
        /// refuse those that are not UTF-8.
        check_payload_format: bool = false;
        /// What becomes of a message that exceeds a persistent session's queue. drop_oldest: the
        /// oldest that was not sent makes room. refuse: it is not queued, and a publisher of MQTT
        /// 5.0 whose message nobody else takes gets 0x97 Quota exceeded.
        session_queue_full: WhenFull = WhenFull::DropOldest;
    }
}

section! {
    /// `shared.*`
    SharedConfig {
        /// How the member of a shared subscription that gets a message is chosen: round_robin (one
        /// after the other), random, sticky (the same as long as it is there), local (those on the
        /// publisher's node first), hash_client_id (the same for a publisher), hash_topic (the same
        /// for a topic). What counts for a message is what the node says that it was published at.
        strategy: Strategy = Strategy::default();
        /// Groups with another strategy, as "NAME=STRATEGY" or "NAME/FILTER=STRATEGY"; '*' stands for
        /// any text, the first that matches counts: ["orders=sticky", "cameras/hall/*=hash_topic"].
        groups: Vec<GroupRule> = Vec::new(), rules_at_most;
        /// Give a message that a member acknowledges with an error (0x80 or above) to another
        /// member. MQTT says that it is discarded.
        redeliver_refused: bool = false;
    }
}

impl From<&SharedConfig> for Sharing {
    fn from(config: &SharedConfig) -> Self {
        Self {
            strategy: config.strategy,
            groups: config.groups.as_slice().into(),
            redeliver_refused: config.redeliver_refused,
        }
    }
}

section! {
    /// `limits.*`
    LimitsConfig {
        /// Most connections at a time on this node. Fewer when the system gives the process fewer
        /// descriptors, of which some are kept for everything else.
        max_connections: u32 = 100_000, range(1..=10_000_000);
        /// Most connections at a time that have not sent their CONNECT yet; the oldest makes room
        /// for a new one.
        max_half_open: u32 = 10_000, range(1..=1_000_000);
        /// How long a new connection may take to send its CONNECT, milliseconds.
        connect_timeout_ms: u32 = 10_000, range(100..=120_000);
        /// Longest keep-alive granted, seconds. 65535: whatever a client asks for, none included.
        keep_alive_max_s: u16 = 65_535, range(5..=65_535);
        /// Largest MQTT packet accepted, bytes.
        max_packet_size_bytes: u32 = 1_048_576, range(256..=268_435_460);
        /// Longest client id, bytes.
        client_id_max_bytes: u16 = 1_024, range(23..=65_535);
        /// Longest topic or filter, bytes.
        topic_max_bytes: u16 = 65_535, range(1..=65_535);
        /// Most levels in a topic or filter.
        topic_levels: u16 = 128, range(2..=65_535);
        /// Most user properties in a packet.
        max_user_properties: u16 = 1_024;
        /// Most bytes of user properties in a packet.
        user_properties_max_bytes: u32 = 1_048_576, range(0..=268_435_455);
        /// Largest payload of a will, bytes.
        will_max_bytes: u16 = 65_535;
        /// Most filters in a SUBSCRIBE or UNSUBSCRIBE.
        max_filters_per_subscribe: u16 = 10_000, range(1..=65_535);
        /// Most subscriptions of a client. Each takes some 300 bytes and its filter, a persistent
        /// session's on every node.
        max_subscriptions_per_client: u32 = 100_000, range(1..=10_000_000);
        /// Most retained messages of the cluster, beyond which clients of this node add no more.
        max_retained_messages: u32 = 1_000_000, range(1..=1_000_000_000);
        /// Most bytes of the retained messages of the cluster. Every node holds them in memory.
        max_retained_bytes: u64 = 1_073_741_824, range(65_536..=1_099_511_627_776);
        /// Most publishes of QoS 1 and 2 that a client may have unacknowledged (Receive Maximum).
        receive_maximum: u16 = 1_024, range(1..=65_535);
        /// Most deliveries of QoS 1 and 2 that wait for one client's acknowledgement. A client's
        /// own Receive Maximum may be lower.
        max_inflight: u16 = 1_024, range(1..=65_535);
        /// Most topic aliases a client may define on a connection.
        topic_alias_maximum: u16 = 64, range(0..=65_535);
        /// Longest Session Expiry Interval granted, seconds; also the expiry of persistent
        /// sessions of MQTT 3.1 and 3.1.1, which cannot name one. 4294967295: never.
        session_expiry_max_s: u32 = 2_592_000;
        /// Most messages of QoS 1 and 2 that one persistent session may have waiting, those in
        /// flight included.
        max_session_queued_messages: u32 = 100_000, range(1..=100_000_000);
        /// Most bytes of the messages that wait for one persistent session; a single message may be
        /// larger.
        max_session_queued_bytes: u64 = 67_108_864, range(65_536..=1_099_511_627_776);
        /// Bytes of persistent sessions' messages that this node holds in memory; further ones go to
        /// files in its data directory and come back when their client takes them.
        max_queue_memory_bytes: u64 = 268_435_456, range(1_048_576..=1_099_511_627_776);
        /// Most deliveries of QoS 1 and 2 that wait on this node for one client with a clean
        /// session.
        max_queued_messages: u32 = 10_000, range(1..=1_000_000);
        /// Most bytes of the messages that wait like that; a single message may be larger.
        max_queued_bytes: u32 = 16_777_216, range(65_536..=1_073_741_824);
        /// Most bytes waiting to be written to one connection; beyond it QoS 0 is dropped.
        max_outbox_bytes: u32 = 2_097_152, range(16_384..=268_435_456);
    }
}

impl From<&LimitsConfig> for Limits {
    fn from(config: &LimitsConfig) -> Self {
        Self {
            connections_max: config.max_connections,
            handshakes_max: config.max_half_open,
            connect_timeout_ms: config.connect_timeout_ms,
            keep_alive_max_s: config.keep_alive_max_s,
            packet_max_bytes: config.max_packet_size_bytes,
            client_id_max_bytes: config.client_id_max_bytes,
            topic_levels_max: config.topic_levels,
            topic_max_bytes: config.topic_max_bytes,
            user_properties_max: config.max_user_properties,
            user_properties_max_bytes: config.user_properties_max_bytes,
            will_max_bytes: config.will_max_bytes,
            filters_max: config.max_filters_per_subscribe,
            subscriptions_max: config.max_subscriptions_per_client,
            receive_maximum: config.receive_maximum,
            inflight_max: config.max_inflight,
            topic_alias_max: config.topic_alias_maximum,
            session_expiry_max_s: config.session_expiry_max_s,
            queue_max: config.max_queued_messages,
            queue_max_bytes: config.max_queued_bytes,
            outbox_max_bytes: config.max_outbox_bytes,
            ..Self::default()
        }
    }
}

impl From<&LimitsConfig> for NodeLimits {
    fn from(config: &LimitsConfig) -> Self {
        Self {
            subscriptions_per_client: config.max_subscriptions_per_client,
            retained_messages: config.max_retained_messages,
            retained_bytes: config.max_retained_bytes,
            queue: QueueLimits {
                messages: config.max_session_queued_messages,
                bytes: config.max_session_queued_bytes,
                ..QueueLimits::default()
            },
        }
    }
}

section! {
    /// `log.*`
    LogConfig {
        /// error, warn, info, debug or trace; also per module, such as "info,rookery::raft=debug".
        level: String = "info".to_owned(), log_level;
        /// text for people, json for machines.
        format: LogFormat = LogFormat::Text;
    }
}

/// Node names appear in metrics, file names and addresses.
fn node_name(name: &str) -> Result<(), String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.len() <= 63 && name.bytes().all(good) {
        Ok(())
    } else {
        Err(format!("must be at most 63 letters, digits, '.', '_' and '-', not {name:?}"))
    }
}

/// All of them are looked through for a message of a group that none names.
fn rules_at_most(rules: &[GroupRule]) -> Result<(), String> {
    const MOST: usize = 1_000;
    if rules.len() <= MOST {
        Ok(())
    } else {
        Err(format!("at most {MOST} groups may be named, not {}; '*' stands for any text", rules.len()))
    }
}

/// A filter's bare words are levels; left to itself, the filter takes a misspelt level for a module.
fn log_level(level: &str) -> Result<(), String> {
    let is_level = |word: &str| ["error", "warn", "info", "debug", "trace", "off"].contains(&word.trim());
    let each = |part: &str| is_level(part.rsplit('=').next().unwrap_or(part));
    if level.split(',').all(each) && level.parse::<tracing_subscriber::filter::Targets>().is_ok() {
        Ok(())
    } else {
        Err(format!("expected a level (error, warn, info, debug, trace, off), not {level:?}"))
    }
}
