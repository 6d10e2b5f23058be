//! Who has the cores when there are too few.

use rustix::process::{Pid, setpriority_process};

/// The lowest there is.
const NICENESS: i32 = 19;

/// Lets a thread of this machine run when no other wants to. It, and whatever it starts, stands for
/// other machines, whose work costs this one nothing.
pub(crate) fn low_priority(thread: i32) {
    // Without it, figures of a busy machine tell more of the others.
    let _ = setpriority_process(Pid::from_raw(thread), NICENESS);
}

/// The system's number of the calling thread.
pub(crate) fn own_thread() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}
