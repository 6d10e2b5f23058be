//! The history of a run, and what is wrong with it: what recorded publishers sent and were
//! acknowledged, what recorded subscribers received. Pure; events are given in the order in which
//! they happened at the clients.

use std::collections::BTreeMap;

use serde::Serialize;

use super::numbers::Numbers;

/// Findings that are kept word for word, of each kind; all are counted.
const EXAMPLES_MAX: usize = 20;

/// One publisher's messages: numbers from 0 on, in the order in which they were first sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubscriberId(pub usize);

/// What is promised about a publisher's messages.
#[derive(Clone, Debug)]
pub struct StreamSpec {
    pub name: String,
    /// Published at QoS 2 from a persistent session: a repetition is the same message to the broker.
    pub once: bool,
    /// Message n goes to topic n mod `topics`; order is promised within each.
    pub topics: u32,
}

/// What is promised to a subscriber.
#[derive(Clone, Debug)]
pub struct SubscriberSpec {
    pub name: String,
    /// Its session outlives the connection, so that it gets what came meanwhile.
    pub persistent: bool,
    /// Subscribed at QoS 2.
    pub once: bool,
    /// What it is subscribed to, before any of it is published if it is persistent.
    pub streams: Vec<StreamId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Acknowledged and not delivered to a persistent session, or to a clean one whose connection
    /// was there all the time.
    Lost,
    /// QoS 2 delivered twice.
    Duplicated,
    /// Delivered for the first time after a later message of its publisher and topic.
    Reordered,
    /// Sent again with DUP after a later message on the same connection: redelivery keeps the order.
    StaleDup,
    /// Delivered and never published.
    Unknown,
    /// A subscription was sent an older retained message than the last one acknowledged before it.
    StaleRetained,
    /// A persistent session was not there when its client came back.
    SessionLost,
}

impl Kind {
    pub const ALL: [Kind; 7] = [
        Kind::Lost,
        Kind::Duplicated,
        Kind::Reordered,
        Kind::StaleDup,
        Kind::Unknown,
        Kind::StaleRetained,
        Kind::SessionLost,
    ];

    /// As a row of a table.
    pub const fn title(self) -> &'static str {
        match self {
            Kind::Lost => "acknowledged and lost",
            Kind::Duplicated => "duplicated at QoS 2",
            Kind::Reordered => "out of order",
            Kind::StaleDup => "sent again out of order",
            Kind::Unknown => "never published",
            Kind::StaleRetained => "stale retained messages",
            Kind::SessionLost => "sessions lost",
        }
    }
}

/// Something that should not have happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub kind: Kind,
    /// For a person.
    pub what: String,
}

#[derive(Debug)]
struct Stream {
    spec: StreamSpec,
    /// Numbers below it were sent.
    sent: u32,
    acked: Numbers,
    last_acked: Option<u32>,
    /// Sent more than once, so at QoS 1 there may be two of it.
    again: Numbers,
    /// Refused at least once: what was sent behind it may have gone ahead.
    refused: Numbers,
}

#[derive(Debug)]
struct Subscriber {
    spec: SubscriberSpec,
    connected: bool,
    inboxes: BTreeMap<StreamId, Inbox>,
}

/// What one subscriber got of one stream.
#[derive(Debug)]
struct Inbox {
    seen: Numbers,
    /// Per topic: the highest number ever received.
    highest: Vec<Option<u32>>,
    /// Per topic: the highest number received on the present connection.
    highest_here: Vec<Option<u32>>,
    /// Clean sessions only: what they may have missed while they were not connected.
    excused: Numbers,
    /// How much had been sent when the present connection began to receive, or the last one ended.
    since: u32,
}

