//! The README's commands, run as they stand there; only ports, paths and names that another program on
//! the machine may use are replaced.

mod common;

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{self, Stdio};
use std::{fs, path::Path};

use common::hub::{Hub, folder, free_tcp_port, utf8};
use common::qemu::{Qemu, Relay, Version, have_qemu};
use common::vde::{Plug, Switch, have_vde};
use common::wire::{BROADCAST, Station, Wire, frame, mac, settle};
use qhub::discard::DiscardReason;
use socket2::{Domain, Socket, Type};

const README: &str = include_str!("../README.md");

/// What stands in backquotes in a line.
fn quoted(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// The fenced blocks.
fn blocks() -> impl Iterator<Item = &'static str> {
    README.split("```").skip(1).step_by(2)
}

/// The pairs of the table of ports: what qhub is given, and what QEMU is given.
fn pairs() -> Vec<(&'static str, &'static str)> {
    let rows = README.lines().filter(|line| line.starts_with("| `qhub "));
    rows.map(|row| match quoted(row)[..] {
        [hub, netdev] => (hub.trim_start_matches("qhub "), netdev.trim_start_matches("-netdev ")),
        _ => panic!("a row of two commands: {row}"),
    })
    .collect()
}

/// A port that is free for TCP and UDP.
fn free_port() -> u16 {
    let is_free = |port: &u16| UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    (0..100).map(|_| free_tcp_port()).find(is_free).expect("a free port")
}

#[test]
fn each_pair_of_commands_carries_frames() {
    let pairs = pairs();
    assert_eq!(pairs.len(), 16);
    if !have_qemu() || !have_vde() {
        return;
    }
    for (port, netdev) in pairs {
        let runtime = folder();
        let (tcp, other) = (free_port().to_string(), free_port().to_string());
        let name = format!("qhub-readme-{}", process::id());
        let here = |text: &str| {
            text.trim_matches('\'')
                .replace("id=n0", "id=s0")
                .replace("6000", &tcp)
                .replace("6001", &other)
                .replace("/tmp/", &format!("{}/", utf8(runtime.path())))
                .replace("@lab", &format!("@{name}"))
                .replace("path=lab,", &format!("path={name},"))
                .replace("fd:3", "fd:0")
                .replace("str=3", "str=0")
        };
        let (port, netdev) = (here(port), here(netdev));
        let kind = if netdev.starts_with("dgram") { Type::DGRAM } else { Type::STREAM };
        let (ours, theirs) = Socket::pair(Domain::UNIX, kind, None).expect("a socket pair");
        if let Some(folder) = netdev.strip_prefix("vde_switch -s ") {
            let _switch = Switch::start(Path::new(folder), &[]);
            carries(Hub::start(&runtime, &[&port]), Plug::start(&[folder]), &port);
            continue;
        }
        let relay = || Relay::start(Version::Installed, &netdev, Stdio::from(OwnedFd::from(theirs)));
        let (hub, relay) = if port.starts_with("connect:") {
            let relay = relay();
            (Hub::start(&runtime, &[&port]), relay)
        } else {
            (Hub::start_with_fd0(&runtime, &[&port], ours.into()), relay())
        };
        carries(hub, relay, &port);
    }
}

/// A frame passes from the hub to a station behind a port of it.
fn carries(hub: Hub, mut station: impl Station, port: &str) {
    let mut wire = hub.connect();
    settle(&mut station, &mut wire);
    let sent = frame(BROADCAST, mac(1), 1514, 7);
    wire.send(&sent);
    // A QEMU on a bus hears itself.
    assert!((0..100).any(|_| station.receive() == sent), "{port}");
    hub.stop();
}

#[test]
fn the_gateway_answers() {
    let block = blocks().find(|block| block.contains("-netdev user")).expect("a block with a gateway");
    if !have_qemu() {
        return;
    }
    let runtime = folder();
    let hub = Hub::start(&runtime, &["--no-tcp"]);
    let path = format!("addr.path={}", utf8(&hub.socket()));
    let command = block.replace("\\\n", " ").replace("addr.path=...", &path);
    let mut words = command.split_whitespace();
    assert_eq!(words.next(), Some("qemu-system-x86_64"));
    let _gateway = Qemu::start(Version::Installed, &words.collect::<Vec<_>>(), Stdio::null());

    let mut wire = hub.connect();
    let mut question = [&BROADCAST[..], &mac(1), &[0x08, 0x06]].concat();
    question.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    question.extend([&mac(1)[..], &[10, 0, 2, 15], &[0; 6], &[10, 0, 2, 2]].concat());
    let answer = ask(&mut wire, &question);
    assert_eq!(answer[28..32], [10, 0, 2, 2], "10.0.2.2 says where it is");
    hub.stop();
}

/// Asks until somebody answers in ARP: the gateway may not have joined yet.
fn ask(wire: &mut Wire, question: &[u8]) -> Vec<u8> {
    for _ in 0..100 {
        wire.send(question);
        let answer = wire.try_receive(std::time::Duration::from_millis(100));
        if let Some(answer) = answer.filter(|answer| answer[12..14] == [0x08, 0x06]) {
            return answer;
        }
    }
    panic!("nobody answered");
}

#[test]
fn the_output_looks_as_shown() {
    let shown = blocks().find(|block| block.contains("is up. To join it")).expect("a block with the output");
    let runtime = folder();
    let hub = Hub::start(&runtime, &[]);
    let plain = |text: &str, path: &str| -> String {
        let text = text.replace(path, "PATH");
        let mut parts = text.split("mac=");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| text + "mac=MAC" + part.get(17..).unwrap_or_default())
    };
    let printed = plain(&hub.stdout(), utf8(&hub.socket()));
    for line in plain(shown, "/run/user/1000/qhub/default/qhub.sock").lines().filter(|line| !line.is_empty())
    {
        // TCP 5555 may be taken by another test or program.
        let is_tcp = line.contains("connect=127.0.0.1:5555") || line.contains("TCP port");
        assert!(
            printed.contains(line) || is_tcp && !printed.contains("TCP"),
            "not printed: {line}\n{printed}"
        );
    }
    hub.stop();
}

#[test]
fn every_reason_is_explained() {
    let table: Vec<&str> = README.lines().filter(|line| line.starts_with("| `")).flat_map(quoted).collect();
    for reason in DiscardReason::ALL {
        assert!(table.contains(&reason.name()), "{}", reason.name());
    }
}

#[test]
fn the_two_commands_are_what_ci_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let commands: Vec<&str> = blocks()
        .find(|block| block.contains("cargo run"))
        .map(|block| {
            block.lines().skip(1).filter_map(|line| line.split("  #").next()).map(str::trim).collect()
        })
        .expect("a block with the two commands");
    assert_eq!(commands, ["cargo run --release", "scripts/check.sh"]);
    let script = root.join(commands[1]);
    assert_ne!(fs::metadata(script).expect("the test command").permissions().mode() & 0o100, 0);
    let ci = fs::read_to_string(root.join(".ci/run")).expect("CI's script");
    assert!(ci.contains(&format!("exec {}", commands[1])));
}
