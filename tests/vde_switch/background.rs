//! Daemon mode, the pid file, and signals.

use std::fs;
use std::io::{Read, Write, pipe};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getsid};

use super::switch::{Console, Switch, launch, program, refusal};
use crate::common::hub::{folder, utf8};
use crate::common::net::have_namespaces;
use crate::common::process::Process;
use crate::common::wait::{LIMIT, pause, wait_for};

/// A process in the background, which no parent of ours will end.
struct Daemon(Pid);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended as it should.
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

fn stat(pid: Pid) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    text.rsplit(") ").next().expect("fields").split(' ').map(str::to_owned).collect()
}

#[test]
fn it_goes_to_the_background_once_it_serves() {
    let folder = folder();
    let [sock, mgmt, pid_file] = ["c", "m", "pid"].map(|name| folder.path().join(name));
    let args = ["-daemon", "-s", utf8(&sock), "-M", utf8(&mgmt), "-pidfile", utf8(&pid_file)];
    let mut parent = launch(folder.path(), &args, Stdio::piped());
    assert!(parent.exit(LIMIT).success(), "{}", parent.stderr());
    // Now, not in a moment.
    let pid = fs::read_to_string(&pid_file).expect("it serves");
    let daemon =
        Daemon(Pid::from_raw(pid.strip_suffix('\n').and_then(|pid| pid.parse().ok()).expect("a pid")));
    let mut console = Console::open(&mgmt);
    assert!(console.ask("showinfo").contains(&format!("\npid {} MAC ", daemon.0)));
    assert!(sock.join("ctl").exists());
    assert_eq!((parent.stdout(), parent.stderr()), (String::new(), String::new()));
    let fields = stat(daemon.0);
    assert_ne!(fields[3], daemon.0.to_string(), "it leads no session, which could get a terminal");
    assert_ne!(
        fields[3],
        getsid(None).expect("it is ours").to_string(),
        "it is in the session of who started it"
    );
    assert_eq!(fields[4], "0", "it has no terminal");
    for fd in 0..3 {
        let open = fs::read_link(format!("/proc/{}/fd/{fd}", daemon.0)).expect("it is open");
        assert_eq!(open, Path::new("/dev/null"));
    }

    kill(daemon.0, Signal::SIGHUP).expect("it runs");
    assert!(console.ask("port/showinfo").ends_with("1000 Success\n"));
    kill(daemon.0, Signal::SIGTERM).expect("it runs");
    wait_for("it to end", LIMIT, || (!pid_file.exists()).then_some(()));
    assert!(!sock.exists() && !mgmt.exists());
    assert_eq!(console.read_to_end(), "");
    wait_for("its process to go", LIMIT, || {
        (!Path::new(&format!("/proc/{}", daemon.0)).exists() || stat(daemon.0)[0] == "Z").then_some(())
    });
}

#[test]
fn in_the_background_it_logs_to_the_system() {
    if !have_namespaces() {
        return;
    }
    let home = folder();
    let [sock, pid_file, log] = ["c", "pid", "log"].map(|name| home.path().join(name));
    let syslog = UnixDatagram::bind(&log).expect("a socket");
    syslog.set_read_timeout(Some(LIMIT)).expect("an option of a socket");
    // A /dev of its own, whose log is ours.
    let script = format!(
        "mount -t tmpfs dev /dev && mknod -m 666 /dev/null c 1 3 && ln -s {} /dev/log && exec {} -d -s {} -p {}",
        utf8(&log),
        utf8(&program(home.path())),
        utf8(&sock),
        utf8(&pid_file)
    );
    let mut command = Process::command("unshare");
    command.args(["--mount", "sh", "-c", &script]).env("HOME", home.path()).stdin(Stdio::null());
    let mut parent = Process::spawn("unshare", &mut command);
    assert!(parent.exit(LIMIT).success(), "{}", parent.stderr());
    let pid = fs::read_to_string(&pid_file).expect("it serves");
    let daemon = Daemon(Pid::from_raw(pid.trim().parse().expect("a pid")));
    let mut line = [0; 1024];
    let octets = syslog.recv(&mut line).expect("a line");
    let line = String::from_utf8_lossy(&line[..octets]);
    // Of a daemon, for information.
    assert!(line.starts_with("<30>"), "{line}");
    assert!(line.contains(&format!(" vde_switch[{}]: ", daemon.0)) && line.contains(utf8(&sock)), "{line}");
    assert!(!line.contains('\n'), "{line}");
}

