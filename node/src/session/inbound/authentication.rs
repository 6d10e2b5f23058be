//! Whose turn it is until it is known who the client is: by what its CONNECT holds, or by enhanced
//! authentication [MQTT-4.12].

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Inbound, Phase};
use crate::auth::{Exchange, Failure, Outcome, Principal};
use crate::mqtt::{self, Auth, DecodeError, Packet, ReasonCode};
use crate::session::proof::Proof;
use crate::session::{AuthStep, Conn, Limits, Metric};

/// [MQTT-3.1.2-30]
pub(super) const TOO_EARLY: DecodeError =
    DecodeError::protocol("a packet other than AUTH and DISCONNECT within an authentication, before CONNACK");
pub(super) const STALLED: Failure =
    Failure::new(ReasonCode::NotAuthorized, "a re-authentication that did not go on");

const EXPIRED: &str = "the authorization has expired";

/// What a connection keeps of its CONNECT while it is found out who the client is; for good, if it
/// named an Authentication Method.
pub(super) struct Authentication {
    /// `None`: what CONNECT holds decides.
    method: Option<Box<str>>,
    /// The packet that is carried out when that is known.
    connect: Zeroizing<Box<[u8]>>,
    stage: Stage,
    /// When the last re-authentication began.
    since_ms: u64,
    /// Why it failed, until that is told.
    failure: Option<Failure>,
}

impl fmt::Debug for Authentication {
    /// Without the packet, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, stage, .. } = self;
        f.debug_struct("Authentication").field("method", method).field("stage", stage).finish_non_exhaustive()
    }
}

/// Of the exchange.
#[derive(Default)]
enum Stage {
    /// The broker is to answer.
    #[default]
    Ours,
    /// The client is.
    Theirs(Box<dyn Exchange>),
    Over,
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "Ours",
            Self::Theirs(_) => "Theirs",
            Self::Over => "Over",
        })
    }
}

impl Inbound {
    pub(super) fn authentication(&self) -> Option<&Authentication> {
        self.rare.as_ref().and_then(|rare| rare.authentication.as_ref())
    }

    fn authentication_mut(&mut self) -> Option<&mut Authentication> {
        self.rare.as_mut().and_then(|rare| rare.authentication.as_mut())
    }

    /// CONNECT asked for it. `packet`: the whole CONNECT.
    pub(super) fn begin_authentication(
        &mut self,
        conn: &Arc<Conn>,
        method: &str,
        data: &[u8],
        packet: &[u8],
        now_ms: u64,
    ) {
        self.keep_connect(Some(method), packet, now_ms);
        conn.context().service.authenticate(conn, AuthStep::Begin { method, data });
        self.follow(conn, now_ms);
    }

    /// The broker finds out who the client is. `packet`: the whole CONNECT.
    pub(super) fn await_verdict(&mut self, conn: &Arc<Conn>, packet: &[u8], now_ms: u64) {
        self.keep_connect(None, packet, now_ms);
        self.follow(conn, now_ms);
    }

    fn keep_connect(&mut self, method: Option<&str>, packet: &[u8], now_ms: u64) {
        self.rare.get_or_insert_default().authentication = Some(Authentication {
            method: method.map(Into::into),
            connect: Zeroizing::new(packet.into()),
            stage: Stage::Ours,
            since_ms: now_ms,
            failure: None,
        });
        self.phase = Phase::Verifying;
    }

    /// A client that authenticates itself has to wait for CONNACK with everything else; others
    /// need not.
    pub(super) fn holds_what_is_too_early(&self) -> bool {
        matches!(self.phase, Phase::Verifying | Phase::Waiting)
            && self.authentication().is_some_and(|authentication| authentication.method.is_some())
            && self.partial.first().is_some_and(|first| !mqtt::may_precede_connack(*first))
    }

    /// The client's AUTH.
    pub(super) fn auth(&mut self, conn: &Arc<Conn>, auth: &Auth<'_>, now_ms: u64) -> Result<(), DecodeError> {
        let is_open = self.phase == Phase::Open;
        let authentication = self.rare.as_mut().and_then(|rare| rare.authentication.as_mut());
        let asked_for =
            authentication.and_then(|authentication| Some((authentication.method.clone()?, authentication)));
        let Some((method, authentication)) = asked_for else {
            // [MQTT-4.12.0-7]
            return Err(DecodeError::protocol("AUTH without an authentication method in CONNECT"));
        };
        if auth.method != Some(&*method) {
            // [MQTT-4.12.0-5], [MQTT-4.12.1-1]
            let reason = ReasonCode::BadAuthenticationMethod;
            return Err(DecodeError::new(reason, "AUTH with another authentication method than CONNECT"));
        }
        let data = auth.data.unwrap_or_default();
        let mut begins = false;
        let step = match (auth.reason, std::mem::take(&mut authentication.stage)) {
            // [MQTT-4.12.0-3]
            (ReasonCode::ContinueAuthentication, Stage::Theirs(exchange)) => {
                AuthStep::Continue { exchange, data }
            }
            (ReasonCode::ReAuthenticate, Stage::Over) if is_open => {
                authentication.since_ms = now_ms;
                begins = true;
                AuthStep::Begin { method: &method, data }
            }
            (ReasonCode::ReAuthenticate, _) => {
                return Err(DecodeError::protocol("a re-authentication within an authentication"));
            }
            _ => return Err(DecodeError::protocol("AUTH that answers nothing")),
        };
        conn.context().service.authenticate(conn, step);
        self.unchecked |= begins;
        if !is_open {
            self.phase = Phase::Verifying;
        }
        self.follow(conn, now_ms);
        Ok(())
    }

