//! The console of who started the switch. Stdin and stdout may be anything, and belong to others as well, so
//! nothing of them is changed: two threads pass everything on to a socket that does not block the loop.
//!
//! Who reads a terminal from the background is stopped, with all of its threads: so SIGTTIN is blocked around every
//! read, which makes it fail instead.

use std::io::{self, IsTerminal, Read, Stdin, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{getpgrp, read, tcgetpgrp};

use super::session::Place;

/// Octets passed on at once.
const CHUNK: usize = 4096;

/// How long the last words may take.
const FLUSH: Duration = Duration::from_millis(200);

/// How soon a terminal is tried again that others have in the foreground, in milliseconds.
const BACKGROUND: u16 = 500;

/// Stdin and stdout.
#[derive(Debug)]
pub(super) struct Stdio {
    /// What a session is on.
    pub(super) stream: UnixStream,
    /// Who is at the other end.
    pub(super) place: Place,
    /// Tells when everything is written that the session has said.
    pub(super) written: Written,
}

/// The end of stdout.
#[derive(Debug)]
pub(super) struct Written(Receiver<()>);

impl Stdio {
    /// Begins to pass on. `None` when stdin has ended already, as under a supervisor: nobody has ever meant to type
    /// there.
    ///
    /// # Errors
    ///
    /// When the system gives no socket or no thread.
    pub(super) fn open() -> io::Result<Option<Self>> {
        let Some(first) = first_words() else { return Ok(None) };
        let place = if io::stdin().is_terminal() { Place::Terminal } else { Place::Pipe };
        let (stream, theirs) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        let answers = theirs.try_clone()?;
        let (done, written) = sync_channel(1);
        spawn("stdin", move || pass_on_stdin(&first, &theirs))?;
        spawn("stdout", move || {
            pass_on_to_stdout(answers);
            // Nobody waits for it any more.
            let _ = done.try_send(());
        })?;
        Ok(Some(Self { stream, place, written: Written(written) }))
    }
}

impl Written {
    /// Waits until the last answer is written, once the session is closed, unless nobody reads it.
    pub(super) fn wait(self) {
        // Written or stuck: either way it is over.
        let _ = self.0.recv_timeout(FLUSH);
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

/// What stdin has to offer at the start; `None` when it is at its end.
fn first_words() -> Option<Vec<u8>> {
    let stdin = io::stdin();
    if is_in_background(&stdin) || !is_readable(&stdin, PollTimeout::ZERO) {
        return Some(Vec::new());
    }
    let mut chunk = [0; CHUNK];
    match receive(&stdin, &mut chunk) {
        Ok(octets @ 1..) => Some(chunk[..octets].to_vec()),
        Err(Errno::EAGAIN | Errno::EINTR) => Some(Vec::new()),
        Err(Errno::EIO) if is_in_background(&stdin) => Some(Vec::new()),
        Ok(0) | Err(_) => None,
    }
}

/// Is it a terminal of ours, where somebody else is in the foreground?
fn is_in_background(stdin: &Stdin) -> bool {
    tcgetpgrp(stdin).is_ok_and(|foreground| foreground != getpgrp())
}

/// Reads without a buffer, of which a poll would know nothing.
fn receive(stdin: &Stdin, chunk: &mut [u8]) -> Result<usize, Errno> {
    let before = SigSet::from(Signal::SIGTTIN).thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let received = read(stdin, chunk);
    before.thread_set_mask()?;
    received
}

fn is_readable(input: impl AsFd, timeout: PollTimeout) -> bool {
    let mut events = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    match poll(&mut events, timeout) {
        Ok(told) => told > 0,
        // Reading it says why.
        Err(errno) => errno != Errno::EINTR,
    }
}

fn pass_on_stdin(first: &[u8], mut session: &UnixStream) {
    let stdin = io::stdin();
    let mut chunk = [0; CHUNK];
    let mut passed = session.write_all(first);
    while passed.is_ok() {
        is_readable(&stdin, PollTimeout::NONE);
        // It may change its place while it reads.
        let was_in_background = is_in_background(&stdin);
        passed = match receive(&stdin, &mut chunk) {
            Ok(0) => break,
            Ok(octets) => session.write_all(&chunk[..octets]),
            // Somebody else who has it open may have made it non-blocking.
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(Errno::EIO) if was_in_background || is_in_background(&stdin) => {
                // What is typed there is for others.
                let _ = poll(&mut [], BACKGROUND);
                Ok(())
            }
            Err(errno) => Err(errno.into()),
        };
    }
    // The session may have ended before.
    let _ = session.shutdown(Shutdown::Write);
}

/// Answers that nobody reads are lost, and change nothing for the commands.
fn pass_on_to_stdout(mut session: UnixStream) {
    let mut stdout = io::stdout();
    let mut chunk = [0; CHUNK];
    while let Ok(octets @ 1..) = session.read(&mut chunk) {
        write_all(&mut stdout, &chunk[..octets]);
    }
}

fn write_all(stdout: &mut io::Stdout, mut text: &[u8]) {
    while !text.is_empty() {
        match stdout.write(text) {
            Ok(octets @ 1..) => text = &text[octets..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_for_room(stdout),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
        }
    }
    while stdout.flush().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
        wait_for_room(stdout);
    }
}

fn wait_for_room(stdout: &io::Stdout) {
    let mut events = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
    // Writing to it says what is wrong.
    let _ = poll(&mut events, PollTimeout::NONE);
}
