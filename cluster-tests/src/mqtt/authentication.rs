//! Enhanced authentication from the client's side.

use super::client::ANSWER_TIMEOUT;
use super::{Client, Error, Options, Packet, Prop, Props, Result, SCRAM, Scram, Transport, prop, wire};

/// AUTH: the client answers.
pub const CONTINUE: u8 = 0x18;
/// AUTH: the client wants to be authenticated again.
pub const AGAIN: u8 = 0x19;

/// The properties of an exchange's packets.
pub fn proof(method: &str, data: &[u8]) -> Props {
    Props::default()
        .with(prop::AUTHENTICATION_METHOD, Prop::Str(method.into()))
        .with(prop::AUTHENTICATION_DATA, Prop::Bytes(data.into()))
}

/// The data of an exchange's packet, whose method must be SCRAM-SHA-256.
fn data(props: &Props) -> Result<Vec<u8>> {
    match (props.text(prop::AUTHENTICATION_METHOD), props.get(prop::AUTHENTICATION_DATA)) {
        (Some(SCRAM), Some(Prop::Bytes(data))) => Ok(data.clone()),
        _ => Err(Error::Protocol(format!("{props:?} in an exchange of {SCRAM}"))),
    }
}

impl Client {
    /// Connects as a user.
    pub fn connect_user(
        to: impl Into<Transport>,
        options: &Options,
        user: &str,
        password: &str,
    ) -> Result<Self> {
        let (mut client, mut scram, challenge) = Client::challenged(to, options, user, password)?;
        client.send_auth(CONTINUE, SCRAM, &scram.answer(&challenge))?;
        client.await_connack()?;
        if scram.trusts(&data(&client.granted)?) {
            Ok(client)
        } else {
            Err(Error::Protocol("a broker that does not know the user".into()))
        }
    }

    /// Connects up to the broker's challenge, which is the last result.
    pub fn challenged(
        to: impl Into<Transport>,
        options: &Options,
        user: &str,
        password: &str,
    ) -> Result<(Self, Scram, Vec<u8>)> {
        let scram = Scram::new(user, password);
        let mut options = options.clone();
        options.props.0.extend(proof(SCRAM, &scram.first()).0);
        let mut client = Client::open(to, options.version)?;
        client.send(&wire::connect(&options))?;
        let challenge = client.await_challenge()?;
        Ok((client, scram, challenge))
    }

    /// Authenticates again; what else arrives meanwhile is taken in.
    pub fn authenticate_again(&mut self, user: &str, password: &str) -> Result<()> {
        let mut scram = Scram::new(user, password);
        self.send_auth(AGAIN, SCRAM, &scram.first())?;
        let challenge = self.await_challenge()?;
        self.send_auth(CONTINUE, SCRAM, &scram.answer(&challenge))?;
        match self.await_auth()? {
            (0, props) if scram.trusts(&data(&props)?) => Ok(()),
            other => Err(Error::Protocol(format!("{other:?} for a success"))),
        }
    }

    pub fn send_auth(&mut self, code: u8, method: &str, data: &[u8]) -> Result<()> {
        self.send(&wire::auth(code, &proof(method, data)))
    }

    /// Waits for an AUTH that asks for an answer; its data.
    pub fn await_challenge(&mut self) -> Result<Vec<u8>> {
        match self.await_auth()? {
            (CONTINUE, props) => data(&props),
            other => Err(Error::Protocol(format!("{other:?} for a challenge"))),
        }
    }

    fn await_auth(&mut self) -> Result<(u8, Props)> {
        self.until(ANSWER_TIMEOUT, |packet| match packet {
            Packet::Auth { code, props } => Some(Ok((*code, props.clone()))),
            Packet::ConnAck { code, .. } => Some(Err(Error::Refused(*code))),
            _ => None,
        })?
    }
}
