//! Who may be a client, as the configuration says.

use std::sync::Arc;

use tokio::runtime::Handle;
use tracing::info;

use super::error::StartError;
use crate::auth::http::HttpCallback;
use crate::auth::jwt::Jwt;
use crate::auth::scram::{Decoys, Scram};
use crate::auth::{Access, Authenticator, Certified, Chain, Passwords, Patience, UserTable, UsersOfBoth};
use crate::broker::{Broker, Permissions};
use crate::config::{AuthConfig, AuthMethod, Config};
use crate::env;

impl From<&Config> for Permissions {
    fn from(config: &Config) -> Self {
        let auth = &config.auth;
        let asks = auth.required
            || auth.scram_users_file.is_some()
            || config.auth_jwt.is_set()
            || config.auth_http.url.is_some();
        Self { no_match: auth.no_match, asks }
    }
}

impl From<&AuthConfig> for Patience {
    fn from(config: &AuthConfig) -> Self {
        Self {
            burst: config.failed_logins_burst,
            forgive_ms: config.failed_login_forgiven_ms,
            delay_ms: config.failed_login_delay_ms,
            ban_after: config.ban_after_failed_logins,
            ban_s: config.ban_s,
        }
    }
}

/// `secret`: of the cluster, so that all its nodes make the same of a user that does not exist.
///
/// # Errors
/// A file cannot be used any more, or the system gives no threads or random numbers.
pub(super) async fn access(
    config: &Config,
    broker: &Arc<Broker>,
    secret: &[u8],
    runtime: &Handle,
) -> Result<Access, StartError> {
    let (auth, node) = (&config.auth, config.node_name());
    let file = match auth.scram_users_file.clone() {
        None => None,
        Some(path) => {
            let users = env::blocking(move || UserTable::load(&path)).await?;
            info!(users = users.len(), "clients may authenticate themselves by SCRAM-SHA-256");
            Some(users)
        }
    };
    let users = Arc::new(UsersOfBoth::new(file, broker.clone()));
    let mut chain: Vec<Box<dyn Authenticator>> = Vec::new();
    for method in &auth.chain {
        match method {
            AuthMethod::Certificate => chain.push(Box::new(Certified(auth.certificate_name))),
            AuthMethod::Users => {
                chain.push(Box::new(Passwords::new(broker.clone()).map_err(StartError::Runtime)?));
            }
            AuthMethod::Jwt => chain.push(Box::new(Jwt::open(&config.auth_jwt, runtime)?)),
            AuthMethod::Http => {
                chain.push(Box::new(HttpCallback::new(&config.auth_http, &node, runtime)?));
            }
        }
    }
    Ok(Access::new(auth.required)
        .with(Scram::new(users, Decoys::new(secret)))
        .judging_by(Chain::new(chain))
        .denying(auth.denied)
        .naming(auth.client_ids)
        .patient(auth.into()))
}
