//! Certificates and keys as an operator keeps them: PEM files, and what can be wrong with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::env;

/// What a listener proves itself with, and whom it believes. PEM, all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The section of the configuration that names the files, for errors.
    pub section: &'static str,
    /// The server's certificate, then those between it and the root.
    pub cert_file: Option<PathBuf>,
    /// The private key of the first certificate.
    pub key_file: Option<PathBuf>,
    /// The authorities that clients' certificates must be signed by. Without it clients are not
    /// asked for one.
    pub ca_file: Option<PathBuf>,
    /// What of these authorities' certificates, and of those between them and the clients, is
    /// revoked: a list (CRL) of each. Without it nothing is. Needs `ca_file`.
    pub crl_file: Option<PathBuf>,
    /// A client without a certificate is turned away. Needs `ca_file`.
    pub require_client_cert: bool,
}

/// A file that cannot be used for TLS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{section}.{key}: {what}")]
pub struct TlsFileError {
    pub section: &'static str,
    /// The key of the section whose value is at fault.
    pub key: &'static str,
    /// With the path and what to do.
    pub what: String,
}

impl TlsFiles {
    pub(super) fn error(&self, key: &'static str, what: impl Into<String>) -> TlsFileError {
        TlsFileError { section: self.section, key, what: what.into() }
    }

    /// The server's certificates with their key.
    pub(super) fn certified_key(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsFileError> {
        let Some(cert_file) = &self.cert_file else {
            return Err(self.error(
                "cert_file",
                "is needed: a PEM file with the server's certificate, followed by those between it and the root",
            ));
        };
        let Some(key_file) = &self.key_file else {
            return Err(self.error(
                "key_file",
                format!("is needed: a PEM file with the private key of {}", cert_file.display()),
            ));
        };
        let chain = self.certificates("cert_file", cert_file)?;
        let key = self.private_key(key_file)?;
        let (cert, key_shown) = (cert_file.display(), key_file.display());
        CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => self.error(
                "key_file",
                format!(
                    "{key_shown} is not the key of the first certificate in {cert}: name the key that the \
                     certificate was made for, and put the server's own certificate first"
                ),
            ),
            Error::InvalidCertificate(why) => {
                self.error("cert_file", format!("{cert} has a certificate that cannot be read: {why:?}"))
            }
            other => self.error("key_file", format!("{key_shown} has a key that cannot be used: {other}")),
        })
    }

    /// What checks clients' certificates; `None`: they are not asked for.
    pub(super) fn client_verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsFileError> {
        let Some(ca_file) = &self.ca_file else {
            if self.require_client_cert {
                let what = "is needed by require_client_cert: a PEM file with the certificates of the \
                            authorities that sign the clients'";
                return Err(self.error("ca_file", what));
            }
            if self.crl_file.is_some() {
                let what = "is needed by crl_file: a PEM file with the certificates of the authorities that \
                            sign the clients' and their revocation lists";
                return Err(self.error("ca_file", what));
            }
            return Ok(None);
        };
        let unusable = |error: &dyn std::fmt::Display| {
            self.error("ca_file", format!("{} cannot be used: {error}", ca_file.display()))
        };
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates("ca_file", ca_file)? {
            roots.add(certificate).map_err(|error| unusable(&error))?;
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        if !self.require_client_cert {
            builder = builder.allow_unauthenticated();
        }
        if let Some(crl_file) = &self.crl_file {
            // Of every certificate between the client and the root it has to be known that it is not
            // revoked: one whose authority has no list here, or an outdated one, is refused.
            builder = builder.with_crls(self.revocation_lists(crl_file)?).enforce_revocation_expiration();
        }
        builder.build().map(Some).map_err(|error| match (&error, &self.crl_file) {
            (VerifierBuilderError::InvalidCrl(why), Some(crl_file)) => self.error(
                "crl_file",
                format!("{} has a revocation list that cannot be used: {why:?}", crl_file.display()),
            ),
            _ => unusable(&error),
        })
    }

    /// Says which of them are outdated, and goes on: what they revoke stays revoked.
    fn revocation_lists(
        &self,
        path: &Path,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsFileError> {
        const KEY: &str = "crl_file";
        let pem = self.read(KEY, path)?;
        let lists = CertificateRevocationListDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| self.error(KEY, format!("{} is not PEM: {error}", path.display())))?;
        if lists.is_empty() {
            let what = format!(
                "{} holds no revocation list: it needs a block that begins with -----BEGIN X509 CRL-----",
                path.display()
            );
            return Err(self.error(KEY, what));
        }
        let now_s = i64::try_from(env::wall_ms() / 1000).unwrap_or(i64::MAX);
        for list in &lists {
            // What cannot be read is for the verifier to complain about.
            let Ok((_, list)) = CertificateRevocationList::from_der(list) else { continue };
            let next_update = list.next_update().filter(|time| time.timestamp() <= now_s);
            if let Some(outdated) = next_update {
                tracing::warn!(
                    authority = %list.issuer(),
                    next_update = %outdated,
                    "{}.{KEY}: a revocation list is outdated, and the clients of its authority are refused \
                     until there is a newer one",
                    self.section
                );
            }
        }
        Ok(lists)
    }

    fn certificates(
        &self,
        key: &'static str,
        path: &Path,
    ) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
        let pem = self.read(key, path)?;
        let certificates = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| self.error(key, format!("{} is not PEM: {error}", path.display())))?;
        if certificates.is_empty() {
            let what = format!(
                "{} holds no certificate: it needs a block that begins with -----BEGIN CERTIFICATE-----",
                path.display()
            );
            return Err(self.error(key, what));
        }
        Ok(certificates)
    }

    fn private_key(&self, path: &Path) -> Result<PrivateKeyDer<'static>, TlsFileError> {
        const KEY: &str = "key_file";
        let pem = self.read(KEY, path)?;
        let shown = path.display();
        PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
            let encrypted = pem.windows(9).any(|word| word == b"ENCRYPTED");
            self.error(
                KEY,
                match error {
                    pem::Error::NoItemsFound if encrypted => format!(
                        "{shown} is encrypted, and nobody is there to give the passphrase: decrypt it with \
                         `openssl pkey -in {shown} -out NEW_FILE`"
                    ),
                    pem::Error::NoItemsFound => format!(
                        "{shown} holds no private key: it needs a block that begins with \
                         -----BEGIN PRIVATE KEY-----"
                    ),
                    error => format!("{shown} is not PEM: {error}"),
                },
            )
        })
    }

    fn read(&self, key: &'static str, path: &Path) -> Result<Vec<u8>, TlsFileError> {
        std::fs::read(path).map_err(|error| {
            let shown = path.display();
            self.error(
                key,
                format!("cannot read {shown}: {error}; correct the path, or let the node's user read it"),
            )
        })
    }
}
