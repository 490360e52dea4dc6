//! The way to the background: who started the switch waits until it serves, or hears why it does not.

use std::fs::File;
use std::io::{Read, Write, pipe};
use std::process;

use anyhow::{Context, Result};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use crate::link::sys::{Fork, fork};

/// The process in the background, on its way there: until it has arrived, it has its parent's terminal.
#[derive(Debug)]
pub(super) struct Departure {
    word: std::io::PipeWriter,
}

impl Departure {
    /// Goes on in a process that no terminal belongs to. The one that was started waits for its word, and ends:
    /// well, if it comes, and else badly, once the other one has said why and ended.
    ///
    /// To be called before there is any other thread.
    ///
    /// # Errors
    ///
    /// When the system gives no process.
    pub(super) fn begin() -> Result<Self> {
        let (mut heard, word) = pipe().context("make a pipe")?;
        if let Fork::Parent = fork().context("go to the background")? {
            drop(word);
            let is_well = heard.read(&mut [0]).is_ok_and(|octets| octets > 0);
            process::exit(if is_well { 0 } else { 1 });
        }
        drop(heard);
        setsid().context("leave the terminal")?;
        // Who leads a session could get another terminal by opening it.
        if let Fork::Parent = fork().context("go to the background")? {
            process::exit(0);
        }
        Ok(Self { word })
    }

    /// It serves: lets go of the terminal, and says so.
    ///
    /// # Errors
    ///
    /// When there is no `/dev/null`.
    pub(super) fn arrive(&mut self) -> Result<()> {
        let nothing = File::options().read(true).write(true).open("/dev/null").context("open /dev/null")?;
        dup2_stdin(&nothing)?;
        dup2_stdout(&nothing)?;
        dup2_stderr(&nothing)?;
        // Whoever started it may be gone by now.
        let _ = self.word.write_all(b"1");
        Ok(())
    }

    /// It does not serve. Who waits for it is to wait until the process ends, which is still to say why.
    pub(super) fn give_up(self) {
        std::mem::forget(self.word);
    }
}
