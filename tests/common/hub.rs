//! The hub under test, as its own process in a runtime folder of its own.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::process::Process;
use super::wait::{LIMIT, wait_for};
use super::wire::Wire;

pub(crate) struct Hub {
    process: Process,
    runtime: PathBuf,
}

impl Hub {
    /// Starts a hub and returns when it serves all its ports.
    pub(crate) fn start(runtime: &TempDir, args: &[&str]) -> Self {
        Self::start_with(runtime, args, Stdio::null())
    }

    /// The same, with a socket as its `fd:0`.
    pub(crate) fn start_with_fd0(runtime: &TempDir, args: &[&str], fd: OwnedFd) -> Self {
        Self::start_with(runtime, args, fd.into())
    }

    fn start_with(runtime: &TempDir, args: &[&str], stdin: Stdio) -> Self {
        let process = Process::spawn(
            "qhub",
            Process::command(env!("CARGO_BIN_EXE_qhub"))
                .args(args)
                .env("XDG_RUNTIME_DIR", runtime.path())
                .env_remove("QHUB_LOG")
                .env_remove("RUST_LOG")
                .stdin(stdin),
        );
        let mut hub = Self { process, runtime: runtime.path().to_owned() };
        wait_for("qhub to print what to paste", LIMIT, || {
            if let Some(status) = hub.process.try_exit() {
                panic!("qhub ended at once: {status}");
            }
            (hub.paste_lines().len() >= 2).then_some(())
        });
        hub
    }

    /// The unix socket that every instance serves.
    pub(crate) fn socket(&self) -> PathBuf {
        self.runtime.join("qhub/default/qhub.sock")
    }

    /// The arguments for QEMU that the hub printed for its unix socket.
    pub(crate) fn paste_lines(&self) -> Vec<Vec<String>> {
        let text = self.process.stdout();
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n') && line.contains("addr.type=unix"))
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect()
    }

    pub(crate) fn connect(&self) -> Wire {
        Wire::unix(self.socket())
    }

    /// What it has printed for people to paste.
    pub(crate) fn stdout(&self) -> String {
        self.process.stdout()
    }

    pub(crate) fn log(&self) -> String {
        self.process.stderr()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for the end that a SIGTERM has asked for, and gives the whole log.
    pub(crate) fn ended(mut self) -> String {
        let status = self.process.exit(LIMIT);
        assert!(status.success(), "qhub ended with {status}");
        assert!(!self.socket().exists(), "qhub left its socket file behind");
        self.log()
    }

    pub(crate) fn stop(self) -> String {
        self.signal(Signal::SIGTERM);
        self.ended()
    }

    /// Ends the hub as a crash would.
    pub(crate) fn crash(mut self) {
        self.signal(Signal::SIGKILL);
        self.process.exit(LIMIT);
    }
}

/// A folder for sockets: near the root, as a socket's path may have 107 bytes.
pub(crate) fn folder() -> TempDir {
    tempfile::Builder::new().prefix("qhub-").tempdir().expect("a temporary folder")
}

/// A TCP port that nobody listened on a moment ago.
pub(crate) fn free_tcp_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

pub(crate) fn utf8(path: &Path) -> &str {
    path.to_str().expect("a temporary path is UTF-8")
}
