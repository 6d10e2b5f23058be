//! What the service manager is told (systemd's `Type=notify`); without one, nobody is.

use sd_notify::NotifyState;
use tracing::warn;

/// The node is there and does what it can: it has what is on its disk, and listens as soon as its
/// cluster lets it. Not that the cluster has a quorum, which others may have to start for.
pub(super) fn started() {
    tell(NotifyState::Ready);
}

pub(super) fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "the service manager cannot be told");
    }
}
