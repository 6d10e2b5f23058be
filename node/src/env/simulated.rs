//! The clocks of simulated machines: one true time for all, which each machine's own clock shows
//! with an error that the simulation chooses.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::{Handle, Id};

/// What a clock shows when the simulation begins: nothing that runs since the boot is younger.
const ORIGIN_MS: u64 = 86_400_000;
/// The rate of a clock that is right.
const RIGHT_PERMILLE: u64 = 1000;

thread_local! {
    static NOW_MS: Cell<u64> = const { Cell::new(0) };
    static CLOCKS: RefCell<HashMap<Id, Arc<HostClock>>> = RefCell::default();
    static BORROWED: RefCell<Option<Arc<HostClock>>> = const { RefCell::new(None) };
}

/// A machine's clock. It never goes back.
pub struct HostClock(Mutex<Course>);

/// From a moment on, in true milliseconds.
#[derive(Clone, Copy)]
struct Course {
    since_ms: u64,
    shows_ms: u64,
    rate_permille: u64,
}

impl Course {
    fn at(self, now_ms: u64) -> u64 {
        self.shows_ms + now_ms.saturating_sub(self.since_ms) * self.rate_permille / 1000
    }
}

impl HostClock {
    /// From now on it runs at this rate: 1100 gains a tenth.
    pub fn set_rate(&self, permille: u64) {
        let now_ms = NOW_MS.get();
        let mut course = self.0.lock();
        *course = Course { since_ms: now_ms, shows_ms: course.at(now_ms), rate_permille: permille };
    }

    /// It shows so much more at once, as after a suspension of the machine.
    pub fn jump(&self, ms: u64) {
        self.0.lock().shows_ms += ms;
    }

    fn now_ms(&self) -> u64 {
        self.0.lock().at(NOW_MS.get())
    }
}

impl Default for HostClock {
    fn default() -> Self {
        Self(Mutex::new(Course { since_ms: 0, shows_ms: ORIGIN_MS, rate_permille: RIGHT_PERMILLE }))
    }
}

/// True time goes on, on this thread: milliseconds since the simulation began.
pub fn set_now_ms(ms: u64) {
    NOW_MS.set(ms);
}

/// What runs on the present runtime reads this clock.
///
/// # Panics
/// Outside a runtime.
pub fn use_clock(clock: Arc<HostClock>) {
    CLOCKS.with_borrow_mut(|clocks| clocks.insert(Handle::current().id(), clock));
}

/// Does something by this clock, wherever it runs: to ask a machine's software from outside.
pub fn by_clock<T>(clock: &Arc<HostClock>, work: impl FnOnce() -> T) -> T {
    let before = BORROWED.replace(Some(clock.clone()));
    let done = work();
    BORROWED.set(before);
    done
}

/// What the present runtime's clock shows, milliseconds.
pub(super) fn boot_ms() -> u64 {
    if let Some(clock) = BORROWED.with_borrow(Option::clone) {
        return clock.now_ms();
    }
    let here = Handle::try_current().map(|here| here.id()).ok();
    let own = here.and_then(|id| CLOCKS.with_borrow(|all| all.get(&id).cloned()));
    own.map_or_else(|| ORIGIN_MS + NOW_MS.get(), |clock| clock.now_ms())
}
