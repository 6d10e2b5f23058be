//! Clients that ask to be let in, and what they are told.

use std::sync::Arc;

use rustls::ClientConfig;

use crate::cluster::AGREE_TIMEOUT;
use crate::mqtt::{self, Client, Error, Options, Packet, Transport, Version, prop};
use crate::tls;
use crate::wait::eventually;

/// Reason codes of CONNACK, and some of them of other packets.
pub const BAD_PASSWORD: u8 = 0x86;
pub const NOT_AUTHORIZED: u8 = 0x87;
pub const UNAVAILABLE: u8 = 0x88;
/// As 3.x says it, and everything that it has no code for.
pub const UNAVAILABLE_3: u8 = 3;
pub const BANNED: u8 = 0x8a;
pub const USE_ANOTHER_SERVER: u8 = 0x9c;
pub const QUOTA_EXCEEDED: u8 = 0x97;
pub const RATE_EXCEEDED: u8 = 0x9f;

/// The code that says the same in the version's CONNACK.
pub fn code_in(version: Version, code: u8) -> u8 {
    match (version, code) {
        (Version::V5, code) => code,
        (_, BAD_PASSWORD) => 4,
        (_, NOT_AUTHORIZED | BANNED) => 5,
        (_, _) => UNAVAILABLE_3,
    }
}

/// The code of CONNACK, and the Server Reference in it.
///
/// # Panics
/// When there is no CONNACK.
#[track_caller]
pub fn connack(to: impl Into<Transport>, options: &Options) -> (u8, Option<String>) {
    let mut client = Client::open(to, options.version).expect("accepted");
    client.send(&mqtt::connect(options)).expect("sent");
    match client.packet(AGREE_TIMEOUT).expect("an answer") {
        Packet::ConnAck { code, props, .. } => (code, props.text(prop::SERVER_REFERENCE).map(str::to_owned)),
        other => panic!("{other:?} for a CONNACK"),
    }
}

/// Connects; what a node says whose lease has run out, as on a machine that is busy with other tests,
/// is no answer.
///
/// # Errors
/// Whatever else the client is told.
#[track_caller]
pub fn connect(to: impl Into<Transport>, options: &Options) -> Result<Client, Error> {
    connect_as(to, options, &tls::trusting())
}

/// As [`connect`], with a TLS configuration of its own.
///
/// # Errors
/// As of [`connect`].
#[track_caller]
pub fn connect_as(
    to: impl Into<Transport>,
    options: &Options,
    config: &Arc<ClientConfig>,
) -> Result<Client, Error> {
    let to = to.into();
    leased(options.version, || Client::connect_as(to, options, config.clone()))
}

/// Asks until the answer is not that of a node without a lease.
#[track_caller]
pub fn leased<T>(version: Version, mut ask: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let unavailable = code_in(version, UNAVAILABLE);
    eventually("an answer", AGREE_TIMEOUT, || match ask() {
        Err(Error::Refused(code)) if code == unavailable => None,
        other => Some(other),
    })
}

/// # Panics
/// Unless it was refused with what says `code` in the version's CONNACK.
#[track_caller]
pub fn assert_refused<T>(result: Result<T, Error>, version: Version, code: u8) {
    let code = code_in(version, code);
    match result.map(drop) {
        Err(Error::Refused(got)) if got == code => {}
        other => panic!("{other:?} for a CONNACK with {code:#04x}"),
    }
}
