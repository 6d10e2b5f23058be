//! Clients that have shown a certificate, which was verified in the TLS handshake.

use std::sync::Arc;

use super::{Authenticator, Certificate, Judge, Login, Principal, Verdict};

/// Which name in a certificate is the name of its user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CertificateName {
    /// The Common Name of its subject.
    #[default]
    CommonName,
    /// The first of its alternative names of that kind, as all that follow.
    DnsName,
    Email,
    Uri,
}

impl CertificateName {
    fn of(self, certificate: &Certificate) -> Option<&str> {
        match self {
            Self::CommonName => certificate.common_name.as_deref(),
            Self::DnsName => certificate.dns_names.first().map(|name| &**name),
            Self::Email => certificate.emails.first().map(|name| &**name),
            Self::Uri => certificate.uris.first().map(|name| &**name),
        }
    }
}

/// Takes a client for who its certificate says. Who has none, or none with such a name, is left to
/// others.
pub struct Certified(pub CertificateName);

impl Certified {
    /// As [`Principal::method`].
    pub const NAME: &'static str = "certificate";
}

impl Authenticator for Certified {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn judge(&self, login: &Arc<Login>, judge: Judge) {
        let name = login.certificate.as_deref().and_then(|certificate| self.0.of(certificate));
        let Some(name) = name else { return judge(Verdict::Pass) };
        let common_name = login.common_name().map(Into::into);
        judge(Verdict::Allow(Arc::new(Principal {
            name: name.into(),
            method: Self::NAME,
            common_name,
            ..Principal::default()
        })));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_name_that_was_asked_for() {
        let certificate = Certificate {
            common_name: Some("device 7".into()),
            dns_names: ["d7.example".into(), "d8.example".into()].into(),
            ..Certificate::default()
        };
        let of = |which, certificate: Option<&Certificate>| {
            let login = Login { certificate: certificate.cloned().map(Arc::new), ..Login::default() };
            let (sender, verdicts) = mpsc::channel();
            Certified(which).judge(&Arc::new(login), Box::new(move |verdict| drop(sender.send(verdict))));
            match verdicts.recv().expect("a verdict") {
                Verdict::Allow(principal) => {
                    Some((principal.name.to_string(), principal.common_name.clone()))
                }
                _ => None,
            }
        };
        let common_name: Option<Arc<str>> = Some("device 7".into());
        let some = |name: &str| Some((name.to_owned(), common_name.clone()));
        assert_eq!(of(CertificateName::CommonName, Some(&certificate)), some("device 7"));
        assert_eq!(of(CertificateName::DnsName, Some(&certificate)), some("d7.example"));
        assert_eq!(of(CertificateName::Email, Some(&certificate)), None);
        assert_eq!(of(CertificateName::CommonName, None), None);
    }
}
