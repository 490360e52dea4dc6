//! Signals, as events of the loop: SIGINT and SIGTERM end the hub, SIGUSR1 asks for its state.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use mio::{Interest, Registry, Token, Waker};
use nix::libc::{SIGTERM, SIGUSR1};
use signal_hook_mio::v1_0::Signals as Source;

/// Exit status of a program that a second SIGINT ended, as shells have it: 128 and the signal.
const INTERRUPTED: i32 = 130;

/// The same for SIGTERM.
pub const TERMINATED: i32 = 143;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Come to an end.
    Stop,
    /// Log the state.
    Show,
}

/// The signals that have arrived.
pub struct Signals {
    source: Source,
    interrupted: Arc<AtomicBool>,
    is_reported: bool,
}

impl Signals {
    /// Catches the signals; the poll of `registry` tells of them as `token` or the one after it.
    ///
    /// SIGINT has a thread of its own, so that a second one ends the program whatever the loop does.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn catch(registry: &Registry, token: Token) -> Result<Self> {
        let mut source = Source::new([SIGTERM, SIGUSR1])?;
        registry.register(&mut source, token, Interest::READABLE)?;
        let waker = Waker::new(registry, Token(token.0 + 1))?;
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        let interrupt = move || {
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(INTERRUPTED);
            }
            // Without a poll there is nothing left to wake.
            let _: io::Result<()> = waker.wake();
        };
        ctrlc::set_handler(interrupt).context("catch SIGINT")?;
        Ok(Self { source, interrupted, is_reported: false })
    }

    /// What was asked for since the last call.
    pub fn requests(&mut self) -> Vec<Request> {
        let interrupted = self.interrupted.load(Ordering::SeqCst) && !self.is_reported;
        self.is_reported |= interrupted;
        let asked = |signal| {
            if signal == SIGUSR1 { Request::Show } else { Request::Stop }
        };
        interrupted.then_some(Request::Stop).into_iter().chain(self.source.pending().map(asked)).collect()
    }
}
