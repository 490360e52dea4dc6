//! QEMU 10 guests outlive the hub: after a crash, and after a shutdown that finds one of them stalled.

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::common::guest::{self, Guest};
use crate::common::hub::{Hub, folder, free_tcp_port, utf8};
use crate::common::qemu::Version;
use crate::common::wait::{LIMIT, wait_for};
use crate::common::wire::Station;

const VM: [u8; 6] = [0x52, 0x54, 0x00, 0x00, 0x00, 0x01];

fn net(hub: &str, last_of_mac: u8) -> [String; 4] {
    [
        "-netdev".to_owned(),
        format!("stream,id=n0,{hub},reconnect-ms=200"),
        "-device".to_owned(),
        format!("virtio-net-pci,netdev=n0,romfile=,mac=52:54:00:00:00:{last_of_mac:02x}"),
    ]
}

fn unix(hub: &Hub) -> String {
    format!("addr.type=unix,addr.path={}", utf8(&hub.socket()))
}

#[test]
fn guests_come_back_after_a_crash() {
    let Some(_turn) = guest::turn() else { return };
    let runtime = folder();
    let hub = Hub::start(&runtime, &["--no-tcp"]);
    let mut one = Guest::start(Version::Ten, &net(&unix(&hub), 1), "10.0.0.1/24", 1500);
    let mut other = Guest::start(Version::Ten, &net(&unix(&hub), 2), "10.0.0.2/24", 1500);
    one.booted();
    other.booted();
    one.run("ping -c 3 -i 0.05 -q 10.0.0.2");

    hub.crash();
    for guest in [&mut one, &mut other] {
        guest.qemu().event("NETDEV_STREAM_DISCONNECTED");
    }
    let hub = Hub::start(&runtime, &["--no-tcp"]);
    for guest in [&mut one, &mut other] {
        // The first was that of the first hub.
        guest.qemu().event("NETDEV_STREAM_CONNECTED");
        guest.qemu().event("NETDEV_STREAM_CONNECTED");
    }
    one.run("ping -c 3 -i 0.05 -q 10.0.0.2");
    hub.stop();
}

/// Has the guest send frames of `length` bytes to nobody, for ever.
fn flood(guest: &mut Guest, length: usize) {
    guest.run("echo rem_device_all >/proc/net/pktgen/kpktgend_0");
    guest.run("echo add_device eth0 >/proc/net/pktgen/kpktgend_0");
    for setting in ["count 0", "dst_mac 02:71:68:00:00:01", "dst 10.0.0.9", &format!("pkt_size {length}")] {
        guest.run(&format!("echo {setting} >/proc/net/pktgen/eth0"));
    }
    guest.run("echo start >/proc/net/pktgen/pgctrl & sleep 0.1");
}

/// Returns when the guest, although it wants to, sends no more.
fn stalled(guest: &mut Guest) {
    let mut sent = || guest.run("cat /sys/class/net/eth0/statistics/tx_packets; sleep 0.2");
    let mut last = sent();
    wait_for("a guest to stall", LIMIT, || {
        let now = sent();
        std::mem::replace(&mut last, now.clone()).eq(&now).then_some(())
    });
}

fn hears_the_guest(hub: &Hub, length: usize) {
    let mut wire = hub.connect();
    wire.receive_if("a frame from the guest", |frame| frame[6..12] == VM && frame.len() == length);
}

/// A QEMU that is cut off while it waits for room never sends again, whether a part of its frame has gone (60,000 bytes)
/// or none (1514): a hub that is told to end lets it finish.
fn sends_on_after_a_shutdown(runtime: &TempDir, ports: &[&str], address: &str) {
    let mut hub = Hub::start(runtime, ports);
    let mut guest = Guest::start(Version::Ten, &net(address, 1), "10.0.0.1/24", 60_000);
    guest.booted();
    for length in [1514, 60_000] {
        flood(&mut guest, length);
        hears_the_guest(&hub, length);

        hub.signal(Signal::SIGSTOP);
        stalled(&mut guest);
        hub.signal(Signal::SIGTERM);
        hub.signal(Signal::SIGCONT);
        hub.ended();

        hub = Hub::start(runtime, ports);
        hears_the_guest(&hub, length);
        guest.run("echo stop >/proc/net/pktgen/pgctrl");
    }
    hub.stop();
}

#[test]
fn a_stalled_guest_sends_on_after_a_shutdown_over_unix() {
    let Some(_turn) = guest::turn() else { return };
    let runtime = folder();
    let address = format!("addr.type=unix,addr.path={}/qhub/default/qhub.sock", utf8(runtime.path()));
    sends_on_after_a_shutdown(&runtime, &["--no-tcp"], &address);
}

#[test]
fn a_stalled_guest_sends_on_after_a_shutdown_over_tcp() {
    let Some(_turn) = guest::turn() else { return };
    let runtime = folder();
    let port = free_tcp_port();
    let address = format!("addr.type=inet,addr.host=127.0.0.1,addr.port={port}");
    sends_on_after_a_shutdown(&runtime, &[&format!("tcp:{port}")], &address);
}
