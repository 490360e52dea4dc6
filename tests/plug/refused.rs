//! What a plug refuses at once, and what it says to do.

use std::fs::File;
use std::io::pipe;
use std::process::{Command, Output, Stdio};

use super::peer::{Far, Framing, Plug};
use crate::common::daemon::Daemon;
use crate::common::hub::{folder, free_tcp_port, utf8};
use crate::common::process::Process;
use crate::common::require::require;

fn refusal(args: &[&str]) -> (Option<i32>, String) {
    let runtime = folder();
    let (plug, far) = Plug::between(runtime.path(), Framing::Vde, args);
    let Far { to: _to, from: _from, .. } = far;
    plug.exit()
}

#[test]
fn nobody_is_there() {
    let runtime = folder();
    let path = runtime.path().join("none");
    let tcp = format!("connect:tcp:localhost:{}", free_tcp_port());
    for (args, said) in [
        (
            &[][..],
            "qhub: no instance 'default' of qhub runs here; start it with 'qhub --name default', or say what to join, as in 'qhub plug connect:unix:PATH' (connect:unix:",
        ),
        (
            &["--name", "lab"],
            "qhub: no instance 'lab' of qhub runs here; start it with 'qhub --name lab', or ",
        ),
        (&[&format!("connect:unix:{}", utf8(&path))], "No such file or directory"),
        (&[&tcp], "Connection refused"),
        (&["connect:tcp:nobody.invalid:1"], "can't join connect:tcp:nobody.invalid:1"),
    ] {
        let (code, log) = refusal(args);
        assert_eq!((code, log.lines().count()), (Some(1), 1), "{args:?}: {log}");
        assert!(log.contains(said), "{args:?}: {log}");
    }
}

#[test]
fn no_folder_is_made_for_an_instance_that_does_not_run() {
    let runtime = folder();
    let (plug, _far) = Plug::between(runtime.path(), Framing::Vde, &[]);
    assert_eq!(plug.exit().0, Some(1));
    assert_eq!(runtime.path().read_dir().expect("a folder").count(), 0);
}

#[test]
fn a_folder_that_others_may_enter_is_not_trusted() {
    let runtime = folder();
    let hub = Daemon::start(runtime.path(), &[]);
    let home = runtime.path().join("qhub");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&home, open).expect("a folder of ours");
    let (plug, _far) = Plug::between(runtime.path(), Framing::Vde, &[]);
    let (code, log) = plug.exit();
    assert!(code == Some(1) && log.contains("others may enter it (mode 755)"), "{log}");
    drop(hub);
}

#[test]
fn a_wrong_command_line() {
    for (args, said) in [
        (
            &["tcp:5555"][..],
            "write connect:unix:PATH, connect:tcp:HOST:PORT or connect:vde:DIR, and let 'qhub run' open 'tcp:127.0.0.1:5555'",
        ),
        (&["unix:/run/a"], "is nothing that a plug joins"),
        (&["vde:/run/a"], "write connect:vde:/run/a"),
        (&["nonsense"], "is no port"),
        (&["--framing", "ppp"], "possible values: vde, qemu"),
        (&["--name", "lab", "connect:unix:/run/a"], "cannot be used with"),
        (&["--name", "a/b"], "is no name"),
        (&["connect:unix:/run/a", "connect:unix:/run/b"], "unexpected argument"),
    ] {
        let runtime = folder();
        let (code, log) = Plug::start(runtime.path(), args, Stdio::null(), Stdio::null()).exit();
        assert!(code == Some(2) && log.contains(said), "{args:?}: {log}");
    }
}

#[test]
fn the_help_tells_how_to_use_it() {
    let output = Command::new(env!("CARGO_BIN_EXE_qhub")).args(["plug", "--help"]).output().expect("qhub");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    for part in ["dpipe qhub plug = ssh HOST qhub plug", "--framing", "Exit status", "9234", "--name"] {
        assert!(help.contains(part), "{help}");
    }
}

fn plug_on(stdin: impl Into<Stdio>, stdout: impl Into<Stdio>) -> (Option<i32>, String) {
    let runtime = folder();
    Plug::start(runtime.path(), &[], stdin, stdout).exit()
}

#[test]
fn a_file_is_neither_stdin_nor_stdout() {
    let ((input, _to), (_from, output)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
    let file = || File::open("/dev/null").expect("every Linux has it");
    let regular = tempfile::tempfile().expect("a file");
    let (more, other) = (output.try_clone().expect("a pipe"), output.try_clone().expect("a pipe"));
    for ((code, log), which) in [
        (plug_on(file(), output), "stdin"),
        (plug_on(regular.try_clone().expect("a file"), more), "stdin"),
        (plug_on(Stdio::null(), other), "stdin"),
        (plug_on(input, regular), "stdout"),
    ] {
        assert_eq!(code, Some(1));
        assert!(log.starts_with(&format!("qhub: {which}: it is neither a pipe nor a socket")), "{log}");
        assert!(log.contains("'cat FILE | qhub plug' or 'qhub plug | cat > FILE'"), "{log}");
    }
}

#[test]
fn a_terminal_is_neither_stdin_nor_stdout() {
    if !require("terminal", &["script", "timeout"], &[]) {
        return;
    }
    for (redirected, which) in [("", "stdin"), ("< /dev/null", "stdout"), ("| cat", "stdin")] {
        let command = format!("{} plug {redirected}", env!("CARGO_BIN_EXE_qhub"));
        let Output { stdout, .. } = Process::command("timeout")
            .args(["20", "script", "-qec", &command, "/dev/null"])
            .stdin(Stdio::null())
            .output()
            .expect("script runs");
        let said = String::from_utf8_lossy(&stdout);
        let wanted = format!(
            "qhub: {which} is a terminal; a plug is for a pipe: 'dpipe qhub plug = ssh HOST qhub plug'"
        );
        assert!(said.contains(&wanted), "{redirected}: {said}");
    }
}
