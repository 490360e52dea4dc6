//! A child process with its output captured. It is killed when dropped, by its own pid, and by the kernel if the test
//! itself is killed.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::{LIMIT, wait_for};

pub(crate) struct Process {
    name: String,
    child: Child,
    stdout: Output,
    stderr: Output,
}

impl Process {
    /// A command that runs `program` and has it killed when the calling thread ends: what `PR_SET_PDEATHSIG` does,
    /// without the unsafe code that it takes here.
    pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        // Who called sudo to run the tests is nothing to the hub.
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).env_remove("SUDO_USER");
        command
    }

    pub(crate) fn spawn(name: &str, command: &mut Command) -> Self {
        Self::spawn_to(name, command, Stdio::piped())
    }

    /// The same, with what it prints going to `stdout`.
    pub(crate) fn spawn_to(name: &str, command: &mut Command, stdout: Stdio) -> Self {
        let mut child = command
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("start {name}: {error}"));
        let stdout = child.stdout.take().map_or_else(Output::default, Output::read_all);
        let stderr = Output::read_all(child.stderr.take().expect("stderr is a pipe"));
        Self { name: name.to_owned(), child, stdout, stderr }
    }

    /// All that it has printed so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// All that it and its children said on stderr, once these have ended or closed it.
    pub(crate) fn last_words(&self) -> String {
        wait_for("the end of stderr", LIMIT, || self.stderr.is_complete().then(|| self.stderr()))
    }

    pub(crate) fn stdin(&mut self) -> &mut ChildStdin {
        self.child.stdin.as_mut().expect("the command was given a pipe as its stdin")
    }

    /// Types a line, in one write: not everybody puts the pieces of a line together.
    pub(crate) fn type_line(&mut self, line: &str) {
        let typed = self.stdin().write_all(format!("{line}\n").as_bytes());
        typed.unwrap_or_else(|error| panic!("type {line}: {error}"));
    }

    /// The end of what it reads.
    pub(crate) fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().expect("a pid fits"));
        kill(pid, signal).unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
    }

    /// How it ended, once it has.
    pub(crate) fn try_exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait for a child of ours")
    }

    pub(crate) fn exit(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} to exit", self.name);
        wait_for(&what, limit, || self.try_exit())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.try_exit();
        // Either fails only if the child has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let (name, stdout, stderr) = (&self.name, self.stdout(), self.stderr());
            let fate = ended.map_or("killed at the end of the test".to_owned(), |status| status.to_string());
            let _ =
                writeln!(std::io::stderr(), "--- {name}: {fate}; stdout:\n{stdout}--- stderr:\n{stderr}---");
        }
    }
}

/// What came out of a pipe, read by a thread of its own so that the writer never blocks.
#[derive(Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    fn read_all(mut pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&text);
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut chunk) {
                sink.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..length]);
            }
        });
        Self(text)
    }

    /// Has the thread that reads it let go of it?
    fn is_complete(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}
