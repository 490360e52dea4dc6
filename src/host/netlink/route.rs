//! Routes.

use std::fmt;
use std::net::IpAddr;

use nix::libc;

use super::address::ip;
use super::message::{Message, journalled, number};

/// A route, with all that the kernel says of it: destination, gateways, preferred source, metric, table, protocol, ...
///
/// What changes by itself is left out, the rest of its life is kept in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route(pub(super) Message);

journalled!(Route, libc::RTM_NEWROUTE);

/// Who made a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The kernel, for the interface as such: to its own addresses, to broadcasts, to neighbours by fe80 and ff00.
    Link,
    /// The kernel, for the prefix of an address.
    Prefix,
    /// Somebody else.
    Other,
}

// Where the fields of `rtmsg` stand.
const FAMILY: usize = 0;
const DESTINATION_LENGTH: usize = 1;
const TABLE: usize = 4;
const PROTOCOL: usize = 5;
const FLAGS: usize = 8;

// Where the fields of `rtnexthop` stand.
const HOP_LENGTH: usize = 8;
const HOP_FLAGS: usize = 2;
const HOP_INDEX: usize = 4;

// `linux/rtnetlink.h`.
const RTA_EXPIRES: u16 = 23;
const RTA_NH_ID: u16 = 30;
const RTNH_F_ONLINK: u8 = 4;

/// What the kernel counts the life of a route in, per second.
const USER_HZ: u32 = 100;

impl Route {
    /// Reads what the kernel tells; `None` for what is no route of a table, but a memory of one that was used.
    pub(super) fn read(mut message: Message) -> Option<Self> {
        let flags = message.header_number(FLAGS);
        if flags & libc::RTM_F_CLONED != 0 {
            return None;
        }
        message.set_header_number(FLAGS, flags & u32::from(RTNH_F_ONLINK));
        let cache = message.value(libc::RTA_CACHEINFO);
        let left = cache.and_then(|cache| Some(i32::from_ne_bytes(cache.get(8..12)?.try_into().ok()?)));
        message.unset(libc::RTA_CACHEINFO);
        if let Some(left) = left.filter(|&left| left != 0) {
            // What is over is about to go; the kernel takes 0 for no end at all.
            let seconds = u32::try_from(left).unwrap_or(1).div_ceil(USER_HZ);
            message.set(RTA_EXPIRES, seconds.to_ne_bytes());
        }
        let mut route = Self(message);
        route.for_each_hop(|hop| {
            if let Some(flags) = hop.get_mut(HOP_FLAGS) {
                *flags &= RTNH_F_ONLINK;
            }
        });
        Some(route)
    }

    /// Does it lead through this link?
    pub fn leads_through(&self, index: u32) -> bool {
        let mut found = self.0.number(libc::RTA_OIF) == Some(index);
        self.clone().for_each_hop(|hop| found |= hop_index(hop) == Some(index));
        found
    }

    /// Is it bound to a nexthop object, which is bound to its link?
    pub fn has_nexthop_object(&self) -> bool {
        self.0.value(RTA_NH_ID).is_some()
    }

    /// Does it name a router?
    pub fn has_gateway(&self) -> bool {
        [libc::RTA_GATEWAY, libc::RTA_VIA, libc::RTA_MULTIPATH]
            .iter()
            .any(|kind| self.0.value(*kind).is_some())
    }

