//! The console at its socket, and those who do not behave there.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::client::Client;
use super::switch::{Console, PROMPT, Switch, descriptors, program};
use crate::common::hub::{folder, utf8};
use crate::common::process::Process;
use crate::common::wait::{Deadline, LIMIT, pause, wait_for};

const SESSIONS_MAX: usize = 16;

/// How long many come at once.
const FLOOD: Duration = Duration::from_secs(4);

#[test]
fn it_greets_answers_and_says_goodbye() {
    let switch = Switch::start(&[]);
    let mut console = Console::connect(&switch.path("m"));
    let banner = console.read_to(PROMPT);
    assert!(banner.starts_with("VDE switch V.2.3.2\nqhub "), "{banner}");
    assert_eq!(banner.matches('\n').count(), 3, "{banner:?}");
    assert!(banner.ends_with("\n\nvde$ "));
    for (line, answer) in [
        ("bogus", "1038 Function not implemented\n"),
        ("", ""),
        ("   ", ""),
        ("# nothing", ""),
        (
            "port/showinfo\r",
            "0000 DATA END WITH '.'\nNumports=32\nHUB=false\ncounters=true\n.\n1000 Success\n",
        ),
        ("port/printX", "1038 Function not implemented\n"),
        ("vlan/create 5", "1038 Function not implemented\n"),
        ("fstp/setfstp 1", "1038 Function not implemented\n"),
        ("port/print 3", "0000 DATA END WITH '.'\n.\n1006 No such device or address\n"),
    ] {
        assert_eq!(console.ask(line), answer, "{line:?}");
    }
    let info = console.ask("showinfo");
    let end = format!(" uptime 0\nmgmt {} perm 0600\n.\n1000 Success\n", switch.path("m").display());
    assert!(info.ends_with(&end), "{info}");
    console.send("logout\n");
    assert_eq!(console.read_to_end(), "9999 END OF SESSION");
    switch.stop();
}

#[test]
fn shutdown_ends_the_switch() {
    let switch = Switch::start(&[]);
    let (mut one, mut other) = (switch.console(), switch.console());
    one.send("shutdown\n");
    assert_eq!(one.read_to_end(), "9999 END OF SESSION");
    assert_eq!(other.read_to_end(), "");
    switch.ended();
}

#[test]
fn how_commands_are_cut_means_nothing() {
    let switch = Switch::start(&[]);
    let mut console = switch.console();
    for octet in b"port/create 7\n" {
        console.send_octets(&[*octet]);
    }
    assert_eq!(console.read_to(PROMPT), format!("1000 Success\n{PROMPT}"));
    for piece in ["por", "t/cre", "ate 7\n"] {
        console.send(piece);
        pause(Duration::from_millis(20));
    }
    assert_eq!(console.read_to(PROMPT), format!("1017 File exists\n{PROMPT}"));
    console.send("port/create 7\nport/remove 7\nport/remove 7\n");
    let answers =
        format!("1017 File exists\n{PROMPT}1000 Success\n{PROMPT}1006 No such device or address\n{PROMPT}");
    assert_eq!(console.read_to("address\n\nvde$ "), answers);
    console.send("port/create 8");
    console.end_input();
    assert_eq!(console.read_to_end(), format!("1000 Success\n{PROMPT}"));
    switch.stop();
}

/// As vdeterm sends them.
#[test]
fn a_command_without_an_end_ends_with_silence() {
    let switch = Switch::start(&[]);
    let (mut console, mut other) = (switch.console(), switch.console());
    console.send("port/create 7");
    other.ask("help");
    assert_eq!(console.read_to(PROMPT), format!("1000 Success\n{PROMPT}"));
    console.send(&"x".repeat(5000));
    assert_eq!(console.read_to(PROMPT), format!("1007 Argument list too long\n{PROMPT}"));
    pause(Duration::from_millis(400));
    console.send("port/create 7");
    assert_eq!(console.read_to(PROMPT), format!("1017 File exists\n{PROMPT}"));
    assert_eq!(console.overhear(), "");
    assert!(cpu_while_idle(switch.pid()) < Duration::from_millis(50));
    switch.stop();
}

