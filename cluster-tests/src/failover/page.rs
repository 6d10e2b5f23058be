//! `docs/failover.md`.

use std::fmt::Write;

use super::{Figure, Figures, Machine, Role};

/// What has to wait for a dead node waits this long: its lease at the leader, and until its end is
/// seen, committed and applied. The same when it led.
const LEASE_MS: f64 = 1_800.0;
/// Promised for what follows a node's death in the end.
const DEATH_MS: f64 = 3_000.0;
/// Publishes go on so soon after the leader's death.
const ELECTION_MS: f64 = 1_000.0;
const TAKEOVER_MS: f64 = 50.0;
/// How much longer than before an answer may take before it counts as delayed by a death.
const NOISE_MS: f64 = 50.0;

/// A row of the table: what is measured, and the bound that the 99th percentile has to keep.
struct Row {
    figure: Figure,
    what: &'static str,
    bound: Bound,
}

enum Bound {
    Ms(f64),
    /// Nothing is to be seen beside the same figure before the kill.
    AsBefore(Figure),
}

fn rows(role: Role) -> Vec<Row> {
    // The owner is the leader in some of its kills.
    let elects = role != Role::Follower;
    let durable = if elects { Bound::Ms(ELECTION_MS) } else { Bound::AsBefore(Figure::DurableBefore) };
    let durable_dead = if elects { Bound::Ms(ELECTION_MS) } else { Bound::AsBefore(Figure::DurableBefore) };
    let row = |figure, what, bound| Row { figure, what, bound };
    vec![
        row(Figure::Durable, "PUBACK, the message for a persistent session on a live node", durable),
        row(Figure::DurableDead, "PUBACK, for a persistent session whose owner died", durable_dead),
        row(
            Figure::Direct,
            "PUBACK, for a clean session on a live node",
            Bound::AsBefore(Figure::DirectBefore),
        ),
        row(Figure::DirectDead, "PUBACK, for a clean session of the dead node", Bound::Ms(LEASE_MS)),
        row(Figure::SubAck, "SUBACK", Bound::Ms(LEASE_MS)),
        row(Figure::Retained, "PUBACK of a retained message", Bound::Ms(LEASE_MS)),
        row(Figure::Back, "a client of the dead node has the CONNACK of another", Bound::Ms(ELECTION_MS)),
        row(
            Figure::Queue,
            "it has its queue: 100 unacknowledged messages, QoS 1 and 2",
            Bound::Ms(ELECTION_MS),
        ),
        row(Figure::Will, "a will of the dead node's clients", Bound::Ms(DEATH_MS)),
        row(Figure::Takeover, "takeover from a live node, CONNECT to CONNACK", Bound::Ms(TAKEOVER_MS)),
    ]
}

/// The whole page. `version`: of the software that was measured.
pub fn page(all: &[Figures], machine: &Machine, version: &str) -> String {
    let mut out = String::from(
        "# Failover in figures\n\n\
         Written by `scripts/failover-report`: three nodes as processes of their own on one machine, kill -9,\n\
         clients on the two nodes that live and on the one that dies, and the node is started again before the\n\
         next kill. All the while `rookery failover test` publishes on all nodes and checks what arrives.\n",
    );
    let Machine { cpu, cores, memory_gib, kernel, load, sync_ms } = machine;
    let _ = write!(
        out,
        "\n{version}, release build. {cores} cores ({cpu}), {memory_gib} GiB, Linux {kernel}; a write of 4 KiB\n\
         and its fdatasync took {sync_ms:.2} ms (median). Nodes, clients and checks shared these cores; load\n\
         average {load:.1} over the last 15 minutes.\n"
    );
    losses(&mut out, all);
    all.iter().for_each(|figures| times(&mut out, figures));
    out.push_str(NOTES);
    out
}

fn losses(out: &mut String, all: &[Figures]) {
    out.push_str("\n## What was lost\n\n| |");
    all.iter().for_each(|figures| _ = write!(out, " {} killed |", figures.role));
    out.push_str("\n|---|");
    all.iter().for_each(|_| out.push_str("---:|"));
    out.push('\n');
    let mut row = |what: &str, of: &dyn Fn(&Figures) -> u64| {
        let _ = write!(out, "| {what} |");
        all.iter().for_each(|figures| _ = write!(out, " {} |", thousands(of(figures))));
        out.push('\n');
    };
    row("kills", &|f| f.kills as u64);
    row("of these, the node led", &|f| f.leaders as u64);
    row("messages acknowledged", &|f| f.of_load("acknowledged"));
    row("deliveries", &|f| f.of_load("delivered"));
    row("**acknowledged and lost**", &|f| f.of_load("violations/lost") + f.of_load("undecided"));
    row("**duplicated at QoS 2**", &|f| f.of_load("violations/duplicated"));
    row("**out of order**", &|f| {
        f.of_load("violations/reordered")
            + f.of_load("violations/stale_dup")
            + f.of_load("violations/unknown")
    });
    row("**stale retained messages**", &|f| f.of_load("violations/stale_retained"));
    row("**sessions lost**", &|f| f.of_load("violations/session_lost"));
    row("**wills that did not come**", &|f| f.wills_missing);
    row("**wills that came twice**", &|f| f.wills_twice);
    row("**queues with other messages, packet ids or order**", &|f| f.queues_wrong);
    row("repeated at QoS 1 (allowed)", &|f| f.of_load("repeated_qos1"));
    row("errors to clients of live nodes (they sent again)", &|f| f.errors);
}

