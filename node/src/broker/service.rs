//! What connections ask of the broker, behind the questions who they are and what they may do.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use crate::audit::Refusal;
use crate::auth::{Access, Ask, Denied, Failure, Login, Outcome, Password, Principal, Verdict};
use crate::env;
use crate::mqtt::{Connect, Publication, ReasonCode, Version};
use crate::session::{
    AckTicket, AuthStep, Conn, ConnectRequest, Ended, LogIn, Metric, Service, SubscribeItem, Unacknowledged,
};
use crate::state::{Change, DeliveryStep, QueueSeq};

const BANNED: Failure = Failure::new(ReasonCode::Banned, "banned");
const NOT_PROVED: Failure = Failure::new(ReasonCode::NotAuthorized, "the client has not proved who it is");
const UNKNOWN: Failure = Failure::new(ReasonCode::BadUserNameOrPassword, "a wrong user name or password");
const EXPIRED: Failure = Failure::new(ReasonCode::NotAuthorized, "the authorization has expired");
const NOT_ITS_ID: Failure =
    Failure::new(ReasonCode::ClientIdentifierNotValid, "a client id that the user may not have");
const WILL_DENIED: Failure = Failure::new(ReasonCode::NotAuthorized, "a will that no rule allows");

/// The broker as its connections see it.
pub struct Front {
    broker: Arc<Broker>,
    access: Arc<Access>,
}

impl Front {
    pub fn new(broker: Arc<Broker>, access: Access) -> Self {
        Self { broker, access: Arc::new(access) }
    }

    /// Why a client that is who it is shall not be let in all the same.
    fn objection(&self, conn: &Conn, request: &ConnectRequest<'_>) -> Option<Failure> {
        let user = conn.principal().map(|principal| &*principal.name);
        if self.broker.is_banned(conn, request.client_id, user) {
            return Some(BANNED);
        }
        if user.is_none() && !self.access.admits_anonymous() {
            return Some(NOT_PROVED);
        }
        if !self.access.admits_id(request.client_id, user) {
            return Some(NOT_ITS_ID);
        }
        let will = request.will.as_ref()?;
        let ask = Ask::Publish { topic: will.topic, qos: will.qos, retain: will.retain };
        (!self.broker.permits_as(conn, request.client_id, ask)).then_some(WILL_DENIED)
    }

    fn publish_denied(&self, conn: &Arc<Conn>, ask: Ask<'_>, ticket: Option<AckTicket>) {
        self.broker.note_denied(conn, ask);
        let Some(ticket) =
            ticket.filter(|_| conn.version() == Version::V5 || self.access.denied() == Denied::Ignore)
        else {
            if self.access.denied() == Denied::Disconnect {
                conn.close_saying(Ended::Lost, ReasonCode::NotAuthorized, "a publish that no rule allows");
            }
            return;
        };
        // 3.x has no way to say no [MQTT-3.3.5-2].
        let reason = match conn.version() {
            Version::V5 => ReasonCode::NotAuthorized,
            _ => ReasonCode::Success,
        };
        conn.acknowledge(ticket, reason);
    }
}

/// How long the right of a client lasts, milliseconds; `None`: as long as it is connected.
fn remaining_ms(principal: &Principal) -> Option<u64> {
    principal.expires_at_ms.map(|at_ms| at_ms.saturating_sub(env::wall_ms()))
}

fn note_refused(broker: &Broker, conn: &Conn, client: &str, user: Option<&str>, why: Failure) {
    if why == BANNED {
        conn.context().counters.increment(Metric::Banned);
    }
    broker.refusals.note(|| Refusal {
        event: "login",
        address: conn.peer(),
        client,
        user,
        topic: None,
        reason: &why.what,
    });
}

/// Tells a connection what has been found out about its client.
fn judged(broker: &Arc<Broker>, access: &Access, conn: &Arc<Conn>, login: &Login, verdict: Verdict) {
    let success = |principal: Option<Arc<Principal>>, valid_for_ms| {
        conn.authenticated(Outcome::Success { data: Vec::new(), principal, valid_for_ms });
    };
    let failure = match verdict {
        Verdict::Allow(principal) => match remaining_ms(&principal) {
            Some(0) => EXPIRED,
            valid_for_ms => return success(Some(principal), valid_for_ms),
        },
        // It has shown something, and somebody should have known it.
        Verdict::Pass if login.username.is_some() && broker.asks_clients(broker.policy().has_users) => {
            UNKNOWN
        }
        Verdict::Pass if access.admits_anonymous() => return success(None, None),
        Verdict::Pass => NOT_PROVED,
        Verdict::Deny(failure) => failure,
    };
    fail(broker, access, conn, login, failure);
}

/// Tells a connection that its client has not proved who it is: later, the more often that came
/// from there.
fn fail(broker: &Arc<Broker>, access: &Access, conn: &Arc<Conn>, login: &Login, failure: Failure) {
    note_refused(broker, conn, &login.client_id, login.username.as_deref(), failure);
    let (delay_ms, ban) = access.failed(login.address.map(|address| address.ip()), env::boot_ms());
    let Some(wiring) = broker.wiring() else { return };
    let (broker, conn) = (broker.clone(), conn.clone());
    wiring.runtime.spawn(async move {
        if let Some((banned, for_ms)) = ban {
            let reason = "too many failed log-ins".into();
            let change = Change::Ban { banned, reason, for_ms: Some(for_ms) };
            if let Err(error) = broker.change_settings(change).await {
                tracing::warn!(%error, "cannot ban an address from which too many log-ins failed");
            }
        }
        // Whoever guesses waits for each answer.
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        conn.authenticated(Outcome::Failure(failure));
    });
}

