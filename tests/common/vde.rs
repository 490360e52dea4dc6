//! Real VDE: its plug as a station of the test's, its cables and its switch.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::daemon::Daemon;
use super::hub::utf8;
use super::process::Process;
use super::require::require;
use super::wait::{Deadline, LIMIT, wait_for};
use super::wire::Station;

/// The longest frame that vde_plug passes on; of a longer one it passes on the beginning.
pub(crate) const PLUG_MAX: usize = 9234;

/// The longest that vde_switch passes on.
pub(crate) const SWITCH_MAX: usize = 1518;

/// Is all of VDE there? Says so if not.
pub(crate) fn have_vde() -> bool {
    let programs = [
        "setpriv",
        "dpipe",
        "unixcmd",
        "unixterm",
        "vde_plug",
        "vde_plug2tap",
        "vde_switch",
        "vdeterm",
        "wirefilter",
    ];
    require("vde", &programs, &["/etc/vde2/vdecmd".into()])
}

/// A hub that serves the control folder `vde` in `runtime`, with `options` behind it.
pub(crate) fn serving(runtime: &Path, options: &str) -> (Daemon, String) {
    let folder = utf8(&runtime.join("vde")).to_owned();
    let hub = Daemon::start(runtime, &[&format!("vde:{folder}{options}")]);
    (hub, folder)
}

/// A program that has frames on its stdin and stdout in vde_plug's framing, `u16 length | frame`, most often vde_plug.
pub(crate) struct Plug {
    process: Process,
    socket: UnixStream,
    input: Vec<u8>,
}

impl Plug {
    /// Starts a vde_plug with these arguments, the last of which is mostly the switch.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::spawn(Process::command("vde_plug").args(args))
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        let (socket, theirs) = UnixStream::pair().expect("a socket pair");
        socket.set_write_timeout(Some(LIMIT)).expect("a time-out can be set");
        let stdout = OwnedFd::from(theirs.try_clone().expect("another descriptor"));
        command.stdin(OwnedFd::from(theirs));
        let process = Process::spawn_to("a plug", command, stdout.into());
        // Not to be a holder of the other end.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self { process, socket, input: Vec::new() }
    }

    /// The end of what it is to send.
    pub(crate) fn hang_up(&self) {
        self.socket.shutdown(Shutdown::Write).expect("it is there");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub(crate) fn try_exit(&mut self) -> Option<ExitStatus> {
        self.process.try_exit()
    }

    pub(crate) fn exit(&mut self) -> ExitStatus {
        self.process.exit(LIMIT)
    }

    /// Sees it fail, and gives the line that it says.
    pub(crate) fn fails(mut self) -> String {
        assert_eq!(self.exit().code(), Some(1), "{}", self.process.stderr());
        wait_for("a plug to say why", LIMIT, || {
            Some(self.process.stderr()).filter(|said| said.ends_with('\n'))
        })
    }

    fn take_frame(&mut self) -> Option<Vec<u8>> {
        let (length, rest) = self.input.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let frame = rest.get(..length)?.to_vec();
        self.input.drain(..2 + length);
        Some(frame)
    }
}

impl Station for Plug {
    /// In one write: vde_plug loses a frame whose length it reads by halves.
    fn send(&mut self, frame: &[u8]) {
        let length = u16::try_from(frame.len()).expect("a length that fits");
        self.socket.write_all(&[&length.to_be_bytes(), frame].concat()).expect("it takes a frame");
    }

    fn try_receive(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let deadline = Deadline::after(limit);
        loop {
            if let Some(frame) = self.take_frame() {
                return Some(frame);
            }
            self.socket.set_read_timeout(Some(deadline.left()?)).expect("a time-out can be set");
            let mut chunk = vec![0; 1 << 16];
            match self.socket.read(&mut chunk) {
                Ok(0) => panic!("a plug ended: {:?} {}", self.process.try_exit(), self.process.stderr()),
                Ok(length) => self.input.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("read from a plug: {error}"),
            }
        }
    }
}

/// A vde_switch, or what is called so.
pub(crate) struct Switch {
    process: Process,
    folder: PathBuf,
}