/// Sums of a history, and everything that is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub published: u64,
    pub acknowledged: u64,
    pub delivered: u64,
    /// Repetitions at QoS 1, which are allowed.
    pub repeated: u64,
    /// Error codes instead of acknowledgements.
    pub refused: u64,
    /// How many of each kind; kinds that are not there did not happen.
    pub counts: BTreeMap<Kind, u64>,
    /// The first of each kind.
    pub findings: Vec<Finding>,
    /// Acknowledged messages that have not arrived where no connection was to receive them.
    pub undecided: u64,
}

impl Verdict {
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    /// Whether every promise was kept as far as can be told.
    pub fn is_clean(&self) -> bool {
        self.counts.values().all(|count| *count == 0)
    }

    fn add(&mut self, kind: Kind, what: impl FnOnce() -> String) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= EXAMPLES_MAX as u64 {
            self.findings.push(Finding { kind, what: what() });
        }
    }
}

/// Events in, a [`Verdict`] out.
#[derive(Debug, Default)]
pub struct History {
    streams: Vec<Stream>,
    subscribers: Vec<Subscriber>,
    /// What is known to be wrong already; losses are known at the end only.
    so_far: Verdict,
}

impl History {
    pub fn add_stream(&mut self, spec: StreamSpec) -> StreamId {
        let (acked, again, refused) = (Numbers::default(), Numbers::default(), Numbers::default());
        self.streams.push(Stream { spec, sent: 0, acked, last_acked: None, again, refused });
        StreamId(self.streams.len() - 1)
    }

    pub fn add_subscriber(&mut self, spec: SubscriberSpec) -> SubscriberId {
        let inboxes = spec.streams.iter().map(|id| {
            let topics = self.streams[id.0].spec.topics as usize;
            let highest = vec![None; topics];
            let (seen, excused) = (Numbers::default(), Numbers::default());
            (*id, Inbox { seen, highest_here: highest.clone(), highest, excused, since: 0 })
        });
        let inboxes = inboxes.collect();
        self.subscribers.push(Subscriber { spec, connected: false, inboxes });
        SubscriberId(self.subscribers.len() - 1)
    }

    /// A message is about to be sent, for the first time or again.
    pub fn sent(&mut self, stream: StreamId, number: u32) {
        let stream = &mut self.streams[stream.0];
        if number < stream.sent {
            stream.again.insert(number);
        } else {
            stream.sent = number + 1;
            self.so_far.published += 1;
        }
    }

    /// PUBACK or PUBREC with success has come.
    pub fn acked(&mut self, stream: StreamId, number: u32) {
        let stream = &mut self.streams[stream.0];
        if stream.acked.insert(number) {
            stream.last_acked = stream.last_acked.max(Some(number));
            self.so_far.acknowledged += 1;
        }
    }

    /// PUBACK or PUBREC with an error has come.
    pub fn refused(&mut self, stream: StreamId, number: u32) {
        self.streams[stream.0].refused.insert(number);
        self.so_far.refused += 1;
    }

    /// The client of a persistent session is back and has none.
    pub fn session_lost(&mut self, client: &str) {
        self.so_far.add(Kind::SessionLost, || format!("{client} came back and had no session"));
    }

    /// The highest number that was acknowledged.
    pub fn last_acked(&self, stream: StreamId) -> Option<u32> {
        self.streams[stream.0].last_acked
    }

    /// A new connection is ready to receive: CONNACK of a persistent session that is subscribed, or SUBACK.
    pub fn connected(&mut self, subscriber: SubscriberId) {
        let subscriber = &mut self.subscribers[subscriber.0];
        subscriber.connected = true;
        for (id, inbox) in &mut subscriber.inboxes {
            inbox.highest_here.fill(None);
            if !subscriber.spec.persistent {
                // What was sent while it was away, up to the SUBACK, need not come.
                let sent = self.streams[id.0].sent;
                (inbox.since..sent).for_each(|number| _ = inbox.excused.insert(number));
                inbox.since = sent;
            }
        }
    }

