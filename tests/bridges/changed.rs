//! `qhub bridge` when others change the network, the disk or the journals while a bridge comes, is there, or goes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::public::layer_3;
use crate::common::lab::{Lab, have_labs, text};
use crate::common::wait::{LIMIT, pause, wait_for};

const UP: [&str; 6] = ["bridge", "up", "br0", "--take", "eth0", "--yes"];
const DOWN: [&str; 4] = ["bridge", "down", "br0", "--yes"];

/// Where the journals are.
fn store(lab: &Lab) -> PathBuf {
    let mut folders = fs::read_dir(lab.run_folder().join("qhub/bridge")).expect("qhub has been here");
    folders.next().expect("a namespace").expect("a folder").path()
}

/// Runs qhub, which can't put all back, and gives what it says.
fn fails(lab: &Lab, arguments: &[&str]) -> String {
    let output = lab.qhub(arguments);
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

fn has_none(lab: &Lab) -> bool {
    lab.done(&["bridge", "show"]).starts_with("no bridges")
}

fn rename(lab: &Lab, from: &str, to: &str) {
    lab.host.ip(&format!("link set {from} down"));
    lab.host.ip(&format!("link set {from} name {to}"));
    lab.host.ip(&format!("link set {to} up"));
}

#[test]
fn a_renamed_interface_gets_its_addresses_back() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    let had = layer_3(&lab.host, "eth0");
    lab.done(&UP);
    rename(&lab, "eth0", "lan0");
    lab.done(&DOWN);
    assert_eq!(layer_3(&lab.host, "lan0"), had);
    assert!(has_none(&lab));
}

#[test]
fn a_renamed_bridge_is_taken_down() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    let before = lab.picture();
    lab.done(&UP);
    rename(&lab, "br0", "lan");
    let shown = lab.done(&["bridge", "show"]);
    assert!(shown.contains("changed since: br0 is called lan now"), "{shown}");
    lab.done(&DOWN);
    lab.is_again(&before, "after down");
    assert!(has_none(&lab));
}

#[test]
fn what_has_no_place_to_go_back_to_stays_on_the_bridge() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    lab.done(&UP);
    lab.host.ip("link del eth0");
    let line = fails(&lab, &DOWN);
    assert!(line.contains("eth0 is gone, and br0 keeps 10.9.9.9/32, 192.0.2.5/24, "), "{line}");
    assert!(line.contains("or give that up: ip link del br0"), "{line}");
    let addresses = text(&lab.host.output("ip", &["addr", "show", "dev", "br0"]));
    assert!(addresses.contains("192.0.2.5/24"), "{addresses}");
    assert!(!has_none(&lab));
    lab.host.ip("link del br0");
    let said = lab.done(&DOWN);
    assert!(said.starts_with("eth0 and the bridge are gone, and with them 10.9.9.9/32, "), "{said}");
    assert!(has_none(&lab));
}

#[test]
fn down_that_fails_leaves_a_host_that_is_reached() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    lab.host.ip("addr add 192.0.2.77/24 dev eth0 valid_lft 2 preferred_lft 2");
    lab.done(&UP);
    lab.host.ip("addr change 192.0.2.77/24 dev br0 valid_lft 5000 preferred_lft 5000");
    pause(Duration::from_millis(2500));
    let had = layer_3(&lab.host, "br0");
    let set = |value: &str| {
        let setting = format!("net.ipv6.conf.eth0.disable_ipv6={value}");
        lab.host.output("busybox", &["sysctl", "-w", &setting]);
    };
    set("1");
    let line = fails(&lab, &DOWN);
    assert!(line.contains("give eth0 2001:db8::5/64: ") && line.contains("qhub bridge down br0"), "{line}");
    let seconds = |lines: Vec<String>| {
        let without = |line: String| line.split(" valid_lft").next().unwrap_or_default().to_owned();
        let mut lines: Vec<String> = lines.into_iter().map(without).collect();
        lines.sort();
        lines
    };
    assert_eq!(seconds(layer_3(&lab.host, "br0")), seconds(had));
    assert_eq!(layer_3(&lab.host, "eth0"), [""; 0]);
    assert!(lab.pings("198.51.100.1") && lab.pings("2001:db8::1"));
    set("0");
    lab.done(&DOWN);
    let addresses = layer_3(&lab.host, "eth0").join("\n");
    assert!(addresses.contains("192.0.2.77/24") && addresses.contains("2001:db8::5/64"), "{addresses}");
    assert!(has_none(&lab) && lab.pings("198.51.100.1"));
}

#[test]
fn an_interface_that_is_down_gets_nothing_back() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    let before = lab.picture();
    lab.done(&UP);
    lab.host.ip("link set eth0 down");
    let line = lab.refused(&DOWN);
    assert!(line.contains("eth0 is down; bring it up first: ip link set eth0 up"), "{line}");
    lab.host.ip("link set eth0 up");
    lab.done(&DOWN);
    lab.is_again(&before, "after down");
}

