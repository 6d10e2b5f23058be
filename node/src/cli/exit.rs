//! Exit codes: fixed, so that scripts can rely on them.

use crate::admin::ErrorKind;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    /// Anything without a code of its own.
    Error = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    NotFound = 3,
    /// The cluster does not work, or works without some of its members.
    Unhealthy = 4,
    /// Refused because it would cost quorum or acknowledged data, or leave a member behind.
    Unsafe = 5,
    Timeout = 6,
    Unauthorized = 7,
    /// A check found that the cluster broke a promise: something acknowledged was lost, or came
    /// twice or out of order.
    Broken = 8,
}

/// The table in the long help.
pub const EXIT_HELP: &str = "Exit codes:
  0  done
  1  error
  2  wrong usage or configuration
  3  not found
  4  unhealthy: node unreachable, no leader, no quorum, or members down
  5  refused, because it would cost quorum or acknowledged data, or leave a member behind
  6  timed out
  7  unauthorized
  8  a check found something acknowledged that was lost, duplicated or out of order

Data goes to stdout, everything else to stderr.";

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Invalid => Self::Usage,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Unavailable => Self::Unhealthy,
            ErrorKind::Unsafe => Self::Unsafe,
            ErrorKind::Timeout => Self::Timeout,
            ErrorKind::Unauthorized => Self::Unauthorized,
            ErrorKind::Conflict | ErrorKind::Internal => Self::Error,
        }
    }
}

/// A command that failed: what to tell the person, and how to end.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Error, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_failure_has_its_exit_code() {
        let table = [
            (ErrorKind::Invalid, 2),
            (ErrorKind::NotFound, 3),
            (ErrorKind::Conflict, 1),
            (ErrorKind::Unsafe, 5),
            (ErrorKind::Unavailable, 4),
            (ErrorKind::Timeout, 6),
            (ErrorKind::Unauthorized, 7),
            (ErrorKind::Internal, 1),
        ];
        for (kind, code) in table {
            assert_eq!(Exit::from(kind) as u8, code, "{kind:?}");
        }
    }

    #[test]
    fn the_help_names_every_code() {
        for exit in [
            Exit::Ok,
            Exit::Error,
            Exit::Usage,
            Exit::NotFound,
            Exit::Unhealthy,
            Exit::Unsafe,
            Exit::Timeout,
            Exit::Unauthorized,
            Exit::Broken,
        ] {
            assert!(EXIT_HELP.contains(&format!("\n  {}  ", exit as u8)));
        }
    }
}
