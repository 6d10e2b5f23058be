//! CONNECT and the end of a connection. Every client id is claimed through the log, clean
//! sessions' too: the commit of the claim is what makes this connection the only owner.

use std::sync::Arc;

use super::Broker;
use super::lapse::{Turn, WHY};
use crate::env;
use crate::mqtt::{Message, ReasonCode};
use crate::raft::Abandoned;
use crate::session::{Conn, ConnectRequest, Ended, Grant, WillRequest};
use crate::state::{Claim, Command, Incarnation, Outcome, Will, WillFate};

/// Prefix of the client ids that the server assigns [MQTT-3.1.3-6].
const ASSIGNED_PREFIX: &str = "rk-";

impl Broker {
    pub(super) fn connect_from(self: &Arc<Self>, conn: &Arc<Conn>, request: &ConnectRequest<'_>) {
        if self.is_stopping() {
            return conn.refuse(ReasonCode::ServerUnavailable);
        }
        if self.refuses_writes() {
            return conn.refuse_saying(ReasonCode::QuotaExceeded, "the disk of this node is full");
        }
        let turn = self.turn_of_request();
        if turn == Turn::Never {
            return refuse_without_lease(conn);
        }
        let assigned = request.client_id.is_empty();
        let client: Arc<str> = if assigned {
            format!("{ASSIGNED_PREFIX}{:016x}{:08x}", env::random_u64(), env::random_u64() as u32).into()
        } else {
            request.client_id.into()
        };
        let claim = Claim {
            client: client.clone(),
            clean_start: request.clean_start,
            expiry_s: request.expiry_s,
            will: request.will.as_ref().map(|will| stored_will(will, &client)),
            receive_maximum: request.receive_maximum,
        };
        if turn == Turn::Now {
            return self.claim(conn, claim, assigned);
        }
        let waiting = conn.clone();
        self.when_leased(size_of(&claim), move |broker, leased| {
            if waiting.is_closing() {
                // Its client may be connected elsewhere by now, and must not lose that connection.
                return;
            }
            if leased && !broker.is_stopping() {
                broker.claim(&waiting, claim, assigned);
            } else {
                refuse_without_lease(&waiting);
            }
        });
    }

    fn claim(self: &Arc<Self>, conn: &Arc<Conn>, claim: Claim, assigned: bool) {
        let (client, expiry_s) = (claim.client.clone(), claim.expiry_s);
        let (broker, conn) = (self.clone(), conn.clone());
        self.propose(
            Command::Claim(claim),
            Box::new(move |result| {
                let Ok(applied) = result else { return conn.refuse(ReasonCode::ServerUnavailable) };
                let Outcome::Claimed { incarnation, session_present } = applied.outcome else {
                    return conn.refuse(ReasonCode::UnspecifiedError);
                };
                // The claim may have been committed long ago, and another one since, elsewhere.
                if !broker.may_acknowledge() {
                    broker.give_up(&client, incarnation, WillFate::Fire, None, None);
                    return conn.refuse(ReasonCode::ServerUnavailable);
                }
                // A resumed session that now ends with the connection is as replicated as before.
                let persistent = session_present || expiry_s > 0;
                // The state's own copy of the id, so that there is one of each on a node.
                let client = broker.state().client_id(&client).cloned().unwrap_or(client);
                let granted = conn.accept(Grant {
                    client_id: client.clone(),
                    assigned,
                    incarnation,
                    session_present,
                    persistent,
                    expiry_s,
                    queue_head: broker.state().queue_head(&client).unwrap_or(0),
                });
                if !granted {
                    // The client left before its claim was committed.
                    return broker.give_up(&client, incarnation, WillFate::Fire, None, None);
                }
                // A later claim in the same batch has superseded this one, before anybody could
                // find the connection to close it.
                let owner = broker.state().owner(&client);
                if owner.is_none_or(|(.., current)| current != incarnation) {
                    return conn.close(Ended::TakenOver, ReasonCode::SessionTakenOver);
                }
                broker.clients.insert(client, conn.clone());
                if broker.is_unwanted(&conn) {
                    return conn.close(Ended::Server, ReasonCode::AdministrativeAction);
                }
                broker.pump(&conn);
            }),
        );
    }

    pub(super) fn ended_from(self: &Arc<Self>, conn: &Arc<Conn>, why: Ended) {
        let Some(client) = conn.client_arc() else { return };
        let incarnation = conn.incarnation();
        self.clients.remove(client, incarnation);
        let unacknowledged = self.unacknowledged_shared(conn);
        self.drop_subscriptions(conn);
        for (filter, message) in unacknowledged {
            self.reassign(&filter, &message);
        }
        if why == Ended::TakenOver {
            return;
        }
        if let Some(progress) = self.progress.take(client, incarnation) {
            self.propose_progress(progress);
        }
        let (will, expiry_s) = match why {
            Ended::Disconnect { with_will: false, expiry_s } => (WillFate::Discard, expiry_s),
            Ended::Disconnect { with_will: true, expiry_s } => (WillFate::Fire, expiry_s),
            Ended::Lost | Ended::Server | Ended::TakenOver => (WillFate::Fire, None),
        };
        let sent = conn.is_persistent().then(|| conn.sent_upto());
        let release = Command::Release { client: client.clone(), incarnation, will, expiry_s, sent };
        let conn = conn.clone();
        // Whether it was committed or abandoned, there is nothing more for the client to wait for.
        self.propose(release, Box::new(move |_| conn.dismiss()));
    }

    /// Ends a client's connection, wherever it is, and its session: takes the client id over with
    /// a clean start, and gives it up.
    ///
    /// # Errors
    /// This node's life ended before that was certain.
    pub async fn end_session(self: &Arc<Self>, client: &str) -> Result<(), Abandoned> {
        let client: Arc<str> = client.into();
        let (claimed, outcome) = tokio::sync::oneshot::channel();
        let claim =
            Claim { client: client.clone(), clean_start: true, expiry_s: 0, will: None, receive_maximum: 1 };
        self.propose(
            Command::Claim(claim),
            Box::new(move |result| {
                // The caller may have stopped waiting.
                let _ = claimed.send(result);
            }),
        );
        let applied = outcome.await.map_err(|_| Abandoned)??;
        if let Outcome::Claimed { incarnation, .. } = applied.outcome {
            self.give_up(&client, incarnation, WillFate::Discard, None, None);
        }
        Ok(())
    }

    fn give_up(
        &self,
        client: &Arc<str>,
        incarnation: Incarnation,
        will: WillFate,
        expiry_s: Option<u32>,
        sent: Option<u64>,
    ) {
        self.propose_quietly(Command::Release { client: client.clone(), incarnation, will, expiry_s, sent });
    }
}

fn refuse_without_lease(conn: &Arc<Conn>) {
    conn.refuse_saying(ReasonCode::ServerUnavailable, WHY);
}

/// Bytes that a claim holds, about.
fn size_of(claim: &Claim) -> usize {
    claim.client.len() + claim.will.as_ref().map_or(0, |will| will.message.payload.len())
}

fn stored_will(will: &WillRequest<'_>, client: &Arc<str>) -> Will {
    Will {
        message: Arc::new(Message {
            topic: will.topic.into(),
            payload: will.payload.into(),
            properties: will.properties.into(),
            qos: will.qos,
            retain: will.retain,
            expires_at_ms: 0,
            publisher: (&**client).into(),
        }),
        expiry_s: will.expiry_s,
        delay_s: will.delay_s,
    }
}
