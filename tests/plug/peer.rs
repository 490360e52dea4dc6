//! A plug as a process, and what a test holds of it: the far ends of its pipes, and a listener for it to dial.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::Socket;

use crate::common::daemon::Table;
use crate::common::hub::utf8;
use crate::common::process::Process;
use crate::common::wait::{Deadline, LIMIT, wait_for};
use crate::common::wire::Station;

/// How frames are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Vde,
    Qemu,
}

pub(crate) const FRAMINGS: [Framing; 2] = [Framing::Vde, Framing::Qemu];

impl Framing {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vde => "vde",
            Self::Qemu => "qemu",
        }
    }

    pub(crate) fn longest(self) -> usize {
        match self {
            Self::Vde => 9_234,
            Self::Qemu => 69_632,
        }
    }

    pub(crate) fn prefix(self, length: usize) -> Vec<u8> {
        let bytes = u32::try_from(length).expect("a length fits").to_be_bytes();
        match self {
            Self::Vde => bytes[2..].to_vec(),
            Self::Qemu => bytes.to_vec(),
        }
    }

    pub(crate) fn record(self, frame: &[u8]) -> Vec<u8> {
        [&self.prefix(frame.len()), frame].concat()
    }

    /// The first frame of `bytes`, and the octets of its record.
    pub(crate) fn first(self, bytes: &[u8]) -> Option<(&[u8], usize)> {
        let prefix = self.prefix(0).len();
        let length = bytes.get(..prefix)?.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
        assert!((14..=self.longest()).contains(&length), "the plug wrote a frame of {length} octets");
        Some((bytes.get(prefix..prefix + length)?, prefix + length))
    }
}

pub(crate) struct Plug {
    child: Child,
    log: File,
}

impl Plug {
    pub(crate) fn start(
        runtime: &Path,
        args: &[&str],
        stdin: impl Into<Stdio>,
        stdout: impl Into<Stdio>,
    ) -> Self {
        let mut command = Process::command(env!("CARGO_BIN_EXE_qhub"));
        command.arg("plug").args(args).env("XDG_RUNTIME_DIR", runtime);
        Self::spawn(&mut command, stdin, stdout)
    }

    pub(crate) fn spawn(command: &mut Command, stdin: impl Into<Stdio>, stdout: impl Into<Stdio>) -> Self {
        let log = tempfile::tempfile().expect("a file");
        let stderr = log.try_clone().expect("a descriptor");
        let child = command.stdin(stdin).stdout(stdout).stderr(stderr).spawn().expect("start qhub plug");
        // The command would keep its ends of the pipes.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self { child, log }
    }

    /// Starts one between pipes that the test holds the other ends of.
    pub(crate) fn between(runtime: &Path, framing: Framing, args: &[&str]) -> (Self, Far) {
        let ((input, to), (from, output)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
        let args = [&["--framing", framing.name()], args].concat();
        let plug = Self::start(runtime, &args, input, output);
        (plug, Far { to, from, framing, input: Vec::new() })
    }

    pub(crate) fn log(&self) -> String {
        let mut bytes = vec![0; 1 << 20];
        let length = self.log.read_at(&mut bytes, 0).expect("read a file");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// Waits for a line with `what`.
    pub(crate) fn says(&self, what: &str) {
        wait_for(&format!("the plug to say '{what}'"), LIMIT, || self.log().contains(what).then_some(()));
    }

    /// Its state at this moment.
    pub(crate) fn table(&self) -> Table {
        let seen = self.log().len();
        self.signal(Signal::SIGUSR1);
        wait_for("the plug to print its table", LIMIT, || Table::parse(&self.log()[seen..]))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().expect("a pid fits"));
        kill(pid, signal).expect("it runs");
    }

    pub(crate) fn try_exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait for a child of ours")
    }

    /// Its exit status and all that it has said.
    pub(crate) fn exit(mut self) -> (Option<i32>, String) {
        let status = wait_for("the plug to exit", LIMIT, || self.try_exit());
        (status.code(), self.log())
    }
}

impl Drop for Plug {
    fn drop(&mut self) {
        // Either fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = format!("--- the plug said:\n{}---\n", self.log());
            let _ = std::io::stderr().write_all(said.as_bytes());
        }
    }
}

/// The far ends of a plug's pipes.
pub(crate) struct Far {
    pub(crate) to: PipeWriter,
    pub(crate) from: PipeReader,
    framing: Framing,
    input: Vec<u8>,
}

impl Far {
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.to.write_all(bytes).expect("the plug reads");
    }

    /// Closes the plug's stdin.
    pub(crate) fn close_stdin(self) -> PipeReader {
        self.from
    }
}

impl Station for Far {
    fn send(&mut self, frame: &[u8]) {
        self.write(&self.framing.record(frame));
    }

    fn try_receive(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let deadline = Deadline::after(limit);
        loop {
            if let Some((frame, octets)) = self.framing.first(&self.input) {
                let frame = frame.to_vec();
                self.input.drain(..octets);
                return Some(frame);
            }
            if !is_readable(&self.from, deadline.left()?) {
                return None;
            }
            let mut chunk = vec![0; 1 << 16];
            match self.from.read(&mut chunk).expect("read a pipe") {
                0 => panic!("the plug closed its stdout"),
                length => self.input.extend_from_slice(&chunk[..length]),
            }
        }
    }
}

/// A listener that speaks QEMU's framing, for a plug to dial: it reads and writes only when the test does.
pub(crate) struct Listening {
    listener: UnixListener,
    path: PathBuf,
}

impl Listening {
    pub(crate) fn new(folder: &Path) -> Self {
        let path = folder.join("far.sock");
        Self { listener: UnixListener::bind(&path).expect("a socket in a new folder"), path }
    }

    pub(crate) fn spec(&self) -> String {
        format!("connect:unix:{}", utf8(&self.path))
    }

    pub(crate) fn accept(&self) -> Socket {
        let socket = Socket::from(self.listener.accept().expect("a plug dials").0);
        socket.set_read_timeout(Some(LIMIT)).expect("a time-out can be set");
        socket.set_write_timeout(Some(LIMIT)).expect("a time-out can be set");
        socket
    }
}

/// Reads until the other end is closed.
pub(crate) fn read_all(from: impl Read + AsFd) -> Vec<u8> {
    read_up_to(from, usize::MAX, || 1 << 16)
}

/// Reads `octets`, or until the other end is closed, as many at a time as `chunk` says.
pub(crate) fn read_up_to(
    mut from: impl Read + AsFd,
    octets: usize,
    mut chunk: impl FnMut() -> usize,
) -> Vec<u8> {
    let (deadline, mut bytes) = (Deadline::after(LIMIT), Vec::new());
    while bytes.len() < octets {
        let left = deadline.left().unwrap_or_else(|| panic!("{} of {octets} octets came", bytes.len()));
        if is_readable(&from, left) {
            let mut room = vec![0; chunk().min(octets - bytes.len())];
            match from.read(&mut room).expect("it can be read") {
                0 => break,
                length => bytes.extend_from_slice(&room[..length]),
            }
        }
    }
    bytes
}

fn is_readable(fd: impl AsFd, limit: Duration) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(limit).expect("short");
    poll(&mut fds, timeout).expect("it can be polled") > 0
}

/// Random numbers that are the same in each run (xorshift).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits fit") % limit
    }
}
