//! `qhub bridge up`: a bridge of its own, with NAT.

use std::fs::{self, File};

use crate::common::lab::{Lab, have_labs, join, pings, quick_host, text};
use crate::common::net::Namespace;

/// A host behind the bridge, as a VM would be.
fn vm_on(lab: &Lab, bridge: &str) -> Namespace {
    vm_in(lab, bridge, "vm", ("10.55.0", "fd55"))
}

/// The same with the interface `port` and addresses that begin so.
fn vm_in(lab: &Lab, bridge: &str, port: &str, prefixes: (&str, &str)) -> Namespace {
    let vm = quick_host();
    join((&lab.host, port), (&vm, "eth0"));
    lab.host.ip(&format!("link set {port} master {bridge}"));
    vm.ip(&format!("addr add {}.2/24 dev eth0", prefixes.0));
    vm.ip(&format!("addr add {}::2/64 dev eth0", prefixes.1));
    vm.ip(&format!("route add default via {}.1", prefixes.0));
    vm.ip(&format!("-6 route add default via {}::1", prefixes.1));
    vm
}

fn setting(lab: &Lab, name: &str) -> String {
    text(&lab.host.output("busybox", &["sysctl", "-n", name])).trim().to_owned()
}

#[test]
fn a_vm_reaches_the_internet_and_down_leaves_no_trace() {
    if !have_labs() {
        return;
    }
    // The router knows no way to 10.55.0.0/24 or fd55::/64.
    let (lab, router) = Lab::with_lan();
    let before = lab.picture();
    let said = lab.done(&["bridge", "up", "--addr", "10.55.0.1/24", "--addr", "fd55::1/64"]);
    assert!(said.contains("qhub0 is up") && said.contains("'qhub bridge down qhub0'"), "{said}");
    assert_eq!(
        lab.done(&["bridge", "show"]),
        "qhub0: private, up\n  addresses: 10.55.0.1/24, fd55::1/64\n  ports: none\n  NAT: 10.55.0.0/24, fd55::/64 (nft table inet qhub_qhub0)\n"
    );

    let vm = vm_on(&lab, "qhub0");
    for address in ["10.55.0.1", "fd55::1", "192.0.2.1", "2001:db8::1", "198.51.100.1"] {
        assert!(pings(&vm, address), "{address}");
    }
    assert!(pings(&lab.host, "192.0.2.1"));
    assert!(!pings(&router, "10.55.0.2"), "nobody outside knows the way in");
    let shown = lab.done(&["bridge", "show"]);
    assert!(shown.contains("  ports: vm\n"), "{shown}");

    lab.host.ip("link del vm");
    assert_eq!(lab.done(&["bridge", "down"]), "");
    lab.is_again(&before, "after down");
    assert_eq!(lab.done(&["bridge", "show"]), "no bridges; 'qhub bridge up' makes one\n");
}

#[test]
fn it_keeps_its_mac_whatever_its_ports_are() {
    if !have_labs() {
        return;
    }
    let lab = Lab::new();
    let link = || {
        let shown = String::from_utf8(lab.host.output("ip", &["-o", "link", "show", "dev", "br0"])).unwrap();
        shown.split("link/ether ").nth(1).map(|rest| rest[..17].to_owned()).unwrap()
    };
    lab.done(&["bridge", "up", "br0"]);
    let made = link();
    lab.host.ip("link add low address 02:00:00:00:00:01 type veth peer name low2");
    lab.host.ip("link set low master br0");
    assert_eq!(link(), made);
    lab.done(&["bridge", "down", "br0"]);
    lab.done(&["bridge", "up", "br0"]);
    assert_eq!(link(), made);
}

#[test]
fn without_nat_the_host_forwards_nothing() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    let before = lab.picture();
    lab.done(&["bridge", "up", "--no-nat", "--addr", "10.55.0.1/24", "--addr", "fd55::1/64"]);
    assert_eq!(setting(&lab, "net.ipv4.ip_forward"), "0");
    assert_eq!(setting(&lab, "net.ipv6.conf.all.forwarding"), "0");
    let vm = vm_on(&lab, "qhub0");
    assert!(pings(&vm, "10.55.0.1") && pings(&vm, "fd55::1"));
    assert!(!pings(&vm, "192.0.2.1"));
    lab.host.ip("link del vm");
    lab.done(&["bridge", "down"]);
    lab.is_again(&before, "after down");
}

