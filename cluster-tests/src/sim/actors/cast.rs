//! Who may take part: every client, and every topic, of a scenario.

/// A persistent session that gets what is published below one filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// Several hosts may fight for one client id.
    pub host: &'static str,
    pub client_id: &'static str,
    pub filter: &'static str,
    pub qos: u8,
    /// It publishes too, so that a connection that lost its client id can be caught at it.
    pub publishes: bool,
    /// It comes and goes by itself.
    pub restless: bool,
}

/// Where most is published.
pub const FILTER: &str = "t/#";
/// Where wills are published.
pub const WILL_FILTER: &str = "w/#";
/// Where a group shares what is published.
pub const SHARED_FILTER: &str = "$share/g/s/#";
/// Where what is published goes from node to node past the log.
pub const DIRECT_FILTER: &str = "c/#";
/// What of it takes the log at times.
pub const PASSING_FILTER: &str = "c/pub-d";
/// Where messages expire.
pub const EXPIRY_FILTER: &str = "e/#";

const fn subscriber(
    host: &'static str,
    client_id: &'static str,
    filter: &'static str,
    qos: u8,
) -> Subscriber {
    Subscriber { host, client_id, filter, qos, publishes: false, restless: true }
}

/// Always there.
pub const ONE: Subscriber = subscriber("sub-one", "one", FILTER, 1);
/// Always there, exactly once.
pub const TWO: Subscriber = subscriber("sub-two", "two", FILTER, 2);
/// Two clients of one id.
pub const TWINS: [Subscriber; 2] = [
    Subscriber { publishes: true, ..subscriber("twin-a", "twin", FILTER, 1) },
    Subscriber { publishes: true, ..subscriber("twin-b", "twin", FILTER, 1) },
];
/// Who counts the wills, exactly once; it only leaves when it is made to.
pub const WITNESS: Subscriber =
    Subscriber { restless: false, ..subscriber("witness", "witness", WILL_FILTER, 2) };

/// Publishers at QoS 1 below `t/`, each with a clean session and a window.
pub const QOS1_PUBLISHERS: [&str; 2] = ["pub-a", "pub-b"];
/// The one of them whose messages are retained.
pub const RETAINING_PUBLISHER: &str = "pub-b";
/// Publishers at QoS 2 below `t/`, each with a persistent session and one message at a time.
pub const QOS2_PUBLISHERS: [&str; 2] = ["pub-x", "pub-y"];
/// Publishers at QoS 1 below `c/`, each with a clean session and a window. The second one's messages
/// take the log while [`PASSING`] has a session, and go past it when that has expired.
pub const DIRECT_PUBLISHERS: [&str; 2] = ["pub-c", "pub-d"];
/// Publishers below `s/`, at QoS 1 and at QoS 2.
pub const SHARED_PUBLISHERS: [&str; 2] = ["pub-s", "pub-z"];
/// Publishes below `e/`, at QoS 1, messages that live for [`MESSAGE_EXPIRY_S`].
pub const EXPIRING_PUBLISHER: &str = "pub-e";
pub const MESSAGE_EXPIRY_S: u32 = 1;

/// Who asks what is retained.
pub const READER: &str = "reader";
/// Clients with a will, published below `w/`.
pub const MORTALS: [&str; 3] = ["mortal-a", "mortal-b", "mortal-c"];
/// Members of the group: the first with a persistent session, the others with clean ones.
pub const MEMBERS: [&str; 3] = ["member-p", "member-a", "member-b"];
/// Clean subscribers, and what they subscribe to. What "watch-d" gets takes the log while [`LAPSING`]
/// has a session, and goes past it when that has expired.
pub const WATCHERS: [(&str, &str); 6] = [
    ("watch-a", FILTER),
    ("watch-b", "t/pub-a"),
    ("watch-c", "t/+"),
    ("watch-d", EXPIRY_FILTER),
    ("watch-e", DIRECT_FILTER),
    ("watch-f", PASSING_FILTER),
];
/// Subscribes to what expires, with a session that does too: after [`SESSION_EXPIRY_S`].
pub const LAPSING: &str = "lapsing";
pub const SESSION_EXPIRY_S: u32 = 3;
/// Subscribes to [`PASSING_FILTER`] with such a session.
pub const PASSING: &str = "passing";

/// Publishes at QoS 1 below `h/`, more than [`HOARDER`] can have waiting.
pub const FLOODING_PUBLISHER: &str = "pub-h";
pub const FLOOD_FILTER: &str = "h/#";
/// A persistent session whose client is away most of the time.
pub const HOARDER: &str = "hoarder";

/// All that publish, by name.
const PUBLISHERS: [&[&str]; 8] = [
    &[FLOODING_PUBLISHER],
    &QOS1_PUBLISHERS,
    &DIRECT_PUBLISHERS,
    &QOS2_PUBLISHERS,
    &SHARED_PUBLISHERS,
    &[EXPIRING_PUBLISHER],
    &MORTALS,
    &["twin-a", "twin-b"],
];

/// The publisher of that name.
pub fn publisher(name: &str) -> Option<&'static str> {
    PUBLISHERS.iter().flat_map(|group| group.iter()).find(|known| **known == name).copied()
}

/// The topic that a publisher has for itself.
pub fn topic_of(publisher: &str) -> String {
    let below = match publisher {
        EXPIRING_PUBLISHER => "e",
        FLOODING_PUBLISHER => "h",
        p if DIRECT_PUBLISHERS.contains(&p) => "c",
        p if SHARED_PUBLISHERS.contains(&p) => "s",
        p if MORTALS.contains(&p) => "w",
        _ => "t",
    };
    format!("{below}/{publisher}")
}

/// Whether a filter of this cast matches what the publisher publishes.
pub fn matches(filter: &str, publisher: &str) -> bool {
    let topic = topic_of(publisher);
    let filter = filter.strip_prefix("$share/g/").unwrap_or(filter);
    match filter.strip_suffix('#').or_else(|| filter.strip_suffix('+')) {
        Some(prefix) => topic.starts_with(prefix),
        None => topic == filter,
    }
}
