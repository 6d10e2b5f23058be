//! Buffers that are lent to connections while they have something to hold.

use std::cell::RefCell;

/// Buffers kept per thread.
const POOL_MAX: usize = 64;
/// A buffer that grew beyond this is freed instead.
const KEEP_MAX_BYTES: usize = 256 << 10;

thread_local!(static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) });

/// An empty buffer, with room if this thread has one to spare.
pub fn take() -> Vec<u8> {
    POOL.with(|pool| pool.borrow_mut().pop()).unwrap_or_default()
}

/// Gives a buffer back; its contents are gone.
pub fn give(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > KEEP_MAX_BYTES {
        return;
    }
    buffer.clear();
    POOL.with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.len() < POOL_MAX {
            pool.push(buffer);
        }
    });
}
