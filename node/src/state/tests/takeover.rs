//! What becomes of a session and its will, however its connection ends and whenever its client
//! comes back: every combination, against what the standard says.
//!
//! Seconds of the replicated clock, which the test drives; the end of the connection is second 0.

use super::*;

/// Session Expiry Intervals, seconds.
const EXPIRIES_S: [u32; 3] = [0, 100, u32::MAX];
/// Will Delay Intervals, seconds: at once, shorter and longer than the expiry.
const DELAYS_S: [Option<u32>; 4] = [None, Some(0), Some(30), Some(300)];
/// When the client comes back.
const BACK_S: [u64; 5] = [0, 40, 70, 120, 400];
/// Nothing happens later than this.
const END_S: u64 = 500;
const STEP_S: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Another connection with this client id: the client is back at second 0.
    TakeoverSameNode,
    TakeoverOtherNode,
    Kick,
    /// DISCONNECT with its reason code and new expiry.
    Disconnect(u8, Option<u32>),
    /// Socket closed, protocol error or keep-alive timeout: all the same [MQTT-3.1.2-22, 4.13].
    Lost,
    NodeKilled,
    /// The node is back before anybody noticed that it was gone.
    NodeRestarted,
    Farewell,
}

const ENDS: [End; 15] = [
    End::TakeoverSameNode,
    End::TakeoverOtherNode,
    End::Kick,
    End::Disconnect(0x00, None),
    End::Disconnect(0x04, None),
    End::Disconnect(0x00, Some(0)),
    End::Disconnect(0x04, Some(0)),
    End::Disconnect(0x00, Some(50)),
    End::Disconnect(0x04, Some(50)),
    End::Disconnect(0x00, Some(u32::MAX)),
    End::Disconnect(0x04, Some(u32::MAX)),
    End::Lost,
    End::NodeKilled,
    End::NodeRestarted,
    End::Farewell,
];

#[derive(Clone, Copy, Debug)]
struct Row {
    /// The connection had resumed a session, rather than begun one.
    resumed: bool,
    expiry_s: u32,
    delay_s: Option<u32>,
    end: End,
    /// Of the CONNECT that follows.
    clean_start: bool,
    back_s: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expected {
    /// When the will is published; `None`: never.
    will_s: Option<u64>,
    /// CONNACK says so, subscriptions and queued messages are there.
    present: bool,
}

/// What MQTT 5.0 says. Of 3.1.1 it covers what there is: no delay, and a Clean Session of 1 is a
/// Clean Start of 1 with expiry 0 [3.1.1, MQTT-3.1.2-6].
mod standard {
    use super::*;

