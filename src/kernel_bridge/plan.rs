//! From what is asked for and what is known to the steps, or to the reason why not. Nothing is changed or asked here.

use anyhow::{Result, bail};
use hub_protocol::mac::Mac;

use super::facts::{Facts, Interface, PER_INTERFACE};
use super::journal::{Journal, State};
use super::nft;
use super::request::{BridgeName, Reach, Request};
use super::routers::Router;
use super::step::{Family, Forwarding, Step, Takeover};
use crate::config::Cidr;
use crate::host::netlink::{Address, Layer, Origin, Route};
use crate::host::sysctl::Setting;

/// The journal of a bridge to be made.
pub(super) fn plan(request: &Request, facts: &Facts) -> Result<Journal> {
    let name = &request.name;
    check_name(name, facts)?;
    let steps = match &request.reach {
        Reach::Host(addresses) => {
            check_table(name, facts)?;
            // It is isolated from the beginning to the end.
            let isolation = facts.has_table.map(|_| Step::Isolation);
            isolation.into_iter().chain(private(name, addresses, facts)?).collect()
        }
        Reach::Nat(addresses) => {
            check_table(name, facts)?;
            let mut steps = private(name, addresses, facts)?;
            // Nothing is to leave with an address that has no meaning outside.
            steps.push(Step::Nat(addresses.clone()));
            steps.extend(forwarding(addresses, facts));
            steps
        }
        Reach::Lan(interface) => public(name, interface, facts)?,
    };
    Ok(Journal { bridge: name.clone(), state: State::Coming, index: None, steps })
}

fn check_name(name: &BridgeName, facts: &Facts) -> Result<()> {
    if let Some(journal) = facts.journals.iter().find(|journal| journal.bridge == *name) {
        match journal.state {
            State::Up => bail!("{name} is up already; 'qhub bridge down {name}' takes it down"),
            State::Coming | State::Going => {
                bail!(
                    "{name} is half done, as something was cut short; put all back first: qhub bridge down {name}"
                )
            }
        }
    }
    if facts.links.iter().any(|link| link.name == name.as_str()) {
        bail!("there is an interface {name} already; choose another name, or delete it: ip link del {name}");
    }
    Ok(())
}

fn check_table(name: &BridgeName, facts: &Facts) -> Result<()> {
    if facts.has_table == Some(true) {
        bail!("nft has a table inet {} already; delete it: {}", nft::table(name), nft::delete_command(name));
    }
    Ok(())
}

fn private(name: &BridgeName, addresses: &[Cidr], facts: &Facts) -> Result<Vec<Step>> {
    for (index, cidr) in addresses.iter().enumerate() {
        check_address(cidr, facts)?;
        if let Some(other) = addresses[..index].iter().find(|other| other.overlaps(cidr)) {
            bail!("{cidr} overlaps {other}; give the bridge prefixes that do not");
        }
    }
    Ok(vec![
        Step::Bridge { mac: facts.mac.0, mtu: None },
        // A VM must not become the host's router.
        Step::Settings(
            ["accept_ra", "autoconf"]
                .map(|key| Setting::new(format!("ipv6/conf/{name}/{key}"), "0"))
                .to_vec(),
        ),
        Step::Addresses(addresses.to_vec()),
        Step::Up,
    ])
}

fn check_address(cidr: &Cidr, facts: &Facts) -> Result<()> {
    if facts.addresses.iter().any(|address| address.ip() == Some(cidr.ip())) {
        bail!("this host has the address {} already; choose another by --addr", cidr.ip());
    }
    // The halves of everything are how VPNs write a default route.
    let taken = facts.routes.iter().filter(|route| route.origin() != Origin::Link).find(|route| {
        let (destination, length) = route.destination();
        let prefix = destination.and_then(|ip| Cidr::new(ip, length));
        prefix.is_some_and(|prefix| prefix.length() > 1 && prefix.overlaps(cidr))
    });
    if let Some(route) = taken {
        bail!("{} overlaps a route of this host, {route}; choose another prefix by --addr", cidr.network());
    }
    Ok(())
}

