//! From where a proxy may speak for clients.

use std::net::IpAddr;

use crate::auth::Network;

/// Those who may connect to a listener that expects the PROXY protocol.
#[derive(Clone, Debug)]
pub struct ProxySources(pub Vec<Network>);

impl ProxySources {
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let network = |text: &str| text.parse().expect(text);
        let ip = |text: &str| text.parse().expect(text);
        let sources = ProxySources(vec![network("127.0.0.1"), network("fd00::/8")]);
        assert!(sources.trusts(ip("::ffff:127.0.0.1")) && sources.trusts(ip("fd12::1")));
        assert!(!sources.trusts(ip("127.0.0.2")) && !ProxySources(Vec::new()).trusts(ip("127.0.0.1")));
    }
}
