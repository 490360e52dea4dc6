//! `qhub bridge up NAME --take IFACE`: a bridge that takes an interface over.

use std::io::Read;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};

use crate::common::lab::{Lab, have_labs, join, pings, quick_host, text};
use crate::common::net::Namespace;
use crate::common::wait::{Deadline, LIMIT, pause, wait_for};

const UP: [&str; 6] = ["bridge", "up", "br0", "--take", "eth0", "--yes"];
const DOWN: [&str; 4] = ["bridge", "down", "br0", "--yes"];

/// What `ip` tells of an interface: its addresses but for fe80, and the routes that are not bound to it as such.
pub(super) fn layer_3(host: &Namespace, interface: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let shown = text(&host.output("ip", &["-o", "addr", "show", "dev", interface]));
    let words = |line: &str| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
    lines.extend(shown.lines().filter(|line| !line.contains("fe80:")).map(words));
    for family in ["-4", "-6"] {
        let shown = text(&host.output("ip", &[family, "route", "show", "table", "all"]));
        let own = |line: &&str| line.contains(&format!("dev {interface} "));
        let bound = |line: &&str| {
            ["fe80:", "ff00:"].iter().any(|start| line.split(' ').any(|word| word.starts_with(start)))
        };
        let mut routes: Vec<String> = shown
            .lines()
            .filter(own)
            .filter(|line| !bound(line) || line.contains("via fe80::1 "))
            .map(|line| line.trim().to_owned())
            .collect();
        routes.sort();
        lines.extend(routes);
    }
    lines.iter().map(|line| line.replace(interface, "IFACE")).collect()
}

fn link(host: &Namespace, interface: &str) -> (String, String) {
    let shown = text(&host.output("ip", &["-o", "link", "show", "dev", interface]));
    let after = |word: &str| {
        shown
            .split(word)
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next())
            .expect("ip tells it")
            .to_owned()
    };
    (after("link/ether "), after(" mtu "))
}

/// The longest time for which a neighbour got no answer while `work` was done.
fn longest_silence(host: &Namespace, neighbour: &Namespace, work: impl FnOnce()) -> Duration {
    let answers = host.within(|| UdpSocket::bind("192.0.2.5:7").expect("a socket"));
    answers.set_read_timeout(Some(Duration::from_millis(20))).expect("an option");
    let asks = neighbour.within(|| UdpSocket::bind("192.0.2.1:0").expect("a socket"));
    asks.connect("192.0.2.5:7").expect("a way");
    asks.set_read_timeout(Some(Duration::from_millis(1))).expect("an option");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                if let Ok((_, from)) = answers.recv_from(&mut [0; 8]) {
                    // There may be no way back for a moment.
                    let _ = answers.send_to(b"answer", from);
                }
            }
        });
        let watch = scope.spawn(|| {
            let (mut longest, mut deadline) = (Duration::ZERO, Deadline::after(LIMIT));
            while !is_over.load(Ordering::Relaxed) {
                let _ = asks.send(b"probe");
                if asks.recv(&mut [0; 8]).is_ok() {
                    longest = longest.max(LIMIT - deadline.left().unwrap_or_default());
                    deadline = Deadline::after(LIMIT);
                }
            }
            longest.max(LIMIT - deadline.left().unwrap_or_default())
        });
        pause(Duration::from_millis(50));
        work();
        pause(Duration::from_millis(50));
        is_over.store(true, Ordering::Relaxed);
        watch.join().expect("it watches")
    })
}

