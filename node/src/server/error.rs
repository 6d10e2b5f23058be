//! Why a node does not start, or does not go on.

use std::io;
use std::net::SocketAddr;

use crate::auth::{BadSetting, UsersFileError};
use crate::net::{BindError, TlsFileError};
use crate::peer::{AuthorityError, BadToken, JoinError, StepError};
use crate::raft;
use crate::store::OpenError;

/// Why a node does not start, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{key}: cannot listen on {address}: {source}; stop what uses it, or choose another address")]
    Bind { address: SocketAddr, key: &'static str, source: io::Error },
    #[error(transparent)]
    Mqtt(#[from] BindError),
    #[error(transparent)]
    Certificate(#[from] TlsFileError),
    #[error(transparent)]
    Open(OpenError),
    #[error("{path}: {why}; restore the file, or empty the data directory and let the node join again")]
    Keys { path: String, why: AuthorityError },
    #[error("this node's keys cannot be made: {0}")]
    NewKeys(#[from] StepError),
    #[error(transparent)]
    Consensus(#[from] raft::StartError),
    #[error("cannot run: {0}")]
    Runtime(io::Error),
    #[error("cluster.token_file: {path}: {source}")]
    TokenFile { path: String, source: io::Error },
    #[error("cluster.token_file: {0}")]
    Token(#[from] BadToken),
    #[error("auth.scram_users_file: {0}")]
    Users(#[from] UsersFileError),
    #[error("auth: {0}")]
    Authenticator(#[from] BadSetting),
    #[error("cannot join the cluster: {0}")]
    Join(#[from] JoinError),
    #[error("{0}")]
    Change(String),
    #[error(
        "this node was forgotten by its cluster: {0}; empty its data directory and join it again with a new token to use it as a new node"
    )]
    Removed(String),
}
