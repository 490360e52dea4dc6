//! A listening socket, and whether there is anything to accept from it.

use std::io;
use std::time::{Duration, Instant};

use crate::link::{Listener, StreamSocket};

/// How soon a listener tries again that could not accept.
const STARVED: Duration = Duration::from_millis(100);

/// A listening socket that connections are accepted from.
#[derive(Debug)]
pub(super) struct Entrance {
    pub(super) listener: Listener,
    /// Is there anything to accept, as far as the poll told?
    ready: bool,
    /// It could not accept; when to try again.
    starved: Option<Instant>,
}

impl Entrance {
    pub(super) fn new(listener: Listener) -> Self {
        Self { listener, ready: false, starved: None }
    }

    /// The poll tells of it.
    pub(super) fn note(&mut self) {
        self.ready = true;
    }

    /// What it was short of may be there again.
    pub(super) fn retry(&mut self, now: Instant) {
        if self.starved.is_some() {
            self.starved = Some(now);
        }
    }

    /// When it wants to be looked at.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.ready.then(|| self.starved.unwrap_or(now))
    }

    /// The next connection; `None` when there is none now, an error when it has to rest, most often because
    /// the system is out of something.
    pub(super) fn accept(&mut self, now: Instant) -> Option<io::Result<StreamSocket>> {
        if !self.ready || self.starved.is_some_and(|until| now < until) {
            return None;
        }
        self.starved = None;
        loop {
            let error = match self.listener.accept() {
                Ok(socket) => return Some(Ok(socket)),
                Err(error) => error,
            };
            if error.kind() == io::ErrorKind::WouldBlock {
                self.ready = false;
                return None;
            }
            // A connection that ended before it was accepted is no reason to stop; anything else may
            // last.
            if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) {
                self.starved = Some(now + STARVED);
                return Some(Err(error));
            }
        }
    }
}