impl Switch {
    /// Starts VDE's own with the control folder `folder`, and returns when it serves.
    pub(crate) fn start(folder: &Path, args: &[&str]) -> Self {
        let mut command = Process::command("vde_switch");
        Self::spawn(command.args(["-s", utf8(folder)]).args(args), folder)
    }

    /// Starts a switch, and returns when it answers as NixOS asks it.
    pub(crate) fn spawn(command: &mut Command, folder: &Path) -> Self {
        let mut process = Process::spawn("a switch", command.stdin(Stdio::piped()));
        process.type_line("showinfo");
        wait_for("a switch to serve", LIMIT, || {
            if let Some(status) = process.try_exit() {
                panic!("a switch ended at once: {status}");
            }
            process.stdout().contains("1000 Success").then_some(())
        });
        let switch = Self { process, folder: folder.to_owned() };
        assert!(switch.folder.join("ctl").exists(), "a switch that serves has a control socket");
        switch
    }

    /// Does a command on its console, and gives what it says to it.
    pub(crate) fn console(&mut self, command: &str) -> String {
        let seen = self.process.stdout().len();
        self.process.type_line(command);
        wait_for(&format!("a switch to answer {command}"), LIMIT, || {
            let said = self.process.stdout()[seen..].to_owned();
            said.split_inclusive('\n').any(is_result).then_some(said)
        })
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it as it is mostly ended.
    pub(crate) fn stop(mut self) {
        self.process.signal(Signal::SIGTERM);
        self.process.exit(LIMIT);
    }

    /// Ends it as a crash would: it leaves its sockets behind.
    pub(crate) fn crash(mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.exit(LIMIT);
        assert!(self.folder.join("ctl").exists());
    }
}

/// Is it the line that ends each answer on a console: `1000 Success`, or `1022 Invalid argument`?
fn is_result(line: &str) -> bool {
    let code = line.strip_suffix('\n').and_then(|line| line.split_once(' ')).map(|(code, _)| code);
    code.is_some_and(|code| code.len() == 4 && code.starts_with('1') && code.parse::<u16>().is_ok())
}

/// What `vdecmd` says that is given the console's socket: unixcmd, with VDE's instructions.
pub(crate) fn vdecmd(console: &str, command: &str) -> String {
    let mut vdecmd = Command::new("timeout");
    vdecmd.args(["20", "unixcmd", "-f", "/etc/vde2/vdecmd", "-s", console]).args(command.split(' '));
    let output = vdecmd.stdin(Stdio::null()).output().expect("run unixcmd");
    String::from_utf8(output.stdout).expect("a console speaks UTF-8")
}

/// A process that nobody waits for; it is ended with the test.
pub(crate) struct Background(Pid);

impl Background {
    pub(crate) fn of(pidfile: &Path) -> Self {
        let pid = wait_for("a pid", LIMIT, || fs::read_to_string(pidfile).ok()?.trim().parse().ok());
        Self(Pid::from_raw(pid))
    }

    /// Asks for its end and waits for it.
    pub(crate) fn end(self) {
        kill(self.0, Signal::SIGTERM).expect("it lives");
        wait_for("a process in the background to end", LIMIT, || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
            // Nobody may have waited for it.
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        });
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It fails if the process has ended.
        let _ = kill(self.0, Signal::SIGTERM);
    }
}

/// The sockets in a control folder, by name.
pub(crate) fn sockets(folder: &Path) -> Vec<String> {
    let all = fs::read_dir(folder).map_or_else(|_| Vec::new(), |all| all.flatten().collect());
    let sockets = all.iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()));
    let mut names: Vec<String> = sockets.map(|entry| entry.file_name().to_string_lossy().into()).collect();
    names.sort();
    names
}

/// What joins two segments: one dpipe with the commands between its `=`.
pub(crate) fn dpipe(one: &[&str], other: &[&str]) -> Process {
    let mut command = Process::command("dpipe");
    Process::spawn("dpipe", command.args(one).arg("=").args(other).stdin(Stdio::null()))
}