fn cpu_while_idle(pid: u32) -> Duration {
    let cpu = || {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        let fields: Vec<u64> = text
            .rsplit(") ")
            .next()
            .expect("fields")
            .split(' ')
            .skip(11)
            .take(2)
            .flat_map(str::parse)
            .collect();
        Duration::from_millis(fields.iter().sum::<u64>() * 10)
    };
    let before = cpu();
    pause(Duration::from_millis(300));
    cpu() - before
}

#[test]
fn who_does_not_read_is_not_read() {
    let switch = Switch::start(&[]);
    let (mut stuck, mut other) = (switch.console(), switch.console());
    let commands = "port/showinfo\n".repeat(1_000_000);
    let sent = stuck.send_until_full(commands.as_bytes());
    assert!(sent < commands.len() / 2, "it took {sent} octets");
    let memory = memory(switch.pid());
    for _ in 0..20 {
        other.ask("help");
    }
    assert!(memory < 64 << 20, "{memory}");
    // The rest of a command that was cut, and all answers.
    let rest = &commands[sent..sent.next_multiple_of(14)];
    let answers = sent.div_ceil(14);
    let answer =
        format!("0000 DATA END WITH '.'\nNumports=32\nHUB=false\ncounters=true\n.\n1000 Success\n{PROMPT}");
    for index in 0..answers {
        if index == answers / 2 {
            stuck.send(rest);
        }
        assert_eq!(stuck.read_exactly(answer.len()), answer);
    }
    assert_eq!(stuck.overhear(), "");
    switch.stop();
}

fn memory(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process of ours");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

/// Longer than any socket buffer.
#[test]
fn a_long_answer_arrives_whole() {
    let switch = Switch::start(&["-hashsize", "10000"]);
    let (talker, listener) = (switch.plug(0, "talker"), switch.plug(0, "listener"));
    for number in 0..10_000 {
        talker.call(number);
        listener.receive();
    }
    let mut console = switch.console();
    console.send("hash/print\nport/showinfo\n");
    let answers = console.read_to(&format!("counters=true\n.\n1000 Success\n{PROMPT}"));
    let (first, second) = answers.split_once(PROMPT).expect("two answers");
    assert!(first.ends_with("\n.\n1000 Success\n"));
    assert_eq!(first.matches(" to port: 001  age ").count(), 10_000);
    assert!(second.contains("Numports="), "{second}");
    switch.stop();
}

#[test]
fn garbage_is_answered_and_forgotten() {
    let switch = Switch::start(&[]);
    let mut console = switch.console();
    console.send_octets(b"\0\xff\xfe\x1b[2J;%n%s\n");
    assert_eq!(console.read_to(PROMPT), format!("1038 Function not implemented\n{PROMPT}"));
    console.send(&"x".repeat(1 << 20));
    console.send("\n");
    assert_eq!(console.read_to(PROMPT), format!("1007 Argument list too long\n{PROMPT}"));
    assert!(console.ask("port/showinfo").ends_with("1000 Success\n"));
    console.send(&"\n".repeat(5));
    assert_eq!(console.read_to(&PROMPT.repeat(5)), PROMPT.repeat(5));
    switch.stop();
}

#[test]
fn there_is_room_for_so_many() {
    let switch = Switch::start(&[]);
    let mut sessions: Vec<Console> = (0..SESSIONS_MAX).map(|_| switch.console()).collect();
    for _ in 0..3 {
        let mut one_more = Console::connect(&switch.path("m"));
        assert_eq!(one_more.read_to_end(), "1016 Device or resource busy\n");
    }
    assert!(sessions[0].ask("port/showinfo").ends_with("1000 Success\n"));
    drop(sessions.pop());
    wait_for("a place", LIMIT, || {
        let mut console = Console::connect(&switch.path("m"));
        console.end_input();
        console.read_to_end().starts_with("VDE switch").then_some(())
    });
    drop(sessions);
    switch.stop();
}

#[test]
fn those_who_come_and_go_disturb_nobody() {
    let switch = Switch::start(&[]);
    let mut sessions: Vec<Console> = (0..SESSIONS_MAX).map(|_| switch.console()).collect();
    let (path, is_over) = (switch.path("m"), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                // An end, so that a switch that hears nobody else fails and does not hang.
                let end = Deadline::after(FLOOD);
                while !is_over.load(Ordering::Relaxed) && end.left().is_some() {
                    drop(UnixStream::connect(&path));
                }
            });
        }
        pause(Duration::from_millis(100));
        let in_time = Deadline::after(FLOOD / 4);
        for _ in 0..3 {
            assert!(sessions[0].ask("port/showinfo").ends_with("1000 Success\n"));
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(in_time.left().is_some(), "it heard nobody else");
    });
    drop(sessions);
    let log = switch.stop();
    assert_eq!(log.matches("one more is turned away").count(), 1, "{log}");
}

