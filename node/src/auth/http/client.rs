//! An HTTP client for what an operator has named: one address, a bounded answer, a bounded time.

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use crate::auth::setting::{BadSetting, read_file};

/// Largest file of certificates that is read, bytes.
const CA_FILE_MAX_BYTES: usize = 4 << 20;
/// How long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(30);

/// An address that begins with `http://` or `https://`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(Uri);

impl Url {
    pub fn uri(&self) -> &Uri {
        &self.0
    }

    pub fn is_encrypted(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// Whether what is sent there can be read on the way.
    pub fn is_exposed(&self) -> bool {
        let host = self.0.host().unwrap_or_default().trim_matches(['[', ']']);
        let local = host.eq_ignore_ascii_case("localhost")
            || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        !self.is_encrypted() && !local
    }
}

impl FromStr for Url {
    type Err = String;

    /// Does not repeat what it cannot take, which may hold a secret.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = "expected a URL such as https://auth.example/mqtt";
        let uri: Uri = text.parse().map_err(|error| format!("{wrong}: {error}"))?;
        let authority = uri.authority().ok_or_else(|| format!("{wrong}, with a host"))?;
        if authority.as_str().contains('@') {
            return Err("a URL must not hold a user or a password".to_owned());
        }
        if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.host().is_empty() {
            return Err(wrong.to_owned());
        }
        Ok(Self(uri))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    #[error("no answer in {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("an answer of more than {0} bytes")]
    TooLarge(usize),
    #[error("{0}")]
    Failed(String),
}

/// Follows no redirects, and trusts `ca_file` or, without it, whom the machine trusts.
#[derive(Clone)]
pub struct Client {
    inner: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
    answer_max_bytes: usize,
}

impl Client {
    /// A client for one address. Blocks.
    ///
    /// # Errors
    /// `ca_file` cannot be used; without one: the machine trusts nobody.
    pub fn new(
        url: &Url,
        ca_file: Option<&Path>,
        timeout: Duration,
        answer_max_bytes: usize,
    ) -> Result<Self, BadSetting> {
        let roots = if url.is_encrypted() { roots(ca_file)? } else { RootCertStore::empty() };
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| BadSetting::new("ca_file", format!("TLS cannot be used: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let inner = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(Self { inner, timeout, answer_max_bytes })
    }

    /// The status and the body of what is answered, whatever the status.
    ///
    /// # Errors
    /// There is none in time, or it is too large.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), NoAnswer> {
        let exchange = async {
            let response = self.inner.request(request).await.map_err(|e| NoAnswer::Failed(cause(&e)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), self.answer_max_bytes).collect().await;
            let body = body.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    NoAnswer::TooLarge(self.answer_max_bytes)
                } else {
                    NoAnswer::Failed(cause(&*error))
                }
            })?;
            Ok((status, body.to_bytes()))
        };
        timeout(self.timeout, exchange).await.unwrap_or(Err(NoAnswer::TimedOut(self.timeout)))
    }
}

/// What is at the bottom of an error.
fn cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, BadSetting> {
    const KEY: &str = "ca_file";
    let mut roots = RootCertStore::empty();
    let Some(path) = ca_file else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let what = "is needed: this machine has no certificates of authorities that it trusts";
            return Err(BadSetting::new(KEY, what));
        }
        return Ok(roots);
    };
    let shown = path.display();
    let pem = read_file(KEY, path, CA_FILE_MAX_BYTES)?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate =
            certificate.map_err(|error| BadSetting::new(KEY, format!("{shown} is not PEM: {error}")))?;
        roots
            .add(certificate)
            .map_err(|error| BadSetting::new(KEY, format!("{shown} cannot be used: {error}")))?;
    }
    if roots.is_empty() {
        let what = format!(
            "{shown} holds no certificate: it needs a block that begins with -----BEGIN CERTIFICATE-----"
        );
        return Err(BadSetting::new(KEY, what));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, exposed) in [
            ("https://auth.example/mqtt?a=b", false),
            ("http://127.0.0.1:8080/", false),
            ("http://[::1]:8080/x", false),
            ("http://LOCALHOST/", false),
            ("http://localhost.example/", true),
            ("http://10.0.0.1/", true),
            ("http://auth.example/", true),
        ] {
            let url: Url = text.parse().expect(text);
            assert_eq!((url.to_string().as_str(), url.is_exposed()), (text, exposed));
        }
        for text in [
            "",
            "auth.example",
            "/path",
            "ftp://a/",
            "https://",
            "https:///x",
            "http://a b/",
            "http://u:secret@a/",
        ] {
            let error = text.parse::<Url>().expect_err(text);
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_file_of_roots_is_looked_at() {
        let url: Url = "https://a.example/".parse().expect("a URL");
        let client = |path: &Path| Client::new(&url, Some(path), IDLE, 1).map(|_| ());
        let file = tempfile::NamedTempFile::new().expect("a file");
        for (text, what) in [
            ("", "holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "is not PEM"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be used"),
        ] {
            std::fs::write(file.path(), text).expect("written");
            let error = client(file.path()).expect_err("refused").to_string();
            assert!(error.starts_with("ca_file: ") && error.contains(what), "{error}");
        }
        let error = client(Path::new("/nonexistent")).expect_err("refused").to_string();
        assert!(error.contains("/nonexistent: "), "{error}");
    }
}
