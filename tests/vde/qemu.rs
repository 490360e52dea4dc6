//! QEMU's `-netdev vde`, without a guest.

use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::common::hub::folder;
use crate::common::qemu::{Qemu, Relay, Tap, Version, have_qemu, have_qemu_10};
use crate::common::vde::{Plug, have_vde, serving};
use crate::common::wire::{BROADCAST, FRAME_MAX, Station, frame, mac, settle};

const LENGTHS: [usize; 16] =
    [14, 15, 42, 59, 60, 61, 64, 1513, 1514, 1518, 4096, 9014, 32_768, 65_535, 65_536, FRAME_MAX];

fn carries_every_frame(version: Version, options: &str) {
    let runtime = folder();
    let (hub, vde) = serving(runtime.path(), "");
    let mut relay = Relay::start(version, &format!("vde,id=s0,sock={vde}{options}"), Stdio::null());
    let mut wire = hub.connect();
    hub.table_with("both to join", |table| (table.ports.len() == 2).then_some(()));
    settle(&mut relay, &mut wire);
    for (length, seed) in LENGTHS.into_iter().zip(1..) {
        for (to_wire, to_relay) in [(mac(9), mac(9)), (BROADCAST, BROADCAST), (mac(1), mac(2))] {
            let sent = frame(to_wire, mac(2), length, seed);
            relay.send(&sent);
            assert!(wire.receive() == sent, "{length} octets from QEMU arrived changed");
            let sent = frame(to_relay, mac(1), length, seed ^ 0x55);
            wire.send(&sent);
            assert!(relay.receive() == sent, "{length} octets to QEMU arrived changed");
        }
    }
    let burst: Vec<_> =
        (0..8).map(|seed| frame(mac(2), mac(1), LENGTHS[usize::from(seed) * 2], seed)).collect();
    wire.send_all(&burst);
    for sent in burst {
        assert!(relay.receive() == sent, "{} octets of a burst arrived changed", sent.len());
    }
    let ports = hub.table().ports;
    assert!(ports.iter().all(|port| port.dropped == 0), "{ports:?}");
    hub.stop();
}

#[test]
fn qemu_carries_every_frame() {
    if have_vde() && have_qemu() {
        carries_every_frame(Version::Installed, "");
        carries_every_frame(Version::Installed, ",port=5");
    }
}

#[test]
fn qemu_10_carries_every_frame() {
    if have_vde() && have_qemu_10() {
        carries_every_frame(Version::Ten, "");
        carries_every_frame(Version::Ten, ",port=5,mode=0700");
    }
}

#[test]
fn a_qemu_that_is_killed_is_no_port() {
    if !have_vde() || !have_qemu() {
        return;
    }
    let runtime = folder();
    let (hub, vde) = serving(runtime.path(), "");
    let mut wire = hub.connect();
    let mut files = None;
    for _ in 0..3 {
        let mut relay = Relay::start(Version::Installed, &format!("vde,id=s0,sock={vde}"), Stdio::null());
        settle(&mut wire, &mut relay);
        drop(relay);
        hub.table_with("its port to go", |table| (table.ports.len() == 1).then_some(()));
        hub.files_return_to(*files.get_or_insert_with(|| hub.files()));
    }
    hub.stop();
}

/// What it sends meanwhile waits, and so does QEMU when that is much: its end of the link blocks.
#[test]
fn a_hub_that_stands_still_loses_nothing() {
    if !have_vde() || !have_qemu() {
        return;
    }
    let runtime = folder();
    let (hub, vde) = serving(runtime.path(), "");
    let mut relay = Relay::start(Version::Installed, &format!("vde,id=s0,sock={vde}"), Stdio::null());
    let mut plug = Plug::start(&[&vde]);
    settle(&mut relay, &mut plug);
    hub.signal(Signal::SIGSTOP);
    // As many as wait in sockets, and no more than QEMU takes from the test without reading on.
    let sent: Vec<_> = (0..40).map(|seed| frame(mac(1), mac(2), 1514, seed)).collect();
    sent.iter().for_each(|frame| relay.send(frame));
    hub.signal(Signal::SIGCONT);
    for sent in sent {
        assert!(plug.receive() == sent, "a frame is missing or changed");
    }
    hub.stop();
}

/// A network card's own announcement.
#[test]
fn rarp_is_flooded_and_learned_from() {
    if !have_vde() || !have_qemu() {
        return;
    }
    let vm = [0x52, 0x54, 0x00, 0x71, 0x68, 0x02];
    let runtime = folder();
    let (hub, vde) = serving(runtime.path(), "");
    let mut tap = Tap::new();
    let dgram = tap.netdev("d0");
    let args = [
        ["-machine", "pc"],
        ["-m", "16"],
        ["-netdev", &format!("vde,id=s0,sock={vde}")],
        ["-netdev", &dgram],
        ["-netdev", "hubport,id=h0,hubid=0,netdev=s0"],
        ["-netdev", "hubport,id=h1,hubid=0,netdev=d0"],
        ["-netdev", "hubport,id=h2,hubid=0"],
        ["-device", "virtio-net-pci,netdev=h2,romfile=,mac=52:54:00:71:68:02"],
    ];
    let mut qemu = Qemu::start(Version::Installed, args.as_flattened(), Stdio::null());
    let (mut wire, mut plug) = (hub.connect(), Plug::start(&[&vde]));
    settle(&mut wire, &mut tap);
    settle(&mut wire, &mut plug);

    qemu.execute("announce-self", r#"{"initial":50,"max":550,"rounds":1,"step":50}"#);
    let is_rarp = |frame: &[u8]| frame[6..12] == vm && frame[12..14] == [0x80, 0x35];
    assert_eq!(wire.receive_if("QEMU's RARP", is_rarp), plug.receive_if("QEMU's RARP", is_rarp));
    // It is where the RARP came from, and nowhere else.
    let (unicast, broadcast) = (frame(vm, mac(1), 60, 1), frame(BROADCAST, mac(1), 60, 1));
    wire.send(&unicast);
    wire.send(&broadcast);
    let either = |frame: &[u8]| frame == unicast || frame == broadcast;
    assert!(tap.receive_if("a frame", either) == unicast);
    assert!(plug.receive_if("a frame", either) == broadcast);
    hub.stop();
}