#[test]
fn a_start_that_fails_is_told_to_who_started_it() {
    let home = folder();
    let sock = home.path().join("c");
    for (args, words) in [
        (&["-M", "none/m"][..], "create it first"),
        (&["-p", "none/pid"], "choose another one"),
        (&["-f", "none/rc"], "leave out --rcfile"),
        (&["-t", "no/tap"], "'no/tap'"),
    ] {
        let args = [&["-d", "-s", utf8(&sock)], args].concat();
        let (status, error) = refusal(home.path(), &args);
        assert!(!status.success() && error.contains(words), "{args:?}: {error}");
        assert!(!sock.exists(), "{args:?}");
    }
}

/// Who started it may look for its words as soon as it has ended, however long these take.
#[test]
fn a_start_that_fails_ends_with_its_last_word() {
    let home = folder();
    let (mut heard, mut words) = pipe().expect("a pipe");
    let room = fcntl(&words, FcntlArg::F_SETPIPE_SZ(4096)).expect("a size for it");
    let full = vec![b'x'; room.try_into().expect("a size")];
    words.write_all(&full).expect("it has that much room");
    let (sock, program) = (home.path().join("c"), program(home.path()));
    let script = format!("exec {} -d -s {} -p none/pid 2>&1", utf8(&program), utf8(&sock));
    let mut command = Process::command("sh");
    command.args(["-c", &script]).env("HOME", home.path()).stdin(Stdio::null());
    let mut parent = Process::spawn_to("vde_switch", &mut command, words.into());
    drop(command);
    pause(Duration::from_millis(300));
    assert!(parent.try_exit().is_none(), "it has said nothing yet");
    heard.read_exact(&mut full.clone()).expect("what was in the way");
    let mut text = String::new();
    heard.read_to_string(&mut text).expect("it is UTF-8");
    assert!(text.starts_with("qhub: ") && text.ends_with('\n'), "{text:?}");
    assert_eq!(parent.exit(LIMIT).code(), Some(1));
}

#[test]
fn a_full_disk_is_found_before_anything_is_served() {
    let home = folder();
    let (sock, pid_file) = (home.path().join("c"), home.path().join("pid"));
    fs::write(&pid_file, "1\n").expect("it is ours");
    // What is written beyond the limit fails, as on a full disk.
    let script = format!(
        "trap '' XFSZ; ulimit -f 0; exec {} -s {} -p {}",
        utf8(&program(home.path())),
        utf8(&sock),
        utf8(&pid_file)
    );
    let mut process =
        Process::spawn("sh", Process::command("sh").args(["-c", &script]).stdin(Stdio::piped()));
    assert_eq!(process.exit(LIMIT).code(), Some(1));
    let error = process.last_words();
    assert!(error.contains("pid file"), "{error}");
    assert!(!sock.exists());
    assert_eq!(fs::read(&pid_file).expect("it is there"), b"1\n", "it is not ours");
    assert_eq!(fs::read_dir(home.path()).expect("ours").count(), 2, "it left a draft behind");
}

#[test]
fn the_pid_file_is_removed_while_it_is_ours() {
    for is_replaced in [false, true] {
        let home = folder();
        let pid_file = home.path().join("pid");
        let switch = Switch::start_in(home, &["-p", utf8(&pid_file)], Stdio::null());
        wait_for("the pid file", LIMIT, || pid_file.exists().then_some(()));
        let pid = fs::read_to_string(&pid_file).expect("it is there");
        assert_eq!(
            fs::read_link(format!("/proc/{}/cwd", pid.trim())).expect("it runs"),
            pid_file.parent().expect("a folder")
        );
        if is_replaced {
            fs::remove_file(&pid_file).expect("it is ours");
            fs::write(&pid_file, "another\n").expect("it is ours");
        }
        switch.signal(Signal::SIGTERM);
        wait_for("the end", LIMIT, || (!switch.path("c").exists()).then_some(()));
        let folder = switch.path("");
        assert!(folder.exists());
        wait_for("the pid file to be left or removed", LIMIT, || {
            (pid_file.exists() == is_replaced).then_some(())
        });
        switch.ended();
    }
}

#[test]
fn signals_end_it_well() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut switch = Switch::start(&[]);
        switch.signal(Signal::SIGHUP);
        assert!(switch.console().ask("port/showinfo").ends_with("1000 Success\n"));
        assert!(switch.is_running());
        switch.signal(signal);
        switch.ended();
    }
}
