//! The host's own network as an attacker: interfaces that are flooded, taken down, moved and deleted under
//! traffic, and stuck guests beside them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tempfile::TempDir;

use super::joined::{FAR, segment};
use crate::common::daemon::{Bystanders, Daemon};
use crate::common::hub::{folder, utf8};
use crate::common::net::{Namespace, have_namespaces};
use crate::common::refusal::refusal;
use crate::common::require::require;
use crate::common::sniffer::Sniffer;
use crate::common::wait::{Deadline, LIMIT, pause, wait_for};
use crate::common::wire::{BROADCAST, Flood, Station, frame, mac};

pub(super) const DELETED: &str = "the interface was deleted";

/// Opens what `sys.argv[1]` says as descriptor 9, and becomes the hub.
const OPEN: &str = r#"
import fcntl, os, socket, struct, sys
kind, hub = sys.argv[1], sys.argv[2:]
TUN, TAP, NO_PI, VNET, MULTI = 1, 2, 0x1000, 0x4000, 0x100
def tap(flags):
    fd = os.open('/dev/net/tun', os.O_RDWR)
    fcntl.ioctl(fd, 0x400454ca, struct.pack('16sH22x', b'odd0', flags))
    return fd
if kind == 'tun': fd = tap(TUN | NO_PI)
elif kind == 'pi': fd = tap(TAP)
elif kind.startswith('size'):
    fd = tap(TAP | NO_PI | VNET)
    fcntl.ioctl(fd, 0x400454d8, struct.pack('i', int(kind[4:])))
elif kind in ('multi', 'detached'):
    others = [tap(TAP | NO_PI | MULTI) for _ in range(2)]
    fd = others[0]
    if kind == 'detached': fcntl.ioctl(fd, 0x400454d9, struct.pack('16sH22x', b'', 0x400))
elif kind == 'sndbuf':
    fd = tap(TAP | NO_PI | VNET)
    fcntl.ioctl(fd, 0x400454d4, struct.pack('i', 1))
elif kind == 'unattached': fd = os.open('/dev/net/tun', os.O_RDWR)
elif kind == 'file': fd = os.open(sys.argv[0], os.O_RDWR)
elif kind == 'folder': fd = os.open('/', os.O_RDONLY)
elif kind == 'pipe': fd, _ = os.pipe()
elif kind == 'null': fd = os.open('/dev/null', os.O_RDWR)
elif kind == 'packet': fd = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).detach()
elif kind == 'netlink': fd = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).detach()
elif kind == 'twice': fd = os.dup2(tap(TAP | NO_PI | VNET), 8)
os.dup2(fd, 9)
os.execv(hub[0], hub)
"#;

/// What a helper needs to pass descriptors.
const HELPER: &str = r#"#!/usr/bin/env python3
import fcntl, os, socket, struct, subprocess, sys, time
fd = int([arg for arg in sys.argv if arg.startswith('--fd=')][0][5:])
channel = socket.socket(fileno=fd)
def tap(flags=0x1002 | 0x4000):
    made = os.open('/dev/net/tun', os.O_RDWR)
    fcntl.ioctl(made, 0x400454ca, struct.pack('16sH22x', b'', flags))
    return made
def give(*fds): socket.send_fds(channel, [b'x'], list(fds))
"#;

/// A hub in a network of its own.
pub(super) struct Lab {
    pub(super) runtime: TempDir,
    pub(super) net: Namespace,
}

impl Lab {
    /// `None` where the test can't be run.
    pub(super) fn new() -> Option<Self> {
        let can = have_namespaces() && require("root", &["python3"], &["/dev/net/tun".into()]);
        can.then(|| Self { runtime: folder(), net: Namespace::new() })
    }

    pub(super) fn start(&self, args: &[&str]) -> Daemon {
        self.net.within(|| Daemon::start(self.runtime.path(), args))
    }

    /// Open files of a hub with two bystanders and nothing else.
    pub(super) fn bare(&self) -> usize {
        let daemon = self.start(&[]);
        let _bystanders = Bystanders::join(&daemon);
        daemon.files()
    }