fn forwarding(addresses: &[Cidr], facts: &Facts) -> Vec<Step> {
    let families = [Family::V4, Family::V6].into_iter();
    let needed = families.filter(|family| addresses.iter().any(|cidr| Family::of(cidr) == *family));
    needed.filter_map(|family| forwarding_of(family, facts)).map(Step::Forwarding).collect()
}

/// `None` if the host forwards of its own accord.
fn forwarding_of(family: Family, facts: &Facts) -> Option<Forwarding> {
    let steps = facts.journals.iter().flat_map(|journal| &journal.steps);
    let of_others = steps.filter_map(Step::forwarding).find(|forwarding| forwarding.family == family);
    if let Some(forwarding) = of_others {
        return Some(forwarding.clone());
    }
    let master = family.forwarding();
    if facts.forwarding.iter().any(|setting| setting.path == master && setting.value != "0") {
        return None;
    }
    let folder = family.settings();
    let before =
        facts.forwarding.iter().filter(|setting| setting.path.starts_with(folder)).cloned().collect();
    Some(Forwarding { family, before })
}

fn public(name: &BridgeName, wanted: &str, facts: &Facts) -> Result<Vec<Step>> {
    let Some(interface) = &facts.interface else {
        bail!("there is no interface {wanted}; see 'ip link'");
    };
    let mac = check_interface(interface, facts)?;
    let takeover = takeover(interface, facts);
    if let Some(route) = takeover.routes.iter().find(|route| route.has_nexthop_object()) {
        bail!(
            "the route {route} uses a nexthop object (see 'ip nexthop'), which qhub can't move to {name}; make it a plain route first"
        );
    }
    let link = &interface.link;
    Ok(vec![
        Step::Bridge { mac: mac.0, mtu: Some(link.mtu) },
        Step::Settings(renamed(&interface.settings, &link.name, name)),
        Step::Up,
        Step::Port { interface: link.name.clone() },
        Step::Takeover(takeover),
    ])
}

fn check_interface(interface: &Interface, facts: &Facts) -> Result<Mac> {
    let link = &interface.link;
    let name = &link.name;
    match link.layer {
        Layer::Loopback => bail!("{name} is the host's way to itself; take an Ethernet interface"),
        Layer::Other => bail!("{name} does not carry Ethernet; take an Ethernet interface"),
        Layer::Ethernet => {}
    }
    if link.kind.as_deref() == Some("bridge") {
        bail!("{name} is a bridge already; give its name to the VMs, as in 'qhub tap:,bridge={name}'");
    }
    if let Some(master) = link.master {
        let master = facts.links.iter().find(|link| link.index == master);
        bail!(
            "{name} is a port of {} already; use that",
            master.map_or("another interface", |link| &link.name)
        );
    }
    if interface.is_wireless {
        bail!("{name} is Wi-Fi, which carries frames of its own station only; use NAT: qhub bridge up");
    }
    if !link.is_up {
        bail!("{name} is down; bring it up first: ip link set {name} up");
    }
    let Some(mac) = link.mac.filter(|mac| mac.is_station()) else {
        bail!("{name} has no MAC address; take another interface");
    };
    Ok(mac)
}

/// All that is not bound to the interface as such: its link-local address and the routes of that, and addresses that the
/// kernel makes up for a time stay, or go.
fn takeover(interface: &Interface, facts: &Facts) -> Takeover {
    let index = interface.link.index;
    let moves = |address: &&Address| {
        address.link() == index && !address.is_link_local_v6() && !address.is_temporary()
    };
    let goes_along = |route: &&Route| route.leads_through(index) && route.origin() != Origin::Link;
    let is_learned = |route: &Route| {
        let is_to = |router: &Router| {
            route.gateway() == Some(router.address.into()) && route.metric() == router.metric
        };
        route.destination().0.is_none() && interface.routers.iter().any(is_to)
    };
    let routes = facts.routes.iter().filter(goes_along).cloned();
    let (learned, routes) = routes.partition(is_learned);
    Takeover {
        interface: interface.link.name.clone(),
        index,
        addresses: facts.addresses.iter().filter(moves).cloned().collect(),
        routes,
        learned,
        uptime: facts.uptime,
    }
}

