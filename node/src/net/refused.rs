//! Clients that are turned away before they have said anything of MQTT.

use std::fmt::{self, Display};

use super::proxy::Malformed;
use crate::session::Metric;

/// Why.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Refused {
    /// The certificate it has shown, or that it has shown none.
    Tls(rustls::Error),
    /// It is no proxy that may speak for clients, and its listener is for those.
    ProxySource,
    ProxyHeader(Malformed),
    /// Where it is from: [`Service::admits_address`](crate::session::Service::admits_address).
    Address,
    /// The page it is from, as the browser says.
    Origin(String),
}

impl Refused {
    /// `None`: it breaks TLS, or does not speak it, which is no question of who it is.
    pub fn by_tls(error: &rustls::Error) -> Option<Self> {
        use rustls::Error::{InvalidCertRevocationList, InvalidCertificate, NoCertificatesPresented};
        let concerns_certificate =
            matches!(error, InvalidCertificate(_) | InvalidCertRevocationList(_) | NoCertificatesPresented);
        concerns_certificate.then(|| Self::Tls(error.clone()))
    }

    pub fn metric(&self) -> Metric {
        match self {
            Self::Tls(_) => Metric::TlsFailures,
            Self::ProxySource => Metric::ProxySourcesRefused,
            Self::ProxyHeader(_) => Metric::ProxyHeadersRefused,
            Self::Address => Metric::AddressesRefused,
            Self::Origin(_) => Metric::OriginsRefused,
        }
    }

    /// What the audit log calls it.
    pub fn event(&self) -> &'static str {
        match self {
            Self::Tls(_) => "tls_refused",
            Self::ProxySource | Self::ProxyHeader(_) => "proxy_refused",
            Self::Address => "address_refused",
            Self::Origin(_) => "origin_refused",
        }
    }
}

impl Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(error) => error.fmt(f),
            Self::ProxySource => f.write_str("it is not in proxy_trusted of the listener"),
            Self::ProxyHeader(malformed) => malformed.fmt(f),
            Self::Address => f.write_str("its address is not admitted"),
            Self::Origin(origin) => write!(f, "its page is from {origin}"),
        }
    }
}
