//! What was measured, as it is kept between the runs of the report.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    /// The node with the clients, one node after the other, whichever part it has in consensus.
    Owner,
}

impl Role {
    pub const ALL: [Role; 3] = [Role::Leader, Role::Follower, Role::Owner];

    pub fn parse(text: &str) -> Option<Self> {
        Role::ALL.into_iter().find(|role| role.to_string() == text)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Owner => "owner",
        })
    }
}

/// A time that is measured at each kill, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// The longest wait for a PUBACK of a client on a live node, the message for a persistent session
    /// whose owner lives.
    Durable,
    /// The same, for a clean session on a live node.
    Direct,
    /// For a persistent session whose owner has died.
    DurableDead,
    /// For a clean session of the dead node.
    DirectDead,
    /// The longest wait for a SUBACK on a live node.
    SubAck,
    /// The longest wait for the PUBACK of a retained message.
    Retained,
    /// From the kill until a client of the dead node has the CONNACK of another.
    Back,
    /// From the kill until it has been sent again all that it had not acknowledged.
    Queue,
    /// From the kill until a will of a client of the dead node arrives.
    Will,
    /// From CONNECT to CONNACK of a client whose session is connected to another live node.
    Takeover,
    /// As `Durable`, `Direct`, `SubAck` and `Retained`, before the kill.
    DurableBefore,
    DirectBefore,
    SubAckBefore,
    RetainedBefore,
}

impl Figure {
    pub const ALL: [Figure; 14] = [
        Figure::Durable,
        Figure::Direct,
        Figure::DurableDead,
        Figure::DirectDead,
        Figure::SubAck,
        Figure::Retained,
        Figure::Back,
        Figure::Queue,
        Figure::Will,
        Figure::Takeover,
        Figure::DurableBefore,
        Figure::DirectBefore,
        Figure::SubAckBefore,
        Figure::RetainedBefore,
    ];

    /// In files.
    fn key(self) -> &'static str {
        match self {
            Figure::Durable => "durable_ms",
            Figure::Direct => "direct_ms",
            Figure::DurableDead => "durable_dead_ms",
            Figure::DirectDead => "direct_dead_ms",
            Figure::SubAck => "suback_ms",
            Figure::Retained => "retained_ms",
            Figure::Back => "back_ms",
            Figure::Queue => "queue_ms",
            Figure::Will => "will_ms",
            Figure::Takeover => "takeover_ms",
            Figure::DurableBefore => "durable_before_ms",
            Figure::DirectBefore => "direct_before_ms",
            Figure::SubAckBefore => "suback_before_ms",
            Figure::RetainedBefore => "retained_before_ms",
        }
    }
}

/// All that was measured with one role.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    pub role: Role,
    pub kills: usize,
    /// How many of the killed nodes led.
    pub leaders: usize,
    samples_ms: BTreeMap<Figure, Vec<f64>>,
    /// Wills that did not come.
    pub wills_missing: u64,
    /// Wills that came more than once.
    pub wills_twice: u64,
    /// Queues that came back with other messages, packet ids or in another order.
    pub queues_wrong: u64,
    /// Answers to clients of live nodes that were errors, or ends of their connections.
    pub errors: u64,
    /// What the checked load counted.
    pub load: BTreeMap<String, u64>,
}

/// What the load's report says of losses, and how long its clients took to be back.
const LOAD: [&str; 13] = [
    "/published",
    "/acknowledged",
    "/delivered",
    "/repeated_qos1",
    "/violations/lost",
    "/violations/duplicated",
    "/violations/reordered",
    "/violations/stale_dup",
    "/violations/unknown",
    "/violations/stale_retained",
    "/violations/session_lost",
    "/undecided",
    "/reconnect/p99_ms",
];

impl Figures {
    pub fn new(role: Role) -> Self {
        Figures {
            role,
            kills: 0,
            leaders: 0,
            samples_ms: BTreeMap::new(),
            wills_missing: 0,
            wills_twice: 0,
            queues_wrong: 0,
            errors: 0,
            load: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, figure: Figure, took: Duration) {
        self.samples_ms.entry(figure).or_default().push(took.as_secs_f64() * 1000.0);
    }

    pub fn count(&self, figure: Figure) -> usize {
        self.samples_ms.get(&figure).map_or(0, Vec::len)
    }

    /// The smallest sample that this share (0 to 1) of all do not exceed; 0 when there are none.
    pub fn quantile(&self, figure: Figure, share: f64) -> f64 {
        let mut sorted = self.samples_ms.get(&figure).cloned().unwrap_or_default();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() as f64 * share).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
    }

    /// Takes over what the checked load reports.
    pub fn checked(&mut self, report: &Value) {
        for pointer in LOAD {
            let count = report.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
            self.load.insert(pointer.trim_start_matches('/').to_owned(), count);
        }
    }

    /// A count of the checked load.
    pub fn of_load(&self, name: &str) -> u64 {
        self.load.get(name).copied().unwrap_or(0)
    }

    /// Everything that must not happen.
    pub fn wrong(&self) -> u64 {
        let violations = self.load.iter().filter(|(name, _)| name.starts_with("violations/"));
        violations.map(|(_, count)| count).sum::<u64>()
            + self.of_load("undecided")
            + self.wills_missing
            + self.wills_twice
            + self.queues_wrong
    }

    pub fn to_json(&self) -> Value {
        let samples: serde_json::Map<String, Value> =
            self.samples_ms.iter().map(|(figure, all)| (figure.key().to_owned(), json!(all))).collect();
        json!({
            "role": self.role.to_string(),
            "kills": self.kills,
            "leaders": self.leaders,
            "wills_missing": self.wills_missing,
            "wills_twice": self.wills_twice,
            "queues_wrong": self.queues_wrong,
            "errors": self.errors,
            "load": self.load,
            "samples": samples,
        })
    }

    /// `None` for what [`to_json`](Self::to_json) does not write.
    pub fn from_json(value: &Value) -> Option<Self> {
        let number = |key: &str| value[key].as_u64();
        let mut figures = Figures::new(Role::parse(value["role"].as_str()?)?);
        figures.kills = number("kills")? as usize;
        figures.leaders = number("leaders")? as usize;
        figures.wills_missing = number("wills_missing")?;
        figures.wills_twice = number("wills_twice")?;
        figures.queues_wrong = number("queues_wrong")?;
        figures.errors = number("errors")?;
        for (name, count) in value["load"].as_object()? {
            figures.load.insert(name.clone(), count.as_u64()?);
        }
        for figure in Figure::ALL {
            if let Some(samples) = value["samples"][figure.key()].as_array() {
                let samples = samples.iter().filter_map(Value::as_f64).collect();
                figures.samples_ms.insert(figure, samples);
            }
        }
        Some(figures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_survive_their_file() {
        let mut figures = Figures::new(Role::Owner);
        (1..=100).for_each(|ms| figures.add(Figure::Will, Duration::from_millis(ms)));
        figures.checked(&json!({"acknowledged": 5, "violations": {"lost": 2}}));
        figures.wills_twice = 1;
        assert_eq!((figures.quantile(Figure::Will, 0.99), figures.quantile(Figure::Will, 0.5)), (99.0, 50.0));
        assert_eq!((figures.wrong(), figures.of_load("acknowledged")), (3, 5));
        assert_eq!(Figures::from_json(&figures.to_json()), Some(figures));
    }
}
