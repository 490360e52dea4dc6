//! Every way in which a QEMU can be attached to a datagram port carries every frame unchanged, both ways.

use std::time::Duration;

use crate::common::daemon::Daemon;
use crate::common::hub::{folder, utf8};
use crate::common::qemu::{Relay, Version, have_qemu, have_qemu_10};
use crate::common::wait::{Deadline, LIMIT};
use crate::common::wire::{BROADCAST, FRAME_MAX, Station, Wire, frame, mac, settle};

use super::forms::{Form, UDP_MAX, dgram_inet, legacy_inet};

const LENGTHS: [usize; 17] =
    [14, 15, 42, 59, 60, 61, 64, 1513, 1514, 1518, 4096, 9014, 16_383, 16_384, 32_768, 65_487, 65_507];

/// Lengths that a form carries, its longest among them.
fn lengths(lengths: &[usize], longest: usize) -> impl Iterator<Item = usize> {
    lengths.iter().copied().filter(move |&length| length < longest).chain([longest])
}

fn carries_every_frame(mut form: Form) {
    if !have_qemu() {
        return;
    }
    let runtime = folder();
    let (ours, theirs) = form.pair.take().unzip();
    let hub = Form::hub(&runtime, &[&form.port], ours);
    let mut relay = form.relay(Version::Installed, theirs);
    let mut wire = hub.connect();
    // This way first: the hub may know QEMU only when it has sent.
    settle(&mut relay, &mut wire);
    let dropped = |hub: &Daemon| hub.table().ports.iter().map(|port| port.dropped).sum::<u64>();
    // What QEMU sent before the test was a port had nowhere to go.
    let before = dropped(&hub);
    let (from_qemu, to_qemu) = form.longest;
    // To nobody the hub knows, to everybody, and then to each other.
    for (to_wire, to_relay) in [(mac(9), mac(9)), (BROADCAST, BROADCAST), (mac(1), mac(2))] {
        for (length, seed) in lengths(&LENGTHS, from_qemu).zip(1..) {
            let sent = frame(to_wire, mac(2), length, seed);
            relay.send(&sent);
            assert!(wire.receive() == sent, "{length} bytes from QEMU arrived changed");
            if form.is_bus {
                assert!(relay.receive() == sent, "QEMU hears itself once");
            }
        }
        for (length, seed) in lengths(&LENGTHS, to_qemu).zip(101..) {
            let sent = frame(to_relay, mac(1), length, seed);
            wire.send(&sent);
            assert!(relay.receive() == sent, "{length} bytes to QEMU arrived changed");
        }
    }
    let burst: Vec<_> = (0..8).map(|seed| frame(mac(2), mac(1), LENGTHS[usize::from(seed)], seed)).collect();
    wire.send_all(&burst);
    for sent in burst {
        assert!(relay.receive() == sent, "{} bytes of a burst arrived changed", sent.len());
    }
    assert_eq!(dropped(&hub), before, "{:?}", hub.table());
    hub.stop();
}

#[test]
fn legacy_socket_over_udp() {
    carries_every_frame(Form::udp(legacy_inet));
}

#[test]
fn legacy_socket_over_udp_to_a_port_of_its_own() {
    carries_every_frame(Form::udp_alone(legacy_inet));
}

#[test]
fn dgram_over_udp() {
    carries_every_frame(Form::udp(dgram_inet));
}

#[test]
fn dgram_over_udp_to_a_port_of_its_own() {
    carries_every_frame(Form::udp_alone(dgram_inet));
}

#[test]
fn dgram_over_unix() {
    carries_every_frame(Form::unix(&folder()));
}

#[test]
fn dgram_over_unix_to_a_port_of_its_own() {
    carries_every_frame(Form::unix_alone(&folder()));
}

#[test]
fn dgram_inherits() {
    carries_every_frame(Form::inherited());
}

#[test]
fn legacy_socket_inherits_datagrams() {
    carries_every_frame(Form::legacy_inherited());
}

#[test]
fn legacy_socket_on_a_multicast_bus() {
    carries_every_frame(Form::legacy_multicast());
}

#[test]
fn dgram_on_a_multicast_bus() {
    carries_every_frame(Form::multicast());
}

#[test]
fn l2tpv3_is_plain() {
    carries_every_frame(Form::l2tpv3(Version::Installed));
}

#[test]
fn l2tpv3_has_cookies() {
    carries_every_frame(Form::l2tpv3_with_cookies(Version::Installed));
}

#[test]
fn l2tpv3_has_long_cookies_and_counts() {
    carries_every_frame(Form::l2tpv3_with_long_cookies_and_counter(Version::Installed));
}

/// A frame that does not fit is dropped and counted, and takes neither the next one with it nor its copies elsewhere.
fn drops_what_is_too_long(form: &Form, port: &str, longest: usize) {
    let runtime = folder();
    let unix = Form::unix_alone(&runtime);
    let hub = Form::hub(&runtime, &[&form.port, &unix.port], None);
    let mut relay = form.relay(Version::Installed, None);
    let mut other = unix.relay(Version::Installed, None);
    let mut wire = hub.connect();
    settle(&mut relay, &mut wire);
    settle(&mut other, &mut wire);
    for (to, sent) in [(mac(9), 1), (BROADCAST, 2), (mac(2), 3)] {
        for (length, seed) in [(FRAME_MAX, 4), (longest + 1, 5), (longest, 6), (60, 7)] {
            let sent = frame(to, mac(1), length, seed * sent);
            wire.send(&sent);
            if to != mac(2) {
                assert!(other.receive() == sent, "{length} bytes over unix arrived changed");
            }
            if length <= longest {
                let heard = length.min(form.longest.1);
                assert!(relay.receive() == sent[..heard], "{length} bytes to {port} arrived changed");
            }
        }
        relay.send(&frame(mac(9), mac(2), 60, 1));
        wire.receive();
        other.receive();
        if form.is_bus {
            relay.receive();
        }
    }
    let row = hub.table().port(port).clone();
    assert_eq!((row.dropped_for("too_big"), row.dropped), (6, 6), "{row:?}");
    hub.stop();
}

