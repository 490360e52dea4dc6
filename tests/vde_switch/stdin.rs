//! The console of who started the switch, and what the end of stdin means.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::switch::{Switch, program};
use crate::common::hub::{folder, utf8};
use crate::common::process::Process;
use crate::common::require::require;
use crate::common::wait::{LIMIT, pause, wait_for};

const SUCCESS: &str = "1000 Success\n";

fn start(args: &[&str], stdin: Stdio) -> Switch {
    Switch::start_in(folder(), args, stdin)
}

/// As the test driver of NixOS does it.
#[test]
fn a_driver_waits_for_the_first_success() {
    let mut switch = start(&["--dirmode", "0700", "--hub"], Stdio::piped());
    assert_eq!(switch.stdout(), "", "it says nothing by itself");
    switch.type_in("showinfo\n");
    let info = switch.printed(0, SUCCESS);
    assert!(info.starts_with("0000 DATA END WITH '.'\nVDE switch V.2.3.2\nqhub "), "{info}");
    assert!(
        info.contains("\n\npid ") && info.contains(" MAC ") && info.ends_with("\n.\n1000 Success\n"),
        "{info}"
    );
    let mode =
        |name: &str| fs::metadata(switch.path(name)).expect("it is there").permissions().mode() & 0o7777;
    assert_eq!((mode("c"), mode("c/ctl")), (0o700, 0o600));
    switch.close_stdin();
    // It may have ended before the signal.
    if switch.is_running() {
        switch.signal(Signal::SIGTERM);
    }
    switch.ended();
}

/// The end takes its time while somebody is still to get what was sent.
#[test]
fn a_signal_behind_the_end_of_stdin_changes_nothing() {
    let mut switch = start(&[], Stdio::piped());
    let (one, slow) = (switch.plug(0, "one"), switch.plug(0, "slow"));
    for number in 0..2000 {
        one.call(number);
    }
    switch.type_in("port/print 2\n");
    switch.printed(0, SUCCESS);
    switch.close_stdin();
    wait_for("the beginning of the end", LIMIT, || switch.log().contains("stdin has ended").then_some(()));
    assert!(switch.is_running(), "it ended too fast for this test");
    switch.signal(Signal::SIGTERM);
    assert!(switch.ended().contains("stopping; a second signal"));
    drop(slow);
}

#[test]
fn commands_come_in_pieces_and_in_bulk() {
    let mut switch = start(&[], Stdio::piped());
    for piece in ["port/", "showi", "nfo"] {
        switch.type_in(piece);
        pause(Duration::from_millis(20));
        assert_eq!(switch.stdout(), "", "that was no line");
    }
    switch.type_in("\nport/create 5\nbogus\n\n# nothing\nport/create 5\nlogout\nds/showinfo");
    let answers = switch.printed(0, "1017 File exists\n");
    let expected = "0000 DATA END WITH '.'\nNumports=32\nHUB=false\ncounters=true\n.\n1000 Success\n\
                    1000 Success\n1038 Function not implemented\n1017 File exists\n";
    assert_eq!(answers, expected);
    assert!(switch.is_running(), "there is nowhere to log out to");
    // The last line has no end but that of stdin.
    let shown = switch.path("c");
    switch.close_stdin();
    let last = switch.printed(answers.len(), SUCCESS);
    assert_eq!(
        last,
        format!("0000 DATA END WITH '.'\nctl dir {}\nstd mode 0600\n.\n1000 Success\n", utf8(&shown))
    );
    switch.ended();
}

#[test]
fn the_end_of_stdin_is_the_end() {
    let mut switch = start(&[], Stdio::piped());
    pause(Duration::from_millis(100));
    assert!(switch.is_running(), "nobody has said anything yet");
    switch.close_stdin();
    assert!(switch.ended().contains("stdin has ended"));
}

#[test]
fn an_end_that_was_there_from_the_start_is_none() {
    for make in [Stdio::null, closed_pipe] {
        let mut switch = start(&[], make());
        pause(Duration::from_millis(200));
        assert!(switch.is_running(), "{}", switch.log());
        let log = switch.stop();
        assert_eq!(log.matches("stdin is at its end").count(), 1, "{log}");
    }
}

/// A pipe that nobody will write to any more.
fn closed_pipe() -> Stdio {
    std::io::pipe().expect("a pipe").0.into()
}

#[test]
fn a_file_of_commands_may_be_stdin() {
    let home = folder();
    let path = home.path().join("commands");
    fs::write(&path, "port/create 5\nport/create 5\n").expect("it is ours");
    let stdin = fs::File::open(&path).expect("it was just made");
    let sock = home.path().join("c");
    let mut process = super::switch::launch(home.path(), &["-s", utf8(&sock)], stdin.into());
    assert!(process.exit(LIMIT).success(), "{}", process.stderr());
    wait_for("the answers", LIMIT, || (process.stdout() == "1000 Success\n1017 File exists\n").then_some(()));
}