#[test]
fn everything_moves_and_comes_back() {
    if !have_labs() {
        return;
    }
    let (lab, router) = Lab::with_lan();
    for (host, mtu) in [(&lab.host, 1700), (&router, 1700)] {
        host.ip(&format!("link set eth0 mtu {mtu}"));
    }
    lab.host.output(
        "busybox",
        &["sysctl", "-w", "net.ipv4.conf.eth0.rp_filter=2", "net.ipv6.conf.eth0.accept_ra=0"],
    );
    let before = lab.picture();
    let had = layer_3(&lab.host, "eth0");
    assert_eq!(had.len(), 5 + 13, "{had:#?}");
    let identity = link(&lab.host, "eth0");
    assert!(pings(&router, "192.0.2.5") && pings(&router, "2001:db8::5"));

    let silence = longest_silence(&lab.host, &router, || {
        let said = lab.done(&UP);
        assert!(said.contains("br0 is up"), "{said}");
    });
    assert!(silence < Duration::from_millis(500), "{silence:?}");
    assert_eq!(layer_3(&lab.host, "br0"), had);
    assert_eq!(layer_3(&lab.host, "eth0"), [""; 0]);
    assert_eq!(link(&lab.host, "br0"), identity);
    for key in ["ipv4.conf.br0.rp_filter=2", "ipv6.conf.br0.accept_ra=0"] {
        let (name, value) = key.split_once('=').unwrap();
        assert_eq!(
            text(&lab.host.output("busybox", &["sysctl", "-n", &format!("net.{name}")])).trim(),
            value
        );
    }
    for address in ["192.0.2.1", "198.51.100.1", "2001:db8::1"] {
        assert!(lab.pings(address), "{address}");
    }
    assert!(pings(&router, "192.0.2.5") && pings(&router, "2001:db8::5"));
    let shown = lab.done(&["bridge", "show"]);
    assert!(
        shown.starts_with("br0: has taken over eth0, up\n  addresses: 10.9.9.9/32, 192.0.2.5/24, "),
        "{shown}"
    );
    assert!(shown.contains("\n  ports: eth0\n") && !shown.contains("changed since"), "{shown}");

    let silence = longest_silence(&lab.host, &router, || {
        lab.done(&DOWN);
    });
    assert!(silence < Duration::from_millis(500), "{silence:?}");
    lab.is_again(&before, "after down");
    assert!(lab.pings("198.51.100.1") && pings(&router, "2001:db8::5"));
}

#[test]
fn an_interface_without_addresses_is_taken_too() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    lab.host.ip("-6 route del default");
    lab.host.ip("addr flush dev eth0 scope global");
    lab.host.ip("addr flush dev eth0 scope link");
    let before = lab.picture();
    lab.done(&UP);
    lab.done(&DOWN);
    lab.is_again(&before, "after down");
}

#[test]
fn lifetimes_go_on_and_renewals_are_kept() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    for address in ["192.0.2.77/24", "192.0.2.78/24", "2001:db8::77/64"] {
        lab.host.ip(&format!("addr add {address} dev eth0 valid_lft 900 preferred_lft 800"));
    }
    lab.host.ip("-6 route add 2001:db8:8::/48 via fe80::1 dev eth0 expires 900");
    let lifetimes = |interface: &str| {
        let shown = text(&lab.host.output("ip", &["-o", "addr", "show", "dev", interface]));
        let of = |line: &str| {
            let rest = line.split("valid_lft ").nth(1).unwrap();
            let address = line.split_whitespace().nth(3).unwrap();
            let seconds: Option<u32> = rest.split("sec").next().unwrap().parse().ok();
            seconds.map(|seconds| (address.to_owned(), seconds))
        };
        shown.lines().filter_map(of).collect::<Vec<_>>()
    };
    let near = |found: Vec<(String, u32)>, wanted: [(&str, u32); 3]| {
        assert_eq!(found.len(), 3, "{found:?}");
        for (address, seconds) in wanted {
            let left = found.iter().find(|(other, _)| other == address).unwrap().1;
            assert!(left <= seconds && left + 60 > seconds, "{address}: {left}");
        }
    };
    lab.done(&UP);
    near(lifetimes("br0"), [("192.0.2.77/24", 900), ("192.0.2.78/24", 900), ("2001:db8::77/64", 900)]);
    lab.host.ip("addr change 192.0.2.78/24 dev br0 valid_lft 5000 preferred_lft 5000");
    lab.done(&DOWN);
    near(lifetimes("eth0"), [("192.0.2.77/24", 900), ("192.0.2.78/24", 5000), ("2001:db8::77/64", 900)]);
    let routes = text(&lab.host.output("ip", &["-6", "route", "show", "dev", "eth0"]));
    let route = routes.lines().find(|line| line.starts_with("2001:db8:8::/48")).unwrap();
    let left: u32 = route.split("expires ").nth(1).unwrap().split("sec").next().unwrap().parse().unwrap();
    assert!((840..=900).contains(&left), "{route}");
}

