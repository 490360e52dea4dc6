//! A Linux guest in the host's network.

use crate::common::daemon::Daemon;
use crate::common::guest::{self, Guest};
use crate::common::hub::{folder, utf8};
use crate::common::net::Namespace;
use crate::common::qemu::Version;
use crate::common::stack::{have_stacks, privately, with_etc};
use crate::common::wait::{LIMIT, wait_for};

const MAC: &str = "52:54:00:00:00:07";

/// One guest, and a stack behind each sort of port: nothing but the hub joins them.
#[test]
fn a_guest_reaches_the_host_and_whoever_is_behind_each_sort_of_port() {
    if !have_stacks() {
        return;
    }
    let Some(_turn) = guest::turn() else { return };
    let (home, runtime) = (Namespace::quiet(), folder());
    let far = [3, 4, 5].map(|number| {
        let stack = Namespace::quiet();
        home.cable(&format!("v{number}"), &stack, "w");
        stack.ip(&format!("addr add 10.9.0.{number}/24 dev w"));
        stack
    });
    for (bridge, port) in [("br0", "v3"), ("br1", "v4")] {
        home.ip(&format!("link add {bridge} type bridge"));
        home.ip(&format!("link set {bridge} up"));
        home.ip(&format!("link set {port} master {bridge}"));
    }
    let etc = folder();
    std::fs::create_dir(etc.path().join("qemu")).expect("it is ours");
    std::fs::write(etc.path().join("qemu/bridge.conf"), "allow br1\n").expect("it is ours");
    let ports = ["tap:vm%d,addr=10.9.0.1/24,mtu=9000", "tap:,bridge=br0", "bridge:br1", "packet:v5"];
    let hub = home.within(|| Daemon::start_by(runtime.path(), &privately(&with_etc(etc.path())), &ports));

    let net = [
        "-device".to_owned(),
        format!("virtio-net-pci,netdev=n0,mac={MAC}"),
        "-netdev".to_owned(),
        format!("stream,id=n0,addr.type=unix,addr.path={}", utf8(hub.socket())),
    ];
    let mut guest = Guest::start(Version::Installed, &net, "10.9.0.2/24", 9000);
    guest.booted();
    // 8 of ICMP and 20 of IP make 9000.
    home.pings("-s 8972", "10.9.0.2");
    let said = guest.run("ping -c 5 -i 0.05 -q -s 8972 10.9.0.1");
    assert!(said.contains(" 0% packet loss"), "{said}");
    for (stack, number) in far.iter().zip(3..) {
        stack.pings("-s 1472", "10.9.0.2");
        let said = guest.run(&format!("ping -c 5 -i 0.05 -q -s 1472 10.9.0.{number}"));
        assert!(said.contains(" 0% packet loss"), "{said}");
    }

    guest.run("iperf3 -s -D && sleep 0.2");
    for stack in [&home, &far[0], &far[2]] {
        for direction in ["", "-R"] {
            // Between two clients the server is away for a moment.
            let client = format!("iperf3 --connect-timeout 5000 -c 10.9.0.2 -n 4M {direction}");
            wait_for(&client, LIMIT, || stack.try_sh(&client).status.success().then_some(()));
        }
        assert_eq!(stack.counter("Tcp", "InCsumErrors"), 0);
    }
    let said = guest.run("grep ^Tcp: /proc/net/snmp");
    assert!(said.trim_end().ends_with(" 0"), "the guest saw bad checksums: {said}");
    assert_eq!(hub.count("WARN"), 0, "{}", hub.log());
    hub.stop();
}