#[test]
fn without_nat_a_bridge_is_isolated_where_the_host_forwards() {
    if !have_labs() {
        return;
    }
    let lab = Lab::new();
    let before = lab.picture();
    lab.done(&["bridge", "up", "--addr", "10.55.0.1/24", "--addr", "fd55::1/64"]);
    let said =
        lab.done(&["bridge", "up", "alone", "--no-nat", "--addr", "10.77.0.1/24", "--addr", "fd77::1/64"]);
    assert!(said.contains("reach this host at 10.77.0.1/24, fd77::1/64 and nothing else. "), "{said}");
    let shown = lab.done(&["bridge", "show"]);
    assert!(shown.contains("  isolated by: nft table inet qhub_alone\n"), "{shown}");
    let (vm, alone) = (vm_on(&lab, "qhub0"), vm_in(&lab, "alone", "vm2", ("10.77.0", "fd77")));
    assert!(pings(&alone, "10.77.0.1") && pings(&alone, "fd77::1"));
    for (from, address) in [(&alone, "10.55.0.2"), (&alone, "fd55::2"), (&vm, "10.77.0.2"), (&vm, "fd77::2")]
    {
        assert!(!pings(from, address), "{address}");
    }
    lab.host.output("nft", &["delete table inet qhub_alone"]);
    assert!(lab.done(&["bridge", "show"]).contains("changed since: the table of nft is gone"));
    assert!(pings(&alone, "10.55.0.2"), "it was the table");
    lab.host.ip("link del vm");
    lab.host.ip("link del vm2");
    lab.done(&["bridge", "down", "alone"]);
    lab.done(&["bridge", "down"]);
    lab.is_again(&before, "after down");
}

#[test]
fn no_vm_becomes_the_host_s_router() {
    if !have_labs() {
        return;
    }
    let lab = Lab::new();
    lab.done(&["bridge", "up", "--no-nat"]);
    for key in ["accept_ra", "autoconf"] {
        assert_eq!(setting(&lab, &format!("net.ipv6.conf.qhub0.{key}")), "0");
    }
}

#[test]
fn forwarding_ends_with_the_last_bridge_that_needs_it() {
    if !have_labs() {
        return;
    }
    for last in ["one", "two"] {
        let (lab, _router) = Lab::with_lan();
        lab.host.output(
            "busybox",
            &["sysctl", "-w", "net.ipv4.conf.eth0.forwarding=1", "net.ipv6.conf.eth0.accept_ra=1"],
        );
        let before = lab.picture();
        lab.done(&["bridge", "up", "one", "--addr", "10.55.1.1/24", "--addr", "fd55:1::1/64"]);
        lab.done(&["bridge", "up", "two", "--addr", "10.55.2.1/24", "--addr", "fd55:2::1/64"]);
        lab.done(&["bridge", "up", "other", "--addr", "10.55.3.1/24", "--no-nat"]);
        let first = if last == "one" { "two" } else { "one" };
        lab.done(&["bridge", "down", first]);
        assert_eq!(setting(&lab, "net.ipv4.ip_forward"), "1");
        assert_eq!(setting(&lab, "net.ipv6.conf.all.forwarding"), "1");
        assert_eq!(setting(&lab, "net.ipv6.conf.eth0.accept_ra"), "2", "routers are still heard");
        lab.done(&["bridge", "down", last]);
        assert_eq!(setting(&lab, "net.ipv4.ip_forward"), "0");
        lab.done(&["bridge", "down", "other"]);
        lab.is_again(&before, "after the last");
    }
}

#[test]
fn a_host_that_forwards_goes_on_doing_so() {
    if !have_labs() {
        return;
    }
    let lab = Lab::new();
    lab.host.output("busybox", &["sysctl", "-w", "net.ipv4.ip_forward=1"]);
    let before = lab.picture();
    lab.done(&["bridge", "up"]);
    lab.done(&["bridge", "down"]);
    lab.is_again(&before, "after down");
}

#[test]
fn other_tables_of_nft_are_left_alone() {
    if !have_labs() {
        return;
    }
    let lab = Lab::new();
    lab.host.output("nft", &["add table inet qhub_qhub00; add chain inet qhub_qhub00 c; add table ip nat"]);
    let before = lab.picture();
    lab.done(&["bridge", "up"]);
    lab.done(&["bridge", "down"]);
    lab.is_again(&before, "after down");
    lab.host.output("nft", &["add table inet qhub_qhub0"]);
    let line = lab.refused(&["bridge", "up"]);
    assert!(line.contains("nft delete table inet qhub_qhub0"), "{line}");
}

#[test]
fn one_at_a_time() {
    if !have_labs() {
        return;
    }
    let lab = Lab::new();
    lab.done(&["bridge", "up"]);
    let home = lab.run_folder().join("qhub/bridge");
    let folder = fs::read_dir(home).unwrap().next().unwrap().unwrap().path();
    let lock = File::open(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    for arguments in [&["bridge", "up", "two", "--addr", "10.56.0.1/24"][..], &["bridge", "down"]] {
        let line = lab.refused(arguments);
        assert!(line.contains("another 'qhub bridge' is at work"), "{line}");
    }
    assert!(lab.done(&["bridge", "show"]).contains("qhub0: private, up"));
    drop(lock);
    lab.done(&["bridge", "down"]);
}

#[test]
fn each_network_namespace_has_its_own_bridges() {
    if !have_labs() {
        return;
    }
    let lab = Lab::new();
    lab.done(&["bridge", "up"]);
    let other = quick_host();
    let command = || lab.command(&[env!("CARGO_BIN_EXE_qhub"), "bridge", "show"]).output().unwrap();
    let shown = String::from_utf8(other.within(command).stdout).unwrap();
    assert!(shown.starts_with("no bridges"), "{shown}");
}
