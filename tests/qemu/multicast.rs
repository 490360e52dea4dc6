//! The multicast bus with several hubs and QEMUs on it, on one host and between two, and the interfaces that it needs.

use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;

use crate::common::daemon::Daemon;
use crate::common::hub::folder;
use crate::common::net::{Namespace, free_group, have_namespaces};
use crate::common::qemu::{Relay, Version, have_qemu};
use crate::common::refusal::refusal;
use crate::common::wait::{LIMIT, wait_for};
use crate::common::wire::{BROADCAST, Station, Wire, frame, mac, settle};

use super::forms::UDP_MAX;

/// Whoever takes part.
enum Party {
    /// At a hub, the one of this number.
    Behind(usize, Wire),
    /// On the bus itself: it hears all that passes there, also what it says.
    OnBus(Relay),
}

impl Party {
    /// Does it hear what `from` sends to `to`, while all are known?
    fn overhears(&self, from: &Self, to: &Self) -> bool {
        match (self, from, to) {
            (Self::OnBus(_), Self::Behind(one, _), Self::Behind(other, _)) => one != other,
            (Self::OnBus(_), _, _) => true,
            (Self::Behind(..), _, _) => false,
        }
    }
}

impl Station for Party {
    fn send(&mut self, frame: &[u8]) {
        match self {
            Self::Behind(_, wire) => wire.send(frame),
            Self::OnBus(relay) => relay.send(frame),
        }
    }

    fn try_receive(&mut self, limit: Duration) -> Option<Vec<u8>> {
        match self {
            Self::Behind(_, wire) => wire.try_receive(limit),
            Self::OnBus(relay) => relay.try_receive(limit),
        }
    }
}

/// A bus with whoever is on it.
#[derive(Default)]
struct Bus {
    hubs: Vec<(Daemon, TempDir)>,
    parties: Vec<Party>,
}

impl Bus {
    /// Adds a hub with two stations of its own.
    fn add_hub(&mut self, port: &str) {
        let runtime = folder();
        let hub = Daemon::start(runtime.path(), &[port]);
        let (mut one, mut other) = (hub.connect(), hub.connect());
        settle(&mut one, &mut other);
        let number = self.hubs.len();
        self.parties.extend([one, other].map(|wire| Party::Behind(number, wire)));
        self.hubs.push((hub, runtime));
    }

    fn add_qemu(&mut self, netdev: &str) {
        self.parties.push(Party::OnBus(Relay::start(Version::Installed, netdev, Stdio::null())));
    }

    /// Sees that each frame gets to all whom it is for, and to nobody else, once: what came twice, or came back, would
    /// be in front of the next one, and everybody hears the last.
    fn carries_each_frame_once(mut self, lengths: &[usize]) {
        let all = 0..self.parties.len();
        for (&length, round) in lengths.iter().zip(1..) {
            for from in all.clone() {
                self.broadcasts(from, length, round);
            }
            for (from, to) in all.clone().flat_map(|from| all.clone().map(move |to| (from, to))) {
                if from != to {
                    self.unicasts(from, to, length, round);
                }
            }
        }
        all.for_each(|from| self.broadcasts(from, 64, 99));
        for (hub, _) in self.hubs {
            let bus = hub.table().port("mcast1").clone();
            assert_eq!((bus.dropped_for("loop"), bus.dropped_for("overrun")), (0, 0), "{bus:?}");
            assert_eq!(hub.count("WARN"), 0, "{}", hub.log());
            hub.stop();
        }
    }

    fn broadcasts(&mut self, from: usize, length: usize, seed: u8) {
        let sent = frame(BROADCAST, address(from), length, seed);
        self.parties[from].send(&sent);
        for (at, party) in self.parties.iter_mut().enumerate() {
            if at != from || matches!(party, Party::OnBus(_)) {
                assert!(party.receive() == sent, "{length} bytes that {from} broadcast, at {at}");
            }
        }
    }

    fn unicasts(&mut self, from: usize, to: usize, length: usize, seed: u8) {
        let sent = frame(address(to), address(from), length, seed);
        self.parties[from].send(&sent);
        for at in 0..self.parties.len() {
            let [sender, receiver] = [from, to].map(|party| &self.parties[party]);
            if at == to || self.parties[at].overhears(sender, receiver) {
                assert!(self.parties[at].receive() == sent, "{length} bytes from {from} to {to}, at {at}");
            }
        }
    }
}