    /// A hub that has `kind` as its descriptor 9.
    pub(super) fn script(&self, kind: &str) -> String {
        let path = self.runtime.path().join("open.py");
        fs::write(&path, OPEN).expect("a new file");
        format!(r#"exec python3 {} {kind} "$@""#, utf8(&path))
    }

    /// A helper that does `body`.
    pub(super) fn helper(&self, name: &str, body: &str) -> PathBuf {
        let path = self.runtime.path().join(name);
        fs::write(&path, format!("{HELPER}{body}\n")).expect("a new file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a file of ours");
        path
    }

    /// Two ends of a cable, both up.
    pub(super) fn cable(&self, one: &str, other: &str) {
        self.net.ip(&format!("link add {one} type veth peer name {other}"));
        for end in [one, other] {
            self.net.ip(&format!("link set {end} addrgenmode none up"));
        }
    }

    pub(super) fn has(&self, interface: &str) -> bool {
        let listed = self.net.within(|| Command::new("ip").args(["link", "show", interface]).output());
        listed.expect("run ip").status.success()
    }
}

/// Sends the same frames into an interface, until it is stopped; an interface that takes none is no reason to end.
pub(super) struct Noise {
    done: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Noise {
    pub(super) fn start(net: &Namespace, interface: &str, frames: Vec<Vec<u8>>) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let (mut sniffer, until) = (Sniffer::new(net, interface), Arc::clone(&done));
        let thread = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                for frame in &frames {
                    let _ = sniffer.try_send(frame);
                }
                pause(Duration::from_micros(200));
            }
        });
        Self { done, thread }
    }

    pub(super) fn stop(self) {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().expect("noise ends");
    }
}

/// Does a frame from `one` arrive at `other`, now or soon?
pub(super) fn passes(one: &mut impl Station, other: &mut impl Station, seed: u8) {
    let sent = frame(BROADCAST, mac(0x40), 200, seed);
    let deadline = Deadline::after(LIMIT);
    while deadline.left().is_some() {
        one.send(&sent);
        // Others may never be silent.
        let turn = Deadline::after(Duration::from_millis(100));
        while let Some(got) = turn.left().and_then(|left| other.try_receive(left)) {
            if got == sent {
                return;
            }
        }
    }
    panic!("no frame passes");
}

/// Most guests send as fast as they can.
pub(super) fn bulk(length: usize) -> Vec<Vec<u8>> {
    (0..64).map(|seed| frame(BROADCAST, mac(0x50), length, seed)).collect()
}

#[test]
fn floods_of_the_shortest_and_the_longest_frames_hold_up_nobody() {
    let Some(lab) = Lab::new() else { return };
    lab.cable("pa", "pb");
    lab.net.ip("link set pa mtu 65521");
    lab.net.ip("link set pb mtu 65521");
    let daemon = lab.start(&["tap:t0,mtu=65521", "packet:pa"]);
    let mut bystanders = Bystanders::join(&daemon);
    let before = daemon.memory();
    for length in [14, 65_535] {
        let frames: Vec<_> = (0..4).map(|seed| frame(mac(0xe1), mac(0x51), length, seed)).collect();
        let noise = [Noise::start(&lab.net, "t0", frames.clone()), Noise::start(&lab.net, "pb", frames)];
        for _ in 0..100 {
            bystanders.talk();
        }
        noise.into_iter().for_each(Noise::stop);
        let grown = daemon.memory().saturating_sub(before);
        assert!(grown < 32 << 10, "{grown} KiB");
        let table = daemon.table();
        for port in ["t0", "pa"] {
            assert!(table.port(port).rx_frames > 100, "{length}: {table:?}");
        }
        bystanders.drain();
    }
    assert!(daemon.idles(), "it spins");
    let mut below = Sniffer::new(&lab.net, "t0");
    passes(&mut below, &mut bystanders.one, 1);
    passes(&mut bystanders.one, &mut below, 2);
    daemon.stop();
}

#[test]
fn a_guest_that_is_stuck_costs_memory_for_one_queue() {
    let Some(lab) = Lab::new() else { return };
    let daemon = lab.start(&["tap:t0"]);
    let mut bystanders = Bystanders::join(&daemon);
    let mut stuck = daemon.connect();
    stuck.send(&frame(BROADCAST, mac(0x60), 60, 0));
    daemon.table_with("it to be heard", |table| (table.ports.len() == 4).then_some(()));
    bystanders.drain();
    let before = daemon.memory();
    let frames: Vec<_> = (0..64).map(|seed| frame(mac(0x60), mac(0x51), 1514, seed)).collect();
    let noise = Noise::start(&lab.net, "t0", frames);
    daemon.table_with("its queue to be full", |table| {
        (table.port("unix3").dropped_for("queue_full") > 0).then_some(())
    });
    for _ in 0..200 {
        bystanders.talk();
    }
    let grown = daemon.memory().saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB");
    noise.stop();
    // The TAP itself still hears and is heard.
    let mut below = Sniffer::new(&lab.net, "t0");
    passes(&mut below, &mut bystanders.one, 1);
    assert!(daemon.idles(), "it spins");
    drop(stuck);
    daemon.stop();
}

