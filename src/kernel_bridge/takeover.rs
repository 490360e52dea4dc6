//! Addresses and routes move from an interface to the bridge that it is a port of, and back, with no more than
//! milliseconds in which there is none.
//!
//! They are added at the new place before they are deleted at the old one: so none is missing at any time, and what other
//! routes have as their source stays valid.
//! All of it may have been done already, or by half.

use std::net::IpAddr;

use anyhow::{Context, Error, Result, anyhow, bail};
use hub_protocol::mac::Mac;
use nix::libc;

use super::kernel::ignore;
use super::step::Takeover;
use crate::config::Cidr;
use crate::host::netlink::{Address, LinkRow, Netlink, Origin, Route};

/// Moves them to the bridge.
pub(super) fn take_over(
    netlink: &mut Netlink,
    takeover: &Takeover,
    bridge: &LinkRow,
    uptime: u32,
) -> Result<()> {
    let interface = netlink.link(&takeover.interface)?;
    let interface = interface.with_context(|| format!("{} is gone", takeover.interface))?;
    Move { takeover, from: Some(&interface), to: bridge, uptime }.run(netlink)
}

/// Moves them to the interface, which had this MAC address; they are the same whether or not the bridge is there.
/// When something can't be moved, all stays on the bridge.
pub(super) fn give_back(
    netlink: &mut Netlink,
    takeover: &Takeover,
    mac: Option<Mac>,
    bridge: Option<&LinkRow>,
    uptime: u32,
) -> Result<()> {
    let links = netlink.links()?;
    let Some(interface) = find(&links, takeover, mac) else {
        // With both of them gone nothing has what is to be moved.
        return bridge.map_or(Ok(()), |bridge| Err(stranded(takeover, &bridge.name)));
    };
    check(interface, bridge, &links)?;
    let moved = Move { takeover, from: bridge, to: interface, uptime }.run(netlink);
    if let (Err(_), Some(bridge)) = (&moved, bridge) {
        // A port can't use what it has been given. What goes wrong here did so before.
        let _ = Move { takeover, from: Some(interface), to: bridge, uptime }.run(netlink);
    }
    moved
}

/// Is there no interface left to give anything to?
pub(super) fn is_gone(netlink: &mut Netlink, takeover: &Takeover, mac: Option<Mac>) -> Result<bool> {
    Ok(find(&netlink.links()?, takeover, mac).is_none())
}

/// The interface, whatever it is called now, or one that has come in its place.
fn find<'a>(links: &'a [LinkRow], takeover: &Takeover, mac: Option<Mac>) -> Option<&'a LinkRow> {
    let is_same = |link: &&LinkRow| link.index == takeover.index && link.mac == mac;
    let has_name = |link: &&LinkRow| link.name == takeover.interface;
    links.iter().find(is_same).or_else(|| links.iter().find(has_name))
}

fn stranded(takeover: &Takeover, bridge: &str) -> Error {
    anyhow!(
        "{} is gone, and {bridge} keeps {}; bring it back, or give that up: ip link del {bridge}",
        takeover.interface,
        takeover.contents()
    )
}

/// Can the interface use what it is to be given?
fn check(interface: &LinkRow, bridge: Option<&LinkRow>, links: &[LinkRow]) -> Result<()> {
    let name = &interface.name;
    if interface.master.is_some() && interface.master != bridge.map(|bridge| bridge.index) {
        let master = links.iter().find(|link| Some(link.index) == interface.master);
        let master = master.map_or("another interface", |link| &link.name);
        bail!(
            "{name} is a port of {master} now, which qhub did not make; free it: ip link set {name} nomaster"
        );
    }
    if !interface.is_up {
        bail!("{name} is down; bring it up first: ip link set {name} up");
    }
    Ok(())
}

struct Move<'a> {
    takeover: &'a Takeover,
    from: Option<&'a LinkRow>,
    to: &'a LinkRow,
    uptime: u32,
}

