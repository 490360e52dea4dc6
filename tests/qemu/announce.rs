//! A virtual machine's own announcements, without a guest in it.

use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::common::hub::{Hub, folder, utf8};
use crate::common::qemu::{Qemu, Tap, Version, have_qemu};
use crate::common::wait::{LIMIT, wait_for};
use crate::common::wire::{BROADCAST, Station, Wire, frame, mac, settle};

const VM: [u8; 6] = [0x52, 0x54, 0x00, 0x71, 0x68, 0x01];

/// A virtual machine whose network card shares its connection to the hub with a `Tap`, which sees what QEMU receives.
fn start_vm(hub: &Hub, tap: &Tap, incoming: &[&str]) -> Qemu {
    let uplink = format!("stream,id=s0,addr.type=unix,addr.path={}", utf8(&hub.socket()));
    let dgram = tap.netdev("d0");
    let card = format!("virtio-net-pci,netdev=h2,romfile=,mac={}", text(VM));
    let args = [
        ["-machine", "pc"],
        ["-m", "16"],
        ["-netdev", &uplink],
        ["-netdev", &dgram],
        ["-netdev", "hubport,id=h0,hubid=0,netdev=s0"],
        ["-netdev", "hubport,id=h1,hubid=0,netdev=d0"],
        ["-netdev", "hubport,id=h2,hubid=0"],
        ["-device", &card],
    ];
    Qemu::start(Version::Installed, &[args.as_flattened(), incoming].concat(), Stdio::null())
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn is_rarp_of_vm(frame: &[u8]) -> bool {
    frame[6..12] == VM && frame[12..14] == [0x80, 0x35]
}

/// True if a frame to the VM reaches `station`. The broadcast that follows it does in any case.
fn is_where_the_vm_is(sender: &mut Wire, station: &mut impl Station, seed: u8) -> bool {
    let unicast = frame(VM, mac(1), 60, seed);
    let broadcast = frame(BROADCAST, mac(1), 60, seed);
    sender.send(&unicast);
    sender.send(&broadcast);
    let first =
        station.receive_if("a frame to the VM or to all", |frame| *frame == unicast || *frame == broadcast);
    first == unicast
}

#[test]
fn rarp_is_flooded_and_learned_from() {
    if !have_qemu() {
        return;
    }
    let runtime = folder();
    let hub = Hub::start(&runtime, &["--no-tcp"]);
    let mut tap = Tap::new();
    let mut vm = start_vm(&hub, &tap, &[]);
    let (mut sender, mut bystander) = (hub.connect(), hub.connect());
    settle(&mut sender, &mut tap);
    settle(&mut sender, &mut bystander);

    // Unknown, a unicast goes everywhere.
    assert!(is_where_the_vm_is(&mut sender, &mut tap, 1));
    assert!(is_where_the_vm_is(&mut sender, &mut bystander, 2));

    vm.execute("announce-self", r#"{"initial":50,"max":550,"rounds":1,"step":50}"#);
    let rarp = sender.receive_if("QEMU's RARP", is_rarp_of_vm);
    assert_eq!(rarp.len(), 60);
    assert_eq!(rarp, bystander.receive_if("QEMU's RARP", is_rarp_of_vm));

    assert!(is_where_the_vm_is(&mut sender, &mut tap, 3));
    assert!(!is_where_the_vm_is(&mut sender, &mut bystander, 4));

    hub.signal(Signal::SIGUSR1);
    wait_for("the VM in the FDB", LIMIT, || hub.log().contains(&text(VM)).then_some(()));
    hub.stop();
}

#[test]
fn migration_moves_the_mac() {
    if !have_qemu() {
        return;
    }
    let runtime = folder();
    let hub = Hub::start(&runtime, &["--no-tcp"]);
    let (mut tap_here, mut tap_there) = (Tap::new(), Tap::new());
    let mut here = start_vm(&hub, &tap_here, &[]);
    let channel = format!("unix:{}", utf8(&runtime.path().join("migration")));
    let mut there = start_vm(&hub, &tap_there, &["-incoming", &channel]);
    let mut sender = hub.connect();
    settle(&mut sender, &mut tap_here);

    here.execute("announce-self", r#"{"initial":50,"max":550,"rounds":1,"step":50}"#);
    sender.receive_if("the source's RARP", is_rarp_of_vm);
    assert!(is_where_the_vm_is(&mut sender, &mut tap_here, 1));

    there.execute("migrate-set-capabilities", r#"{"capabilities":[{"capability":"events","state":true}]}"#);
    here.execute("migrate", &format!(r#"{{"uri":"{channel}"}}"#));
    there.event("RESUME");
    sender.receive_if("the destination's RARP", is_rarp_of_vm);

    assert!(is_where_the_vm_is(&mut sender, &mut tap_there, 2));
    hub.stop();
}
