//! The network interfaces of this host, as the system lists them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, anyhow};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::socket::SockaddrStorage;

use crate::config::{Group, Interface};

/// The number of the interface `name`.
pub(super) fn index(name: &str) -> Result<u32> {
    if_nametoindex(name).map_err(|_| anyhow!("there is no interface {name}; see 'ip addr'"))
}

/// The name of the interface that has `address`.
pub(super) fn owner(address: IpAddr) -> Result<String> {
    let found = find_address(|_, found| found == address)?;
    found
        .map(|(name, _)| name)
        .with_context(|| format!("no interface has the address {address}; see 'ip addr'"))
}

/// The IPv4 address of the interface `name`, as QEMU wants it in `localaddr=`.
pub fn interface_address(name: &str) -> Option<Ipv4Addr> {
    match find_address(|owner, found| owner == name && found.is_ipv4()) {
        Ok(Some((_, IpAddr::V4(address)))) => Some(address),
        _ => None,
    }
}

/// Is `address` one of this host's?
pub fn is_own_address(address: IpAddr) -> bool {
    address.is_loopback() || owner(address).is_ok()
}

/// Is there such an interface, and is it down?
pub(super) fn is_down(interface: &Interface) -> bool {
    let is_meant = |name: &str, address: Option<IpAddr>| match interface {
        Interface::Name(own) => own == name,
        Interface::Address(own) => Some(*own) == address,
    };
    getifaddrs().is_ok_and(|mut all| {
        all.any(|found| {
            let address = found.address.as_ref().and_then(ip);
            is_meant(&found.interface_name, address) && !found.flags.contains(InterfaceFlags::IFF_UP)
        })
    })
}

/// The first address of this host that `wanted` accepts, with the name of its interface.
fn find_address(wanted: impl Fn(&str, IpAddr) -> bool) -> Result<Option<(String, IpAddr)>> {
    let mut all = getifaddrs().context("list the interfaces")?;
    Ok(all.find_map(|found| {
        let address = ip(&found.address?)?;
        wanted(&found.interface_name, address).then_some((found.interface_name, address))
    }))
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    socket_addr(address).map(|address| address.ip())
}

/// An Internet address as the system writes it, in the standard library's words.
pub(super) fn socket_addr(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from(*v4));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::from(*v6)))
}

/// Do two groups with one address have one interface, however it is written?
pub fn is_one_interface(one: &Group, other: &Group) -> bool {
    let name = |group: &Group| match &group.interface {
        Some(Interface::Name(name)) => Some(name.clone()),
        Some(Interface::Address(address)) => owner(*address).ok(),
        None => None,
    };
    one.address == other.address && name(one).is_some_and(|one| name(other) == Some(one))
}