fn times(out: &mut String, figures: &Figures) {
    let _ = write!(
        out,
        "\n## When a node dies: {}, {} kills\n\n\
         | milliseconds | at most | median | p99 | longest | kept |\n|---|---:|---:|---:|---:|---|\n",
        figures.role, figures.kills
    );
    for Row { figure, what, bound } in rows(figures.role) {
        if figures.count(figure) == 0 {
            continue;
        }
        let [median, high, longest] = [0.5, 0.99, 1.0].map(|share| figures.quantile(figure, share));
        let (bound, most) = match bound {
            Bound::Ms(most) => (format!("{most:.0}"), most),
            Bound::AsBefore(before) => {
                let [median, normal] = [0.5, 0.99].map(|share| figures.quantile(before, share));
                (format!("as before: {median:.0}, p99 {normal:.0}"), normal + NOISE_MS)
            }
        };
        let kept = if high <= most { "yes" } else { "**no**" };
        let _ = writeln!(out, "| {what} | {bound} | {median:.1} | {high:.1} | {longest:.1} | {kept} |");
    }
    let _ = writeln!(
        out,
        "\nThe checked load's clients had a connection again within {} ms (p99).",
        figures.of_load("reconnect/p99_ms")
    );
}

/// 1234567 as 1,234,567.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

const NOTES: &str = "\n## How to read it\n\n\
- Each PUBACK and SUBACK figure is, for each kill and each live node, the longest wait of a client there that\n  \
asks again 10 ms after each answer. \"As before\" are the median and p99 of the same in the four seconds before\n  \
the kill; a p99 up to 50 ms above that one counts as kept.\n\
- A message for a persistent session waits for a quorum, which is there when a follower dies, and after an\n  \
election when the leader does. One for clean sessions on live nodes waits for these alone.\n\
- What has to wait for the dead node itself (its clean sessions may have taken a message over; a SUBACK and a\n  \
retained message promise something of every live node) waits until its lease has run out: 1.7 s, and the\n  \
time to see and commit it. When the leader dies the election falls within that time: those who vote say when\n  \
they last heard a leader, and no lease counts from later than that.\n\
- Wills are those of clean and of persistent sessions, 3.1.1 and 5.0; all times of a dead node's clients begin\n  \
with the kill.\n\
- The owner is the node with the clients, in turn each of the three.\n\n\
## Your own cluster\n\n\
```sh\n\
rookery failover test --duration 60s --exec ./kill-one.sh --every 15s\n\
```\n\n\
publishes and subscribes on all nodes of a running cluster, at QoS 1 and 2, to clean and persistent sessions\n\
and retained, below a topic of its own that it clears up in the end. It ends with 8 when something\n\
acknowledged was lost, came twice at QoS 2, or came out of order; `-o json` prints all figures for programs.\n";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_missed_target_is_told() {
        let mut figures = Figures::new(Role::Follower);
        figures.kills = 1;
        for (figure, ms) in
            [(Figure::DurableBefore, 5), (Figure::Durable, 50), (Figure::Direct, 60), (Figure::Will, 2_000)]
        {
            figures.add(figure, Duration::from_millis(ms));
        }
        figures.load.insert("violations/lost".to_owned(), 1_234);
        let (cpu, kernel) = ("c".to_owned(), "6".to_owned());
        let machine = Machine { cpu, cores: 2, memory_gib: 8, kernel, load: 1.0, sync_ms: 0.5 };
        let page = page(&[figures], &machine, "rookery 1");
        let line = |what: &str| page.lines().find(|line| line.contains(what)).unwrap_or_default();
        assert!(line("persistent session on a live node").ends_with("| yes |"), "{page}");
        assert!(line("clean session on a live node").ends_with("| **no** |"), "nothing was measured before");
        assert!(line("a will of").ends_with("| 3000 | 2000.0 | 2000.0 | 2000.0 | yes |"), "{page}");
        assert!(line("acknowledged and lost").contains("| 1,234 |"), "{page}");
        assert_eq!(line("SUBACK |"), "", "what was not measured is not told");
    }
}
