//! Linux guests, one of them on VDE.

use crate::common::daemon::Daemon;
use crate::common::guest::{self, Guest};
use crate::common::hub::{folder, utf8};
use crate::common::net::free_group;
use crate::common::qemu::Version;
use crate::common::vde::have_vde;

#[test]
fn guests_on_vde_a_stream_and_a_bus_ping_each_other() {
    if !have_vde() {
        return;
    }
    let Some(_turn) = guest::turn() else { return };
    let runtime = folder();
    let vde = runtime.path().join("vde");
    let (group, port) = free_group();
    let hub = Daemon::start(
        runtime.path(),
        &[&format!("vde:{}", utf8(&vde)), &format!("mcast:{group}:{port},iface=127.0.0.1")],
    );
    let netdevs = [
        format!("vde,id=n0,sock={}", utf8(&vde)),
        format!("stream,id=n0,addr.type=unix,addr.path={}", utf8(hub.socket())),
        format!("socket,id=n0,mcast={group}:{port},localaddr=127.0.0.1"),
    ];
    let mut guests: Vec<Guest> =
        netdevs.iter().zip(1..).map(|(netdev, number)| boot(netdev, number)).collect();
    guests.iter_mut().for_each(Guest::booted);

    ping(&mut guests, 56);
    for guest in &mut guests {
        guest.run("ip link set eth0 mtu 9000");
    }
    // 8 of ICMP, 20 of IP: 9014 octets on the wire.
    ping(&mut guests, 8972);
    let [on_vde, on_stream, _] = &mut guests[..] else { unreachable!("there are three") };
    on_stream.run("iperf3 -s -D && sleep 0.2");
    on_vde.run("iperf3 -c 10.0.0.2 -n 8M");
    on_vde.run("iperf3 -c 10.0.0.2 -n 8M -R");
    let table = hub.table();
    assert_eq!(table.ports.len(), netdevs.len(), "{table:?}");
    assert!(table.ports.iter().all(|port| port.dropped == 0), "{table:?}");
    assert_eq!(hub.count("WARN"), 0, "{}", hub.log());
    hub.stop();
}

fn boot(netdev: &str, number: u8) -> Guest {
    let card = format!("virtio-net-pci,netdev=n0,romfile=,mac=52:54:00:00:00:{number:02x}");
    let net = ["-netdev", netdev, "-device", &card].map(str::to_owned);
    Guest::start(Version::Installed, &net, &format!("10.0.0.{number}/24"), 1500)
}

/// Each pings each other, with so many octets.
fn ping(guests: &mut [Guest], octets: u16) {
    let all = 1..=guests.len();
    for (guest, from) in guests.iter_mut().zip(1..) {
        for to in all.clone().filter(|&to| to != from) {
            let said = guest.run(&format!("ping -c 3 -i 0.05 -q -s {octets} 10.0.0.{to}"));
            assert!(said.contains(" 0% packet loss"), "{from} to {to}: {said}");
        }
    }
}
