//! Every configuration key with its default, bounds and explanation.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::section::section;
use super::value::{AuthMethod, HostPort, LogFormat, one_of, range};
use crate::auth::http::Url;
use crate::auth::jwt::{Algorithm, Requirement, TokenField};
use crate::auth::{CertificateName, ClientIds, Denied, Network, Password, Patience};
use crate::broker::{LapseRules, Minority, NoMatch};
use crate::net::{AllowedOrigin, Share, TlsFiles};
use crate::overload::Rate;
use crate::session::{Durability, Limits};
use crate::sharing::{GroupRule, Sharing, Strategy};
use crate::state::Drain;
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
        /// HOST:PORT (or HOST) at which clients reach this node, which other nodes of the cluster tell
        /// those of MQTT 5.0 for which they have no room or that they let go (Server Reference). Empty:
        /// nobody is sent here, as is right where clients come through a load balancer or NAT.
        server_reference: String = String::new(), server_reference;
        /// With less than this free on the disk of data_dir, the node refuses what would have to be
        /// written for its clients, hands leadership over and is not ready, bytes.
        disk_free_min_bytes: u64 = 67_108_864;
    }
}

section! {
    /// `drain.*`
    DrainConfig {
        /// How many clients a second this node lets go when it drains (`rookery node drain`) or stops,
        /// so that they do not come to the other nodes all at once.
        rate: u32 = 1_000, range(Drain::RATES);
        /// How long a node that is told to stop (SIGTERM) takes to let its clients go, at most,
        /// milliseconds. With more clients than drain.rate gives time for, they go faster. Whatever
        /// ends the process for good has to wait for some seconds more. 0: they go all at once.
        stop_within_ms: u32 = 5_000, range(0..=3_600_000);
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
        /// Most clients at a time that came to this listener. 0: only limits.max_connections counts.
        max_connections: u32 = 0;
        /// Most connections accepted a second on this listener; the others wait. 0: only
        /// limits.accept_rate counts.
        accept_rate: u32 = 0;
        /// Clients come through proxies or load balancers that say who they are by the PROXY
        /// protocol, version 1 or 2, before anything else.
        proxy_protocol: bool = false;
        /// The addresses or networks of these proxies, such as ["10.0.0.7", "fd00::/8"]; needed by
        /// proxy_protocol. Nobody else may connect to the listener.
        proxy_trusted: Vec<Network> = Vec::new();
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
        /// Most clients at a time that came to this listener. 0: only limits.max_connections counts.
        max_connections: u32 = 0;
        /// Most connections accepted a second on this listener; the others wait. 0: only
        /// limits.accept_rate counts.
        accept_rate: u32 = 0;
        /// Clients come through proxies or load balancers that say who they are by the PROXY
        /// protocol, version 1 or 2, before anything else.
        proxy_protocol: bool = false;
        /// The addresses or networks of these proxies, such as ["10.0.0.7", "fd00::/8"]; needed by
        /// proxy_protocol. Nobody else may connect to the listener.
        proxy_trusted: Vec<Network> = Vec::new();
        /// The web pages that may connect, by where they are from: ["https://chat.example.org"]; "*"
        /// for any. Empty: those from the host that they connect to, and on this machine its own.
        /// Clients that are no browsers name no origin, and are let in.
        allowed_origins: Vec<AllowedOrigin> = Vec::new();
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
        /// PEM file with the revocation lists (CRLs) of the authorities that sign clients'
        /// certificates, one of each, those between ca_file and the clients included; needs ca_file.
        /// A client is refused when a certificate of its chain is revoked, has no list here, or one
        /// whose next update is overdue. Read again at SIGHUP. Empty: nothing is revoked.
        crl_file: Option<PathBuf> = None;
        /// Refuse clients that show no certificate; needs ca_file.
        require_client_cert: bool = false;
        /// What PUBACK and PUBREC stand for when a message goes to persistent sessions. quorum: it
        /// is on the disks of a majority. leader: on that of the client's node. memory: that node
        /// has taken it over. The latter two are faster, and lose what was acknowledged in the moment
        /// in which that node dies. Told to clients of MQTT 5.0 in CONNACK.
        durability: Durability = Durability::Quorum;
        /// Most clients at a time that came to this listener. 0: only limits.max_connections counts.
        max_connections: u32 = 0;
        /// Most connections accepted a second on this listener; the others wait. 0: only
        /// limits.accept_rate counts.
        accept_rate: u32 = 0;
        /// Clients come through proxies or load balancers that say who they are by the PROXY
        /// protocol, version 1 or 2, before anything else.
        proxy_protocol: bool = false;
        /// The addresses or networks of these proxies, such as ["10.0.0.7", "fd00::/8"]; needed by
        /// proxy_protocol. Nobody else may connect to the listener.
        proxy_trusted: Vec<Network> = Vec::new();
        /// listeners.wss only: the web pages that may connect, by where they are from: ["https://chat.example.org"]; "*"
        /// for any. Empty: those from the host that they connect to, and on this machine its own.
        /// Clients that are no browsers name no origin, and are let in.
        allowed_origins: Vec<AllowedOrigin> = Vec::new();
    }
}

