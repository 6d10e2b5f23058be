//! CONNECT, from its checks to the broker.

use std::sync::Arc;

use super::{Inbound, Phase};
use crate::mqtt::{Connect, DecodeError, ReasonCode, Version, topic};
use crate::overload::Level;
use crate::session::{Conn, ConnectRequest, LogIn, WillRequest};

impl Inbound {
    pub(super) fn connect(
        &mut self,
        conn: &Arc<Conn>,
        connect: &Connect<'_>,
        bytes: &[u8],
        now_ms: u64,
    ) -> Result<(), DecodeError> {
        let limits = conn.limits();
        let refusal =
            |reason, what| DecodeError { connack: Some(connect.version), ..DecodeError::new(reason, what) };
        let may_be_empty = match connect.version {
            Version::V5 => true,
            // [MQTT-3.1.3-8] of 3.1.1
            Version::V311 => connect.clean_start,
            Version::V31 => false,
        };
        if connect.client_id.is_empty() && !may_be_empty {
            return Err(refusal(ReasonCode::ClientIdentifierNotValid, "an empty client id"));
        }
        if connect.will.is_some_and(|will| topic::is_servers(will.topic)) {
            return Err(refusal(ReasonCode::NotAuthorized, "a will for a topic of the server's own"));
        }
        let is_v5 = connect.version == Version::V5;
        let keep_alive_max_s = limits.keep_alive_max_s;
        let capped = is_v5
            && keep_alive_max_s != u16::MAX
            && (connect.keep_alive_s == 0 || connect.keep_alive_s > keep_alive_max_s);
        self.keep_alive_s = if capped { keep_alive_max_s } else { connect.keep_alive_s };
        self.expires_at_once = connect.session_expiry_s == 0;
        conn.greet(connect, capped.then_some(keep_alive_max_s));
        if let Some(what) = self.has_no_room(conn) {
            conn.send_away(what);
            self.follow(conn, now_ms);
            return Ok(());
        }
        match connect.auth_method {
            None => match conn.context().service.log_in(conn, connect) {
                LogIn::Anonymous => self.claim(conn, connect, now_ms),
                LogIn::Refused(failure) => self.turn_away(conn, failure),
                LogIn::Later => self.await_verdict(conn, bytes, now_ms),
            },
            Some(method) => {
                let data = connect.auth_data.unwrap_or_default();
                self.begin_authentication(conn, method, data, bytes, now_ms);
            }
        }
        Ok(())
    }

    /// Why nobody else can be let in, if so. Before the client is asked who it is, which would cost
    /// more than the answer.
    fn has_no_room(&self, conn: &Arc<Conn>) -> Option<&'static str> {
        if conn.context().service.is_draining() {
            Some("this node lets its clients go")
        } else if conn.context().pressure.level() >= Level::Refuse {
            Some("this node is overloaded")
        } else if conn.has_room() {
            None
        } else {
            Some("this node has as many clients as it may have")
        }
    }

    /// Passes CONNECT on to the broker.
    pub(super) fn claim(&mut self, conn: &Arc<Conn>, connect: &Connect<'_>, now_ms: u64) {
        let limits = conn.limits();
        let expiry_s = match (connect.version == Version::V5, connect.clean_start) {
            (true, _) => connect.session_expiry_s.min(limits.session_expiry_max_s),
            (false, true) => 0,
            (false, false) => limits.session_expiry_max_s,
        };
        let will_properties = connect.will.map(|will| will.forward_properties());
        let request = ConnectRequest {
            version: connect.version,
            client_id: connect.client_id,
            clean_start: connect.clean_start,
            expiry_s,
            keep_alive_s: self.keep_alive_s,
            receive_maximum: connect.receive_maximum.min(limits.inflight_max).max(1),
            will: connect.will.map(|will| WillRequest {
                topic: will.topic,
                payload: will.payload,
                properties: will_properties.as_deref().unwrap_or_default(),
                qos: will.qos,
                retain: will.retain,
                expiry_s: will.expiry_s,
                delay_s: will.delay_s,
            }),
        };
        self.phase = Phase::Waiting;
        self.since_ms = now_ms;
        self.known = true;
        conn.context().service.connect(conn, &request);
        self.follow(conn, now_ms);
    }
}