    /// The connection is gone.
    pub fn disconnected(&mut self, subscriber: SubscriberId) {
        let subscriber = &mut self.subscribers[subscriber.0];
        if !std::mem::take(&mut subscriber.connected) || subscriber.spec.persistent {
            return;
        }
        for (id, inbox) in &mut subscriber.inboxes {
            // What is later, in its topic, than everything that arrived may have been under way.
            let sent = self.streams[id.0].sent;
            let topics = inbox.highest_here.len();
            for number in inbox.since..sent {
                if Some(number) > inbox.highest_here[number as usize % topics] {
                    inbox.excused.insert(number);
                }
            }
            inbox.since = sent;
        }
    }

    /// A message has arrived that is new to the client: at QoS 2, not one whose PUBREL is due.
    pub fn received(&mut self, subscriber: SubscriberId, stream: StreamId, number: u32, dup: bool) {
        let (of, out) = (&mut self.subscribers[subscriber.0], &mut self.so_far);
        let from = self.streams.get(stream.0).filter(|from| number < from.sent);
        let (Some(from), Some(inbox)) = (from, of.inboxes.get_mut(&stream)) else {
            out.add(Kind::Unknown, || format!("{}: nobody sent it {number} of {}", of.spec.name, stream.0));
            return;
        };
        let what = |text: &str| format!("{}: {number} of {} {text}", of.spec.name, from.spec.name);
        let topic = (number % from.spec.topics) as usize;
        let (highest, highest_here) = (inbox.highest[topic], inbox.highest_here[topic]);
        if inbox.seen.insert(number) {
            out.delivered += 1;
            if highest > Some(number) && !from.refused.contains(number) {
                out.add(Kind::Reordered, || what(&format!("came after {}", highest.unwrap_or_default())));
            }
        } else if of.spec.once && from.spec.once {
            out.add(Kind::Duplicated, || what("came twice"));
        } else {
            out.repeated += 1;
            if dup && highest_here > Some(number) && !from.again.contains(number) {
                let later = highest_here.unwrap_or_default();
                out.add(Kind::StaleDup, || what(&format!("came again after {later}")));
            }
        }
        inbox.highest[topic] = highest.max(Some(number));
        inbox.highest_here[topic] = highest_here.max(Some(number));
    }

    /// A new subscription was sent `got` as the retained message of a stream whose number `acked`
    /// had been acknowledged before.
    pub fn read_retained(&mut self, stream: StreamId, acked: Option<u32>, got: Option<u32>) {
        if got < acked {
            let name = &self.streams[stream.0].spec.name;
            let found = got.map_or("nothing".to_owned(), |number| number.to_string());
            let acked = acked.unwrap_or_default();
            self.so_far.add(Kind::StaleRetained, || {
                format!("a subscription to {name} was sent {found} after {acked} was acknowledged")
            });
        }
    }

    /// Whether something acknowledged has not arrived yet.
    pub fn is_complete(&self) -> bool {
        !self.subscribers.iter().any(|subscriber| self.missing(subscriber).next().is_some())
    }

    fn missing<'a>(&'a self, subscriber: &'a Subscriber) -> impl Iterator<Item = (StreamId, u32)> + 'a {
        subscriber.inboxes.iter().flat_map(|(id, inbox)| {
            let acked = self.streams[id.0].acked.iter();
            acked.filter(|n| !inbox.seen.contains(*n) && !inbox.excused.contains(*n)).map(|n| (*id, n))
        })
    }

    /// What is wrong whatever comes later; nothing is taken for lost yet.
    pub fn so_far(&self) -> &Verdict {
        &self.so_far
    }

