//! Addresses of links.

use std::fmt;
use std::net::IpAddr;

use nix::libc;

use super::message::{Message, journalled, number, text_value};

/// An address of a link, with its prefix and all else that the kernel says of it: broadcast address, peer, label,
/// scope, flags, lifetimes, ...
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(pub(super) Message);

journalled!(Address, libc::RTM_NEWADDR);

// Where the fields of `ifaddrmsg` stand.
const FAMILY: usize = 0;
const PREFIX: usize = 1;
const OLD_FLAGS: usize = 2;
const INDEX: usize = 4;

/// A lifetime that does not end.
const FOREVER: u32 = u32::MAX;

impl Address {
    /// An address for the link `index`, with the broadcast address of its prefix.
    pub fn new(index: u32, ip: IpAddr, prefix_length: u8) -> Self {
        let (family, octets) = match ip {
            IpAddr::V4(ip) => (libc::AF_INET, ip.octets().to_vec()),
            IpAddr::V6(ip) => (libc::AF_INET6, ip.octets().to_vec()),
        };
        let header = [u8::try_from(family).unwrap_or(0), prefix_length, 0, 0, 0, 0, 0, 0];
        let mut message = Message::new(libc::RTM_NEWADDR, &header)
            .with(libc::IFA_LOCAL, octets.clone())
            .with(libc::IFA_ADDRESS, octets);
        if let IpAddr::V4(ip) = ip
            && prefix_length < 31
        {
            let broadcast = ip.to_bits() | u32::MAX >> prefix_length;
            message = message.with(libc::IFA_BROADCAST, broadcast.to_be_bytes());
        }
        message.set_header_number(INDEX, index);
        Self(message)
    }

    /// The link that has it.
    pub fn link(&self) -> u32 {
        self.0.header_number(INDEX)
    }

    /// The address itself.
    pub fn ip(&self) -> Option<IpAddr> {
        ip(self.0.value(libc::IFA_LOCAL).or_else(|| self.0.value(libc::IFA_ADDRESS))?)
    }

    /// The length of its prefix.
    pub fn prefix_length(&self) -> u8 {
        self.0.header_octet(PREFIX)
    }

    /// Does it mean something on its link only, as those do that begin with fe80?
    pub fn is_link_local_v6(&self) -> bool {
        matches!(self.ip(), Some(IpAddr::V6(ip)) if ip.is_unicast_link_local())
    }

    /// Is it one of those that the kernel makes up to hide the real one, and replaces from time to time?
    pub fn is_temporary(&self) -> bool {
        self.is_v6() && self.flags() & libc::IFA_F_TEMPORARY != 0
    }

    /// Has nobody else been found to have it?
    pub fn is_proven(&self) -> bool {
        self.flags() & (libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED) == 0
    }

    /// Is this the same address with the same prefix, on whatever link, with whatever else?
    pub fn is_same(&self, other: &Self) -> bool {
        self.key() == other.key()
    }

    /// Is it taken as proven?
    pub fn is_without_probe(&self) -> bool {
        self.flags() & libc::IFA_F_NODAD != 0
    }

    /// The same one, taken as proven: it serves at once.
    pub fn without_probe(&self) -> Self {
        let mut address = self.clone();
        address.set_flags(self.flags() | libc::IFA_F_NODAD);
        address
    }

    /// The same one for another link; `names` are those of this link and of the other, which IPv4 addresses bear.
    pub fn moved(&self, index: u32, names: (&str, &str)) -> Self {
        let mut address = self.clone();
        address.0.set_header_number(INDEX, index);
        if let Some(label) = self.0.text(libc::IFA_LABEL)
            && let Some(rest) = label.strip_prefix(names.0)
        {
            let label: String = [names.1, rest].concat().chars().take(libc::IFNAMSIZ - 1).collect();
            address.0.set(libc::IFA_LABEL, text_value(&label));
        }
        address
    }

    /// The same one with the lifetimes of `other`.
    pub fn renewed(&self, other: &Self) -> Self {
        let mut address = self.clone();
        if let Some(cache) = other.0.value(libc::IFA_CACHEINFO) {
            address.0.set(libc::IFA_CACHEINFO, cache);
        }
        address
    }

