//! Routers that the kernel has heard of by itself, RFC 4861.
//!
//! A route to one is the kernel's own, and can't be made by anybody else: where it finds a foreign one to the same router,
//! the kernel ignores all that this router says, and the addresses that live by it expire. So what moves is a copy behind
//! the real one, and the router is asked to say again what makes the real one.

use std::fs;
use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};

use socket2::{Domain, Protocol, Socket, Type};

/// A router, as a route leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Router {
    pub(super) address: Ipv6Addr,
    pub(super) metric: u32,
}

/// Those on the interface of this name.
pub(super) fn learned(interface: &str) -> Vec<Router> {
    // A kernel without IPv6 has no such file.
    let table = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
    table.lines().filter_map(|line| read(line, interface)).collect()
}

/// Asks all routers on a link to tell what they have to tell. They do so in time, if this fails.
pub(super) fn solicit(index: u32) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_multicast_if_v6(index)?;
    socket.set_multicast_hops_v6(255)?;
    // A Router Solicitation; the kernel fills in the checksum.
    let to = SocketAddrV6::new(ALL_ROUTERS, 0, 0, index);
    socket.send_to(&[133, 0, 0, 0, 0, 0, 0, 0], &to.into()).map(drop)
}

const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// `linux/ipv6_route.h`: a default route by a router, which was announced.
const RTF_DEFAULT: u32 = 0x0001_0000;
const RTF_ADDRCONF: u32 = 0x0004_0000;

/// `DESTINATION LENGTH SOURCE LENGTH ROUTER METRIC REFERENCES USES FLAGS INTERFACE`, in hexadecimal digits.
fn read(line: &str, interface: &str) -> Option<Router> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, _, _, _, address, metric, _, _, flags, name] = words[..] else { return None };
    let number = |digits| u32::from_str_radix(digits, 16).ok();
    let is_learned = number(flags)? & (RTF_DEFAULT | RTF_ADDRCONF) == RTF_DEFAULT | RTF_ADDRCONF;
    let address = u128::from_str_radix(address, 16).ok()?.into();
    (is_learned && name == interface).then_some(Router { address, metric: number(metric)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announced_routers_are_known_by_their_flags() {
        let line = |flags: &str| {
            let zeros = "0".repeat(32);
            format!(
                "{zeros} 00 {zeros} 00 fe8000000000000060561efffe079804 00000400 00000002 00000000 {flags}     eth0"
            )
        };
        let router = Router { address: "fe80::6056:1eff:fe07:9804".parse().unwrap(), metric: 1024 };
        assert_eq!(read(&line("00450003"), "eth0"), Some(router));
        assert_eq!(read(&line("00450003"), "eth"), None);
        for flags in ["00400003", "00410003", "00440003", "xyz"] {
            assert_eq!(read(&line(flags), "eth0"), None, "{flags}");
        }
        assert_eq!(read("", "eth0"), None);
    }
}
