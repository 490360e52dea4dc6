//! `tap:`: what it is called, where it is, what it has, and who reaches whom through it.

use nix::unistd::chown;

use crate::common::daemon::Daemon;
use crate::common::hub::folder;
use crate::common::net::Namespace;
use crate::common::refusal::refusal_by;
use crate::common::stack::{AS_NOBODY, NOBODY, OPEN_TUN, have_stacks, naming, privately, privately_as};
use crate::common::wire::{BROADCAST, Station, frame, mac};

#[test]
fn taps_get_the_names_and_all_else_that_they_are_to_have() {
    if !have_stacks() {
        return;
    }
    let (home, runtime) = (Namespace::new(), folder());
    let args = [
        "tap:",
        "tap:",
        "tap:vm%d",
        "tap:vm%d,name=second",
        "tap:lab,addr=10.9.0.1/24,addr=fd09::1/64,mtu=9000",
        "tap:late,up=off",
    ];
    let hub = home.within(|| Daemon::start(runtime.path(), &args));
    let names: Vec<String> = hub.table().ports.into_iter().map(|port| port.name).collect();
    assert_eq!(names, ["tap0", "tap1", "vm0", "second", "lab", "late"]);
    for name in ["tap0", "tap1", "vm0", "lab", "late"] {
        assert!(hub.line(&format!("peer=interface {name}")).contains("port up"));
        let is_up = home.link(name).1.contains(",UP,");
        assert_eq!(is_up, name != "late", "{name}");
    }
    assert_eq!(hub.table().port("second").peer, "interface vm1");
    let shown = home.sh("ip -o addr show lab");
    assert!(shown.contains("inet 10.9.0.1/24 ") && shown.contains("inet6 fd09::1/64 "), "{shown}");
    assert!(home.link("lab").1.contains(" mtu 9000 "));
    assert!(home.link("tap0").1.contains(" mtu 1500 "));
    hub.stop();
    assert_eq!(home.sh("ip -o link show type tun"), "", "they stayed");
}

#[test]
fn tap_takes_the_next_free_number() {
    if !have_stacks() {
        return;
    }
    let (home, runtime) = (Namespace::new(), folder());
    home.ip("tuntap add tap0 mode tap");
    let hub = home.within(|| Daemon::start(runtime.path(), &["tap:"]));
    assert_eq!(hub.table().port("tap1").peer, "interface tap1");
    hub.stop();
}

#[test]
fn stacks_in_named_namespaces_reach_each_other_up_to_the_mtu() {
    if !have_stacks() {
        return;
    }
    let (home, one, two, runtime) = (Namespace::quiet(), Namespace::quiet(), Namespace::quiet(), folder());
    let script = privately(&naming(&[("one", &one), ("two", &two)]));
    let args = [
        "tap:a,netns=one,mtu=9000,addr=10.9.0.1/24,addr=fd09::1/64",
        "tap:a,netns=two,mtu=9000,addr=10.9.0.2/24,addr=fd09::2/64",
    ];
    let hub = home.within(|| Daemon::start_by(runtime.path(), &script, &args));
    assert!(!home.has_link("a") && one.has_link("a") && two.has_link("a"));
    hub.line("peer=interface a, in namespace one");
    hub.line("peer=interface a, in namespace two");

    // 8 of ICMP and 20 of IP make 9000, which go in one piece, and one more does not.
    one.pings("-s 8972", "10.9.0.2");
    two.pings("-s 8972", "10.9.0.1");
    one.pings("-6 -s 8952", "fd09::2");
    assert_eq!(one.counter("Ip", "FragCreates"), 0);
    let frames = hub.table().port("a").rx_frames;
    one.pings("-s 8973", "10.9.0.2");
    assert!(one.counter("Ip", "FragCreates") > 0);
    assert!(hub.table().port("a").rx_frames > frames + 10, "fragments are frames");
    assert_eq!(hub.count("WARN"), 0, "{}", hub.log());
    hub.stop();
}

#[test]
fn a_tap_on_a_bridge_leaves_the_bridge_as_it_was() {
    if !have_stacks() {
        return;
    }
    let (home, one, far, runtime) = (Namespace::quiet(), Namespace::quiet(), Namespace::quiet(), folder());
    home.cable("v", &far, "v");
    far.ip("addr add 10.9.0.2/24 dev v");
    // The highest address that a station can have, which any other port's would undercut.
    home.ip("link set v address fa:ff:ff:ff:ff:ff");
    home.ip("link add br0 type bridge");
    home.ip("link set v master br0");
    home.ip("link set br0 up");
    home.ip("link set v mtu 9000");
    let before = home.link("br0").0;
    assert_eq!(before, "fa:ff:ff:ff:ff:ff");
    assert!(home.link("br0").1.contains(" mtu 9000 "));

    let script = privately(&naming(&[("one", &one)]));
    let args = ["tap:,bridge=br0", "tap:one,netns=one,addr=10.9.0.1/24"];
    let hub = home.within(|| Daemon::start_by(runtime.path(), &script, &args));
    let (address, row) = home.link("tap0");
    assert!(address.starts_with("fe:") && row.contains(" master br0 "), "{row}");
    assert_eq!(home.link("br0").0, before, "the bridge took another address");
    assert!(home.link("br0").1.contains(" mtu 9000 "), "the bridge took another MTU");
    one.pings("", "10.9.0.2");
    far.pings("", "10.9.0.1");
    hub.stop();
    assert_eq!(home.link("br0").0, before, "the bridge took another address");
}

