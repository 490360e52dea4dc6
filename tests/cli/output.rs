//! A stdout or stderr that is full, closed or not read must not keep frames from flowing.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::common::daemon::{Bystanders, Daemon, full_pipe};
use crate::common::hub::{folder, utf8};
use crate::common::wait::{LIMIT, wait_for};

/// Starts a hub with its output redirected, and sees it serve and end well.
fn serves(runtime: &Path, redirect: &str) -> Daemon {
    let mut daemon =
        Daemon::launch(runtime, &format!(r#"exec "$@" {redirect}"#), &["--no-tcp"], Stdio::null());
    let connect = || UnixStream::connect(daemon.socket()).ok();
    wait_for("qhub to listen", LIMIT, connect);
    Bystanders::join(&daemon).talk();
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    let status = daemon.exit();
    assert!(status.success(), "{redirect}: {status}");
    assert!(!daemon.socket().exists(), "{redirect}: it left its socket file behind");
    daemon
}

#[test]
fn a_full_device_as_stdout() {
    serves(folder().path(), ">/dev/full").line("can't print how to join: No space left on device");
}

#[test]
fn a_full_device_as_stderr() {
    serves(folder().path(), "2>/dev/full");
}

#[test]
fn a_full_device_as_both() {
    serves(folder().path(), ">/dev/full 2>/dev/full");
}

#[test]
fn closed_ones() {
    serves(folder().path(), ">&-");
    serves(folder().path(), "2>&-");
    serves(folder().path(), "<&- >&- 2>&-");
}

#[test]
fn a_pipe_that_was_closed_at_its_other_end() {
    let runtime = folder();
    let path = runtime.path().join("pipe");
    mkfifo(&path, Mode::S_IRWXU).expect("a pipe in a new folder");
    // Opened both ways it waits for nobody; once the reader is gone, only the hub's own end for writing is left.
    serves(runtime.path(), &format!("5<>{0} >{0} 2>{0} 5<&-", utf8(&path)));
}

#[test]
fn a_full_pipe_as_stdout() {
    let runtime = folder();
    let path = runtime.path().join("pipe");
    let _pipe = full_pipe(&path);
    serves(runtime.path(), &format!(">{}", utf8(&path)));
}

#[test]
fn a_full_pipe_as_stderr() {
    let runtime = folder();
    let path = runtime.path().join("pipe");
    let _pipe = full_pipe(&path);
    serves(runtime.path(), &format!("2>{}", utf8(&path)));
}

#[test]
fn a_refusal_has_its_exit_status_whatever_stderr_is() {
    for redirect in ["2>/dev/full", "2>&-", ">&- 2>&-"] {
        for (args, status) in [(&["fd:9"][..], 1), (&["nonsense"], 2)] {
            let output = Command::new("timeout")
                .args([
                    "20",
                    "sh",
                    "-c",
                    &format!(r#"exec "$@" {redirect}"#),
                    "sh",
                    env!("CARGO_BIN_EXE_qhub"),
                ])
                .args(args)
                .env("XDG_RUNTIME_DIR", folder().path())
                .output()
                .expect("coreutils has timeout");
            assert_eq!(output.status.code(), Some(status), "{args:?} {redirect}");
        }
    }
}

#[test]
fn an_address_that_can_not_be_printed_is_a_failure() {
    let output = Command::new("sh")
        .args(["-c", r#"exec "$@" >/dev/full"#, "sh", env!("CARGO_BIN_EXE_qhub"), "mac", "web"])
        .output()
        .expect("there is a shell");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.starts_with("qhub: ") && message.contains("No space left on device"), "{message}");
}