    /// What is wrong if nothing comes any more.
    pub fn verdict(&self) -> Verdict {
        let mut verdict = self.so_far.clone();
        for subscriber in &self.subscribers {
            for (stream, number) in self.missing(subscriber) {
                if subscriber.connected {
                    let (name, from) = (&subscriber.spec.name, &self.streams[stream.0].spec.name);
                    verdict.add(Kind::Lost, || format!("{name}: {number} of {from} never came"));
                } else {
                    verdict.undecided += 1;
                }
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One stream on two topics, one subscriber of it that is connected.
    fn history(once: bool, persistent: bool) -> (History, StreamId, SubscriberId) {
        let mut history = History::default();
        let stream = history.add_stream(StreamSpec { name: "p1".to_owned(), once, topics: 2 });
        let spec = SubscriberSpec { name: "s1".to_owned(), persistent, once, streams: vec![stream] };
        let subscriber = history.add_subscriber(spec);
        history.connected(subscriber);
        (history, stream, subscriber)
    }

    fn publish(history: &mut History, stream: StreamId, numbers: std::ops::Range<u32>) {
        for number in numbers {
            history.sent(stream, number);
            history.acked(stream, number);
        }
    }

    fn kinds(history: &History) -> Vec<(Kind, u64)> {
        history.verdict().counts.into_iter().collect()
    }

    #[test]
    fn a_good_history_is_clean() {
        for once in [false, true] {
            let (mut history, p, s) = history(once, true);
            publish(&mut history, p, 0..4);
            (0..2).for_each(|n| history.received(s, p, n, false));
            assert!(!history.is_complete());
            history.disconnected(s);
            history.connected(s);
            (2..4).for_each(|n| history.received(s, p, n, true));
            // Sent and never acknowledged: it may come or not.
            history.sent(p, 4);
            assert!(history.is_complete());
            let verdict = history.verdict();
            assert!(verdict.is_clean() && verdict.findings.is_empty(), "{verdict:?}");
            assert_eq!((verdict.published, verdict.acknowledged, verdict.delivered), (5, 4, 4));
        }
    }

    #[test]
    fn a_lost_message_is_found() {
        let (mut history, p, s) = history(false, true);
        publish(&mut history, p, 0..5);
        [0, 1, 2, 4].into_iter().for_each(|n| history.received(s, p, n, false));
        assert_eq!(kinds(&history), [(Kind::Lost, 1)]);
        assert_eq!(history.verdict().findings[0].what, "s1: 3 of p1 never came");
    }

    #[test]
    fn a_session_whose_client_is_away_has_lost_nothing_yet() {
        let (mut history, p, s) = history(false, true);
        publish(&mut history, p, 0..5);
        history.disconnected(s);
        assert_eq!((kinds(&history), history.verdict().undecided), (vec![], 5));
    }

    #[test]
    fn a_clean_session_is_owed_what_came_while_it_was_connected() {
        let (mut history, p, s) = history(false, false);
        publish(&mut history, p, 0..4);
        [0, 1, 3].into_iter().for_each(|n| history.received(s, p, n, false));
        // 2 is later than everything of its topic, so it may have been under way.
        history.disconnected(s);
        publish(&mut history, p, 4..6);
        history.connected(s);
        publish(&mut history, p, 6..12);
        assert_eq!(kinds(&history), [(Kind::Lost, 6)], "6 to 11 are owed");
        [6, 7, 10, 9, 11].into_iter().for_each(|n| history.received(s, p, n, false));
        assert_eq!(kinds(&history), [(Kind::Lost, 1)], "8 was passed over");
        // That the connection ends later does not excuse it.
        history.disconnected(s);
        history.connected(s);
        assert_eq!(kinds(&history), [(Kind::Lost, 1)]);
    }

    #[test]
    fn a_duplicate_is_found_where_it_is_one() {
        let (mut history, p, s) = history(true, true);
        publish(&mut history, p, 0..2);
        [0, 1, 1].into_iter().for_each(|n| history.received(s, p, n, false));
        assert_eq!(kinds(&history), [(Kind::Duplicated, 1)]);

        let (mut history, p, s) = self::history(false, true);
        publish(&mut history, p, 0..2);
        [0, 1, 1].into_iter().for_each(|n| history.received(s, p, n, false));
        assert_eq!((kinds(&history), history.verdict().repeated), (vec![], 1));
    }

    #[test]
    fn reordering_is_found_within_a_topic_only() {
        let (mut history, p, s) = history(false, true);
        publish(&mut history, p, 0..4);
        [1, 0, 3, 2].into_iter().for_each(|n| history.received(s, p, n, false));
        assert!(history.verdict().is_clean(), "0 and 1, 2 and 3 are of different topics");
        publish(&mut history, p, 4..8);
        [6, 4, 5, 7].into_iter().for_each(|n| history.received(s, p, n, false));
        assert_eq!(kinds(&history), [(Kind::Reordered, 1)]);
        assert_eq!(history.verdict().findings[0].what, "s1: 4 of p1 came after 6");
    }

    #[test]
    fn what_was_refused_may_be_overtaken() {
        let (mut history, p, s) = history(false, true);
        history.sent(p, 0);
        history.sent(p, 1);
        history.sent(p, 2);
        history.refused(p, 0);
        history.sent(p, 0);
        [2, 1, 0].into_iter().for_each(|n| history.received(s, p, n, false));
        assert!(history.verdict().is_clean(), "{:?}", history.verdict());
    }

    #[test]
    fn a_stale_dup_is_found() {
        let (mut history, p, s) = history(false, true);
        publish(&mut history, p, 0..8);
        (0..6).for_each(|n| history.received(s, p, n, false));
        history.disconnected(s);
        history.connected(s);
        // In order, then what is new: as it should be.
        (2..6).for_each(|n| history.received(s, p, n, true));
        assert!(history.so_far().is_clean());
        (6..8).for_each(|n| history.received(s, p, n, false));
        // Long acknowledged, and older than what has just come.
        history.received(s, p, 4, true);
        assert_eq!(kinds(&history), [(Kind::StaleDup, 1)]);
    }

    #[test]
    fn a_message_that_its_publisher_repeated_may_come_again_later() {
        let (mut history, p, s) = history(false, true);
        publish(&mut history, p, 0..4);
        (0..4).for_each(|n| history.received(s, p, n, false));
        publish(&mut history, p, 0..4);
        (0..4).for_each(|n| history.received(s, p, n, true));
        let verdict = history.verdict();
        assert!(verdict.is_clean() && verdict.repeated == 4, "{verdict:?}");
        assert_eq!(verdict.published, 4, "a repetition is no new message");
    }

    #[test]
    fn what_nobody_sent_is_found() {
        let (mut history, p, s) = history(false, true);
        publish(&mut history, p, 0..1);
        history.received(s, p, 0, false);
        history.received(s, p, 1, false);
        let other = history.add_stream(StreamSpec { name: "p2".to_owned(), once: false, topics: 1 });
        publish(&mut history, other, 0..1);
        history.received(s, other, 0, false);
        assert_eq!(kinds(&history), [(Kind::Unknown, 2)], "and not what is not subscribed to");
    }

    #[test]
    fn a_stale_retained_message_is_found() {
        let (mut history, p, _) = history(false, false);
        history.read_retained(p, None, None);
        publish(&mut history, p, 0..3);
        assert_eq!(history.last_acked(p), Some(2));
        history.read_retained(p, Some(1), Some(2));
        assert_eq!(history.so_far().count(Kind::StaleRetained), 0);
        history.read_retained(p, Some(2), Some(1));
        history.read_retained(p, Some(2), None);
        assert_eq!(history.so_far().count(Kind::StaleRetained), 2);
    }

    #[test]
    fn a_lost_session_is_found() {
        let (mut history, ..) = history(false, true);
        history.session_lost("s1");
        assert_eq!(kinds(&history), [(Kind::SessionLost, 1)]);
    }

    #[test]
    fn many_of_a_kind_are_counted_and_few_are_told() {
        let (mut history, p, _) = history(false, true);
        publish(&mut history, p, 0..1000);
        let verdict = history.verdict();
        assert_eq!((verdict.count(Kind::Lost), verdict.findings.len()), (1000, EXAMPLES_MAX));
    }
}
