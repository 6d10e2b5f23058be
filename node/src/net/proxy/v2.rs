//! Version 2: binary, with more than addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::header::{HEADER_MAX_BYTES, Header, Malformed};
use crate::auth::Certificate;

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family, length of the rest.
const FIXED_BYTES: usize = 16;
const IPV4_BYTES: usize = 12;
const IPV6_BYTES: usize = 36;
const UNIX_BYTES: usize = 216;

/// Types of what follows the addresses.
mod kind {
    pub const CRC32C: u8 = 0x03;
    pub const SSL: u8 = 0x20;
    /// In `SSL`: the Common Name of the client's certificate.
    pub const SSL_CN: u8 = 0x22;
}

/// Of the client's TLS.
mod client {
    pub const SSL: u8 = 0x01;
    /// It has shown a certificate on this connection, or on another of the same session.
    pub const CERTIFICATE: u8 = 0x02 | 0x04;
}

pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    if bytes.get(12).is_some_and(|byte| byte >> 4 != 2) {
        return Err(Malformed("a PROXY header of an unknown version"));
    }
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let end = FIXED_BYTES + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if end > HEADER_MAX_BYTES {
        return Err(Malformed("a PROXY header longer than 4096 bytes"));
    }
    let Some(header) = bytes.get(..end) else { return Ok(None) };
    let block = &header[FIXED_BYTES..];
    match fixed[12] & 0xf {
        // The proxy speaks for itself; nothing else in it counts.
        0 => return Ok(Some((Header::default(), end))),
        1 => {}
        _ => return Err(Malformed("a PROXY header with an unknown command")),
    }
    let (source, addresses) = match fixed[13] {
        0x00 => (None, 0),
        0x11 => (Some(ipv4(block)?), IPV4_BYTES),
        0x21 => (Some(ipv6(block)?), IPV6_BYTES),
        0x31 => (None, UNIX_BYTES),
        _ => return Err(Malformed("a PROXY header of a protocol that is no stream")),
    };
    let more = block.get(addresses..).ok_or(TOO_SHORT)?;
    let certificate = certificate(header, more)?;
    Ok(Some((Header { source, certificate }, end)))
}

const TOO_SHORT: Malformed = Malformed("a PROXY header too short for its addresses");

fn ipv4(block: &[u8]) -> Result<SocketAddr, Malformed> {
    let block: &[u8; IPV4_BYTES] = block.first_chunk().ok_or(TOO_SHORT)?;
    let address = Ipv4Addr::new(block[0], block[1], block[2], block[3]);
    Ok(SocketAddr::new(address.into(), u16::from_be_bytes([block[8], block[9]])))
}

fn ipv6(block: &[u8]) -> Result<SocketAddr, Malformed> {
    let block: &[u8; IPV6_BYTES] = block.first_chunk().ok_or(TOO_SHORT)?;
    let address = block.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes)).ok_or(TOO_SHORT)?;
    Ok(SocketAddr::new(IpAddr::V6(address).to_canonical(), u16::from_be_bytes([block[32], block[33]])))
}

/// What `more`, the end of `header`, says of the client's certificate; its checksum, if there is
/// one, has to be right.
fn certificate(header: &[u8], more: &[u8]) -> Result<Option<Arc<Certificate>>, Malformed> {
    let (mut sum, mut ssl) = (None, None);
    let mut rest = more;
    while let Some((kind, value)) = next(&mut rest)? {
        let place = match kind {
            kind::CRC32C => &mut sum,
            kind::SSL => &mut ssl,
            _ => continue,
        };
        if place.replace((header.len() - rest.len() - value.len(), value)).is_some() {
            return Err(Malformed("a PROXY header that says something twice"));
        }
    }
    if let Some((at, value)) = sum {
        check(header, at, value)?;
    }
    match ssl {
        Some((_, value)) => of_ssl(value),
        None => Ok(None),
    }
}

/// The sum, at `at`, is of the whole header with zeros in its own place.
fn check(header: &[u8], at: usize, value: &[u8]) -> Result<(), Malformed> {
    const WRONG: Malformed = Malformed("a PROXY header with a wrong checksum");
    let wanted = value.try_into().map(u32::from_be_bytes).map_err(|_| WRONG)?;
    let sum = crc32c::crc32c(&header[..at]);
    let sum = crc32c::crc32c_append(sum, &[0; 4]);
    let sum = crc32c::crc32c_append(sum, &header[at + value.len()..]);
    if sum == wanted { Ok(()) } else { Err(WRONG) }
}

/// What the proxy says of the client's TLS: flags, zero if the certificate was verified, names.
fn of_ssl(value: &[u8]) -> Result<Option<Arc<Certificate>>, Malformed> {
    let Some((&[client, verify @ ..], mut rest)) = value.split_first_chunk::<5>() else {
        return Err(Malformed("a PROXY header with half of what it says of TLS"));
    };
    let mut name = None;
    while let Some((kind, value)) = next(&mut rest)? {
        if kind == kind::SSL_CN && name.replace(value).is_some() {
            return Err(Malformed("a PROXY header that says something twice"));
        }
    }
    let is_shown = client & client::SSL != 0 && client & client::CERTIFICATE != 0;
    if !is_shown || verify != [0; 4] {
        return Ok(None);
    }
    let name = name.and_then(|name| std::str::from_utf8(name).ok());
    Ok(name.and_then(Certificate::named).map(Arc::new))
}

/// Takes one item of type, length and value off.
fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<(u8, &'a [u8])>, Malformed> {
    if rest.is_empty() {
        return Ok(None);
    }
    let torn = Malformed("a PROXY header that ends within an item");
    let (&[kind, high, low], after) = rest.split_first_chunk::<3>().ok_or(torn)?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (value, after) = after.split_at_checked(length).ok_or(torn)?;
    *rest = after;
    Ok(Some((kind, value)))
}
