//! From which web pages a WebSocket may be opened. A browser lets any page open one to any host,
//! with the user's network and cookies, and says in Origin which page it was [RFC 6455, 10.2].

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// Where a page is from [RFC 6454, 4]. Two are the same if scheme, host and port are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// In lower case, as names are.
    scheme: Box<str>,
    host: Host,
    /// `None`: not named, and the scheme has no default.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Name(Box<str>),
    Address(IpAddr),
}

impl Host {
    fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => &**name == "localhost",
            Self::Address(address) => address.is_loopback(),
        }
    }
}

impl Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// A host and what follows it, as in an URI.
fn host_and_port(text: &str) -> Option<(Host, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let address = address.parse::<Ipv6Addr>().ok()?;
            (Host::Address(IpAddr::V6(address).to_canonical()), port)
        }
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_name) {
                return None;
            }
            let address = name.parse::<IpAddr>().map(Host::Address);
            (address.unwrap_or_else(|_| Host::Name(name.to_ascii_lowercase().into())), port)
        }
    };
    if port.is_empty() {
        return Some((host, None));
    }
    let digits = port.strip_prefix(':').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some((host, Some(digits.parse().ok()?)))
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

impl FromStr for Origin {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (scheme, authority) = text.split_once("://").ok_or(())?;
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(is_scheme) {
            return Err(());
        }
        let scheme: Box<str> = scheme.to_ascii_lowercase().into();
        let (host, port) = host_and_port(authority).ok_or(())?;
        let port = port.or(default_port(&scheme));
        Ok(Self { scheme, host, port })
    }
}

impl Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        match self.port {
            Some(port) if self.port != default_port(&self.scheme) => write!(f, ":{port}"),
            _ => Ok(()),
        }
    }
}

/// What an operator lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigin {
    Any,
    One(Origin),
}

impl FromStr for AllowedOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let origin = text.parse::<Origin>().ok().filter(|origin| !matches!(&*origin.scheme, "ws" | "wss"));
        origin.map(Self::One).ok_or_else(|| {
            format!(
                "expected where the page is from, scheme, host and perhaps a port but no path, such as \
                 \"https://chat.example.org\", or \"*\" for any page; not {text:?}"
            )
        })
    }
}

impl Display for AllowedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::One(origin) => origin.fmt(f),
        }
    }
}

/// Those listed, if any are; otherwise the pages of the host that the request is for, whatever
/// their port, and on this machine those of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginPolicy(pub Vec<AllowedOrigin>);

impl OriginPolicy {
    /// `origin` and `host`: the values of these header fields.
    pub fn admits(&self, origin: &str, host: &str) -> bool {
        if self.0.contains(&AllowedOrigin::Any) {
            return true;
        }
        let Ok(origin) = origin.parse::<Origin>() else { return false };
        if !self.0.is_empty() {
            return self.0.contains(&AllowedOrigin::One(origin));
        }
        host_and_port(host)
            .is_some_and(|(host, _)| host == origin.host || (host.is_loopback() && origin.host.is_loopback()))
    }
}