    pub(super) fn expected(row: Row) -> Expected {
        let back_s = row.back_s;
        // "If the Session Expiry Interval is absent, the Session Expiry Interval in the CONNECT
        // packet is used" (3.14.2.2.2).
        let expiry_s = match row.end {
            End::Disconnect(_, Some(expiry_s)) => expiry_s,
            _ => row.expiry_s,
        };
        // "If the Session Expiry Interval is absent or set to 0, the Session ends when the Network
        // Connection is closed. 0xFFFFFFFF: does not expire" (3.1.2.11.2). An operator who kicks
        // ends it by a clean start in the client's place.
        let session_ends_s = match (row.end, expiry_s) {
            (End::Kick, _) => 0,
            (_, u32::MAX) => u64::MAX,
            (_, expiry_s) => u64::from(expiry_s),
        };
        // "If Clean Start is 1, the Client and Server MUST discard any existing Session"
        // [MQTT-3.1.2-4]. "If Clean Start is 0 and there is a Session associated with the Client
        // Identifier, the Server MUST resume" [MQTT-3.1.2-5], otherwise a new one [MQTT-3.1.2-6].
        let present = !row.clean_start && back_s < session_ends_s;
        let session_ends_s = if present { u64::MAX } else { session_ends_s.min(back_s) };

        let Some(delay_s) = row.delay_s else { return Expected { will_s: None, present } };
        // "The Will Message MUST be removed from the stored Session State once … the Server has
        // received a DISCONNECT packet with a Reason Code of 0x00" [MQTT-3.1.2-10].
        if matches!(row.end, End::Disconnect(0x00, _)) {
            return Expected { will_s: None, present };
        }
        // "The Will Message MUST be published after the Network Connection is subsequently closed
        // and either the Will Delay Interval has elapsed or the Session ends" [MQTT-3.1.2-8].
        let due_s = u64::from(delay_s).min(session_ends_s);
        // "If a new Network Connection to this Session is made before the Will Delay Interval has
        // passed, the Server MUST NOT send the Will Message" [MQTT-3.1.3-9]. A takeover is such a
        // connection: "the Will Message of the existing connection is sent unless the new
        // connection specifies Clean Start of 0 and the Will Delay is greater than zero" (3.1.3.2.2).
        let cancelled = present && back_s < due_s;
        Expected { will_s: (!cancelled).then_some(due_s), present }
    }
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (resumed, expiry_s) in EXPIRIES_S.into_iter().flat_map(|e| [(false, e), (true, e)]) {
        for (delay_s, end) in DELAYS_S.into_iter().flat_map(|d| ENDS.map(|end| (d, end))) {
            for (back_s, clean_start) in BACK_S.into_iter().flat_map(|b| [(b, false), (b, true)]) {
                rows.push(Row { resumed, expiry_s, delay_s, end, clean_start, back_s });
            }
        }
    }
    rows.retain(|row| match row.end {
        End::TakeoverSameNode | End::TakeoverOtherNode => row.back_s == 0,
        // "If the Session Expiry Interval in the CONNECT packet was zero, then it is a Protocol
        // Error to set a non-zero Session Expiry Interval" [MQTT-3.14.2-2]: the connection is lost.
        End::Disconnect(_, Some(expiry_s)) => row.expiry_s > 0 || expiry_s == 0,
        _ => true,
    });
    rows
}

/// Who wakes the dead: the leader's sweeps, as soon as something is due, or nobody before the
/// client itself is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sweeps {
    Prompt,
    None,
}

/// Node 1 leads and watches; the client is on node 2 and comes back on node 3, or 2.
struct Table {
    rig: Rig,
    sweeps: Sweeps,
    /// Second of each will.
    fired: Vec<u64>,
    now_s: u64,
}

impl Table {
    fn new(sweeps: Sweeps) -> Self {
        let mut rig = Rig::new(3);
        let watcher = Claim { expiry_s: u32::MAX, ..persistent("watcher") };
        let (incarnation, _) = rig.claim(1, watcher);
        rig.subscribe(1, "watcher", incarnation, &[sub("will", 1)]);
        Self { rig, sweeps, fired: Vec::new(), now_s: 0 }
    }

    /// Takes note of the wills that the last command fired.
    fn note(&mut self) {
        let wills = self.rig.delivered().iter().filter(|topic| *topic == "will").count();
        self.fired.extend(std::iter::repeat_n(self.now_s, wills));
    }

    fn claim(&mut self, node: NodeId, claim: Claim) -> (Incarnation, bool) {
        let claimed = self.rig.claim(node, claim);
        self.note();
        claimed
    }

    fn run(&mut self, node: NodeId, command: Command) {
        assert_eq!(self.rig.run(node, command), Outcome::Ok);
        self.note();
    }

    fn sweep(&mut self) {
        let due = self.rig.state.due(self.rig.state.clock_ms(), &mut SweepCursor::default(), 100);
        if !due.is_empty() {
            self.run(1, Command::Sweep { clients: due.clients, routes: due.routes });
        }
    }

    fn pass_until(&mut self, upto_s: u64) {
        if self.sweeps == Sweeps::Prompt {
            self.sweep();
        }
        while self.now_s < upto_s {
            self.now_s += STEP_S;
            self.rig.tick(STEP_S * 1000);
            if self.sweeps == Sweeps::Prompt {
                self.sweep();
            }
        }
    }