impl Move<'_> {
    fn run(&self, netlink: &mut Netlink) -> Result<()> {
        let there = match self.from {
            Some(from) => netlink.addresses(Some(from.index))?,
            None => Vec::new(),
        };
        let here = netlink.addresses(Some(self.to.index))?;
        let addresses = self.addresses(&[&there[..], &here].concat());
        let mut failures = Vec::new();
        for address in in_order(&addresses) {
            let given = self.add_address(netlink, address);
            failures.extend(given.with_context(|| format!("give {} {address}", self.to.name)).err());
        }
        self.move_routes(netlink, &addresses, &mut failures)?;
        if !failures.is_empty() {
            let failures: Vec<String> = failures.iter().map(|error| format!("{error:#}")).collect();
            bail!("{}", failures.join("; "));
        }
        for address in in_order(&there).into_iter().rev().filter(|address| self.leaves(address)) {
            ignore(netlink.delete_address(address), &[libc::EADDRNOTAVAIL, libc::ENODEV])
                .with_context(|| format!("delete {address}"))?;
        }
        Ok(())
    }

    /// Has an address no place any more where it was? One that has come there meanwhile is somebody else's.
    fn leaves(&self, address: &Address) -> bool {
        address.is_temporary() || self.takeover.addresses.iter().any(|other| other.is_same(address))
    }

    /// The addresses for the new place. How long they live is best known where they are, as they may have been renewed.
    fn addresses(&self, there: &[Address]) -> Vec<Address> {
        let name = &self.takeover.interface;
        let kept = self.takeover.addresses.iter().filter_map(|address| {
            match there.iter().find(|other| other.is_same(address)) {
                Some(other) => Some(address.renewed(other)),
                None => address.aged(self.age()),
            }
        });
        kept.map(|address| address.moved(self.to.index, (name, &self.to.name))).collect()
    }

    /// Routes for the new place.
    fn routes(&self, routes: &[Route], there: &[Route]) -> Vec<Route> {
        let kept = routes.iter().filter_map(|route| {
            let found = self.from.into_iter().chain([self.to]).find_map(|link| {
                let route = route.moved(self.takeover.index, link.index);
                there.iter().find(|other| other.is_same(&route))
            });
            match found {
                Some(other) => Some(route.renewed(other)),
                None => route.aged(self.age()),
            }
        });
        kept.map(|route| route.moved(self.takeover.index, self.to.index)).collect()
    }

    fn age(&self) -> u32 {
        self.uptime.saturating_sub(self.takeover.uptime)
    }

    fn add_address(&self, netlink: &mut Netlink, address: &Address) -> Result<()> {
        let here = netlink.addresses(Some(self.to.index))?;
        if let Some(other) = here.iter().find(|other| other.is_same(address)) {
            // Between the two steps below something was cut short.
            let is_marked = other.is_without_probe() && !address.is_without_probe();
            return if is_marked { Ok(netlink.replace_address(address)?) } else { Ok(()) };
        }
        if !address.is_proven() || address.ip().is_some_and(|ip| ip.is_ipv4()) {
            return Ok(netlink.add_address(address)?);
        }
        // Nobody else got it meanwhile: it serves at once, and looks as before.
        netlink.add_address(&address.without_probe())?;
        Ok(netlink.replace_address(address)?)
    }

    fn move_routes(
        &self,
        netlink: &mut Netlink,
        addresses: &[Address],
        failures: &mut Vec<Error>,
    ) -> Result<()> {
        let mut known = netlink.routes(Some(self.to.index))?;
        if let Some(from) = self.from {
            known.extend(netlink.routes(Some(from.index))?);
        }
        let mut routes = self.routes(&self.takeover.routes, &known);
        // A router has to be known as a neighbour before.
        routes.sort_by_key(Route::has_gateway);
        self.drop_made_routes(netlink, addresses, &routes)?;
        let here = netlink.routes(Some(self.to.index))?;
        for route in &routes {
            // One that is here already might be refused now.
            let is_here = here.iter().any(|other| other.is_same(route));
            let there = self.from.map(|from| route.moved(self.to.index, from.index));
            let moved = move_route(netlink, (!is_here).then_some(route), there.as_ref());
            failures.extend(moved.with_context(|| format!("move the route {route}")).err());
        }
        for route in self.routes(&self.takeover.learned, &known) {
            let is_here = here.iter().any(|other| other.is_same(&route));
            let there = self.from.map(|from| route.moved(self.to.index, from.index));
            let copy = there.as_ref().map(Route::behind);
            let moved = move_route(netlink, (!is_here).then_some(&route.behind()), there.as_ref())
                .and_then(|()| move_route(netlink, None, copy.as_ref()));
            failures.extend(moved.with_context(|| format!("move the route {route}")).err());
        }
        Ok(())
    }

    /// The kernel makes a route for the prefix of each address, where there may have been none.
    fn drop_made_routes(&self, netlink: &mut Netlink, addresses: &[Address], wanted: &[Route]) -> Result<()> {
        for route in netlink.routes(Some(self.to.index))? {
            let is_made = route.origin() == Origin::Prefix
                && addresses.iter().any(|address| prefix(address) == destination(&route));
            if is_made && !wanted.iter().any(|other| other.is_same(&route)) {
                ignore(netlink.delete_route(&route), &[libc::ESRCH])?;
            }
        }
        Ok(())
    }
}

/// What can't be added here is not deleted there.
fn move_route(netlink: &mut Netlink, here: Option<&Route>, there: Option<&Route>) -> Result<()> {
    let add = |netlink: &mut Netlink| match here {
        Some(route) => ignore(netlink.add_route(route), &[libc::EEXIST]),
        None => Ok(()),
    };
    let Some(there) = there else { return add(netlink) };
    let delete = |netlink: &mut Netlink| ignore(netlink.delete_route(there), &[libc::ESRCH, libc::ENODEV]);
    if !there.has_several_hops() {
        add(netlink)?;
        return delete(netlink);
    }
    // Hops that stay where they are would be there twice.
    delete(netlink)?;
    add(netlink).inspect_err(|_| {
        // If the kernel refuses that as well, there is an error already.
        let _ = netlink.add_route(there);
    })
}

/// The order to add addresses in so that they come out in the order that they were listed in: the kernel puts new ones
/// of IPv4 last and new ones of IPv6 first.
fn in_order(addresses: &[Address]) -> Vec<&Address> {
    let (v4, v6): (Vec<_>, Vec<_>) =
        addresses.iter().partition(|address| address.ip().is_some_and(|ip| ip.is_ipv4()));
    v4.into_iter().chain(v6.into_iter().rev()).collect()
}

fn prefix(address: &Address) -> Option<Cidr> {
    Some(Cidr::new(address.ip()?, address.prefix_length())?.network())
}

fn destination(route: &Route) -> Option<Cidr> {
    let (ip, length) = route.destination();
    let ip: Option<IpAddr> = ip;
    Cidr::new(ip?, length)
}