fn address(party: usize) -> [u8; 6] {
    mac(u8::try_from(party).expect("not so many"))
}

#[test]
fn two_hubs_on_one_bus_make_one_segment() {
    let (group, port) = free_group();
    let mut bus = Bus::default();
    bus.add_hub(&format!("mcast:{group}:{port},iface=127.0.0.1"));
    bus.add_hub(&format!("mcast:{group}:{port},iface=lo"));
    bus.carries_each_frame_once(&[60, 1514, UDP_MAX]);
}

/// On one host, IPv6 has no route for groups unless somebody adds it.
#[test]
fn two_hubs_on_one_ipv6_bus_make_one_segment() {
    if !have_namespaces() {
        return;
    }
    let host = Namespace::new();
    host.ip("link set lo up");
    host.ip("-6 route add local ff00::/8 dev lo");
    let mut bus = Bus::default();
    for iface in ["::1", "lo"] {
        host.within(|| bus.add_hub(&format!("mcast:[ff11::1234]:5000,iface={iface}")));
    }
    bus.carries_each_frame_once(&[60, 1514, UDP_MAX]);
}

#[test]
fn two_qemus_and_two_hubs_on_one_bus_make_one_segment() {
    if !have_qemu() {
        return;
    }
    let (group, port) = free_group();
    let mut bus = Bus::default();
    bus.add_hub(&format!("mcast:{group}:{port},iface=127.0.0.1"));
    bus.add_hub(&format!("mcast:{group}:{port},iface=127.0.0.1"));
    bus.add_qemu(&format!("socket,id=s0,mcast={group}:{port},localaddr=127.0.0.1"));
    bus.add_qemu(&format!(
        "dgram,id=s0,remote.type=inet,remote.host={group},remote.port={port},local.type=inet,local.host=127.0.0.1,local.port=0"
    ));
    bus.carries_each_frame_once(&[60, 1514, UDP_MAX]);
}

#[test]
fn a_bus_joins_hubs_of_two_hosts() {
    if !have_namespaces() {
        return;
    }
    let (group, port) = free_group();
    for specs in [
        [1, 2].map(|host| format!("mcast:{group}:{port},iface=10.77.0.{host},ttl=2")),
        [1, 2].map(|_| format!("mcast:{group}:{port},iface=cable")),
        [1, 2].map(|_| format!("mcast:[ff15::1234]:{port},iface=cable,ttl=2")),
        [1, 2].map(|host| format!("mcast:[ff15::1234]:{port},iface=fd77::{host}")),
    ] {
        let hosts = Namespace::joined();
        let mut bus = Bus::default();
        for (host, spec) in hosts.iter().zip(&specs) {
            host.within(|| bus.add_hub(spec));
        }
        bus.carries_each_frame_once(&[60, 1514, 9014, UDP_MAX]);
    }
}

#[test]
fn a_bus_joins_qemus_of_two_hosts() {
    if !have_namespaces() || !have_qemu() {
        return;
    }
    let (group, port) = free_group();
    let mut bus = Bus::default();
    for (host, number) in Namespace::joined().iter().zip(1..) {
        let address = format!("10.77.0.{number}");
        host.within(|| {
            bus.add_hub(&format!("mcast:{group}:{port},iface={address}"));
            bus.add_qemu(&format!("socket,id=s0,mcast={group}:{port},localaddr={address}"));
        });
    }
    bus.carries_each_frame_once(&[60, 1514, 9014]);
}

/// The line with which a hub declines `port`.
fn declines(port: &str) -> String {
    refusal(folder().path(), &[port])
}

#[test]
fn an_interface_that_is_missing_is_named() {
    let (group, port) = free_group();
    for (iface, words) in [
        ("nope0", "there is no interface nope0; see 'ip addr'"),
        ("203.0.113.77", "no interface has the address 203.0.113.77; see 'ip addr'"),
    ] {
        let line = declines(&format!("mcast:{group}:{port},iface={iface}"));
        assert!(line.contains(&format!("port mcast:{group}:{port}: {words}")), "{line}");
    }
    for (iface, words) in [
        ("nope0", "there is no interface nope0; see 'ip addr'"),
        ("2001:db8::77", "no interface has the address 2001:db8::77; see 'ip addr'"),
    ] {
        let line = declines(&format!("mcast:[ff15::1]:{port},iface={iface}"));
        assert!(line.contains(&format!("port mcast:[ff15::1]:{port}: {words}")), "{line}");
    }
}

