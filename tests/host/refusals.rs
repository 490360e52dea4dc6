//! What can't be opened: one line that says what to do.

use nix::unistd::chown;

use crate::common::daemon::Daemon;
use crate::common::hub::folder;
use crate::common::net::Namespace;
use crate::common::refusal::refusal_by;
use crate::common::stack::{AS_NOBODY, NOBODY, have_stacks, naming, privately, privately_as};

/// A hub that can't start, in `home`.
fn refused(home: &Namespace, script: &str, port: &str) -> String {
    let runtime = folder();
    chown(runtime.path(), Some(NOBODY.into()), None).expect("root may");
    home.within(|| refusal_by(runtime.path(), script, &[port]))
}

#[test]
fn what_can_not_be_opened_is_told_with_what_helps() {
    if !have_stacks() {
        return;
    }
    let home = Namespace::quiet();
    for link in ["br0 type bridge", "dummy type veth peer name other"] {
        home.ip(&format!("link add {link}"));
    }
    for (port, line) in [
        (
            "tap:x,bridge=br1",
            "port tap:x: there is no bridge br1; make it with 'qhub bridge up br1' or 'ip link add br1 type bridge'",
        ),
        (
            "tap:x,bridge=dummy",
            "port tap:x: dummy is no bridge; 'ip link show type bridge' lists those that there are",
        ),
        (
            "tap:x,netns=qhub-none",
            "port tap:x: there is no network namespace qhub-none; make it with 'ip netns add qhub-none'",
        ),
        (
            "tap:dummy",
            "port tap:dummy: dummy is an interface of another kind, or a TAP with several queues; choose another name",
        ),
        (
            "tap:br0",
            "port tap:br0: br0 is an interface of another kind, or a TAP with several queues; choose another name",
        ),
        ("packet:none0", "port packet:none0: there is no interface none0; see 'ip addr'"),
        (
            "packet:lo",
            "port packet:lo: lo carries no Ethernet; name a card, a bridge or the like ('ip link' says link/ether)",
        ),
        ("macvtap:none0", "port macvtap:none0: there is no interface none0; see 'ip link'"),
        (
            "macvtap:/dev/tap999999",
            "port macvtap:/dev/tap999999: open /dev/tap999999: No such file or directory (os error 2); N is the number that 'ip link show type macvtap' has in front of the macvtap",
        ),
        (
            "bridge:br1",
            "port bridge:br1: there is no bridge br1; make it with 'qhub bridge up br1' or 'ip link add br1 type bridge'",
        ),
        (
            "bridge:dummy",
            "port bridge:dummy: dummy is no bridge; 'ip link show type bridge' lists those that there are",
        ),
    ] {
        assert_eq!(refused(&home, r#"exec "$@""#, port), format!("qhub: {line}"));
        assert!(!home.has_link("x"), "it left a TAP behind");
    }
}

#[test]
fn a_file_that_is_no_namespace_is_told() {
    if !have_stacks() {
        return;
    }
    let home = Namespace::new();
    let script = privately(&format!("{} touch /run/netns/fake;", naming(&[])));
    let line = refused(&home, &script, "tap:x,netns=fake");
    assert!(line.starts_with("qhub: port tap:x: enter the network namespace fake: "), "{line}");
}

#[test]
fn a_tap_of_another_hub_is_taken() {
    if !have_stacks() {
        return;
    }
    let (home, runtime) = (Namespace::new(), folder());
    let hub = home.within(|| Daemon::start(runtime.path(), &["tap:lab"]));
    let line = refused(&home, r#"exec "$@""#, "tap:lab");
    assert_eq!(line, "qhub: port tap:lab: lab is open in another program; stop it, or choose another name");
    assert_eq!(hub.table().ports.len(), 1);
    hub.stop();
}

#[test]
fn a_host_without_tun_is_told_how_to_get_it() {
    if !have_stacks() {
        return;
    }
    let home = Namespace::new();
    let no_tun = "mount -t tmpfs none /dev/net;";
    assert_eq!(
        refused(&home, &privately(no_tun), "tap:x"),
        "qhub: port tap:x: open /dev/net/tun: No such file or directory (os error 2); as root: modprobe tun (a container has to be given the device)"
    );
    let no_driver = format!("{no_tun} mknod /dev/net/tun c 10 254;");
    let line = refused(&home, &privately(&no_driver), "tap:x");
    assert!(line.contains("open /dev/net/tun: ") && line.contains("as root: modprobe tun"), "{line}");
    let no_right = format!("{no_tun} mknod -m 600 /dev/net/tun c 10 200;");
    assert_eq!(
        refused(&home, &privately_as(AS_NOBODY, &no_right), "tap:x"),
        "qhub: port tap:x: open /dev/net/tun: Permission denied (os error 13); run as root, or let everybody open it: chmod 0666 /dev/net/tun"
    );
}

#[test]
fn users_without_rights_are_told_who_has_them() {
    if !have_stacks() {
        return;
    }
    let (home, other) = (Namespace::quiet(), Namespace::new());
    home.ip("link add v type veth peer name w");
    let script = privately_as(AS_NOBODY, &naming(&[("other", &other)]));
    for (port, words) in [
        (
            "packet:v",
            "only root may join the cable of an interface; run as root, or give qhub the capability CAP_NET_RAW",
        ),
        ("macvtap:v", "only root may make a network namespace (EPERM: Operation not permitted); run as root"),
        ("tap:x,netns=other", "only root may enter the network namespace other; run as root"),
    ] {
        let line = refused(&home, &script, port);
        assert!(
            line.starts_with(&format!("qhub: port {}: ", port.split(',').next().expect("a kind"))),
            "{line}"
        );
        assert!(line.contains(words), "{line}");
    }
}
