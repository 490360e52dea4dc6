//! Real QEMU, driven over QMP.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;

use super::hub::{folder, utf8};
use super::process::Process;
use super::require::require;
use super::wait::{Deadline, LIMIT, wait_for};
use super::wire::{FRAME_MAX, Station};

/// Where scripts/setup puts what it unpacks and builds.
pub(crate) fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/e2e").join(name)
}

pub(crate) fn have_qemu() -> bool {
    require("qemu", &["setpriv", "qemu-system-x86_64"], &[])
}

/// For tests that need `reconnect-ms=` as well.
pub(crate) fn have_qemu_10() -> bool {
    require("qemu", &["setpriv", "qemu-system-x86_64"], &[asset("qemu10")])
}

#[derive(Clone, Copy)]
pub(crate) enum Version {
    /// The one on the PATH: 7.2 on Debian 12.
    Installed,
    /// 10 or later.
    Ten,
}

pub(crate) struct Qemu {
    process: Process,
    input: BufReader<UnixStream>,
    events: Vec<String>,
    _folder: TempDir,
}

impl Qemu {
    pub(crate) fn start(version: Version, args: &[&str], stdin: Stdio) -> Self {
        let folder = folder();
        let qmp = folder.path().join("qmp");
        let binary = match version {
            Version::Installed => PathBuf::from("qemu-system-x86_64"),
            Version::Ten => asset("qemu10"),
        };
        // QEMU is to connect: two of its threads may wait for a connection that comes early, and one then waits for ever.
        let listener = UnixListener::bind(&qmp).expect("a socket in a new folder");
        listener.set_nonblocking(true).expect("an option of a socket");
        let mut process = Process::spawn(
            "qemu",
            Process::command(binary)
                .args(["-accel", "tcg", "-nodefaults", "-display", "none", "-no-reboot"])
                .args(["-qmp", &format!("unix:{}", utf8(&qmp))])
                .args(args)
                .stdin(stdin),
        );
        let (socket, _) = wait_for("QEMU to connect its QMP", LIMIT, || {
            if let Some(status) = process.try_exit() {
                panic!("QEMU ended at once: {status}");
            }
            listener.accept().ok()
        });
        let mut qemu = Self { process, input: BufReader::new(socket), events: Vec::new(), _folder: folder };
        qemu.execute("qmp_capabilities", "{}");
        qemu
    }

    /// Runs a QMP command that has to succeed.
    pub(crate) fn execute(&mut self, command: &str, arguments: &str) {
        let line = format!("{{\"execute\":\"{command}\",\"arguments\":{arguments}}}\n");
        self.input.get_mut().write_all(line.as_bytes()).expect("QEMU takes a command");
        let answer =
            self.line_with(command, |line| line.contains("\"return\"") || line.contains("\"error\""));
        assert!(!answer.contains("\"error\""), "{line} got {answer}");
    }

    /// Waits for an event that has not been asked for before.
    pub(crate) fn event(&mut self, name: &str) {
        if let Some(index) = self.events.iter().position(|event| event.contains(name)) {
            self.events.remove(index);
            return;
        }
        self.line_with(name, |line| line.contains(name));
    }

    fn line_with(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Deadline::after(LIMIT);
        let mut line = String::new();
        while let Some(left) = deadline.left() {
            self.input.get_ref().set_read_timeout(Some(left)).expect("a time-out can be set");
            match self.input.read_line(&mut line) {
                Ok(0) => panic!("QEMU ended while it was asked for {what}"),
                Ok(_) if wanted(&line) => return line,
                Ok(_) => self.events.push(std::mem::take(&mut line)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("read from QMP: {error}"),
            }
        }
        panic!("waited {LIMIT:?} for QMP to say {what}")
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// A QEMU without a machine that passes frames between a network backend of its own, `s0`, and the test: real framing
/// code, no guest. What the test sends comes out of `s0`, and the other way round.
pub(crate) struct Relay {
    _qemu: Qemu,
    tap: Tap,
}

impl Relay {
    /// `netdev` is what follows `-netdev` and has `id=s0`.
    pub(crate) fn start(version: Version, netdev: &str, stdin: Stdio) -> Self {
        let tap = Tap::new();
        let dgram = tap.netdev("d0");
        let args = [
            ["-machine", "none"],
            ["-netdev", netdev],
            ["-netdev", &dgram],
            ["-netdev", "hubport,id=h0,hubid=0,netdev=s0"],
            ["-netdev", "hubport,id=h1,hubid=0,netdev=d0"],
        ];
        let qemu = Qemu::start(version, args.as_flattened(), stdin);
        Self { _qemu: qemu, tap }
    }
}

impl Station for Relay {
    fn send(&mut self, frame: &[u8]) {
        self.tap.send(frame);
    }

    fn try_receive(&mut self, limit: Duration) -> Option<Vec<u8>> {
        self.tap.try_receive(limit)
    }
}

/// The test's end of a QEMU `dgram` backend: one datagram, one frame.
pub(crate) struct Tap {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Tap {
    pub(crate) fn new() -> Self {
        let folder = folder();
        let socket = UnixDatagram::bind(folder.path().join("test")).expect("a socket in a new folder");
        socket.set_write_timeout(Some(LIMIT)).expect("a time-out can be set");
        Self { socket, folder }
    }

    /// What follows `-netdev` at the QEMU that it is for.
    pub(crate) fn netdev(&self, id: &str) -> String {
        let folder = utf8(self.folder.path());
        format!(
            "dgram,id={id},local.type=unix,local.path={folder}/qemu,remote.type=unix,remote.path={folder}/test"
        )
    }
}

impl Station for Tap {
    fn send(&mut self, frame: &[u8]) {
        self.socket.send_to(frame, self.folder.path().join("qemu")).expect("QEMU takes a datagram");
    }

    fn try_receive(&mut self, limit: Duration) -> Option<Vec<u8>> {
        self.socket.set_read_timeout(Some(limit)).expect("a time-out can be set");
        let mut frame = vec![0; FRAME_MAX + 1];
        match self.socket.recv(&mut frame) {
            Ok(length) => {
                frame.truncate(length);
                Some(frame)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("receive from QEMU: {error}"),
        }
    }
}