#[test]
fn a_bridge_that_somebody_else_made_is_left_alone() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    let before = lab.picture();
    let private = ["bridge", "up", "br0", "--no-nat"];
    for up in [&UP[..], &private] {
        // The journal is on disk, and nothing else is done.
        let output = lab.injected("fsync:signal=KILL:when=2", up);
        assert!(!output.status.success());
        lab.host.ip("link add br0 type bridge");
        let foreign = lab.picture();
        lab.done(&DOWN);
        lab.is_again(&foreign, "down");
        lab.host.ip("link del br0");
        lab.is_again(&before, "all is as before");
    }
    lab.done(&UP);
    lab.host.ip("link del br0");
    lab.host.ip("link add br0 type bridge");
    lab.host.ip("link set eth0 master br0");
    let line = lab.refused(&DOWN);
    assert!(
        line.contains("eth0 is a port of br0 now") && line.contains("ip link set eth0 nomaster"),
        "{line}"
    );
    lab.host.ip("link set eth0 nomaster");
    lab.done(&DOWN);
    lab.host.ip("link del br0");
    lab.is_again(&before, "after all");
}

#[test]
fn a_bridge_that_comes_before_the_first_step_is_left_alone() {
    if !have_labs() {
        return;
    }
    let lab = Lab::new();
    // What qhub asks before it begins makes a bridge of this name.
    let script = r#"cp /usr/sbin/nft /run/real &&
        printf '#!/bin/sh\nip link add qhub0 type bridge\nexec /run/real "$@"\n' >/run/fake &&
        chmod 755 /run/fake && mount --bind /run/fake /usr/sbin/nft && exec "$@""#;
    let output = lab.run(&["sh", "-c", script, "sh", env!("CARGO_BIN_EXE_qhub"), "bridge", "up"]);
    let line = text(&output.stderr);
    assert!(line.contains("make the bridge qhub0 ") && line.contains("as before"), "{line}");
    // This fails if it is gone.
    lab.host.ip("link show dev qhub0");
}

#[test]
fn an_address_that_comes_while_others_move_is_kept() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    thread::scope(|scope| {
        let up = scope.spawn(|| lab.injected("fsync:delay_exit=2000000:when=2", &UP));
        wait_for("the journal", LIMIT, || {
            let home = lab.run_folder().join("qhub/bridge");
            let folder = fs::read_dir(home).ok()?.next()?.ok()?.path();
            folder.join("br0.json").exists().then_some(())
        });
        lab.host.ip("addr add 10.99.0.1/24 dev eth0");
        let output = up.join().expect("it runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
    });
    let addresses = layer_3(&lab.host, "eth0").join("\n");
    assert!(addresses.contains("10.99.0.1/24") && !addresses.contains("192.0.2.5"), "{addresses}");
    lab.done(&DOWN);
    assert!(layer_3(&lab.host, "eth0").join("\n").contains("192.0.2.5/24"));
}

#[test]
fn an_interface_with_a_stable_secret_is_taken_over() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    lab.host.output("busybox", &["sysctl", "-w", "net.ipv6.conf.eth0.stable_secret=2001:db8::1234:5678"]);
    let before = lab.picture();
    lab.done(&UP);
    let value = |key: &str| {
        let name = format!("net.ipv6.conf.br0.{key}");
        text(&lab.host.output("busybox", &["sysctl", "-n", &name])).trim().to_owned()
    };
    assert_eq!(value("stable_secret"), "2001:0db8:0000:0000:0000:0000:1234:5678");
    assert_eq!(value("addr_gen_mode"), "2");
    lab.done(&DOWN);
    lab.is_again(&before, "after down");
}

#[test]
fn down_needs_no_room_on_the_disk() {
    if !have_labs() {
        return;
    }
    let lab = Lab::new();
    let before = lab.picture();
    lab.done(&["bridge", "up"]);
    let output = lab.injected("fsync:error=ENOSPC", &["bridge", "down"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    lab.is_again(&before, "after down");
    assert!(has_none(&lab));

    let output = lab.injected("fsync:error=ENOSPC", &["bridge", "up"]);
    assert!(text(&output.stderr).contains("No space left on device"), "{}", text(&output.stderr));
    let files: Vec<_> = fs::read_dir(store(&lab)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["lock"]);
    lab.is_again(&before, "nothing was done");
}

#[test]
fn a_journal_that_cannot_be_read_is_in_nobody_else_s_way() {
    if !have_labs() {
        return;
    }
    let lab = Lab::new();
    lab.done(&["bridge", "up"]);
    let other = store(&lab).join("other.json");
    fs::write(&other, "{}").unwrap();
    let shown = lab.done(&["bridge", "show"]);
    assert!(shown.starts_with("qhub0: private, up\n"), "{shown}");
    assert!(shown.contains("other.json is no journal of this version of qhub; "), "{shown}");
    for command in ["up", "down"] {
        let line = lab.refused(&["bridge", command, "other"]);
        assert!(line.starts_with("qhub: bridge other: ") && line.contains("is no journal of"), "{line}");
    }
    lab.done(&["bridge", "down"]);
    let forwarding = || text(&lab.host.output("busybox", &["sysctl", "-n", "net.ipv4.ip_forward"]));
    assert_eq!(forwarding(), "1\n", "the other one may need it");
    lab.done(&["bridge", "up"]);
    lab.done(&["bridge", "down"]);
    fs::remove_file(&other).unwrap();
    assert!(has_none(&lab));
    // One that is gone between being listed and being read.
    symlink("nowhere", &other).unwrap();
    assert!(has_none(&lab));
}