#[test]
fn a_route_that_was_missing_stays_missing() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    lab.host.ip("route del 192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.5");
    lab.host.ip("route add 192.0.2.0/24 dev eth0 metric 900");
    lab.host.ip("-6 route del 2001:db8::/64 dev eth0");
    lab.host.ip("-6 route add 2001:db8::/64 dev eth0 metric 900");
    let before = lab.picture();
    let had = layer_3(&lab.host, "eth0");
    lab.done(&UP);
    assert_eq!(layer_3(&lab.host, "br0"), had);
    lab.done(&DOWN);
    lab.is_again(&before, "after down");
}

#[test]
fn routes_through_two_interfaces_move_by_half() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    let other = quick_host();
    join((&lab.host, "eth1"), (&other, "eth1"));
    lab.host.ip("addr add 10.8.0.5/24 dev eth1");
    lab.host
        .ip("route add 10.88.0.0/16 nexthop via 192.0.2.1 dev eth0 weight 3 nexthop via 10.8.0.1 dev eth1");
    lab.host
        .ip("-6 route add 2001:db8:88::/48 nexthop via 2001:db8::1 dev eth0 nexthop via fe80::9 dev eth1");
    // Another link's route that bears an address of the interface.
    lab.host.ip("route add 10.89.0.0/16 via 10.8.0.1 dev eth1 src 192.0.2.5");
    let before = lab.picture();
    lab.done(&UP);
    let routes = text(&lab.host.output("ip", &["route"])).replace("\n\t", " ");
    let route = routes.lines().find(|line| line.starts_with("10.88.0.0/16")).unwrap();
    assert!(
        route.contains("via 192.0.2.1 dev br0 weight 3") && route.contains("via 10.8.0.1 dev eth1"),
        "{route}"
    );
    assert!(routes.contains("10.89.0.0/16 via 10.8.0.1 dev eth1 src 192.0.2.5"), "{routes}");
    let routes = text(&lab.host.output("ip", &["-6", "route"])).replace("\n\t", " ");
    let route = routes.lines().find(|line| line.starts_with("2001:db8:88::/48")).unwrap();
    assert!(route.contains("via 2001:db8::1 dev br0") && route.contains("via fe80::9 dev eth1"), "{route}");
    lab.done(&DOWN);
    lab.is_again(&before, "after down");
}

#[test]
fn what_others_did_meanwhile_is_no_obstacle() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    let before = lab.picture();
    for (meddling, shown) in [
        ("link del br0", "changed since: the bridge br0 is gone"),
        ("link set eth0 nomaster", "changed since: eth0 is not a port of br0"),
        ("addr flush dev br0", "changed since: 10.9.9.9/32, 192.0.2.5/24, "),
        ("route del default dev br0", "changed since: default via 192.0.2.1 is gone"),
        ("link set br0 down", "changed since: br0 is down"),
        ("addr add 192.0.2.5/24 brd 192.0.2.255 dev eth0", "ports: eth0"),
    ] {
        lab.done(&UP);
        lab.host.ip(meddling);
        let told = lab.done(&["bridge", "show"]);
        assert!(told.contains(shown), "{meddling}: {told}");
        lab.done(&DOWN);
        lab.is_again(&before, meddling);
    }
}

#[test]
fn a_route_that_cannot_be_made_anew_is_not_lost() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    // Its router can't be reached any more.
    lab.host.ip("-6 addr flush dev eth0 scope global");
    let line = lab.refused(&UP);
    assert!(
        line.contains("move the route default (IPv6) via 2001:db8::1: ") && line.contains("as before"),
        "{line}"
    );
}

