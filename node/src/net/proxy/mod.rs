//! The PROXY protocol, versions 1 and 2: what a proxy says of the client before the client's own
//! bytes [The PROXY protocol, versions 1 and 2, haproxy.org]. Reading it is pure.

mod header;
mod link;
mod sources;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

pub use header::{Header, HeaderReader, Malformed, parse};
pub(super) use link::{Proxied, ProxiedLink};
pub use sources::ProxySources;