#[test]
fn a_persistent_tap_stays_and_is_opened_again() {
    if !have_stacks() {
        return;
    }
    let (home, runtime) = (Namespace::quiet(), folder());
    let hub =
        home.within(|| Daemon::start(runtime.path(), &["tap:keep,persist=on,addr=10.9.0.1/24,mtu=1400"]));
    hub.stop();
    let shown = home.sh("ip -o addr show keep");
    assert!(shown.contains("10.9.0.1/24"), "{shown}");

    // Its address is there already, and it stays although nobody says so again.
    for args in ["tap:keep,addr=10.9.0.1/24", "tap:keep,offload=off"] {
        let hub = home.within(|| Daemon::start(runtime.path(), &[args]));
        let mut wire = hub.connect();
        home.sh("ip neigh flush dev keep; busybox ping -c 1 -W 1 10.9.0.9 || true");
        wire.receive_if("who has 10.9.0.9", |frame| {
            frame[12..14] == [8, 6] && frame[38..42] == [10, 9, 0, 9]
        });
        assert_eq!(hub.table().port("keep").dropped, 0);
        hub.stop();
        assert!(home.link("keep").1.contains(" mtu 1400 "));
    }
}

#[test]
fn a_tap_that_a_user_owns_needs_no_root() {
    if !have_stacks() {
        return;
    }
    let (home, runtime) = (Namespace::quiet(), folder());
    chown(runtime.path(), Some(NOBODY.into()), Some(NOBODY.into())).expect("root may");
    home.ip("tuntap add theirs mode tap user nobody");
    home.ip("tuntap add others mode tap user root");
    let script = privately_as(AS_NOBODY, OPEN_TUN);
    let refuses = |args: &[&str]| home.within(|| refusal_by(runtime.path(), &script, args));

    let line = refuses(&["tap:theirs"]);
    assert!(
        line.ends_with(
            "only root may change interfaces; run as root, or as root before: ip link set theirs up"
        ),
        "{line}"
    );
    home.ip("link set theirs up");
    home.ip("addr add 10.9.0.1/24 dev theirs");
    let hub = home.within(|| Daemon::start_by(runtime.path(), &script, &["tap:theirs"]));
    let mut wire = hub.connect();
    wire.send(&frame(BROADCAST, mac(1), 60, 1));
    home.sh("busybox ping -c 1 -W 1 10.9.0.9 || true");
    wire.receive_if("who has 10.9.0.9", |frame| frame[12..14] == [8, 6]);
    assert_eq!(hub.table().port("theirs").tx_frames, 1);
    hub.stop();

    for (arg, words) in [
        (
            "tap:others",
            "others belongs to another user; run as root, or as root: ip tuntap del others mode tap; ip tuntap add others mode tap user $USER",
        ),
        (
            "tap:new",
            "only root may make a TAP; run as root, or have one made for you, as root: ip tuntap add tap0 mode tap user $USER",
        ),
        ("tap:", "only root may make a TAP; run as root, or have one made for you"),
        (
            "tap:theirs,mtu=1400",
            "only root may change interfaces; run as root, or as root before: ip link set theirs mtu 1400",
        ),
        ("tap:theirs,addr=10.9.9.1/24", "as root before: ip addr add 10.9.9.1/24 dev theirs"),
    ] {
        let line = refuses(&[arg]);
        assert!(
            line.starts_with(&format!("qhub: port {arg}", arg = arg.split(',').next().expect("a name"))),
            "{line}"
        );
        assert!(line.contains(words), "{line}");
    }
}

#[test]
fn one_that_stays_belongs_to_who_the_hub_became() {
    if !have_stacks() {
        return;
    }
    let (home, runtime) = (Namespace::quiet(), folder());
    home.ip("tuntap add others mode tap user root");
    chown(runtime.path(), Some(NOBODY.into()), Some(NOBODY.into())).expect("root may");
    let args = ["--user", "nobody", "tap:kept,persist=on", "tap:others,persist=on"];
    home.within(|| Daemon::start(runtime.path(), &args)).stop();

    let script = privately_as(AS_NOBODY, OPEN_TUN);
    home.within(|| Daemon::start_by(runtime.path(), &script, &["tap:kept"])).stop();
    let line = home.within(|| refusal_by(runtime.path(), &script, &["tap:others"]));
    assert!(line.contains("others belongs to another user"), "{line}");
}