#[test]
fn what_does_not_fit_a_datagram_is_dropped_alone() {
    if !have_qemu() {
        return;
    }
    drops_what_is_too_long(&Form::udp(dgram_inet), "udp1", UDP_MAX);
    drops_what_is_too_long(&Form::udp_alone(dgram_inet), "udp1", UDP_MAX);
    drops_what_is_too_long(&Form::multicast(), "mcast1", UDP_MAX);
    let l2tpv3 = Form::l2tpv3_with_long_cookies_and_counter(Version::Installed);
    drops_what_is_too_long(&l2tpv3, "l2tpv3-1", UDP_MAX - 20);
}

/// A QEMU among others.
struct Member {
    relay: Relay,
    mac: [u8; 6],
    longest: (usize, usize),
    is_bus: bool,
}

impl Member {
    /// Broadcasts until `wire` hears it; nobody else has this source.
    fn introduce(&mut self, wire: &mut Wire) -> Vec<u8> {
        let hello = frame(BROADCAST, self.mac, 60, self.mac[5]);
        let deadline = Deadline::after(LIMIT);
        while deadline.left().is_some() {
            self.relay.send(&hello);
            while let Some(heard) = wire.try_receive(Duration::from_millis(50)) {
                if heard == hello {
                    return hello;
                }
            }
        }
        panic!("waited {LIMIT:?} for {:?} to be heard", self.mac);
    }

    /// The next frame that is for itself.
    fn next(&mut self) -> Vec<u8> {
        self.relay.receive_if("a frame", |frame| frame[..6] != BROADCAST)
    }
}

/// All forms at once on one hub, beside a stream: what one sends, any other receives, and nobody else.
fn all_talk_to_each_other(version: Version) {
    let runtime = folder();
    let mut forms = vec![
        Form::udp(legacy_inet),
        Form::udp_alone(legacy_inet),
        Form::udp_alone(dgram_inet),
        Form::unix(&runtime),
        Form::unix_alone(&runtime),
        Form::inherited(),
        Form::legacy_multicast(),
        Form::multicast(),
        Form::l2tpv3(version),
        Form::l2tpv3_with_cookies(version),
        Form::l2tpv3_with_long_cookies_and_counter(version),
    ];
    let pair = forms.iter_mut().find_map(|form| form.pair.take()).expect("one of them is inherited");
    let (ours, mut theirs) = (pair.0, Some(pair.1));
    let ports: Vec<&str> = forms.iter().map(|form| form.port.as_str()).collect();
    let hub = Form::hub(&runtime, &ports, Some(ours));
    forms.push(Form::another_of(&forms[0]));
    forms.push(Form::stream(utf8(hub.socket())));

    let mut wire = hub.connect();
    let mut members: Vec<Member> = Vec::new();
    for (form, number) in forms.iter().zip(1..) {
        let fd = if form.port == "fd:0" { theirs.take() } else { None };
        let relay = form.relay(version, fd);
        let mut member = Member { relay, mac: mac(number), longest: form.longest, is_bus: form.is_bus };
        let hello = member.introduce(&mut wire);
        for earlier in &mut members {
            earlier.relay.receive_if("a newcomer's broadcast", |frame| *frame == hello);
        }
        members.push(member);
    }

    let mut seed = 0_u8;
    for from in 0..members.len() {
        for to in (0..members.len()).filter(|&to| to != from) {
            let longest = members[from].longest.0.min(members[to].longest.1);
            for length in lengths(&[14, 60, 1514, 9014], longest) {
                seed = seed.wrapping_add(1);
                let sent = frame(members[to].mac, members[from].mac, length, seed);
                members[from].relay.send(&sent);
                assert!(
                    members[to].next() == sent,
                    "{length} bytes from {} arrived changed at {}",
                    forms[from].port,
                    forms[to].port
                );
                if members[from].is_bus {
                    assert!(members[from].next() == sent, "QEMU hears itself once");
                }
            }
        }
    }
    let last = frame(BROADCAST, members[0].mac, 61, 0);
    members[0].relay.send(&last);
    let stray = wire.receive_if("the last frame", |frame| frame[..6] != BROADCAST || *frame == last);
    assert!(stray == last, "a frame that was not for it");
    let table = hub.table();
    assert_eq!(table.ports.len(), members.len() + 1, "{table:?}");
    hub.stop();
}

#[test]
fn all_forms_at_once_talk_to_each_other() {
    if have_qemu() {
        all_talk_to_each_other(Version::Installed);
    }
}

#[test]
fn all_forms_of_qemu_10_at_once_talk_to_each_other() {
    if have_qemu_10() {
        all_talk_to_each_other(Version::Ten);
    }
}
