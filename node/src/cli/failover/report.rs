//! What came of a run, for people and for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::super::exit::{Exit, Failure};
use super::super::out;
use super::availability::{Gap, Times};
use super::exec::Exec;
use super::history::{Finding, Kind, Verdict};
use super::record::Record;

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Nothing acknowledged was lost, duplicated at QoS 2 or out of order, as far as can be told.
    pub passed: bool,
    /// Milliseconds from the first message to the end of publishing.
    pub duration_ms: u64,
    pub published: u64,
    pub acknowledged: u64,
    pub delivered: u64,
    /// Repetitions at QoS 1, which are allowed.
    pub repeated_qos1: u64,
    /// Error codes instead of acknowledgements; the messages were sent again.
    pub refused: u64,
    /// Acknowledged messages that have not arrived where no node let the subscriber in to receive them.
    pub undecided: u64,
    /// How often what must not happen did.
    pub violations: BTreeMap<Kind, u64>,
    /// The first of each kind.
    pub findings: Vec<Finding>,
    /// The longest time in which no client got any acknowledgement, milliseconds.
    pub longest_gap_ms: u64,
    /// The longest time in which one client that may change nodes got none, milliseconds.
    pub longest_client_gap_ms: u64,
    /// From the loss of a connection to the next CONNACK on any node.
    pub reconnect: Times,
    pub nodes: Vec<NodeReport>,
    pub exec: Option<ExecReport>,
}

/// One node, as the publisher that stays with it sees it.
#[derive(Clone, Debug, Serialize)]
pub struct NodeReport {
    pub name: String,
    pub acknowledged: u64,
    /// The longest time without an acknowledgement, milliseconds.
    pub longest_gap_ms: u64,
    /// Connections of all clients that ended without their doing.
    pub broken_connections: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct ExecReport {
    pub runs: u64,
    pub failed: u64,
}

fn ms(time: Duration) -> u64 {
    time.as_millis() as u64
}

impl Report {
    /// `lasted`: from the start to the end of publishing.
    pub fn new(
        names: &[String],
        record: &Record,
        lasted: Duration,
        verdict: Verdict,
        exec: Option<&Exec>,
    ) -> Self {
        let nodes = names.iter().zip(&record.nodes).map(|(name, node)| NodeReport {
            name: name.clone(),
            acknowledged: node.acked,
            longest_gap_ms: ms(node.gap.up_to(lasted)),
            broken_connections: node.broken,
        });
        let gap = |gap: &Gap| ms(gap.up_to(lasted));
        Report {
            passed: verdict.is_clean() && verdict.undecided == 0 && verdict.acknowledged > 0,
            duration_ms: ms(lasted),
            published: verdict.published,
            acknowledged: verdict.acknowledged,
            delivered: verdict.delivered,
            repeated_qos1: verdict.repeated,
            refused: verdict.refused,
            undecided: verdict.undecided,
            violations: Kind::ALL.into_iter().map(|kind| (kind, verdict.count(kind))).collect(),
            findings: verdict.findings,
            longest_gap_ms: gap(&record.any),
            longest_client_gap_ms: record.roaming.iter().map(gap).max().unwrap_or(0),
            reconnect: Times::of(&record.reconnects),
            nodes: nodes.collect(),
            exec: exec.map(|exec| ExecReport { runs: exec.runs, failed: exec.failed }),
        }
    }

