//! The firmware of a virtual machine gets an address and a file through the hub, from a QEMU that is a gateway.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::common::hub::{Hub, folder, utf8};
use crate::common::qemu::{Qemu, Version, have_qemu};

/// It takes 6 s when the machine is idle.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

#[test]
fn ipxe_fetches_a_megabyte_through_a_user_mode_gateway() {
    if !have_qemu() {
        return;
    }
    let runtime = folder();
    let hub = Hub::start(&runtime, &["--no-tcp"]);
    let hub_path = hub.socket();
    let uplink = format!("stream,id=s0,addr.type=unix,addr.path={}", utf8(&hub_path));

    let tftp = folder();
    fs::write(tftp.path().join("blob"), vec![0x5a; 1 << 20]).unwrap();
    // The pause lets the serial port's queue run out.
    let script = "#!ipxe\nimgfetch tftp://10.0.2.2/blob || echo FETCH FAILED\nimgstat\nsleep 1\nreboot\n";
    fs::write(tftp.path().join("boot.ipxe"), script).unwrap();

    let user = format!("user,id=u0,restrict=on,bootfile=boot.ipxe,tftp={}", utf8(tftp.path()));
    let gateway = [
        ["-machine", "none"],
        ["-netdev", &user],
        ["-netdev", &uplink],
        ["-netdev", "hubport,id=h0,hubid=0,netdev=u0"],
        ["-netdev", "hubport,id=h1,hubid=0,netdev=s0"],
    ];
    let _gateway = Qemu::start(Version::Installed, gateway.as_flattened(), Stdio::null());

    let console = runtime.path().join("console");
    let serial = format!("file:{}", utf8(&console));
    let machine = [
        ["-machine", "pc,graphics=off"],
        ["-m", "64"],
        ["-boot", "n"],
        ["-serial", &serial],
        ["-netdev", &uplink],
        ["-device", "virtio-net-pci,netdev=s0"],
    ];
    let mut machine = Qemu::start(Version::Installed, machine.as_flattened(), Stdio::null());

    // The script's reboot ends QEMU.
    machine.process().exit(BOOT_LIMIT);
    let console = String::from_utf8_lossy(&fs::read(console).unwrap()).into_owned();
    assert!(console.contains("blob : 1048576 bytes"), "iPXE said {console}");
    hub.stop();
}
