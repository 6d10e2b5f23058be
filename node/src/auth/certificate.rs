//! What a verified client certificate says of its owner.

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The names in a certificate that was verified by whoever hands it in. They may be used as they
/// are: none is empty, longer than [`Certificate::NAME_MAX_BYTES`] or has a control character. A
/// name that would be is left out, since any other form of it might be somebody else's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// The Common Name of the subject. `None` also if there is more than one.
    pub common_name: Option<Box<str>>,
    /// Of the Subject Alternative Name, as all that follow; at most [`Certificate::NAMES_MAX`].
    pub dns_names: Box<[Box<str>]>,
    pub emails: Box<[Box<str>]>,
    pub uris: Box<[Box<str>]>,
}

/// The bytes are no certificate [RFC 5280, 4.1].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a certificate that can be read")]
pub struct UnreadableCertificate;

impl Certificate {
    /// Names of one kind; further ones are left out.
    pub const NAMES_MAX: usize = 32;
    pub const NAME_MAX_BYTES: usize = 1024;

    /// The names of a certificate in DER.
    ///
    /// # Errors
    /// It cannot be read, or has something after its end.
    pub fn from_der(der: &[u8]) -> Result<Self, UnreadableCertificate> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| UnreadableCertificate)?;
        if !rest.is_empty() {
            return Err(UnreadableCertificate);
        }
        let alternative = certificate.subject_alternative_name().map_err(|_| UnreadableCertificate)?;
        let alternatives = alternative.map_or(&[][..], |extension| &extension.value.general_names);
        let mut common_names = certificate.subject().iter_common_name();
        let common_name = match (common_names.next(), common_names.next()) {
            (Some(only), None) => only.as_str().ok().and_then(name),
            _ => None,
        };
        Ok(Self {
            common_name,
            dns_names: names(alternatives, |name| match name {
                GeneralName::DNSName(name) => Some(name),
                _ => None,
            }),
            emails: names(alternatives, |name| match name {
                GeneralName::RFC822Name(name) => Some(name),
                _ => None,
            }),
            uris: names(alternatives, |name| match name {
                GeneralName::URI(name) => Some(name),
                _ => None,
            }),
        })
    }

    /// One of which no more is known than its Common Name; `None`: that cannot be used.
    pub fn named(common_name: &str) -> Option<Self> {
        Some(Self { common_name: Some(name(common_name)?), ..Self::default() })
    }
}

fn names<'a>(
    all: &'a [GeneralName<'a>],
    pick: impl Fn(&'a GeneralName<'a>) -> Option<&'a str>,
) -> Box<[Box<str>]> {
    all.iter().filter_map(pick).filter_map(name).take(Certificate::NAMES_MAX).collect()
}

fn name(text: &str) -> Option<Box<str>> {
    let fits = (1..=Certificate::NAME_MAX_BYTES).contains(&text.len());
    (fits && !text.contains(char::is_control)).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn certificate(common_names: &[&str], alternatives: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for name in common_names {
            params.distinguished_name.push(DnType::CommonName, DnValue::Utf8String((*name).to_owned()));
        }
        params.distinguished_name.push(DnType::OrganizationName, "Rookery");
        params.subject_alt_names = alternatives;
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    fn ia5<T: TryFrom<String>>(text: &str) -> T {
        T::try_from(text.to_owned()).ok().expect("ASCII")
    }

    #[test]
    fn names_of_every_kind() {
        let der = certificate(
            &["Dörte"],
            vec![
                SanType::DnsName(ia5("sensor-7.example.org")),
                SanType::IpAddress("192.0.2.1".parse().expect("an address")),
                SanType::Rfc822Name(ia5("doerte@example.org")),
                SanType::URI(ia5("spiffe://example.org/sensor/7")),
                SanType::DnsName(ia5("other.example.org")),
            ],
        );
        let found = Certificate::from_der(&der).expect("a certificate");
        assert_eq!(found.common_name.as_deref(), Some("Dörte"));
        assert_eq!(*found.dns_names, ["sensor-7.example.org".into(), "other.example.org".into()]);
        assert_eq!(*found.emails, ["doerte@example.org".into()]);
        assert_eq!(*found.uris, ["spiffe://example.org/sensor/7".into()]);
        let bare = Certificate::from_der(&certificate(&[], vec![])).expect("a certificate");
        assert_eq!(bare, Certificate::default());
    }

    #[test]
    fn a_name_that_could_mislead_is_none() {
        let long = "x".repeat(Certificate::NAME_MAX_BYTES + 1);
        for unfit in ["admin\0.example.org", "a\nb", "a\u{9b}b", "", &long] {
            let der = certificate(&[unfit], vec![SanType::DnsName(ia5("fit"))]);
            let found = Certificate::from_der(&der).expect("a certificate");
            assert_eq!(found.common_name, None, "{unfit:?}");
            assert_eq!(*found.dns_names, ["fit".into()]);
            assert_eq!(Certificate::named(unfit), None);
        }
        let der = certificate(&["x"], vec![SanType::URI(ia5("urn:a\r\nb")), SanType::DnsName(ia5("\u{7f}"))]);
        let found = Certificate::from_der(&der).expect("a certificate");
        assert_eq!((found.uris.len(), found.dns_names.len()), (0, 0));
        assert_eq!(Certificate::named("x").expect("fit").common_name.as_deref(), Some("x"));
    }

    #[test]
    fn no_more_names_than_are_looked_at() {
        let many = (0..100).map(|i| SanType::DnsName(ia5(&format!("d{i}")))).collect();
        let found = Certificate::from_der(&certificate(&["x"], many)).expect("a certificate");
        assert_eq!(found.dns_names.len(), Certificate::NAMES_MAX);
    }

    #[test]
    fn what_follows_the_end_is_noticed() {
        let mut der = certificate(&["x"], vec![]);
        der.push(0);
        assert_eq!(Certificate::from_der(&der), Err(UnreadableCertificate));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Certificate::from_der(&bytes);
        }

        #[test]
        fn any_damage(at in 0usize..400, to in any::<u8>()) {
            use std::sync::OnceLock;
            static DER: OnceLock<Vec<u8>> = OnceLock::new();
            let whole = DER.get_or_init(|| certificate(&["x"], vec![SanType::DnsName(ia5("d"))]));
            let mut der = whole.clone();
            let at = at % der.len();
            der[at] = to;
            let plain = |name: &str| !name.contains(char::is_control);
            if let Ok(found) = Certificate::from_der(&der) {
                prop_assert!(found.common_name.iter().chain(&found.dns_names).all(|name| plain(name)));
            }
            prop_assert!(Certificate::from_der(&der[..at]).is_err());
        }
    }
}