#[test]
fn sessions_leave_nothing_behind() {
    let switch = Switch::start(&[]);
    let pid = switch.pid();
    drop(switch.console());
    let before = wait_for("sessions to go", LIMIT, || Some(descriptors(pid)));
    for round in 0..200 {
        let mut console = switch.console();
        match round % 3 {
            0 => console.send("debug/add\nhelp\nhelp\n"),
            1 => console.send("hel"),
            _ => console.end_input(),
        }
    }
    wait_for("descriptors to return", LIMIT, || (descriptors(pid) <= before).then_some(()));
    switch.stop();
}

#[test]
fn who_finds_no_descriptor_waits_for_one() {
    let folder = folder();
    let [sock, mgmt, pid] = ["c", "m", "pid"].map(|name| folder.path().join(name));
    let program = program(folder.path());
    let script = format!(
        "ulimit -n 32; exec {} --nostdin -s {} -M {} -p {}",
        utf8(&program),
        utf8(&sock),
        utf8(&mgmt),
        utf8(&pid)
    );
    let mut command = Process::command("sh");
    command.args(["-c", &script]).env("HOME", folder.path()).stdin(Stdio::null());
    let process = Process::spawn("vde_switch", &mut command);
    let pid = wait_for("its pid", LIMIT, || fs::read_to_string(&pid).ok());
    let mut clients = Vec::new();
    while let Some(client) = Client::try_join(&sock, folder.path(), 0, "one of many") {
        clients.push(client);
        assert!(clients.len() < 32);
    }
    // Who joins needs several at a time, so a few are left.
    let mut waiting: Vec<Console> = (0..6).map(|_| Console::connect(&mgmt)).collect();
    assert_eq!(waiting[5].overhear(), "");
    wait_for("a complaint", LIMIT, || process.stderr().contains("console can't accept").then_some(()));
    assert!(cpu_while_idle(pid.trim().parse().expect("a pid")) < Duration::from_millis(50));
    clients.truncate(1);
    for console in &mut waiting {
        console.read_to(PROMPT);
        assert!(console.ask("port/showinfo").ends_with("1000 Success\n"));
    }
    process.signal(Signal::SIGTERM);
}

#[test]
fn many_commands_disturb_no_frames() {
    let switch = Switch::start(&[]);
    let (one, other) = (switch.plug(0, "one"), switch.plug(0, "other"));
    let mut console = switch.console();
    let sent = console.send_until_full("port/print\n".repeat(20_000).as_bytes());
    for number in 0..200 {
        one.call(number);
        assert_eq!(other.receive().len(), 60);
    }
    assert!(sent > 0);
    switch.stop();
}