    /// The router that it leads to, if it is one.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.0.value(libc::RTA_GATEWAY).and_then(ip)
    }

    /// How far it is; the nearest is taken.
    pub fn metric(&self) -> u32 {
        self.0.number(libc::RTA_PRIORITY).unwrap_or(0)
    }

    /// The same one, taken when this one is not there.
    pub fn behind(&self) -> Self {
        let mut route = self.clone();
        route.0.set(libc::RTA_PRIORITY, self.metric().saturating_add(1).to_ne_bytes());
        route
    }

    /// Are there several ways to go?
    pub fn has_several_hops(&self) -> bool {
        self.0.value(libc::RTA_MULTIPATH).is_some()
    }

    /// Who made it.
    pub fn origin(&self) -> Origin {
        if self.0.header_octet(PROTOCOL) != libc::RTPROT_KERNEL {
            return Origin::Other;
        }
        let (destination, _) = self.destination();
        let is_of_link = match destination {
            Some(IpAddr::V6(ip)) => ip.is_unicast_link_local() || ip.is_multicast(),
            Some(IpAddr::V4(_)) | None => false,
        };
        if is_of_link || self.table() == u32::from(libc::RT_TABLE_LOCAL) {
            Origin::Link
        } else {
            Origin::Prefix
        }
    }

    /// The prefix that it leads to; no address is `default`.
    pub fn destination(&self) -> (Option<IpAddr>, u8) {
        (self.0.value(libc::RTA_DST).and_then(ip), self.0.header_octet(DESTINATION_LENGTH))
    }

    /// The same one through another link.
    pub fn moved(&self, from: u32, to: u32) -> Self {
        let mut route = self.clone();
        if self.0.number(libc::RTA_OIF) == Some(from) {
            route.0.set(libc::RTA_OIF, to.to_ne_bytes());
        }
        route.for_each_hop(|hop| {
            if hop_index(hop) == Some(from)
                && let Some(index) = hop.get_mut(HOP_INDEX..HOP_INDEX + 4)
            {
                index.copy_from_slice(&to.to_ne_bytes());
            }
        });
        route
    }

    /// What is left of it after some seconds; `None` if nothing is.
    pub fn aged(&self, seconds: u32) -> Option<Self> {
        let mut route = self.clone();
        if let Some(left) = self.0.number(RTA_EXPIRES) {
            let left = left.checked_sub(seconds).filter(|&left| left > 0)?;
            route.0.set(RTA_EXPIRES, left.to_ne_bytes());
        }
        Some(route)
    }

    /// The same one with the rest of the life of `other`.
    pub fn renewed(&self, other: &Self) -> Self {
        let mut route = self.clone();
        match other.0.value(RTA_EXPIRES) {
            Some(left) => route.0.set(RTA_EXPIRES, left),
            None => route.0.unset(RTA_EXPIRES),
        }
        route
    }

    /// Is this the same route, however long either will live?
    pub fn is_same(&self, other: &Self) -> bool {
        let plain = |route: &Self| {
            let mut message = route.0.clone();
            message.unset(RTA_EXPIRES);
            message.attributes.sort_by_key(|attribute| attribute.kind);
            message
        };
        plain(self) == plain(other)
    }

    fn table(&self) -> u32 {
        self.0.number(libc::RTA_TABLE).unwrap_or_else(|| self.0.header_octet(TABLE).into())
    }

    /// Shows each of several hops, which stand one behind another in one attribute.
    fn for_each_hop(&mut self, mut work: impl FnMut(&mut [u8])) {
        let Some(hops) = self.0.attributes.iter_mut().find(|attribute| attribute.is(libc::RTA_MULTIPATH))
        else {
            return;
        };
        let mut rest = hops.value.as_mut_slice();
        while let Some(length) =
            rest.get(..2).and_then(|length| length.try_into().ok()).map(u16::from_ne_bytes)
        {
            let length = usize::from(length).max(HOP_LENGTH).next_multiple_of(4);
            let Some((hop, others)) = rest.split_at_mut_checked(length) else { return };
            work(hop);
            rest = others;
        }
    }
}

fn hop_index(hop: &[u8]) -> Option<u32> {
    hop.get(HOP_INDEX..HOP_INDEX + 4).and_then(number)
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.destination() {
            (Some(ip), length) => write!(f, "{ip}/{length}")?,
            (None, _) if i32::from(self.0.header_octet(FAMILY)) == libc::AF_INET6 => {
                write!(f, "default (IPv6)")?
            }
            (None, _) => write!(f, "default")?,
        }
        if let Some(gateway) = self.gateway() {
            write!(f, " via {gateway}")?;
        }
        match self.table() {
            table if table == u32::from(libc::RT_TABLE_MAIN) => Ok(()),
            table => write!(f, " table {table}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A route as the kernel tells it.
    fn told(flags: u32) -> Message {
        let mut message = Message::new(libc::RTM_NEWROUTE, &[0; 12]).with(libc::RTA_OIF, 2_u32.to_ne_bytes());
        message.set_header_number(FLAGS, flags);
        message
    }

    fn ending(ticks: i32) -> Option<u32> {
        let mut cache = [0; 32];
        cache[8..12].copy_from_slice(&ticks.to_ne_bytes());
        let route = Route::read(told(0).with(libc::RTA_CACHEINFO, cache)).unwrap();
        assert_eq!(route.0.value(libc::RTA_CACHEINFO), None);
        route.0.number(RTA_EXPIRES)
    }

    #[test]
    fn the_rest_of_its_life_is_in_seconds() {
        for (ticks, seconds) in
            [(0, None), (1, Some(1)), (100, Some(1)), (101, Some(2)), (60_000, Some(600)), (-5, Some(1))]
        {
            assert_eq!(ending(ticks), seconds, "{ticks}");
        }
        let route = Route(told(0).with(RTA_EXPIRES, 10_u32.to_ne_bytes()));
        let left = |seconds| route.aged(seconds).and_then(|route| route.0.number(RTA_EXPIRES));
        assert_eq!([0, 9, 10, 11].map(left), [Some(10), Some(1), None, None]);
        assert_eq!(Route(told(0)).aged(u32::MAX), Some(Route(told(0))));
        assert!(route.is_same(&Route(told(0))));
    }

    #[test]
    fn what_the_kernel_remembers_or_finds_is_left_out() {
        assert_eq!(Route::read(told(libc::RTM_F_CLONED)), None);
        assert_eq!(Route::read(told(0x4010 | u32::from(RTNH_F_ONLINK))), Some(Route(told(4))));
        let hop = |flags: u8| [16, 0, flags, 7, 2, 0, 0, 0, 8, 0, 5, 0, 10, 0, 0, 1];
        let hops = |flags: u8| told(0).with(libc::RTA_MULTIPATH, [hop(flags), hop(flags)].concat());
        assert_eq!(Route::read(hops(0x17)), Some(Route(hops(4))));
    }

    #[test]
    fn cut_hops_are_no_hops() {
        for octets in [&[][..], &[16], &[16, 0, 0, 0], &[0; 7], &[0xff; 9]] {
            let route = Route::read(told(0).with(libc::RTA_MULTIPATH, octets)).unwrap();
            assert_eq!(route.moved(2, 3).0.value(libc::RTA_MULTIPATH), Some(octets));
        }
    }
}
