//! `qhub bridge` when it is asked for what can't be, or must not be without asking.

use crate::common::lab::{Lab, have_labs, text};

#[test]
fn a_bad_command_line_is_an_error_of_usage() {
    if !have_labs() {
        return;
    }
    let lab = Lab::new();
    let before = lab.picture();
    for arguments in [
        &["up", "sixteen-letters1"][..],
        &["up", "a/b"],
        &["up", "a b"],
        &["up", ""],
        &["up", "--addr", "10.55.0.1"],
        &["up", "--addr", "10.55.0.1/33"],
        &["up", "--addr", "10.55.0.0/24"],
        &["up", "--addr", "127.0.0.1/8"],
        &["up", "--addr", "fe80::1/64"],
        &["up", "--addr", "here/24"],
        &["up", "--take", "eth0"],
        &["up", "br0", "--take", "eth0", "--no-nat"],
        &["up", "br0", "--take", "eth0", "--addr", "10.55.0.1/24"],
        &["down", "a/b"],
        &["show", "br0"],
        &[],
    ] {
        let output = lab.qhub(&[&["bridge"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
    }
    assert_eq!(lab.picture(), before);
    assert!(!lab.run_folder().join("qhub").exists());
}

#[test]
fn what_is_in_the_way_is_said_in_a_line() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    lab.host.ip("link add taken type veth peer name taken2");
    lab.host.ip("link add br-old type bridge");
    lab.host.ip("link add port type veth peer name port2");
    lab.host.ip("link set port master br-old");
    lab.host.ip("tuntap add dev tun9 mode tun");
    lab.host.ip("link set tun9 up");
    lab.host.ip("route add 10.60.0.0/16 dev eth0");
    lab.host.ip("nexthop add id 7 via 192.0.2.1 dev eth0");
    for (arguments, wanted) in [
        ("down", "there is nothing to take down; 'qhub bridge show'"),
        ("down br0", "there is nothing to take down"),
        (
            "up taken",
            "there is an interface taken already; choose another name, or delete it: ip link del taken",
        ),
        ("up --addr 192.0.2.5/30", "this host has the address 192.0.2.5 already"),
        (
            "up --addr 192.0.2.77/30",
            "192.0.2.76/30 overlaps a route of this host, 192.0.2.0/24; choose another prefix",
        ),
        ("up --addr 10.60.7.1/24", "overlaps a route of this host, 10.60.0.0/16"),
        ("up --addr 10.1.1.1/7", "overlaps a route of this host"),
        ("up --addr 2001:db8::77/96", "overlaps a route of this host, 2001:db8::/64"),
        ("up --addr 10.61.0.1/24 --addr 10.61.0.2/25", "10.61.0.2/25 overlaps 10.61.0.1/24"),
        ("up br0 --yes --take eth9", "there is no interface eth9; see 'ip link'"),
        ("up br0 --yes --take lo", "lo is the host's way to itself"),
        ("up br0 --yes --take tun9", "tun9 does not carry Ethernet"),
        ("up br0 --yes --take br-old", "br-old is a bridge already"),
        ("up br0 --yes --take port", "port is a port of br-old already"),
        ("up br0 --yes --take taken", "taken is down; bring it up first: ip link set taken up"),
        ("up eth0 --yes --take eth0", "there is an interface eth0 already"),
    ] {
        let arguments: Vec<&str> = ["bridge"].into_iter().chain(arguments.split(' ')).collect();
        let line = lab.refused(&arguments);
        assert!(line.starts_with("qhub: bridge ") && line.contains(wanted), "{line}");
    }
    // A prefix beside another is none of its business.
    lab.done(&["bridge", "up", "--addr", "10.59.0.1/16"]);
    lab.done(&["bridge", "down"]);
    lab.host.ip("route add 10.62.0.0/16 nhid 7");
    let line = lab.refused(&["bridge", "up", "br0", "--yes", "--take", "eth0"]);
    assert!(line.contains("nexthop object"), "{line}");
}

#[test]
fn what_only_the_kernel_knows_is_said_by_the_kernel() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    lab.host.ip("link add link eth0 name mv0 type macvlan mode bridge");
    let line = lab.refused(&["bridge", "up", "br0", "--yes", "--take", "eth0"]);
    assert!(
        line.contains("make eth0 a port of br0: a macvlan or macvtap of it, or another bridge, has it: "),
        "{line}"
    );
    assert!(line.contains("everything is as before"), "{line}");
}

#[test]
fn it_needs_root() {
    if !have_labs() {
        return;
    }
    let lab = Lab::new();
    for command in ["up", "down", "show"] {
        let qhub = env!("CARGO_BIN_EXE_qhub");
        let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", qhub, "bridge", command];
        let output = lab.run(&nobody);
        let line = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(line.contains(&format!("run 'sudo qhub bridge {command}")), "{line}");
    }
}

#[test]
fn nat_needs_nft() {
    if !have_labs() {
        return;
    }
    let lab = Lab::new();
    let before = lab.picture();
    // A root folder that has everything but nft.
    let script = r#"mount -t tmpfs none /usr/sbin && exec "$@""#;
    let run = |arguments: &[&str]| {
        let start = ["sh", "-c", script, "sh", env!("CARGO_BIN_EXE_qhub"), "bridge"];
        lab.run(&[&start, arguments].concat())
    };
    let output = run(&["up"]);
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{line}");
    assert!(line.contains("install the package nftables, or give --no-nat"), "{line}");
    assert_eq!(lab.picture(), before);
    let output = run(&["up", "--no-nat"]);
    let said = text(&output.stdout);
    assert!(
        output.status.success() && said.contains("and nothing else unless this host forwards. "),
        "{said}"
    );
    lab.done(&["bridge", "down"]);

    lab.done(&["bridge", "up"]);
    let output = run(&["down"]);
    let said = text(&output.stdout);
    assert!(output.status.success() && said.contains("nft delete table inet qhub_qhub0"), "{said}");
    lab.host.output("nft", &["delete", "table", "inet", "qhub_qhub0"]);
    lab.is_again(&before, "but for the table");
}

#[test]
fn the_system_s_nft_comes_first() {
    if !have_labs() {
        return;
    }
    let lab = Lab::new();
    let script =
        r#"printf '#!/bin/sh\nexit 7\n' >/run/nft && chmod 755 /run/nft && PATH=/run:$PATH exec "$@""#;
    let output = lab.run(&["sh", "-c", script, "sh", env!("CARGO_BIN_EXE_qhub"), "bridge", "up"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn what_may_cut_off_a_session_is_asked_first() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    let up = ["bridge", "up", "br0", "--take", "eth0"];
    let line = lab.refused(&up);
    assert!(
        line.contains("this moves 10.9.9.9/32, 192.0.2.5/24, ") && line.contains("from eth0 to br0"),
        "{line}"
    );
    assert!(line.contains("can cut off a remote session; to do it without being asked, add --yes"), "{line}");

    let asked = |arguments: &[&str], answer: &str| {
        let output = lab.on_terminal(arguments, answer);
        (output.status.code(), text(&output.stdout))
    };
    let before = lab.picture();
    for answer in ["n\n", "\n", "yesterday\n"] {
        let (code, said) = asked(&up, answer);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("your SSH session comes in by 192.0.2.5"), "{said}");
        assert!(said.contains("Go on? [y/N]") && said.contains("nothing was changed"), "{said}");
        assert_eq!(lab.picture(), before);
    }
    let (code, said) = asked(&up, "y\n");
    assert_eq!(code, Some(0), "{said}");
    let line = lab.refused(&["bridge", "down", "br0"]);
    assert!(line.contains("from br0 to eth0") && line.contains("add --yes"), "{line}");
    let (code, said) = asked(&["bridge", "down", "br0"], "yes\n");
    assert_eq!(code, Some(0), "{said}");
    lab.is_again(&before, "after down");
}

#[test]
fn what_ends_with_a_temporary_address_is_said() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    let said = || text(&lab.qhub(&["bridge", "up", "br0", "--take", "eth0"]).stderr);
    assert!(!said().contains("temporary"), "{}", said());
    lab.host.output("busybox", &["sysctl", "-w", "net.ipv6.conf.eth0.use_tempaddr=2"]);
    lab.host.ip("addr add 2001:db8:9::5/64 dev eth0 mngtmpaddr");
    assert!(said().contains("; connections from the temporary IPv6 addresses of eth0 end, "), "{}", said());
}
