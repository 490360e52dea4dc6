//! The client of rtnetlink against the kernel.

use std::net::IpAddr;

use std::fs::File;
use std::os::fd::AsFd;

use hub_protocol::mac::Mac;
use nix::errno::Errno;
use qhub::config::MacvtapMode;
use qhub::host::netlink::{Address, Layer, Netlink, NewMacvtap, Origin, Route, Watch, errno};

use crate::common::net::{Namespace, have_namespaces};
use crate::common::wait::{LIMIT, wait_for};

/// A client in the namespace, which stays there.
fn client(namespace: &Namespace) -> Netlink {
    namespace.within(|| Netlink::open().expect("netlink"))
}

fn index(netlink: &mut Netlink, name: &str) -> u32 {
    netlink.link(name).expect("netlink").unwrap_or_else(|| panic!("{name} is there")).index
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn links_come_change_and_go() {
    if !have_namespaces() {
        return;
    }
    let host = Namespace::new();
    let mut netlink = client(&host);
    let names: Vec<_> = netlink.links().unwrap().into_iter().map(|link| (link.name, link.layer)).collect();
    assert_eq!(names, [("lo".to_owned(), Layer::Loopback)]);
    assert_eq!(netlink.link("br0").unwrap(), None);
    for name in ["", "sixteen-letters1", "a/b"] {
        assert!(matches!(netlink.link(name), Ok(None)), "{name}");
    }

    let mac = Mac([2, 0, 0, 0, 0, 1]);
    netlink.add_bridge("br0", Some(mac)).unwrap();
    let bridge = netlink.link("br0").unwrap().unwrap();
    assert_eq!((bridge.mac, bridge.kind.as_deref(), bridge.is_up), (Some(mac), Some("bridge"), false));
    assert_eq!((bridge.layer, bridge.master, bridge.mtu), (Layer::Ethernet, None, 1500));
    host.ip("link add v0 type veth peer name v1");
    let port = index(&mut netlink, "v0");
    netlink.set_up(bridge.index).unwrap();
    netlink.set_master(port, Some(bridge.index)).unwrap();
    netlink.set_mtu(port, 1400).unwrap();
    netlink.set_mac(port, Mac([2, 0, 0, 0, 0, 2])).unwrap();
    let found = netlink.link("v0").unwrap().unwrap();
    assert_eq!(
        (found.master, found.mtu, found.mac),
        (Some(bridge.index), 1400, Some(Mac([2, 0, 0, 0, 0, 2])))
    );
    assert!(netlink.link("br0").unwrap().unwrap().is_up);
    netlink.set_master(port, None).unwrap();
    assert_eq!(netlink.link("v0").unwrap().unwrap().master, None);

    let netns = File::open(host.path()).unwrap();
    let modes =
        [("m0", 70, MacvtapMode::Bridge), ("m1", 71, MacvtapMode::Vepa), ("m2", 72, MacvtapMode::Private)];
    for (name, index, mode) in modes {
        let mac = Some(Mac([2, 0, 0, 0, 1, 1 + name.as_bytes()[1]])).filter(|_| mode != MacvtapMode::Vepa);
        let new = NewMacvtap { name, index, lower: port, mode, mac, netns: netns.as_fd() };
        netlink.add_macvtap(&new).unwrap();
        let shown = String::from_utf8(host.output("ip", &["-d", "link", "show", name])).unwrap();
        let wanted = format!("macvtap mode {}", format!("{mode:?}").to_lowercase());
        assert!(shown.contains(&wanted), "{shown}");
        let made = netlink.link(name).unwrap().unwrap();
        assert_eq!((made.kind.as_deref(), made.index), (Some("macvtap"), index));
        assert!(mac.is_none_or(|mac| made.mac == Some(mac)));
    }

    netlink.delete_link(bridge.index).unwrap();
    assert_eq!(netlink.link("br0").unwrap(), None);
}

#[test]
fn an_error_keeps_its_number_and_says_why() {
    if !have_namespaces() {
        return;
    }
    let mut netlink = client(&Namespace::new());
    netlink.add_bridge("br0", None).unwrap();
    let taken = netlink.add_bridge("br0", None).unwrap_err();
    assert_eq!(errno(&taken), Some(Errno::EEXIST as i32));
    let bridge = index(&mut netlink, "br0");
    assert_eq!(errno(&netlink.set_up(9999).unwrap_err()), Some(Errno::ENODEV as i32));
    let nested = netlink.set_master(bridge, Some(bridge)).unwrap_err();
    assert_eq!(errno(&nested), Some(Errno::ELOOP as i32));
    assert!(nested.to_string().contains("bridge"), "the kernel has a reason: {nested}");
}

#[test]
fn addresses_are_kept_whole() {
    if !have_namespaces() {
        return;
    }
    let host = Namespace::new();
    for name in ["v0", "v2"] {
        host.ip(&format!("link add {name} type veth peer name {name}p"));
        host.ip(&format!("link set {name} addrgenmode none up"));
    }
    let mut netlink = client(&host);
    let (from, to) = (index(&mut netlink, "v0"), index(&mut netlink, "v2"));
    for address in [
        "10.1.0.1/24 brd 10.1.0.255 label v0:one",
        "10.1.0.2/24 noprefixroute metric 7",
        "10.2.0.1 peer 10.2.0.9/32 scope link",
        "10.3.0.1/16 valid_lft 900 preferred_lft 800",
        "fd01::1/64 nodad mngtmpaddr",
        "fd01::2/64 nodad home valid_lft 500 preferred_lft 400",
    ] {
        host.ip(&format!("addr add {address} dev v0"));
    }
    let shown = |name: &str| {
        let text = String::from_utf8(host.output("ip", &["addr", "show", "dev", name])).unwrap();
        text.lines().skip(2).map(|line| line.replace(name, "NAME")).collect::<Vec<_>>().join("\n")
    };
    let before = shown("v0");
    let addresses = netlink.addresses(Some(from)).unwrap();
    assert_eq!(addresses.len(), 6, "{before}");
    let (v4, mut v6): (Vec<_>, Vec<_>) =
        addresses.iter().partition(|address| address.ip().is_some_and(|ip| ip.is_ipv4()));
    v6.reverse();
    let ordered = [v4, v6].concat();
    for address in &ordered {
        netlink.add_address(&address.moved(to, ("v0", "v2"))).unwrap();
    }
    // The first of a prefix takes its others along.
    for address in ordered.iter().rev() {
        netlink.delete_address(address).unwrap();
    }
    assert_eq!(shown("v2"), before);
    assert_eq!(netlink.addresses(Some(from)).unwrap(), []);
    let again = netlink.add_address(&addresses[0].moved(to, ("v0", "v2"))).unwrap_err();
    assert_eq!(errno(&again), Some(Errno::EEXIST as i32));
    let gone = netlink.delete_address(&addresses[0]).unwrap_err();
    assert_eq!(errno(&gone), Some(Errno::EADDRNOTAVAIL as i32));
}

#[test]
fn a_made_address_has_its_broadcast() {
    if !have_namespaces() {
        return;
    }
    let host = Namespace::new();
    let mut netlink = client(&host);
    netlink.add_bridge("br0", None).unwrap();
    let bridge = index(&mut netlink, "br0");
    for (text, length) in [("10.55.0.1", 24), ("10.55.4.1", 30), ("10.55.5.0", 31), ("fd55::1", 64)] {
        let address = Address::new(bridge, ip(text), length);
        assert_eq!(address.to_string(), format!("{text}/{length}"));
        netlink.add_address(&address.without_probe()).unwrap();
    }
    let shown = String::from_utf8(host.output("ip", &["addr", "show", "dev", "br0"])).unwrap();
    for wanted in
        ["10.55.0.1/24 brd 10.55.0.255 ", "10.55.4.1/30 brd 10.55.4.3 ", "10.55.5.0/31 scope", "fd55::1/64"]
    {
        assert!(shown.contains(wanted), "{wanted}: {shown}");
    }
}

#[test]
fn the_probe_of_a_proven_address_is_left_out_and_leaves_no_mark() {
    if !have_namespaces() {
        return;
    }
    let [host, _peer] = Namespace::joined();
    host.ip("addr add fd01::1/64 dev cable");
    let mut netlink = client(&host);
    let cable = index(&mut netlink, "cable");
    let mut find = || {
        let addresses = netlink.addresses(Some(cable)).unwrap();
        addresses.into_iter().find(|address| address.ip() == Some(ip("fd01::1"))).unwrap()
    };
    assert!(!find().is_proven(), "it is being probed");
    let address = find();
    netlink.delete_address(&address).unwrap();
    netlink.add_address(&address.without_probe()).unwrap();
    netlink.replace_address(&address).unwrap();
    let shown = String::from_utf8(host.output("ip", &["addr", "show", "dev", "cable"])).unwrap();
    let line = shown.lines().find(|line| line.contains("fd01::1")).unwrap();
    assert!(!line.contains("nodad") && !line.contains("tentative"), "{line}");
}

#[test]
fn routes_are_kept_whole() {
    if !have_namespaces() {
        return;
    }
    let host = Namespace::new();
    for name in ["v0", "v2", "v4"] {
        host.ip(&format!("link add {name} type veth peer name {name}p"));
        host.ip(&format!("link set {name} addrgenmode none up"));
        host.ip(&format!("link set {name}p addrgenmode none up"));
    }
    host.ip("addr add 10.9.0.1/24 dev v4");
    host.ip("-6 addr add fd09::1/64 dev v4 nodad");
    let addresses = ["10.1.0.1/24", "fd01::1/64 nodad"];
    for address in addresses {
        host.ip(&format!("addr add {address} dev v0"));
    }
    for route in [
        "default via 10.1.0.254 dev v0 metric 100 mtu 1400 advmss 1300",
        "default via 10.1.0.253 dev v0 metric 200 proto dhcp src 10.1.0.1",
        "10.20.0.0/16 via 10.99.0.1 dev v0 onlink",
        "10.21.0.0/16 dev v0 scope link table 77",
        "10.22.0.0/16 nexthop via 10.1.0.7 dev v0 weight 2 nexthop via 10.9.0.7 dev v4 weight 5",
        "10.23.0.0/16 tos 0x10 via 10.1.0.8 dev v0 mtu lock 900",
        "10.24.0.0/16 via inet6 fd01::8 dev v0",
        "-6 default via fd01::fe dev v0 metric 50 pref high",
        "-6 fd20::/48 via fe80::1 dev v0 proto ra expires 600",
        "-6 fd21::/48 via fd01::7 dev v0 hoplimit 33",
        "-6 fd22::/48 nexthop via fd01::7 dev v0 nexthop via fd09::7 dev v4",
    ] {
        let (family, route) = route.strip_prefix("-6 ").map_or(("-4", route), |route| ("-6", route));
        host.ip(&format!("{family} route add {route}"));
    }
    let shown = |name: &str| {
        let mut lines = Vec::new();
        for family in ["-4", "-6"] {
            let text = host.output("ip", &["-d", family, "route", "show", "table", "all"]);
            let text = String::from_utf8(text).unwrap().replace("\n\t", " ");
            lines.extend(text.lines().filter(|line| line.contains(&format!("dev {name} "))).map(|line| {
                // It may be a second later.
                let line = line.replace("expires 599sec", "expires 600sec");
                line.replace(&format!("dev {name} "), "dev NAME ")
            }));
        }
        // Those through two links are sorted by which was added last.
        lines.iter_mut().for_each(|line| {
            let mut parts: Vec<_> = line.trim_end().split(" nexthop ").map(str::to_owned).collect();
            parts[1..].sort();
            *line = parts.join(" nexthop ");
        });
        lines.sort();
        lines
    };
    let before = shown("v0");
    let mut netlink = client(&host);
    let (from, to) = (index(&mut netlink, "v0"), index(&mut netlink, "v2"));
    let mut routes = netlink.routes(Some(from)).unwrap();
    let of = |origin: Origin| routes.iter().filter(|route| route.origin() == origin).count();
    assert_eq!((of(Origin::Other), of(Origin::Prefix)), (11, 2), "{before:#?}");
    routes.retain(|route| route.origin() == Origin::Other);
    routes.sort_by_key(Route::has_gateway);
    for route in &routes {
        netlink.delete_route(route).unwrap_or_else(|error| panic!("delete {route}: {error}"));
    }
    for address in addresses {
        host.ip(&format!("addr del {} dev v0", address.trim_end_matches(" nodad")));
        host.ip(&format!("addr add {address} dev v2"));
    }
    for route in &routes {
        let route = route.moved(from, to);
        netlink.add_route(&route).unwrap_or_else(|error| panic!("add {route}: {error}"));
        let again = netlink.add_route(&route).unwrap_err();
        assert_eq!(errno(&again), Some(Errno::EEXIST as i32), "{route}");
    }
    assert_eq!(shown("v2").join("\n"), before.join("\n"));
    let found = netlink.routes(Some(to)).unwrap();
    for route in &routes {
        assert!(found.iter().any(|other| other.is_same(&route.moved(from, to))), "{route} in {found:#?}");
        assert!(!found.iter().any(|other| other.is_same(route)), "{route}");
    }
    let gone = netlink.delete_route(&routes[0]).unwrap_err();
    assert_eq!(errno(&gone), Some(Errno::ESRCH as i32));
}

#[test]
fn what_becomes_of_a_link_is_told() {
    if !have_namespaces() {
        return;
    }
    let host = Namespace::new();
    host.ip("link add v0 type veth peer name v1");
    host.ip("link add br0 type bridge");
    let mut watch = host.within(|| Watch::open("v0").expect("netlink"));
    assert!(host.within(|| Watch::open("v9")).is_err());
    assert!(watch.row().is_some_and(|row| !row.is_running));
    host.ip("link set v0 up");
    assert!(watch.look().is_some_and(|row| row.is_up && !row.is_running), "its cable is not in");
    host.ip("link set v1 up");
    // A link notices its cable some time later.
    wait_for("a link to notice its cable", LIMIT, || watch.look()?.is_running.then_some(()));
    host.ip("link set v0 mtu 1400");
    assert!(watch.look().is_some_and(|row| row.mtu == 1400));
    // The end of its place in a bridge is not its end.
    host.ip("link set v0 master br0");
    host.ip("link set v0 nomaster");
    assert!(watch.look().is_some_and(|row| row.master.is_none()));
    // More than a socket holds is told at once, and the truth still comes out.
    for _ in 0..2 {
        for mtu in 1000..1400 {
            host.within(|| Netlink::open().unwrap().set_mtu(watch.row().unwrap().index, mtu)).unwrap();
        }
    }
    host.ip("link set v0 down");
    assert!(watch.look().is_some_and(|row| !row.is_up));
    host.ip("link del v0");
    assert!(watch.look().is_none());
}