/// What a listener may have.
macro_rules! shares {
    ($($config:ident),+) => {
        $( impl $config {
            pub fn share(&self) -> Share {
                let rate = Rate::new(self.accept_rate.into(), Limits::ACCEPT_BURST_MS);
                Share::new((self.max_connections > 0).then_some(self.max_connections), rate)
            }
        } )+
    };
}

shares!(TcpConfig, WsConfig, TlsConfig);

impl TlsConfig {
    /// What is to be loaded; `section` is the one that this is, for errors.
    pub fn files(&self, section: &'static str) -> TlsFiles {
        TlsFiles {
            section,
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            ca_file: self.ca_file.clone(),
            crl_file: self.crl_file.clone(),
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
        /// Who judges who a client is, asked in this order until one knows the client. certificate:
        /// it has shown one that a listener's ca_file verifies. users: its user name and password are
        /// those of a user of the cluster (`rookery users add`). jwt: it has a JSON Web Token, see
        /// [auth.jwt]. http: a service of yours knows it, see [auth.http].
        chain: Vec<AuthMethod> = vec![AuthMethod::Certificate, AuthMethod::Users];
        /// Which name in a client's certificate is its user name: common_name, or the first
        /// alternative name that is a dns_name, an email or a uri.
        certificate_name: CertificateName = CertificateName::CommonName;
        /// What holds for a publish or subscription that no rule (`rookery rules`) says anything of:
        /// allow or deny. auto: deny if this node asks clients who they are or the cluster has users,
        /// else allow.
        no_match: NoMatch = NoMatch::Auto;
        /// What becomes of a publish that is not allowed and whose client cannot be told: one at
        /// QoS 0, or one of MQTT 3.x. ignore: nothing; at QoS 1 and 2 it is acknowledged. disconnect:
        /// its connection ends.
        denied: Denied = Denied::Ignore;
        /// Which client ids a client may have. Whoever has a client id has its session. any. user:
        /// the name of the user that the client has proved to be. user_prefix: that, or that followed
        /// by a colon and anything; users with a colon in their names are then kept out.
        client_ids: ClientIds = ClientIds::Any;
        /// Failed log-ins of one address (of one /64 network in IPv6) beyond which passwords from
        /// there are not tried any more, until it is forgiven some. Clients that this node has let
        /// in with the same password before still get in.
        failed_logins_burst: u32 = Patience::default().burst, range(1..=1_000_000);
        /// How long it takes to forgive one, milliseconds.
        failed_login_forgiven_ms: u32 = Patience::default().forgive_ms, range(1..=3_600_000);
        /// How long the answer to a failed log-in is held back, milliseconds; more for each that
        /// came before, up to ten times as long.
        failed_login_delay_ms: u32 = Patience::default().delay_ms, range(0..=1_000);
        /// Failed log-ins of one address after which it is banned on all nodes. 0: never.
        ban_after_failed_logins: u32 = Patience::default().ban_after;
        /// For how long, seconds.
        ban_s: u32 = Patience::default().ban_s, range(1..=31_536_000);
    }
}

section! {
    /// `auth.jwt.*`
    JwtConfig {
        /// The field of CONNECT that clients put their JSON Web Token into: password or username.
        from: TokenField = TokenField::Password;
        /// A file with the secret that tokens are signed with (HS256, HS384, HS512): at least 32
        /// bytes; a line break at the end does not count. One of secret_file, secret,
        /// public_key_file, jwks_file and jwks_url makes tokens count.
        secret_file: Option<PathBuf> = None;
        /// That secret itself, for the environment: ROOKERY__AUTH__JWT__SECRET.
        secret: Option<Password> = None;
        /// PEM file with the public key that tokens are signed with: RSA, EC (P-256, P-384) or
        /// Ed25519.
        public_key_file: Option<PathBuf> = None;
        /// A file with a JWKS, the public keys that tokens may be signed with, which is read again
        /// and again.
        jwks_file: Option<PathBuf> = None;
        /// Where to fetch the JWKS from.
        jwks_url: Option<Url> = None;
        /// PEM file with the authorities that the server of jwks_url is trusted by. Empty: those
        /// that this machine trusts.
        ca_file: Option<PathBuf> = None;
        /// How often the JWKS is read, seconds. The keys known before stay when it fails.
        jwks_refresh_s: u32 = 300, range(1..=86_400);
        /// A token with an unknown key makes the node read the JWKS at once, but not earlier than
        /// this after it last did, seconds.
        jwks_cooldown_s: u32 = 10, range(1..=3_600);
        /// How long the JWKS may take, and how long a log-in waits for it, milliseconds.
        jwks_timeout_ms: u32 = 5_000, range(100..=60_000);
        /// The algorithms that tokens may be signed with. Empty: all that the keys are for.
        algorithms: Vec<Algorithm> = Vec::new();
        /// Longest token, bytes.
        token_max_bytes: u32 = 8_192, range(256..=65_535);
        /// Refuse tokens that do not expire.
        require_exp: bool = true;
        /// How far the clock of who signs may differ from this node's, seconds.
        leeway_s: u32 = 30, range(0..=3_600);
        /// What a token's iss has to say. Empty: it does not matter.
        issuer: Option<String> = None;
        /// What a token's aud has to name, one of these. Empty: it does not matter.
        audience: Vec<String> = Vec::new();
        /// The claim with the user's name.
        username_claim: String = "sub".to_owned(), not_empty;
        /// The claim with rules for this client, which come before the cluster's.
        acl_claim: String = "acl".to_owned(), not_empty;
        /// Claims that have to say the same as CONNECT or the certificate, as "client_id=CLAIM",
        /// "username=CLAIM" or "common_name=CLAIM".
        verify: Vec<Requirement> = Vec::new();
    }
}

impl JwtConfig {
    /// Whether it says what tokens are verified with.
    pub fn is_set(&self) -> bool {
        let files = [&self.secret_file, &self.public_key_file, &self.jwks_file];
        files.into_iter().any(Option::is_some) || self.secret.is_some() || self.jwks_url.is_some()
    }
}

section! {
    /// `auth.http.*`
    HttpAuthConfig {
        /// A service that is asked about clients by POST, http or https. Empty: none is.
        url: Option<Url> = None;
        /// A file with one line that every request has as a header, such as
        /// "Authorization: Bearer TOKEN".
        header_file: Option<PathBuf> = None;
        /// That line itself, for the environment: ROOKERY__AUTH__HTTP__HEADER.
        header: Option<Password> = None;
        /// PEM file with the authorities that the service is trusted by. Empty: those that this
        /// machine trusts.
        ca_file: Option<PathBuf> = None;
        /// How long an answer may take, and how long a log-in waits for its turn, milliseconds.
        /// Without an answer the client is refused.
        timeout_ms: u32 = 5_000, range(100..=60_000);
        /// Most requests at a time.
        concurrency_max: u32 = 64, range(1..=4_096);
        /// Most log-ins that wait; those beyond are refused.
        queue_max: u32 = 16_384, range(0..=1_000_000);
        /// How long a client that was let in is let in again without asking, seconds. 0: not.
        cache_ttl_s: u32 = 60, range(0..=86_400);
        /// How long one that was not is refused again without asking, seconds. 0: not.
        deny_cache_ttl_s: u32 = 5, range(0..=3_600);
        /// Most answers that are remembered.
        cache_max: u32 = 50_000, range(0..=10_000_000);
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
        /// Most connections accepted a second on this node; the others wait in the system's backlog.
        /// 0: as many as come.
        accept_rate: u32 = 1_000, range(0..=1_000_000);
        /// Most connections at a time that have not sent their CONNECT yet; the oldest makes room
        /// for a new one.
        max_half_open: u32 = 10_000, range(1..=1_000_000);
        /// How long a new connection may take to send its CONNECT, milliseconds.
        connect_timeout_ms: u32 = 10_000, range(100..=120_000);
        /// Most messages a second that a client may publish. One that publishes more is not read for a
        /// while. 0: as many as it likes.
        max_publish_rate: u32 = 0;
        /// Most bytes a second that a client may publish, as max_publish_rate.
        max_publish_bytes_rate: u64 = 0;
        /// Resident memory that this node may use, bytes: from 80 % of it on publishers get smaller
        /// windows, from 90 % on nobody is accepted, at all of it clients are refused; who is
        /// connected stays. 0: 80 % of what its control group or its machine has.
        max_memory_bytes: u64 = 0, range(0..=1_125_899_906_842_624);
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
            accept_rate: Rate::new(config.accept_rate.into(), Self::ACCEPT_BURST_MS),
            publish_rate: Rate::new(config.max_publish_rate.into(), Self::PUBLISH_BURST_MS),
            publish_bytes_rate: Rate::new(config.max_publish_bytes_rate, Self::PUBLISH_BURST_MS),
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

fn not_empty(name: &str) -> Result<(), String> {
    if name.is_empty() { Err("must not be empty".to_owned()) } else { Ok(()) }
}

/// It goes to clients as it is.
fn server_reference(reference: &str) -> Result<(), String> {
    const MOST: usize = 255;
    let good = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '?' | '#' | '@');
    if reference.len() <= MOST && reference.chars().all(good) {
        Ok(())
    } else {
        Err(format!(
            "expected HOST:PORT or HOST without spaces, at most {MOST} characters, not {reference:?}"
        ))
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

/// Whether this says what is to be logged: levels and `TARGET=LEVEL`, separated by commas. A filter's
/// bare words are levels; left to itself, the filter takes a misspelt level for a module.
pub(crate) fn log_level(level: &str) -> Result<(), String> {
    let is_level = |word: &str| ["error", "warn", "info", "debug", "trace", "off"].contains(&word.trim());
    let each = |part: &str| is_level(part.rsplit('=').next().unwrap_or(part));
    if level.split(',').all(each) && level.parse::<tracing_subscriber::filter::Targets>().is_ok() {
        Ok(())
    } else {
        Err(format!("expected a level (error, warn, info, debug, trace, off), not {level:?}"))
    }
}
