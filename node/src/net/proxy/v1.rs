//! Version 1: a line of text.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::header::{Header, Malformed};

pub(super) const PREFIX: &[u8] = b"PROXY ";
/// With its end; no line of the standard is longer.
const LINE_MAX_BYTES: usize = 107;

pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let line = &bytes[..bytes.len().min(LINE_MAX_BYTES)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return match line.len() {
            LINE_MAX_BYTES => Err(Malformed("a PROXY line longer than 107 bytes")),
            _ => Ok(None),
        };
    };
    let line = line[..end].strip_suffix(b"\r").ok_or(Malformed("a PROXY line that does not end in CR LF"))?;
    let rest = line.strip_prefix(PREFIX).ok_or(Malformed("a PROXY line that names no protocol"))?;
    let source = source(rest).ok_or(Malformed("a PROXY line whose addresses cannot be read"))?;
    Ok(Some((Header { source, certificate: None }, end + 1)))
}

/// Of what follows the prefix. What follows UNKNOWN does not count.
fn source(rest: &[u8]) -> Option<Option<SocketAddr>> {
    let known = rest.strip_prefix(b"UNKNOWN");
    if known.is_some_and(|rest| rest.is_empty() || rest.starts_with(b" ")) {
        return Some(None);
    }
    let fields: Vec<&str> = std::str::from_utf8(rest).ok()?.split(' ').collect();
    let &[protocol, source, destination, source_port, destination_port] = fields.as_slice() else {
        return None;
    };
    let (source, _) = match protocol {
        "TCP4" => both::<std::net::Ipv4Addr>(source, destination)?,
        "TCP6" => both::<std::net::Ipv6Addr>(source, destination)?,
        _ => return None,
    };
    let (port, _) = (port(source_port)?, port(destination_port)?);
    Some(Some(SocketAddr::new(source.to_canonical(), port)))
}

fn both<T: FromStr + Into<IpAddr>>(source: &str, destination: &str) -> Option<(IpAddr, IpAddr)> {
    let address = |text: &str| text.parse::<T>().ok().map(Into::into);
    Some((address(source)?, address(destination)?))
}

/// Decimal, without leading zeros.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}