/// The settings of an interface, for another one.
fn renamed(settings: &[Setting], from: &str, to: &BridgeName) -> Vec<Setting> {
    let path = |path: &str| {
        PER_INTERFACE.iter().find_map(|folder| {
            let rest = path.strip_prefix(&format!("{folder}/{from}/"))?;
            Some(format!("{folder}/{to}/{rest}"))
        })
    };
    settings.iter().filter_map(|setting| Some(Setting::new(path(&setting.path)?, &setting.value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netlink::LinkRow;

    fn link(index: u32, name: &str) -> LinkRow {
        LinkRow {
            index,
            name: name.into(),
            layer: Layer::Ethernet,
            is_running: true,
            has_packet_information: false,
            is_up: true,
            master: None,
            mtu: 1400,
            mac: Some(Mac([2, 0, 0, 0, 0, 9])),
            kind: None,
        }
    }

    fn facts() -> Facts {
        let eth0 = link(2, "eth0");
        let settings = ["ipv4/conf/eth0/rp_filter", "ipv6/conf/eth0/accept_ra", "ipv4/conf/eth00/rp_filter"];
        Facts {
            links: vec![link(1, "lo"), eth0.clone()],
            addresses: ["192.0.2.5", "fe80::1", "2001:db8::5"]
                .iter()
                .enumerate()
                .map(|(index, ip)| Address::new(2 + u32::from(index > 2), ip.parse().unwrap(), 24))
                .collect(),
            routes: vec![],
            journals: vec![],
            interface: Some(Interface {
                link: eth0,
                is_wireless: false,
                routers: vec![],
                settings: settings.map(|path| Setting::new(path, "1")).to_vec(),
            }),
            forwarding: ["ipv4/ip_forward", "ipv4/conf/eth0/forwarding", "ipv6/conf/all/forwarding"]
                .map(|path| Setting::new(path, "0"))
                .to_vec(),
            has_table: Some(false),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            uptime: 77,
        }
    }

    fn request(reach: Reach) -> Request {
        Request { name: "br0".parse().unwrap(), reach }
    }

    fn cidrs(texts: &[&str]) -> Vec<Cidr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn lan() -> Request {
        request(Reach::Lan("eth0".into()))
    }

    fn reason(request: &Request, facts: &Facts) -> String {
        plan(request, facts).unwrap_err().to_string()
    }

    #[test]
    fn a_private_bridge_is_translated_before_it_is_forwarded() {
        let addresses = cidrs(&["10.55.0.1/24", "fd55::1/64"]);
        let steps = plan(&request(Reach::Nat(addresses.clone())), &facts()).unwrap().steps;
        let of = |family, settings: &[&str]| {
            let before = settings.iter().map(|path| Setting::new(*path, "0")).collect();
            Step::Forwarding(Forwarding { family, before })
        };
        let own = ["ipv6/conf/br0/accept_ra", "ipv6/conf/br0/autoconf"].map(|path| Setting::new(path, "0"));
        assert_eq!(
            steps,
            [
                Step::Bridge { mac: [2, 0, 0, 0, 0, 1], mtu: None },
                Step::Settings(own.to_vec()),
                Step::Addresses(addresses.clone()),
                Step::Up,
                Step::Nat(addresses.clone()),
                of(Family::V4, &["ipv4/ip_forward", "ipv4/conf/eth0/forwarding"]),
                of(Family::V6, &["ipv6/conf/all/forwarding"]),
            ]
        );
        let without = |has_table| {
            let facts = Facts { has_table, ..facts() };
            plan(&request(Reach::Host(addresses.clone())), &facts).unwrap().steps
        };
        assert_eq!(without(Some(false)), [&[Step::Isolation], &steps[..4]].concat());
        assert_eq!(without(None), steps[..4]);
        let v4_only = plan(&request(Reach::Nat(cidrs(&["10.55.0.1/24"]))), &facts()).unwrap().steps;
        assert_eq!(v4_only.iter().filter_map(Step::forwarding).count(), 1);
    }

    #[test]
    fn forwarding_is_put_back_to_what_was_before_the_first_bridge() {
        let wanted = request(Reach::Nat(cidrs(&["10.55.0.1/24"])));
        let first = plan(&wanted, &facts()).unwrap();
        let mut later = facts();
        later.forwarding.iter_mut().for_each(|setting| setting.value = "1".into());
        // Without another bridge, it is the host's own.
        assert_eq!(plan(&wanted, &later).unwrap().steps.iter().filter_map(Step::forwarding).count(), 0);
        later.journals.push(Journal { bridge: "first".parse().unwrap(), ..first.clone() });
        assert_eq!(plan(&wanted, &later).unwrap().steps, first.steps);
    }

    #[test]
    fn a_public_bridge_is_what_the_interface_was() {
        let facts = facts();
        let steps = plan(&lan(), &facts).unwrap().steps;
        let settings =
            ["ipv4/conf/br0/rp_filter", "ipv6/conf/br0/accept_ra"].map(|path| Setting::new(path, "1"));
        assert_eq!(
            steps[..4],
            [
                Step::Bridge { mac: [2, 0, 0, 0, 0, 9], mtu: Some(1400) },
                Step::Settings(settings.to_vec()),
                Step::Up,
                Step::Port { interface: "eth0".into() },
            ]
        );
        let [Step::Takeover(takeover)] = &steps[4..] else { panic!("{steps:?}") };
        assert_eq!((takeover.index, takeover.uptime), (2, 77));
        assert_eq!(takeover.addresses, [facts.addresses[0].clone(), facts.addresses[2].clone()]);
    }

    #[test]
    fn an_interface_has_to_be_one_that_can_be_bridged() {
        type Case<'a> = (&'a dyn Fn(&mut Interface), &'a str);
        let cases: [Case<'_>; 8] = [
            (&|interface| interface.is_wireless = true, "is Wi-Fi"),
            (&|interface| interface.link.layer = Layer::Loopback, "way to itself"),
            (&|interface| interface.link.layer = Layer::Other, "does not carry Ethernet"),
            (&|interface| interface.link.kind = Some("bridge".into()), "is a bridge already"),
            (&|interface| interface.link.master = Some(1), "is a port of lo already"),
            (&|interface| interface.link.master = Some(99), "is a port of another interface already"),
            (&|interface| interface.link.is_up = false, "ip link set eth0 up"),
            (&|interface| interface.link.mac = None, "has no MAC address"),
        ];
        for (change, wanted) in cases {
            let mut facts = facts();
            change(facts.interface.as_mut().unwrap());
            let reason = reason(&lan(), &facts);
            assert!(reason.contains(wanted), "{reason}");
        }
        let none = Facts { interface: None, ..facts() };
        assert!(reason(&lan(), &none).contains("there is no interface eth0"));
    }

    #[test]
    fn a_name_is_taken_by_a_link_or_a_journal() {
        let mut facts = facts();
        facts.links.push(link(7, "br0"));
        assert!(reason(&lan(), &facts).contains("ip link del br0"));
        for (state, wanted) in [
            (State::Up, "br0 is up already; 'qhub bridge down br0'"),
            (State::Coming, "half done"),
            (State::Going, "half done"),
        ] {
            facts.journals =
                vec![Journal { bridge: "br0".parse().unwrap(), state, index: None, steps: vec![] }];
            assert!(reason(&lan(), &facts).contains(wanted));
        }
    }

    #[test]
    fn a_table_of_nft_with_its_name_is_somebody_else_s() {
        let taken = Facts { has_table: Some(true), ..facts() };
        let addresses = cidrs(&["10.55.0.1/24"]);
        for reach in [Reach::Nat(addresses.clone()), Reach::Host(addresses)] {
            assert!(reason(&request(reach), &taken).contains("nft delete table inet qhub_br0"));
        }
        plan(&lan(), &taken).unwrap();
    }

    #[test]
    fn the_journal_can_be_read_again() {
        for request in [lan(), request(Reach::Nat(cidrs(&["10.55.0.1/24", "fd55::1/64"])))] {
            let journal = plan(&request, &facts()).unwrap();
            let text = serde_json::to_string(&journal).unwrap();
            assert_eq!(serde_json::from_str::<Journal>(&text).unwrap(), journal);
        }
    }
}