#[test]
fn a_host_without_routes_is_told_what_to_do() {
    if !have_namespaces() {
        return;
    }
    let host = Namespace::new();
    for (port, words) in [
        ("mcast:239.77.0.1:5000", "there is no route to 239.77.0.1; name the interface with iface="),
        ("mcast:[ff15::1]:5000", "there is no route to ff15::1; name the interface with iface="),
        ("mcast:239.77.0.1:5000,iface=127.0.0.1", "no interface has the address 127.0.0.1"),
        ("mcast:239.77.0.1:5000,iface=lo", "the interface lo has no IPv4 address; give it one"),
        ("mcast:[ff15::1]:5000,iface=::1", "no interface has the address ::1; see 'ip addr'"),
    ] {
        let line = host.within(|| declines(port));
        assert!(line.contains(&format!(": {words}")), "{port}: {line}");
    }

    // There is still no route, and none is needed.
    host.ip("link set lo up");
    for iface in ["127.0.0.1", "lo"] {
        let mut bus = Bus::default();
        for _ in 0..2 {
            host.within(|| bus.add_hub(&format!("mcast:239.77.0.1:5000,iface={iface}")));
        }
        bus.carries_each_frame_once(&[60]);
    }
}

#[test]
fn advice_about_ipv6_groups_is_true() {
    if !have_namespaces() {
        return;
    }
    let host = Namespace::new();
    let line = host.within(|| declines("mcast:[ff15::1]:5000"));
    assert!(!line.contains("iface=127.0.0.1"), "that is no address for an IPv6 group: {line}");
    let line = host.within(|| declines("mcast:[ff15::1]:5000,iface=lo"));
    assert!(line.contains("bring the interface up"), "it is down, and lo is a name: {line}");
    host.ip("link set lo up");
    let line = host.within(|| declines("mcast:[ff15::1]:5000,iface=lo"));
    assert!(line.contains("route") && !line.contains("bring the interface up"), "it is up: {line}");
}

/// The second way is a line between them, which is younger than the bus.
#[test]
fn two_hubs_that_are_joined_twice_say_so_and_cut_the_line() {
    let (group, port) = free_group();
    let bus = format!("mcast:{group}:{port},iface=127.0.0.1");
    let (one_runtime, other_runtime) = (folder(), folder());
    let one = Daemon::start(one_runtime.path(), &[&bus]);
    let line = format!("connect:unix:{}", one.socket().display());
    let other = Daemon::start(other_runtime.path(), &[&bus, &line]);
    one.line("port=unix1");
    let (mut here, mut there) = (one.connect(), other.connect());
    one.line("port=unix2");
    other.line("port=unix2");
    for number in 0..8 {
        here.send(&frame(BROADCAST, mac(1), 60, number));
    }
    let hubs = [&one, &other];
    wait_for("a hub to cut the line", LIMIT, || {
        hubs.iter().any(|hub| hub.count("unix1 is muted for a minute") == 1).then_some(())
    });
    // What went round is at its end.
    while here.try_receive(Duration::from_millis(200)).is_some() {}
    while there.try_receive(Duration::from_millis(200)).is_some() {}
    for (number, (from, to)) in [(9, (1, 2)), (10, (2, 1))] {
        let sent = frame(BROADCAST, mac(from + 2), 60, number);
        let [sender, receiver] =
            if (from, to) == (1, 2) { [&mut here, &mut there] } else { [&mut there, &mut here] };
        sender.send(&sent);
        assert_eq!(receiver.receive(), sent);
        assert_eq!(receiver.try_receive(Duration::from_millis(100)), None, "it comes once");
    }
    let told = hubs.map(|hub| hub.count("which makes a loop"));
    assert!(told.iter().all(|&told| told <= 2), "once, and once for the cut: {told:?}");
    one.stop();
    other.stop();
}
