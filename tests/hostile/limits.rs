//! What would cost the hub its time or its voice.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::Socket;

use crate::common::daemon::{Bystanders, Daemon, connect_raw, full_pipe, record};
use crate::common::hub::{folder, utf8};
use crate::common::wait::{Deadline, LIMIT, pause, wait_for};
use crate::common::wire::{BROADCAST, Station, Wire, frame, mac, settle};

#[test]
fn frames_flow_while_nobody_reads_stderr() {
    let runtime = folder();
    let path = runtime.path().join("stderr");
    let pipe = full_pipe(&path);
    let mut daemon = Daemon::start_by(runtime.path(), &format!(r#"exec "$@" 2>{}"#, utf8(&path)), &[]);
    let mut bystanders = Bystanders::join(&daemon);
    let (files, memory) = (daemon.files(), daemon.memory());
    // Far more lines than may wait.
    for _ in 0..3000 {
        drop(connect_raw(&daemon, None));
    }
    for _ in 0..100 {
        daemon.signal(Signal::SIGUSR1);
        bystanders.talk();
    }
    daemon.files_return_to(files);
    let grown = daemon.memory().saturating_sub(memory);
    assert!(grown < 8 << 10, "{grown} KiB of lines wait");
    assert!(daemon.idles(), "it spins");
    bystanders.talk();
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.exit().success(), "it ends although it can't say so");
    drop(pipe);
    assert_eq!(daemon.log(), "", "all went to the pipe");
}

#[test]
fn lost_lines_are_told_once_stderr_is_read_again() {
    let runtime = folder();
    let path = runtime.path().join("stderr");
    let mut pipe = full_pipe(&path);
    let daemon = Daemon::start_by(runtime.path(), &format!(r#"exec "$@" 2>{}"#, utf8(&path)), &[]);
    let mut bystanders = Bystanders::join(&daemon);
    let files = daemon.files();
    for _ in 0..3000 {
        drop(connect_raw(&daemon, None));
    }
    daemon.files_return_to(files);
    bystanders.talk();
    let log = runtime.path().join("log");
    let mut copy = File::create(&log).expect("a file in a new folder");
    wait_for("the loss to be told", LIMIT, || {
        // An error means that there is no more to read now.
        let _ = std::io::copy(&mut pipe, &mut copy);
        let text = fs::read_to_string(&log).expect("the log is text");
        text.contains("log lines were lost, because stderr was not read").then_some(())
    });
    bystanders.talk();
    daemon.stop();
}

#[test]
fn a_costly_pattern_of_frames_does_not_stop_the_clock() {
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &[]);
    let readers: Vec<Socket> = (0..300).map(|_| connect_raw(&daemon, None)).collect();
    daemon.table_with("all to be ports", |table| (table.ports.len() == 300).then_some(()));
    let drained = thread::spawn(|| read_all(readers));

    // Each pair is a run of its own, and each run a write to every reader.
    let pairs: u16 = 5000;
    let pair = [record(&frame(BROADCAST, mac(3), 14, 0)), record(&[0])].concat();
    let mut peer = connect_raw(&daemon, None);
    peer.write_all(&pair.repeat(pairs.into())).expect("its socket takes it");

    let limit = Duration::from_secs(60);
    let mut longest = Duration::ZERO;
    wait_for("all frames to be received", limit, || {
        let asked = Deadline::after(limit);
        let table = daemon.table();
        longest = longest.max(limit - asked.left().unwrap_or_default());
        let received: u64 = table.ports.iter().map(|port| port.rx_frames).sum();
        (received == u64::from(2 * pairs)).then_some(())
    });
    assert!(longest < Duration::from_secs(1), "the hub did not answer for {longest:?}");
    daemon.stop();
    assert!(drained.join().expect("the readers read") >= 18 * usize::from(pairs));
}

/// Reads whatever comes for any of `sockets` until all are closed, and gives the octets.
fn read_all(mut sockets: Vec<Socket>) -> usize {
    let (mut octets, mut chunk) = (0, vec![0; 1 << 16]);
    for socket in &sockets {
        socket.set_nonblocking(true).expect("a socket option");
    }
    while !sockets.is_empty() {
        sockets.retain_mut(|socket| match socket.read(&mut chunk) {
            Ok(length) => {
                octets += length;
                length > 0
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        });
        pause(Duration::from_millis(1));
    }
    octets
}

#[test]
fn two_ports_with_one_address_are_warned_about_once() {
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &[]);
    let mut bystanders = Bystanders::join(&daemon);
    // What every QEMU gives its first card.
    let twin = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
    let (mut one, mut other) = (daemon.connect(), daemon.connect());
    settle(&mut one, &mut other);
    one.send(&frame(BROADCAST, twin, 60, 1));
    other.receive_if("the first to be known", |frame| frame[6..12] == twin);
    other.send(&frame(BROADCAST, twin, 60, 1));
    one.receive_if("a move", |frame| frame[6..12] == twin);
    // What was logged before the table is there when the table is.
    daemon.table();
    assert_eq!(daemon.count("two ports use one MAC"), 0, "a guest may move");

    // Longer than the time in which moves count as a fight. Both cards of the two are at it.
    let second = [0x52, 0x54, 0x00, 0x12, 0x34, 0x57];
    let deadline = Deadline::after(Duration::from_secs(13));
    while deadline.left().is_some() {
        fight(&mut one, &mut other, twin);
        fight(&mut one, &mut other, second);
        pause(Duration::from_millis(100));
    }
    let line = daemon.line("two ports use one MAC");
    for part in ["WARN", "52:54:00:12:34:56", "unix3", "unix4", "mac=", "qhub mac"] {
        assert!(line.contains(part), "{line} has no {part}");
    }
    let conflicts = &daemon.table().fdb[0];
    assert!(!conflicts.ends_with("conflicts 0"), "{conflicts}");
    bystanders.drain();
    bystanders.talk();
    let warned = ["mac=52:54:00:12:34:56", "mac=52:54:00:12:34:57"].map(|mac| daemon.count(mac));
    assert_eq!(warned, [1, 1], "warnings for each address");
    daemon.stop();
}

fn fight(one: &mut Wire, other: &mut Wire, twin: [u8; 6]) {
    one.send(&frame(BROADCAST, twin, 60, 1));
    other.receive_if("a claim", |frame| frame[6..12] == twin);
    other.send(&frame(BROADCAST, twin, 60, 1));
    one.receive_if("a claim", |frame| frame[6..12] == twin);
}

#[test]
fn a_fight_over_many_addresses_does_not_fill_the_log() {
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &[]);
    let mut bystanders = Bystanders::join(&daemon);
    let mut peers = [daemon.connect(), daemon.connect()];
    let claim = |number: u8, length| frame(BROADCAST, mac(number), length, 1);
    for round in 0..4 {
        for number in 0..100 {
            for peer in &mut peers {
                let sent = claim(number, 60 + round);
                peer.send(&sent);
                bystanders.one.receive_if("a claim", |frame| frame == sent);
            }
        }
    }
    daemon.table();
    let warned = daemon.count("two ports use one MAC");
    assert!((1..=10).contains(&warned), "{warned} warnings within a moment");
    bystanders.drain();
    bystanders.talk();
    daemon.stop();
}
