//! Who has the cores when there are too few.

use std::process::{Command, Stdio};

/// Lets a thread of this machine run when no other wants to. It, and whatever it starts, stands for
/// other machines, whose work costs this one nothing.
pub(crate) fn low_priority(thread: i32) {
    // Without it, figures of a busy machine tell more of the others. The scheduler takes a core that
    // runs nothing but this for an idle one, which the lowest niceness does not bring about.
    let mut idle = Command::new("chrt");
    let _ = idle.args(["--idle", "--pid", "0", &thread.to_string()]).stderr(Stdio::null()).status();
}

/// The system's number of the calling thread.
pub(crate) fn own_thread() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}
