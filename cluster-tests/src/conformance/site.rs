//! Where a case runs.

use std::io::{self, Write as _};
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::cluster::Cluster;
use crate::fresh;
use crate::mqtt::{Client, Error, Options, Prop, Props, Publish, Result, Transport, Version, prop};
use crate::wait::eventually;

/// Configuration of every node. What is announced only when it deviates is to be seen; and no
/// case is about failover, so leaders are given more time than a busy machine takes from them.
const CONFIG: &str = "heartbeat_ms = 100
election_min_ms = 1500
election_max_ms = 3000
failover_promise_ms = 10000

[limits]
keep_alive_max_s = 600
";

/// Who can prove who he is, by SCRAM-SHA-256.
pub const USER: &str = "ann";
pub const PASSWORD: &str = "pencil";

/// What `rookery users scram` makes of them.
const USERS: &str = "ann:SCRAM-SHA-256$4096:Zic0tPQ/VGDbBmtIP8YrtQ==$\
                     MT416eXMz7iIslLGiW/TSq9s3IUaFp6vKvzms0LUKn4=:9NwjHpGH4Cwd3wZfOrMVCpiu7AXvMU0R67hpXwRY1Qo=\n";

/// For a message to cross the cluster of a busy machine.
const ARRIVES: Duration = Duration::from_secs(20);

/// What a case runs against, apart from the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// One node, TCP.
    Tcp,
    /// One node, WebSocket.
    WebSocket,
    /// Three nodes: the near end on one over TCP, the far end on another over TCP.
    Cluster,
    /// Three nodes: the near end over TCP, the far end on another over WebSocket.
    Mixed,
}

impl Ground {
    pub const ALL: [Ground; 4] = [Ground::Tcp, Ground::WebSocket, Ground::Cluster, Ground::Mixed];

    pub fn name(self) -> &'static str {
        match self {
            Ground::Tcp => "tcp",
            Ground::WebSocket => "ws",
            Ground::Cluster => "cluster",
            Ground::Mixed => "mixed",
        }
    }
}

/// The running clusters, each started when it is first needed.
pub struct Grounds {
    users: NamedTempFile,
    single: OnceLock<Cluster>,
    three: OnceLock<Cluster>,
}

impl Grounds {
    /// None of them runs yet.
    ///
    /// # Errors
    /// The file of the users cannot be written.
    pub fn new() -> io::Result<Self> {
        let mut users = NamedTempFile::new()?;
        users.write_all(USERS.as_bytes())?;
        Ok(Grounds { users, single: OnceLock::new(), three: OnceLock::new() })
    }

    fn start(&self, nodes: usize) -> Cluster {
        let users = self.users.path().display();
        Cluster::start_with(
            nodes,
            &format!(
                "{CONFIG}\n[auth]\nscram_users_file = \"{users}\"\nno_match = \"allow\"\nchain = []\nfailed_login_delay_ms = 0\n"
            ),
        )
    }

    pub fn site(&self, ground: Ground, version: Version) -> Site {
        let single = || self.single.get_or_init(|| self.start(1));
        let three = || self.three.get_or_init(|| self.start(3));
        let (near, far) = match ground {
            Ground::Tcp => (Transport::Tcp(single().mqtt(1)), Transport::Tcp(single().mqtt(1))),
            Ground::WebSocket => (Transport::Ws(single().ws(1)), Transport::Ws(single().ws(1))),
            Ground::Cluster => (Transport::Tcp(three().mqtt(1)), Transport::Tcp(three().mqtt(2))),
            Ground::Mixed => (Transport::Tcp(three().mqtt(3)), Transport::Ws(three().ws(1))),
        };
        // A cluster that a busy machine has made fail over does not fail the cases to come.
        let running = if matches!(ground, Ground::Tcp | Ground::WebSocket) { single() } else { three() };
        eventually("every node serves", ARRIVES, || running.is_ready().then_some(()));
        Site { version, ground, near, far }
    }
}

/// One version at one ground. Cases run beside each other, so each takes client ids and topics of
/// its own.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    pub version: Version,
    pub ground: Ground,
    near: Transport,
    far: Transport,
}

impl Site {
    pub fn is_v5(&self) -> bool {
        self.version == Version::V5
    }