#[test]
fn the_kernel_makes_temporary_addresses_anew() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    lab.host.output("busybox", &["sysctl", "-w", "net.ipv6.conf.eth0.use_tempaddr=2"]);
    lab.host.ip("addr add 2001:db8:9::5/64 dev eth0 mngtmpaddr");
    let temporary = |interface: &str| {
        let arguments = ["-6", "-o", "addr", "show", "dev", interface, "temporary"];
        text(&lab.host.output("ip", &arguments)).lines().count()
    };
    let all = |interface: &str| {
        let shown = text(&lab.host.output("ip", &["-6", "-o", "addr", "show", "dev", interface]));
        shown.matches("2001:db8:9:").count()
    };
    let has_one = |interface: &str| {
        wait_for("a temporary address", LIMIT, || (temporary(interface) == 1).then_some(()));
        assert_eq!(all(interface), 2, "{interface}");
    };
    has_one("eth0");
    lab.done(&UP);
    assert_eq!(temporary("eth0"), 0, "it would be no good there");
    has_one("br0");
    lab.done(&DOWN);
    has_one("eth0");
}

/// Announces the router as one to take, and a prefix whose addresses live for some seconds.
fn announce(router: &Namespace, lifetime: u32) {
    let all_nodes = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0, 0, 0);
    let mut message = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([3, 4, 64, 0xc0]);
    message.extend([lifetime, lifetime, 0].map(u32::to_be_bytes).concat());
    message.extend(Ipv6Addr::new(0x2001, 0xdb8, 10, 0, 0, 0, 0, 0).octets());
    let (socket, index) = icmp(router);
    socket.set_multicast_if_v6(index).expect("an option");
    socket.set_multicast_hops_v6(255).expect("an option");
    socket.send_to(&message, &all_nodes.into()).expect("a way");
}

/// A socket for ICMPv6, and the number of `eth0`.
fn icmp(host: &Namespace) -> (Socket, u32) {
    host.within(|| {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).expect("root has sockets");
        (socket, if_nametoindex("eth0").expect("it has a cable"))
    })
}

#[test]
fn a_router_that_announces_itself_is_followed() {
    if !have_labs() {
        return;
    }
    let (lab, router) = Lab::with_lan();
    lab.host.ip("-6 route del default");
    router.output("busybox", &["sysctl", "-w", "net.ipv6.conf.all.forwarding=1"]);
    let shown = |arguments: &[&str]| text(&lab.host.output("ip", &[&["-6"], arguments].concat()));
    // The real one, which follows what the router says.
    let is_followed = |interface: &str, lifetime: u32| {
        announce(&router, lifetime);
        wait_for("the kernel to hear the router", LIMIT, || {
            let addresses = shown(&["addr", "show", "dev", interface, "dynamic"]);
            let lives = [lifetime, lifetime - 1]
                .iter()
                .any(|life| addresses.contains(&format!("valid_lft {life}sec")));
            (lives && shown(&["route"]).contains(&format!("dev {interface} proto ra metric 1024 ")))
                .then_some(())
        });
    };
    is_followed("eth0", 10_000);
    let (hears, index) = icmp(&router);
    hears.join_multicast_v6(&"ff02::2".parse().unwrap(), index).unwrap();
    hears.set_read_timeout(Some(LIMIT)).unwrap();
    let hears_question = || {
        let mut message = [0; 1500];
        while (&hears).read(&mut message).unwrap() == 0 || message[0] != 133 {}
    };

    lab.done(&UP);
    assert!(shown(&["route"]).contains("dev br0 proto ra metric 1025 "), "a copy serves meanwhile");
    assert!(!shown(&["route"]).contains("dev eth0 proto ra"));
    is_followed("br0", 20_000);
    // What the kernel asked for the new link; it has no reason to ask for the old one.
    hears.set_nonblocking(true).unwrap();
    while (&hears).read(&mut [0; 1500]).is_ok() {}
    hears.set_nonblocking(false).unwrap();
    lab.done(&DOWN);
    assert!(shown(&["route"]).contains("dev eth0 proto ra metric 1025 "), "a copy serves meanwhile");
    hears_question();
    is_followed("eth0", 30_000);
}