#[test]
fn what_is_deleted_goes_even_if_nobody_talks() {
    let Some(lab) = Lab::new() else { return };
    let cards: Vec<String> = (0..8).map(|number| format!("p{number}")).collect();
    cards.iter().for_each(|card| lab.cable(card, &format!("far-{card}")));
    let bare = lab.bare();
    let specs = ["tap:t0".to_owned()].into_iter().chain(cards.iter().map(|card| format!("packet:{card}")));
    let specs: Vec<String> = specs.collect();
    let daemon = lab.start(&specs.iter().map(String::as_str).collect::<Vec<_>>());
    let mut bystanders = Bystanders::join(&daemon);
    for interface in [&"t0".to_owned()].into_iter().chain(&cards) {
        lab.net.ip(&format!("link del {interface}"));
        // Nobody sends to it, which would find it out.
        bystanders.talk();
    }
    pause(Duration::from_secs(2));
    assert_eq!(daemon.count(DELETED), 9, "ports of interfaces that are gone stay");
    assert_eq!(daemon.table().ports.len(), 2);
    daemon.files_return_to(bare);
    assert!(daemon.idles(), "it spins");
    daemon.stop();
}

#[test]
fn what_is_deleted_under_traffic_goes() {
    let Some(lab) = Lab::new() else { return };
    lab.cable("pa", "pb");
    let bare = lab.bare();
    let daemon = lab.start(&["tap:t0", "packet:pa"]);
    let mut bystanders = Bystanders::join(&daemon);
    let flood = Flood::start(daemon.connect(), bulk(1000));
    for interface in ["t0", "pa"] {
        lab.net.ip(&format!("link del {interface}"));
    }
    wait_for("both to go", LIMIT, || (daemon.count(DELETED) == 2).then_some(()));
    flood.stop();
    bystanders.drain();
    bystanders.talk();
    daemon.files_return_to(bare);
    assert!(daemon.idles(), "it spins");
    daemon.stop();
}

#[test]
fn an_interface_that_goes_down_keeps_nothing_and_comes_back() {
    let Some(lab) = Lab::new() else { return };
    lab.cable("pa", "pb");
    let daemon = lab.start(&["tap:t0", "packet:pa"]);
    let mut bystanders = Bystanders::join(&daemon);
    for (interface, far) in [("t0", "t0"), ("pa", "pb")] {
        let mut below = Sniffer::new(&lab.net, far);
        passes(&mut bystanders.one, &mut below, 1);
        let flood = Flood::start(daemon.connect(), bulk(600));
        // In the middle of a burst, if it takes a few times.
        for _ in 0..8 {
            lab.net.ip(&format!("link set {interface} down"));
            bystanders.talk();
            pause(Duration::from_millis(30));
            let table = daemon.table_with("frames to be dropped", |table| {
                (table.port(interface).dropped_for("down") > 0).then(|| table.port(interface).clone())
            });
            assert_eq!(table.queued_frames, 0, "frames of the past wait at {interface}: {table:?}");
            lab.net.ip(&format!("link set {interface} up"));
            pause(Duration::from_millis(30));
        }
        lab.net.ip(&format!("link set {interface} down"));
        bystanders.talk();
        flood.stop();
        assert!(daemon.idles(), "it spins while {interface} is down");
        lab.net.ip(&format!("link set {interface} up"));
        bystanders.drain();
        passes(&mut bystanders.one, &mut below, 2);
        passes(&mut below, &mut bystanders.one, 3);
        let told = daemon
            .log()
            .lines()
            .filter(|line| line.contains("can't send") && line.contains(interface))
            .count();
        assert!((1..=2).contains(&told), "told {told} times of {interface}");
    }
    daemon.stop();
}

#[test]
fn an_interface_that_is_renamed_or_resized_goes_on() {
    let Some(lab) = Lab::new() else { return };
    lab.cable("pa", "pb");
    let daemon = lab.start(&["tap:t0", "packet:pa"]);
    let mut bystanders = Bystanders::join(&daemon);
    let mut far = ["t0", "pb"].map(|far| Sniffer::new(&lab.net, far));
    let flood = Flood::start(daemon.connect(), bulk(300));
    for ((interface, renamed), below) in [("t0", "t1"), ("pa", "pc")].into_iter().zip(&mut far) {
        lab.net.ip(&format!("link set {interface} down"));
        lab.net.ip(&format!("link set {interface} name {renamed}"));
        lab.net.ip(&format!("link set {renamed} up"));
        passes(&mut bystanders.one, below, 1);
        passes(below, &mut bystanders.one, 2);
        for mtu in [100, 9000, 1500] {
            lab.net.ip(&format!("link set {renamed} mtu {mtu}"));
        }
        passes(&mut bystanders.one, below, 3);
        passes(below, &mut bystanders.one, 4);
    }
    flood.stop();
    bystanders.drain();
    bystanders.talk();
    assert!(daemon.idles(), "it spins");
    daemon.stop();
}