    /// Goes on with what the broker has answered, if it has.
    pub(super) fn follow_authentication(&mut self, conn: &Arc<Conn>, now_ms: u64) {
        if !matches!(self.phase, Phase::Verifying | Phase::Open) {
            return;
        }
        let is_open = self.phase == Phase::Open;
        let Some(authentication) = self.authentication_mut() else { return };
        if !matches!(authentication.stage, Stage::Ours) {
            return;
        }
        let Some(outcome) = conn.take_outcome() else { return };
        match *outcome {
            Outcome::Continue { data, exchange } => {
                authentication.stage = Stage::Theirs(exchange);
                if !is_open {
                    self.phase = Phase::Challenged;
                }
                // [MQTT-4.12.0-2]
                self.send_auth(conn, ReasonCode::ContinueAuthentication, &data);
            }
            Outcome::Success { data, principal, valid_for_ms } if is_open => {
                authentication.stage = Stage::Over;
                let name = |principal: Option<&Principal>| principal.map(|p| p.name.clone());
                if name(conn.principal()) == name(principal.as_deref()) {
                    self.expire_after(valid_for_ms, now_ms);
                    self.send_auth(conn, ReasonCode::Success, &data);
                } else {
                    let what = "a re-authentication as somebody else";
                    self.turn_away(conn, Failure::new(ReasonCode::NotAuthorized, what));
                }
            }
            Outcome::Success { data, principal, valid_for_ms } => {
                authentication.stage = Stage::Over;
                let packet = std::mem::take(&mut authentication.connect);
                let data = (!data.is_empty()).then(|| data.into());
                let proof = authentication.method.clone().map(|method| Proof { method, data });
                if proof.is_none()
                    && let Some(rare) = &mut self.rare
                {
                    rare.authentication = None;
                }
                conn.prove(principal, proof);
                self.expire_after(valid_for_ms, now_ms);
                // It was decoded when it came.
                if let Ok(Packet::Connect(connect)) = mqtt::decode(&packet, None) {
                    self.claim(conn, &connect, now_ms);
                }
            }
            Outcome::Failure(failure) => self.turn_away(conn, failure),
        }
    }

    fn send_auth(&mut self, conn: &Arc<Conn>, reason: ReasonCode, data: &[u8]) {
        let Some(Authentication { method: Some(method), .. }) = self.authentication() else { return };
        let data = (!data.is_empty()).then_some(data);
        if !conn.send_auth(&Auth { reason, method: Some(method), data, ..Auth::default() }) {
            let what = "an AUTH above the client's maximum packet size";
            self.turn_away(conn, Failure::new(ReasonCode::ImplementationSpecificError, what));
        }
    }

    fn expire_after(&mut self, valid_for_ms: Option<u64>, now_ms: u64) {
        if let Some(valid_for_ms) = valid_for_ms {
            self.rare.get_or_insert_default().expires_ms = Some(now_ms.saturating_add(valid_for_ms));
            self.unchecked = true;
        }
    }

    /// The client's right to be connected has ended.
    pub(super) fn expire(&mut self, conn: &Arc<Conn>) {
        conn.context().counters.increment(Metric::AuthorizationsExpired);
        conn.reject(ReasonCode::MaximumConnectTime, EXPIRED);
        self.phase = Phase::Over;
    }

    /// [MQTT-3.1.4-2], [MQTT-4.12.1-2]
    pub(super) fn turn_away(&mut self, conn: &Arc<Conn>, failure: Failure) {
        conn.context().counters.increment(Metric::AuthenticationFailures);
        conn.reject(failure.reason, failure.what);
        self.phase = Phase::Over;
        if let Some(authentication) = self.authentication_mut() {
            authentication.failure = Some(failure);
        }
    }

    /// Why the client was turned away, if it was.
    pub(super) fn authentication_fault(&self) -> Option<DecodeError> {
        let failure = self.authentication()?.failure?;
        Some(DecodeError::new(failure.reason, failure.what))
    }

    /// When the client's time for a re-authentication that is under way is over. It was given
    /// the time of a CONNECT.
    pub(super) fn reauthentication_deadline_ms(&self, limits: &Limits) -> Option<u64> {
        let authentication = self.authentication().filter(|_| self.phase == Phase::Open)?;
        let runs = !matches!(authentication.stage, Stage::Over);
        runs.then(|| authentication.since_ms + u64::from(limits.connect_timeout_ms))
    }
}