impl Service for Front {
    fn is_draining(&self) -> bool {
        self.broker.is_draining()
    }

    fn authenticate(&self, conn: &Arc<Conn>, step: AuthStep<'_>) {
        let (exchange, data) = match step {
            AuthStep::Continue { exchange, data } => (exchange, data),
            AuthStep::Begin { method, data } => match self.access.begin(method) {
                Ok(exchange) => (exchange, data),
                Err(failure) => return conn.authenticated(Outcome::Failure(failure)),
            },
        };
        let (broker, access, conn) = (self.broker.clone(), self.access.clone(), conn.clone());
        // Taken now: of a client that has gone nobody can say where it was.
        let about = Login { client_id: conn.client().into(), address: conn.address(), ..Login::default() };
        let reply = move |outcome| match outcome {
            Outcome::Failure(failure) => fail(&broker, &access, &conn, &about, failure),
            outcome => conn.authenticated(outcome),
        };
        exchange.step(data, Box::new(reply));
    }

    fn admits_address(&self, address: IpAddr) -> bool {
        !self.broker.state().is_address_banned(address)
    }

    fn log_in(&self, conn: &Arc<Conn>, connect: &Connect<'_>) -> LogIn {
        // Before anything costly is done for it.
        if self.broker.is_banned(conn, connect.client_id, connect.username) {
            note_refused(&self.broker, conn, connect.client_id, connect.username, BANNED);
            return LogIn::Refused(BANNED);
        }
        let certificate = conn.certificate();
        let shows = connect.username.is_some() || connect.password.is_some() || certificate.is_some();
        if !shows || !self.access.judges() {
            return LogIn::Anonymous;
        }
        let address = conn.address();
        let login = Arc::new(Login {
            client_id: connect.client_id.into(),
            username: connect.username.map(Into::into),
            password: connect.password.map(Password::new),
            throttled: address.is_some_and(|a| self.access.is_throttled(a.ip(), env::boot_ms())),
            address,
            certificate,
        });
        let (broker, access, conn) = (self.broker.clone(), self.access.clone(), conn.clone());
        let about = login.clone();
        self.access.judge(login, Box::new(move |verdict| judged(&broker, &access, &conn, &about, verdict)));
        LogIn::Later
    }

    fn connect(&self, conn: &Arc<Conn>, request: &ConnectRequest<'_>) {
        if let Some(failure) = self.objection(conn, request) {
            let user = conn.principal().map(|principal| &*principal.name);
            note_refused(&self.broker, conn, request.client_id, user, failure);
            conn.context().counters.increment(Metric::AuthenticationFailures);
            return conn.refuse_saying(failure.reason, failure.what);
        }
        self.broker.connect_from(conn, request);
    }

    fn publish(
        &self,
        conn: &Arc<Conn>,
        publication: &Publication<'_>,
        expiry_s: Option<u32>,
        ticket: Option<AckTicket>,
        packet_id: u16,
    ) -> usize {
        let Publication { topic, qos, retain, .. } = *publication;
        let ask = Ask::Publish { topic, qos, retain };
        if !self.broker.permits(conn, ask) {
            self.publish_denied(conn, ask, ticket);
            return 0;
        }
        let publication = Publication {
            expires_at_ms: self.broker.clock().expires_at_ms(expiry_s),
            publisher: conn.client(),
            ..*publication
        };
        self.broker.publish_from(conn, &publication, ticket, packet_id)
    }

    fn release(&self, conn: &Arc<Conn>, packet_id: u16) {
        self.broker.release_from(conn, packet_id);
    }

    fn subscribe(&self, conn: &Arc<Conn>, packet_id: u16, subscription_id: u32, items: &[SubscribeItem<'_>]) {
        self.broker.subscribe_from(conn, packet_id, subscription_id, items);
    }

    fn unsubscribe(&self, conn: &Arc<Conn>, packet_id: u16, filters: &[&str]) {
        self.broker.unsubscribe_from(conn, packet_id, filters);
    }

    fn progress(&self, conn: &Arc<Conn>, steps: &[(QueueSeq, DeliveryStep)]) {
        self.broker.progress_from(conn, steps);
    }

    fn refused(&self, conn: &Arc<Conn>, delivery: Unacknowledged) {
        self.broker.refused_from(conn, &delivery);
    }

    fn wants_more(&self, conn: &Arc<Conn>) {
        if conn.is_persistent() {
            self.broker.pump(conn);
        }
        self.broker.go_on_with_retained(conn);
    }

    fn ended(&self, conn: &Arc<Conn>, why: Ended) {
        self.broker.ended_from(conn, why);
    }

    fn clock_ms(&self) -> u64 {
        self.broker.clock().now_ms()
    }

    fn monotonic_ms(&self) -> u64 {
        env::boot_ms()
    }
}