#[test]
fn stdin_may_be_left_alone() {
    let mut switch = start(&["--nostdin"], Stdio::piped());
    switch.type_in("showinfo\n");
    switch.close_stdin();
    pause(Duration::from_millis(200));
    assert!(switch.is_running());
    assert_eq!(switch.stdout(), "");
    switch.stop();
}

#[test]
fn shutdown_ends_it() {
    let mut switch = start(&[], Stdio::piped());
    switch.type_in("shutdown\n");
    switch.ended();
}

/// Commands without end, whose answers nobody reads.
#[test]
fn answers_that_nobody_reads_stop_nobody_else() {
    let folder = folder();
    let (sock, mgmt) = (folder.path().join("c"), folder.path().join("m"));
    let script = format!(
        "yes help | {} -s {} -M {} | sleep 60",
        utf8(&program(folder.path())),
        utf8(&sock),
        utf8(&mgmt)
    );
    let _shell = Process::spawn("sh", Process::command("sh").args(["-c", &script]).stdin(Stdio::null()));
    wait_for("the switch to serve", LIMIT, || mgmt.exists().then_some(()));
    pause(Duration::from_millis(300));
    let mut console = super::switch::Console::open(&mgmt);
    for _ in 0..20 {
        assert!(console.ask("port/showinfo").ends_with("1000 Success\n"));
    }
    console.send("shutdown\n");
    assert_eq!(console.read_to_end(), "9999 END OF SESSION");
    wait_for("the switch to go", LIMIT, || (!sock.exists()).then_some(()));
}

/// Who reads a terminal from the background is stopped.
#[test]
fn in_the_background_of_a_shell_it_goes_on() {
    if !require("script", &["script"], &[]) {
        return;
    }
    let folder = folder();
    let [sock, mgmt] = ["c", "m"].map(|name| folder.path().join(name));
    let mut shell = Process::spawn(
        "script",
        Process::command("script")
            .args(["-qec", "sh -i", "/dev/null"])
            .env("HOME", folder.path())
            .stdin(Stdio::piped()),
    );
    shell.type_line(&format!("{} -s {} -M {} &", utf8(&program(folder.path())), utf8(&sock), utf8(&mgmt)));
    wait_for("the switch to serve", LIMIT, || mgmt.exists().then_some(()));
    let mut console = super::switch::Console::open(&mgmt);
    let mut foreground = |shell: &mut Process, port: &str| {
        // What the shell reads is none of its business.
        shell.type_line(":");
        pause(Duration::from_millis(100));
        assert!(console.ask("port/showinfo").ends_with("1000 Success\n"));
        shell.type_line("fg");
        // It may take a moment to look again.
        pause(Duration::from_millis(100));
        shell.type_line(&format!("port/create {port}"));
        wait_for("stdin to be heard", LIMIT, || {
            console.ask("port/allprint").contains(&format!("Port {port:0>4} ")).then_some(())
        });
    };
    foreground(&mut shell, "5");
    shell.stdin().write_all(b"\x1a").expect("a terminal reads");
    wait_for("the shell", LIMIT, || shell.stdout().contains("Stopped").then_some(()));
    shell.type_line("bg");
    foreground(&mut shell, "6");
    shell.type_line("shutdown");
    wait_for("the switch to go", LIMIT, || (!sock.exists()).then_some(()));
}

#[test]
fn a_terminal_has_prompts() {
    if !require("script", &["script"], &[]) {
        return;
    }
    let folder = folder();
    let command = format!("{} -s {}", utf8(&program(folder.path())), utf8(&folder.path().join("c")));
    let mut process = Process::spawn(
        "script",
        Process::command("script")
            .args(["-qec", &command, "/dev/null"])
            .env("HOME", folder.path())
            .stdin(Stdio::piped()),
    );
    wait_for("the switch to serve", LIMIT, || folder.path().join("c/ctl").exists().then_some(()));
    for line in ["\n", "port/create 3\n", "logout\n", "shutdown\n"] {
        process.stdin().write_all(line.as_bytes()).expect("a terminal reads");
        let lines = if line == "shutdown\n" { 3 } else { 0 };
        wait_for("a prompt", LIMIT, || (process.stdout().matches("vde$ ").count() >= lines).then_some(()));
    }
    assert!(process.exit(LIMIT).success());
    let text = process.stdout();
    assert!(text.contains("1000 Success\r\n\r\nvde$ "), "{text:?}");
    assert!(!text.contains("INFO"), "who types reads no log: {text:?}");
}
