//! The switch under test, and its consoles.

use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::client::{Client, uninterrupted};
use crate::common::hub::{folder, utf8};
use crate::common::process::Process;
use crate::common::wait::{LIMIT, wait_for};

pub(crate) const PROMPT: &str = "\nvde$ ";

/// A switch with its control folder at `c`, and the socket of its console at `m`, in a folder of its own.
pub(crate) struct Switch {
    process: Process,
    folder: TempDir,
}

impl Switch {
    /// Starts a switch with a console at its socket, and returns when it serves.
    pub(crate) fn start(args: &[&str]) -> Self {
        let folder = folder();
        let mgmt = folder.path().join("m");
        let args = [&["-M", utf8(&mgmt)], args].concat();
        Self::start_in(folder, &args, Stdio::piped())
    }

    /// Starts one with nothing but what `args` say.
    pub(crate) fn start_in(folder: TempDir, args: &[&str], stdin: Stdio) -> Self {
        let sock = folder.path().join("c");
        let args = [&["-s", utf8(&sock)], args].concat();
        let process = launch(folder.path(), &args, stdin);
        let mut switch = Self { process, folder };
        wait_for("the switch to serve", LIMIT, || {
            if let Some(status) = switch.process.try_exit() {
                panic!("it ended at once: {status}");
            }
            UnixStream::connect(sock.join("ctl")).ok()
        });
        // It comes later.
        let mgmt = switch.path("m");
        if args.contains(&utf8(&mgmt)) {
            wait_for("its console", LIMIT, || UnixStream::connect(&mgmt).ok());
        }
        switch
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn pid(&self) -> u32 {
        let mut console = self.console();
        let info = console.ask("showinfo");
        let words: Vec<&str> = info.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "pid").expect("a pid");
        words[at + 1].parse().expect("a number")
    }

    pub(crate) fn console(&self) -> Console {
        Console::open(&self.path("m"))
    }

    pub(crate) fn plug(&self, port: u32, description: &str) -> Client {
        Client::join(&self.path("c"), self.folder.path(), port, description)
    }

    pub(crate) fn stdout(&self) -> String {
        self.process.stdout()
    }

    pub(crate) fn log(&self) -> String {
        self.process.stderr()
    }

    pub(crate) fn type_in(&mut self, text: &str) {
        let stdin = self.process.stdin();
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).expect("it reads its stdin");
    }

    /// What it prints from `from` on, once that ends with `end`.
    pub(crate) fn printed(&self, from: usize, end: &str) -> String {
        wait_for("an answer on stdout", LIMIT, || {
            let text = self.stdout()[from..].to_owned();
            text.ends_with(end).then_some(text)
        })
    }

    pub(crate) fn close_stdin(&mut self) {
        self.process.close_stdin();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.try_exit().is_none()
    }

    /// Waits for the end, which has been asked for, and sees that nothing is left behind.
    pub(crate) fn ended(mut self) -> String {
        let status = self.process.exit(LIMIT);
        assert!(status.success(), "it ended with {status}");
        for name in ["c", "m"] {
            assert!(!self.path(name).exists(), "it left {name} behind");
        }
        self.process.last_words()
    }

    pub(crate) fn stop(self) -> String {
        self.signal(Signal::SIGTERM);
        self.ended()
    }
}

/// Starts the program by the name `vde_switch`, in `folder`, which is its home as well.
pub(crate) fn launch(folder: &Path, args: &[impl AsRef<OsStr>], stdin: Stdio) -> Process {
    let mut command = Process::command(program(folder));
    Process::spawn("vde_switch", command.args(args).current_dir(folder).env("HOME", folder).stdin(stdin))
}

/// The program under its other name.
pub(crate) fn program(folder: &Path) -> PathBuf {
    let path = folder.join("vde_switch");
    match symlink(env!("CARGO_BIN_EXE_qhub"), &path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => panic!("link {}: {error}", path.display()),
        _ => path,
    }
}

/// How a switch that can't start ends, and what it says.
pub(crate) fn refusal(folder: &Path, args: &[&str]) -> (ExitStatus, String) {
    let mut process = launch(folder, args, Stdio::null());
    let status = process.exit(LIMIT);
    assert_eq!(process.stdout(), "");
    (status, process.last_words())
}

/// A session at the console.
pub(crate) struct Console {
    stream: UnixStream,
}

impl Console {
    pub(crate) fn open(path: &Path) -> Self {
        let mut console = Self::connect(path);
        console.read_to(PROMPT);
        console
    }

    pub(crate) fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("a console");
        stream.set_read_timeout(Some(LIMIT)).expect("an option of a socket");
        Self { stream }
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.send_octets(text.as_bytes());
    }

    pub(crate) fn send_octets(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).expect("the console reads");
    }

    /// Sends what there is room for, and says how many octets that was.
    pub(crate) fn send_until_full(&mut self, text: &[u8]) -> usize {
        self.stream.set_nonblocking(true).expect("an option of a socket");
        let mut sent = 0;
        // The other side takes a moment to see that it should stop.
        let mut stalls = 0;
        while sent < text.len() && stalls < 20 {
            match self.stream.write(&text[sent..]) {
                Ok(octets) => (sent, stalls) = (sent + octets, 0),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    stalls += 1;
                    crate::common::wait::pause(Duration::from_millis(10));
                }
                Err(error) => panic!("send to the console: {error}"),
            }
        }
        self.stream.set_nonblocking(false).expect("an option of a socket");
        sent
    }

    /// The answer to a command, without the prompt.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.send(&format!("{command}\n"));
        let mut answer = self.read_to(PROMPT);
        answer.truncate(answer.len() - PROMPT.len());
        answer
    }

    /// What comes until `end`, with it.
    pub(crate) fn read_to(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        let mut chunk = [0; 4096];
        while !text.ends_with(end.as_bytes()) {
            let octets = uninterrupted(|| self.stream.read(&mut chunk)).unwrap_or_else(|error| {
                panic!("waited for {end:?} behind {:?}: {error}", String::from_utf8_lossy(&text))
            });
            assert!(octets > 0, "the session ended before {end:?}: {:?}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&chunk[..octets]);
        }
        String::from_utf8(text).expect("it is UTF-8")
    }

    /// The next `length` octets.
    pub(crate) fn read_exactly(&mut self, length: usize) -> String {
        let mut text = vec![0; length];
        self.stream.read_exact(&mut text).expect("an answer");
        String::from_utf8(text).expect("it is UTF-8")
    }

    /// All that comes until the session ends.
    pub(crate) fn read_to_end(&mut self) -> String {
        let mut text = String::new();
        match self.stream.read_to_string(&mut text) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("read to the end: {error}"),
            _ => text,
        }
    }

    /// What comes for a while without being asked for.
    pub(crate) fn overhear(&mut self) -> String {
        self.stream.set_read_timeout(Some(Duration::from_millis(200))).expect("an option of a socket");
        let (mut text, mut chunk) = (String::new(), [0; 4096]);
        loop {
            match uninterrupted(|| self.stream.read(&mut chunk)) {
                Ok(0) => text.push_str("(the end)"),
                Ok(octets) => text.push_str(&String::from_utf8_lossy(&chunk[..octets])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("listen to the console: {error}"),
            }
            if text.ends_with("(the end)") {
                break;
            }
        }
        self.stream.set_read_timeout(Some(LIMIT)).expect("an option of a socket");
        text
    }

    pub(crate) fn end_input(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("it is connected");
    }
}

/// How many descriptors a process has open.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("a process of ours").count()
}
