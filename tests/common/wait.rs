//! The tests' only clock.

use std::thread;
use std::time::{Duration, Instant};

/// Generous: it is only ever reached by a test that fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A point in time that a test will not wait past.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    #[expect(clippy::disallowed_methods, reason = "a test of real processes runs in real time")]
    pub(crate) fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    /// What is left of it; `None` when it is over.
    #[expect(clippy::disallowed_methods, reason = "a test of real processes runs in real time")]
    pub(crate) fn left(self) -> Option<Duration> {
        self.0.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}

#[expect(clippy::disallowed_methods, reason = "a test of real processes runs in real time")]
pub(crate) fn pause(time: Duration) {
    thread::sleep(time);
}

/// Asks `probe` every few milliseconds until it has an answer; panics when `limit` is over.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Deadline::after(limit);
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(deadline.left().is_some(), "waited {limit:?} for {what}");
        pause(Duration::from_millis(5));
    }
}
