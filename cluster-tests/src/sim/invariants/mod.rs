//! What must hold whatever happens. Each reads what the clients saw and says what is wrong.

pub mod delivered;
pub mod once;
pub mod one_owner;
pub mod order;
pub mod retained;
pub mod sessions_kept;
pub mod state_equal;

use super::history::Log;

/// What must hold at any moment.
pub fn violations(log: &Log) -> Vec<String> {
    let mut found = sessions_kept::check(log);
    found.extend(one_owner::check(log));
    found.extend(order::check(log));
    found.extend(once::check(log));
    found.extend(retained::check(log));
    found
}