#[test]
fn a_tap_may_be_moved_and_a_moved_card_is_gone() {
    let Some(lab) = Lab::new() else { return };
    lab.cable("pa", "pb");
    let daemon = lab.start(&["tap:t0", "packet:pa"]);
    let mut bystanders = Bystanders::join(&daemon);
    let (elsewhere, mut below) = (Namespace::new(), Sniffer::new(&lab.net, "pb"));
    passes(&mut bystanders.one, &mut below, 3);
    let flood = Flood::start(daemon.connect(), bulk(300));
    for interface in ["t0", "pa"] {
        lab.net.ip(&format!("link set {interface} netns {}", elsewhere.path()));
        elsewhere.ip(&format!("link set {interface} addrgenmode none up"));
    }
    let gone = daemon.line(DELETED);
    assert!(gone.contains("pa"), "{gone}");
    flood.stop();
    let mut below = Sniffer::new(&elsewhere, "t0");
    passes(&mut bystanders.one, &mut below, 1);
    passes(&mut below, &mut bystanders.one, 2);
    bystanders.drain();
    bystanders.talk();
    assert!(daemon.idles(), "it spins");
    daemon.stop();
}

#[test]
fn a_failed_start_leaves_no_interface_behind() {
    let Some(lab) = Lab::new() else { return };
    let line = lab.net.within(|| refusal(lab.runtime.path(), &["tap:keep,persist=on,bridge=nobr"]));
    assert!(line.contains("no bridge nobr"), "{line}");
    assert!(!lab.has("keep"), "it stays, though the start failed");
}

#[test]
fn a_tap_of_several_queues_is_told_from_another_kind_of_interface() {
    let Some(lab) = Lab::new() else { return };
    lab.net.ip("tuntap add many mode tap multi_queue");
    let line = lab.net.within(|| refusal(lab.runtime.path(), &["tap:many"]));
    assert!(line.contains("several queues"), "{line}");
}

/// What is too long for the cable of a card is so in company, too.
#[test]
fn a_packet_port_sends_nothing_that_is_too_long_for_its_interface() {
    let Some(lab) = Lab::new() else { return };
    lab.cable("pa", "pb");
    let daemon = lab.start(&["packet:pa"]);
    let mut bystanders = Bystanders::join(&daemon);
    let mut below = Sniffer::new(&lab.net, "pb");
    passes(&mut bystanders.one, &mut below, 1);
    bystanders.one.send(&segment(0, 4000));
    bystanders.one.send_all(&[segment(1, 4000), segment(2, 4000), segment(3, 4000)]);
    let last = frame(FAR, mac(0x42), 99, 1);
    bystanders.one.send(&last);
    let got = below.receive_if("any of them", |frame| frame[..6] == FAR);
    assert_eq!(got.len(), last.len(), "its interface carries 1500 octets");
    let row = daemon.table();
    assert_eq!(row.port("pa").dropped, 4, "{row:?}");
    daemon.stop();
}

/// Both ports lead to one kernel bridge: what is sent to one comes back by the other.
#[test]
fn two_ways_to_one_bridge_are_told_and_no_storm() {
    let Some(lab) = Lab::new() else { return };
    for it in ["link add br0 type bridge", "link set br0 addrgenmode none up"] {
        lab.net.ip(it);
    }
    lab.cable("va", "vb");
    lab.net.ip("link set va master br0");
    let daemon = lab.start(&["tap:t0,bridge=br0", "packet:vb"]);
    let mut one = daemon.connect();
    let mut other = daemon.connect();
    for seed in 0..20 {
        one.send(&frame(BROADCAST, mac(0x70), 60, seed));
        let _ = other.try_receive(Duration::from_millis(20));
    }
    daemon.line("is muted for a minute");
    let before = daemon.table().port("t0").tx_frames;
    pause(Duration::from_millis(300));
    let storm = daemon.table().port("t0").tx_frames - before;
    assert!(storm < 10, "{storm} frames in 300 ms, of none that were sent");
    daemon.stop();
}