    /// Where publishers, and lone clients, connect.
    pub fn near(&self) -> Transport {
        self.near
    }

    /// Where their counterparts connect.
    pub fn far(&self) -> Transport {
        self.far
    }

    /// A topic, or the beginning of some, that no other case uses; it has two levels.
    pub fn topic(&self) -> String {
        fresh("conformance/t")
    }

    /// A clean session with a client id of its own.
    pub fn options(&self) -> Options {
        // 3.1 has client ids of at most 23 characters.
        Options::new(self.version, &fresh("c"))
    }

    /// A clean session at the near end.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn client(&self) -> Result<Client> {
        Client::connect(self.near, &self.options())
    }

    /// A clean session at the far end.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn far_client(&self) -> Result<Client> {
        Client::connect(self.far, &self.options())
    }

    /// A clean session at the far end that is subscribed.
    ///
    /// # Errors
    /// As [`Client::connect`] and [`Client::subscribe`].
    pub fn subscriber(&self, filter: &str, qos: u8) -> Result<Client> {
        let mut client = self.far_client()?;
        let codes = client.subscribe(&[(filter, qos)])?;
        assert_eq!(codes, [qos], "granted for {filter}");
        Ok(client)
    }

    /// A near connection on which nothing has been sent.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub fn open(&self) -> Result<Client> {
        Client::open(self.near, self.version)
    }

    /// The next message.
    ///
    /// # Errors
    /// `Timeout` when none comes.
    pub fn recv(&self, subscriber: &mut Client) -> Result<Publish> {
        subscriber.recv(ARRIVES)
    }

    /// All that `subscriber` gets of what was published before this call by `publisher` or by
    /// anyone whose publishes were acknowledged. It subscribes to a topic of its own and waits
    /// for a message there, so that "nothing arrives" needs no waiting time.
    ///
    /// # Errors
    /// As the client's calls.
    pub fn received(&self, publisher: &mut Client, subscriber: &mut Client) -> Result<Vec<Publish>> {
        let marker = self.topic();
        // At QoS 2, so that acknowledgements of a kept session do not wait for others any more: what
        // has been received is not sent again, on whatever node the session is resumed at once.
        subscriber.subscribe(&[(&marker, 2)])?;
        // At each QoS the way through the cluster may differ; order holds within one.
        for qos in 0..=2 {
            publisher.publish(&marker, format!("{qos}"), qos)?;
        }
        let (mut before, mut markers) = (Vec::new(), 0);
        while markers < 3 {
            let message = subscriber.recv(ARRIVES)?;
            if message.topic == marker { markers += 1 } else { before.push(message) }
        }
        subscriber.unsubscribe(&[&marker])?;
        Ok(before)
    }

    /// Asserts that the broker ends the connection: 5.0 with DISCONNECT and one of these reason
    /// codes, or CONNACK with one if it has not accepted it yet; 3.x without a word.
    ///
    /// # Errors
    /// `Timeout` when it does not end.
    #[track_caller]
    pub fn assert_ends(&self, mut client: Client, codes: &[u8]) -> Result<()> {
        match client.ending(ARRIVES)? {
            Error::Disconnected(code) | Error::Refused(code) if self.is_v5() => {
                assert!(codes.contains(&code), "reason {code:#04x}, not one of {codes:02x?}");
            }
            Error::Closed if !self.is_v5() => {}
            other => panic!("ended otherwise: {other}"),
        }
        Ok(())
    }

    /// Options of a session that outlives its connection by an hour.
    pub fn persistent(&self) -> Options {
        self.options().persistent()
    }

    /// Deletes what [`persistent`](Self::persistent) left behind.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn forget(&self, options: &Options) -> Result<()> {
        let clean = Options { clean_start: true, props: Props::default(), will: None, ..options.clone() };
        Client::connect(self.near, &clean)?.disconnect()
    }

    /// Options with a Session Expiry Interval, which only 5.0 has.
    pub fn expiring(&self, expiry_s: u32) -> Options {
        let mut options = self.options().prop(prop::SESSION_EXPIRY_S, Prop::U32(expiry_s));
        options.clean_start = false;
        options
    }
}
