//! Counts the signatures that a thread checks, for tests of what must cost none.

use std::cell::Cell;

thread_local! {
    static MADE: Cell<u64> = const { Cell::new(0) };
}

/// Counts one more.
pub(super) fn count() {
    MADE.set(MADE.get() + 1);
}

/// Returns what `work` does, and how many signatures it checked on this thread.
pub(crate) fn during<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = MADE.get();
    let result = work();
    (result, MADE.get() - before)
}
