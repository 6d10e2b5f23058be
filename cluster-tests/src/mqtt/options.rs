//! What a CONNECT says.

use super::{Prop, Props, Version, prop};

#[derive(Clone, Debug)]
pub struct Will {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    /// Will Delay Interval in seconds (5.0).
    pub delay_s: u32,
    /// The will's other properties (5.0).
    pub props: Props,
}

impl Will {
    pub fn new(topic: &str, payload: &str, qos: u8) -> Self {
        let props = Props::default();
        Will { topic: topic.into(), payload: payload.into(), qos, retain: false, delay_s: 0, props }
    }
}

/// A CONNECT; the defaults are a clean 5.0 session with a keep-alive of 60 s.
#[derive(Clone, Debug)]
pub struct Options {
    pub version: Version,
    pub client_id: String,
    pub clean_start: bool,
    pub keep_alive_s: u16,
    pub username: Option<String>,
    pub password: Option<Vec<u8>>,
    pub will: Option<Will>,
    pub props: Props,
}

impl Options {
    pub fn new(version: Version, client_id: &str) -> Self {
        Options {
            version,
            client_id: client_id.into(),
            clean_start: true,
            keep_alive_s: 60,
            username: None,
            password: None,
            will: None,
            props: Props::default(),
        }
    }

    /// A clean session of 5.0.
    pub fn v5(client_id: &str) -> Self {
        Options::new(Version::V5, client_id)
    }

    /// A clean session of 3.1.1.
    pub fn v311(client_id: &str) -> Self {
        Options::new(Version::V311, client_id)
    }

    /// Resumes the client's session and lets it outlive the connection by an hour (5.0), or as
    /// long as the broker keeps persistent sessions (3.x).
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.clean_start = false;
        match self.version {
            Version::V5 => self.prop(prop::SESSION_EXPIRY_S, Prop::U32(3600)),
            _ => self,
        }
    }

    #[must_use]
    pub fn prop(mut self, id: u8, value: Prop) -> Self {
        self.props = self.props.with(id, value);
        self
    }

    #[must_use]
    pub fn will(mut self, will: Will) -> Self {
        self.will = Some(will);
        self
    }

    /// User Name and Password.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.username = Some(name.into());
        self.password = Some(password.into());
        self
    }

    #[must_use]
    pub fn keep_alive_s(mut self, seconds: u16) -> Self {
        self.keep_alive_s = seconds;
        self
    }
}