    fn end(&mut self, row: Row, incarnation: Incarnation) {
        let release =
            |will, expiry_s| Command::Release { client: "c".into(), incarnation, will, expiry_s, sent: None };
        match row.end {
            End::TakeoverSameNode | End::TakeoverOtherNode => {}
            End::Kick => {
                let (incarnation, present) = self.claim(1, clean("c"));
                assert!(!present);
                let (client, will) = ("c".into(), WillFate::Discard);
                self.run(1, Command::Release { client, incarnation, will, expiry_s: None, sent: None });
            }
            End::Disconnect(code, expiry_s) => {
                let fate = if code == 0x04 { WillFate::Fire } else { WillFate::Discard };
                self.run(2, release(fate, expiry_s));
            }
            End::Lost => self.run(2, release(WillFate::Fire, None)),
            End::NodeKilled => {
                let epoch = self.rig.epoch(2);
                self.run(1, Command::NodeDown { node: 2, epoch, term: TERM });
            }
            End::NodeRestarted => {
                self.rig.up(2);
                self.note();
            }
            End::Farewell => self.run(2, Command::Farewell),
        }
    }

    /// The first connection, its end, the return, and the wait until nothing more can come.
    fn walk(&mut self, row: Row) -> (Expected, usize) {
        if row.resumed {
            let (incarnation, _) = self.claim(3, persistent("c"));
            self.rig.release(3, "c", incarnation, WillFate::Discard);
        }
        let claim = Claim {
            clean_start: false,
            expiry_s: row.expiry_s,
            will: row.delay_s.and_then(|delay_s| will("will", delay_s)),
            ..clean("c")
        };
        let (incarnation, present) = self.claim(2, claim);
        assert_eq!(present, row.resumed);
        let is_persistent = row.resumed || row.expiry_s > 0;
        if is_persistent {
            self.rig.subscribe(2, "c", incarnation, &[sub("a", 1), sub("b", 0)]);
            self.rig.publish(1, message("a", "before", 1));
        }
        self.end(row, incarnation);
        self.pass_until(row.back_s.saturating_sub(STEP_S));
        self.rig.publish(1, message("a", "after", 1));
        self.note();
        self.pass_until(row.back_s);
        let node = match row.end {
            End::TakeoverOtherNode | End::NodeKilled | End::Farewell => 3,
            _ => 2,
        };
        let again = Claim { clean_start: row.clean_start, ..persistent("c") };
        let (incarnation, present) = self.claim(node, again);
        let owner = self.rig.state.owner("c").map(|(node, _, incarnation)| (node, incarnation));
        assert_eq!(owner, Some((node, incarnation)), "{row:?}");
        let queued = self.rig.payloads("c");
        let subscriptions = self.rig.state.subscriptions("c").len();
        match present {
            true => {
                assert_eq!((queued, subscriptions), (vec!["before".into(), "after".into()], 2), "{row:?}")
            }
            false => assert_eq!((queued, subscriptions), (vec![], 0), "{row:?}"),
        }
        // The new connection is there until the end: nothing of the old one may come up again.
        self.pass_until(END_S);
        self.sweep();
        assert!(self.rig.state.owner("c").is_some(), "{row:?}");
        assert_eq!(self.rig.state.counts().claims, 2, "{row:?}");
        (Expected { will_s: self.fired.first().copied(), present }, self.fired.len())
    }
}

/// Fails if `State::supersede` fires delayed wills as well, or leaves `ends_with_connection` out; if
/// `State::node_up` does not end the older life.
#[test]
fn every_end_of_a_connection_follows_the_standard() {
    let mut count = 0;
    for row in rows() {
        let (got, fired) = Table::new(Sweeps::Prompt).walk(row);
        let expected = standard::expected(row);
        assert_eq!(got, expected, "{row:?}");
        assert_eq!(fired, usize::from(expected.will_s.is_some()), "once: {row:?}");
        count += 1;
    }
    assert!(count > 1500, "{count}");
}

/// However late the leader sweeps, the claim itself does what was due: the same rows without any
/// sweep. A will is then late, and as many as before. Fails, besides, if `State::settle` counts from
/// now rather than from `down_at_ms`.
#[test]
fn a_claim_does_what_no_sweep_has_done() {
    for row in rows() {
        let (got, fired) = Table::new(Sweeps::None).walk(row);
        let expected = standard::expected(row);
        assert_eq!(got.present, expected.present, "{row:?}");
        assert_eq!(fired, usize::from(expected.will_s.is_some()), "once: {row:?}");
        if let (Some(got), Some(expected)) = (got.will_s, expected.will_s) {
            assert!(got >= expected && got <= row.back_s.max(expected), "{got}: {row:?}");
        }
    }
}
