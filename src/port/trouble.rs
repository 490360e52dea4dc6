//! Trouble in sending that may pass: a peer that is not there, or frames that the system refuses.

use std::io;
use std::time::{Duration, Instant};

use super::QUIET;
use crate::batch::Taken;
use crate::link::SendError;

/// How long a peer that is not there is left alone: to look for it may take long.
pub const REST: Duration = Duration::from_millis(100);

/// Whether frames can't be sent at present, and who knows.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// What was told, until it is over.
    told: Option<String>,
    warned: Option<Instant>,
    /// The peer is not there; when to look again.
    resting: Option<Instant>,
}

impl Trouble {
    /// There is trouble; true when somebody should be told.
    pub(super) fn is_news(&mut self, error: &io::Error, now: Instant) -> bool {
        let cause = error.to_string();
        if self.told.as_ref() == Some(&cause)
            || self.warned.is_some_and(|warned| now.saturating_duration_since(warned) < QUIET)
        {
            return false;
        }
        self.warned = Some(now);
        self.told = Some(cause);
        true
    }

    pub(super) fn rest(&mut self, now: Instant) {
        self.resting = Some(now + REST);
    }

    pub(super) fn is_resting(&self, now: Instant) -> bool {
        self.resting.is_some_and(|until| now < until)
    }

    /// What `send` says, which is not tried while the peer is left alone.
    pub(super) fn unless_resting(
        &self,
        now: Instant,
        send: impl FnOnce() -> Result<Taken, SendError>,
    ) -> Result<Taken, SendError> {
        if self.is_resting(now) { Err(SendError::Down(io::ErrorKind::NotConnected.into())) } else { send() }
    }

    /// The peer is there, whatever was seen before.
    pub(super) fn wake(&mut self) {
        self.resting = None;
    }

    /// There is none; true when somebody was told that there was.
    pub(super) fn is_over(&mut self) -> bool {
        self.resting = None;
        self.told.take().is_some()
    }
}