    /// What is left of it after some seconds; `None` if nothing is.
    pub fn aged(&self, seconds: u32) -> Option<Self> {
        let Some(cache) = self.0.value(libc::IFA_CACHEINFO) else { return Some(self.clone()) };
        let age = |time: &[u8]| match number(time) {
            Some(FOREVER) | None => FOREVER,
            Some(time) => time.saturating_sub(seconds),
        };
        let (preferred, rest) = cache.split_at_checked(4)?;
        let (valid, rest) = rest.split_at_checked(4)?;
        let (preferred, valid) = (age(preferred), age(valid));
        let mut address = self.clone();
        address
            .0
            .set(libc::IFA_CACHEINFO, [&preferred.to_ne_bytes()[..], &valid.to_ne_bytes(), rest].concat());
        (valid > 0).then_some(address)
    }

    pub(super) fn is_v6(&self) -> bool {
        i32::from(self.0.header_octet(FAMILY)) == libc::AF_INET6
    }

    fn flags(&self) -> u32 {
        self.0.number(libc::IFA_FLAGS).unwrap_or_else(|| self.0.header_octet(OLD_FLAGS).into())
    }

    fn set_flags(&mut self, flags: u32) {
        self.0.set(libc::IFA_FLAGS, flags.to_ne_bytes());
    }

    fn key(&self) -> (u8, u8, Option<&[u8]>, Option<&[u8]>) {
        let local = self.0.value(libc::IFA_LOCAL);
        let address = self.0.value(libc::IFA_ADDRESS);
        (self.0.header_octet(FAMILY), self.prefix_length(), local.or(address), address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip() {
            Some(ip) => write!(f, "{ip}/{}", self.prefix_length()),
            None => write!(f, "an address of another family"),
        }
    }
}

/// An address in network order.
pub(super) fn ip(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(octets)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn living(preferred: u32, valid: u32) -> Address {
        let mut address = Address::new(2, "10.0.0.1".parse().unwrap(), 24);
        let cache = [preferred, valid, 11, 12].map(u32::to_ne_bytes).concat();
        address.0.set(libc::IFA_CACHEINFO, cache);
        address
    }

    #[test]
    fn lifetimes_run_down_to_nothing() {
        for (before, seconds, after) in [
            ((10, 20), 0, Some((10, 20))),
            ((10, 20), 4, Some((6, 16))),
            ((10, 20), 19, Some((0, 1))),
            ((10, 20), 20, None),
            ((10, 20), 21, None),
            ((0, FOREVER), 21, Some((0, FOREVER))),
            ((FOREVER, FOREVER), u32::MAX, Some((FOREVER, FOREVER))),
        ] {
            let aged = living(before.0, before.1).aged(seconds);
            assert_eq!(
                aged,
                after.map(|(preferred, valid)| living(preferred, valid)),
                "{before:?} {seconds}"
            );
        }
        let plain = Address::new(2, "10.0.0.1".parse().unwrap(), 24);
        assert_eq!(plain.aged(99), Some(plain));
    }

    #[test]
    fn labels_are_renamed_with_their_link() {
        let label = |text: &str, to: &str| {
            let mut address = Address::new(2, "10.0.0.1".parse().unwrap(), 24);
            address.0.set(libc::IFA_LABEL, text_value(text));
            address.moved(3, ("eth0", to)).0.text(libc::IFA_LABEL)
        };
        assert_eq!(label("eth0", "br0").as_deref(), Some("br0"));
        assert_eq!(label("eth0:one", "br0").as_deref(), Some("br0:one"));
        assert_eq!(label("eth0:one", "fifteen-letters").as_deref(), Some("fifteen-letters"));
        assert_eq!(label("mine", "br0").as_deref(), Some("mine"));
    }

    #[test]
    fn it_is_the_same_whatever_it_is_on() {
        let address = living(10, 20);
        assert!(address.is_same(&living(5, 5).moved(7, ("a", "b"))));
        assert!(!address.is_same(&Address::new(2, "10.0.0.1".parse().unwrap(), 25)));
        assert!(!address.is_same(&Address::new(2, "10.0.0.2".parse().unwrap(), 24)));
    }
}
