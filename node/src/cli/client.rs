//! A client of a node's HTTP API.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::{Method, Request, StatusCode, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::exit::{Exit, Failure};
use crate::admin::ErrorBody;

/// Largest answer read, bytes.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// How long a change may take; a join waits until the node has caught up.
const TIMEOUT: Duration = Duration::from_secs(60);

/// One node's API.
pub struct Api {
    /// HOST:PORT.
    address: String,
    client: Client<HttpConnector, Body>,
    timeout: Duration,
}

impl Api {
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            timeout: TIMEOUT,
        }
    }

    /// Gives up on an answer after `timeout`.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.json(Method::GET, path, Body::empty()).await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|e| Failure::new(Exit::Error, e.to_string()))?;
        self.json(Method::POST, path, Body::from(body)).await
    }

    pub async fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|e| Failure::new(Exit::Error, e.to_string()))?;
        self.json(Method::PUT, path, Body::from(body)).await
    }

    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.json(Method::DELETE, path, Body::empty()).await
    }

    /// Whether the node says that it serves.
    pub async fn is_ready(&self) -> bool {
        matches!(self.send(Method::GET, "/readyz", Body::empty()).await, Ok((StatusCode::OK, _)))
    }

    async fn json<T: DeserializeOwned>(&self, method: Method, path: &str, body: Body) -> Result<T, Failure> {
        let (status, bytes) = self.send(method, path, body).await?;
        let strange = || {
            let message = format!("{} does not answer like a Rookery node ({status})", self.address);
            Failure::new(Exit::Error, message)
        };
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|_| strange());
        }
        let ErrorBody { error } = serde_json::from_slice(&bytes).map_err(|_| strange())?;
        Err(Failure::new(error.code.into(), error.message))
    }

    async fn send(&self, method: Method, path: &str, body: Body) -> Result<(StatusCode, Vec<u8>), Failure> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|_| Failure::new(Exit::Usage, format!("{:?} is not HOST:PORT", self.address)))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| self.unreachable(&error))?;
            let status = response.status();
            let body = to_bytes(Body::new(response.into_body()), MAX_ANSWER_BYTES)
                .await
                .map_err(|error| self.unreachable(&error))?;
            Ok((status, body.to_vec()))
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(result) => result,
            Err(_) => {
                let message = format!("{} did not answer in {} s", self.address, self.timeout.as_secs());
                Err(Failure::new(Exit::Timeout, message))
            }
        }
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> Failure {
        let mut cause = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        Failure::new(Exit::Unhealthy, format!("no answer from the node at {}: {cause}", self.address))
    }
}

/// `text` as one segment of a path, or one value of a query.
pub fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_client_id_fits_a_path() {
        assert_eq!(escape("a/b c?ü%"), "a%2Fb%20c%3F%C3%BC%25");
    }

    #[tokio::test]
    async fn nobody_there_is_told_apart_from_a_wrong_address() {
        let exit = |address: &'static str| async move {
            Api::new(address).get::<()>("/livez").await.expect_err("fails").exit
        };
        // A listener that was closed again: nobody else has been given its port yet.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        drop(listener);
        let failure = Api::new(address).get::<()>("/livez").await.expect_err("fails");
        assert_eq!(failure.exit, Exit::Unhealthy, "{failure}");
        assert_eq!(exit("not an address").await, Exit::Usage);
    }
}