    pub fn describe(&self) -> String {
        let never = |ms: Option<u64>| ms.map_or("-".to_owned(), |ms| format!("{ms} ms"));
        let mut rows = vec![
            ["duration".to_owned(), format!("{:.1} s", self.duration_ms as f64 / 1000.0)],
            ["messages published".to_owned(), self.published.to_string()],
            ["acknowledged".to_owned(), self.acknowledged.to_string()],
            ["refused and sent again".to_owned(), self.refused.to_string()],
            ["deliveries".to_owned(), self.delivered.to_string()],
            ["repeated at QoS 1 (allowed)".to_owned(), self.repeated_qos1.to_string()],
        ];
        rows.extend(self.violations.iter().map(|(kind, n)| [kind.title().to_owned(), n.to_string()]));
        if self.undecided > 0 {
            rows.push(["not arrived, subscriber shut out".to_owned(), self.undecided.to_string()]);
        }
        let of_any = format!("{} ms", self.longest_gap_ms);
        rows.push(["longest time, no acknowledgements at all".to_owned(), of_any]);
        let of_one = format!("{} ms", self.longest_client_gap_ms);
        rows.push(["longest time, none to a client that moves".to_owned(), of_one]);
        rows.push(["reconnections".to_owned(), self.reconnect.count.to_string()]);
        rows.push(["reconnected, median".to_owned(), never(self.reconnect.p50_ms)]);
        rows.push(["reconnected, 99 of 100 within".to_owned(), never(self.reconnect.p99_ms)]);
        if let Some(exec) = &self.exec {
            rows.push(["command run".to_owned(), format!("{} times, {} failed", exec.runs, exec.failed)]);
        }
        let nodes = self.nodes.iter().map(|node| {
            [
                node.name.clone(),
                node.acknowledged.to_string(),
                format!("{} ms", node.longest_gap_ms),
                node.broken_connections.to_string(),
            ]
        });
        let mut text = out::table(["WHAT", "FIGURE"], rows);
        text.push('\n');
        text += &out::table(["NODE", "ACKNOWLEDGED", "LONGEST WITHOUT", "CONNECTIONS BROKEN"], nodes);
        if !self.findings.is_empty() {
            let rows = self.findings.iter().map(|f| [f.kind.title().to_owned(), f.what.clone()]);
            text.push('\n');
            text += &out::table(["WRONG", "FIRST OF THESE"], rows);
        }
        text
    }

    /// How the command ends.
    pub fn outcome(&self) -> Result<(), Failure> {
        let wrong: Vec<String> = self
            .violations
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(kind, count)| format!("{}: {count}", kind.title()))
            .collect();
        let exec_failed = self.exec.as_ref().map_or(0, |exec| exec.failed);
        let (exit, message) = if !wrong.is_empty() {
            (Exit::Broken, format!("the cluster broke a promise: {}", wrong.join(", ")))
        } else if self.acknowledged == 0 {
            (Exit::Unhealthy, "no node acknowledged anything".to_owned())
        } else if self.undecided > 0 {
            let what = "acknowledged messages have not arrived, and no node let their subscribers in";
            (Exit::Unhealthy, format!("{} {what}", self.undecided))
        } else if exec_failed > 0 {
            (Exit::Error, format!("nothing was lost, but the command failed {exec_failed} times"))
        } else {
            return Ok(());
        };
        Err(Failure::new(exit, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdict: Verdict) -> Report {
        let mut record = Record::new(1);
        record.nodes[0].gap.event(Duration::from_millis(100));
        Report::new(&["n1".to_owned()], &record, Duration::from_millis(2500), verdict, None)
    }

    #[test]
    fn the_exit_code_says_what_came_of_it() {
        let good = Verdict { acknowledged: 5, repeated: 3, refused: 2, ..Verdict::default() };
        let exit = |report: &Report| report.outcome().err().map_or(Exit::Ok, |failure| failure.exit);
        let check = |verdict: Verdict, want| {
            let report = report(verdict);
            assert_eq!((exit(&report), report.passed), (want, want == Exit::Ok), "{report:?}");
        };
        check(good.clone(), Exit::Ok);
        check(Verdict { undecided: 1, ..good.clone() }, Exit::Unhealthy);
        check(Verdict::default(), Exit::Unhealthy);
        for kind in Kind::ALL {
            check(Verdict { counts: [(kind, 1)].into(), ..good.clone() }, Exit::Broken);
        }
        let mut failed = report(good);
        failed.exec = Some(ExecReport { runs: 2, failed: 1 });
        assert_eq!(exit(&failed), Exit::Error);
    }

    #[test]
    fn people_and_programs_read_the_same() {
        let verdict = Verdict { acknowledged: 5, counts: [(Kind::Lost, 2)].into(), ..Verdict::default() };
        let report = report(verdict);
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!((&json["violations"]["lost"], &json["violations"]["stale_dup"]), (&2.into(), &0.into()));
        assert_eq!(json["nodes"][0]["longest_gap_ms"], 2400);
        let text = report.describe();
        for line in ["acknowledged and lost", "duplicated at QoS 2", "n1 ", "2400 ms"] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
