//! An address with the length of its prefix, as in `10.55.0.1/24`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address with the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    ip: IpAddr,
    length: u8,
}

impl Cidr {
    /// `None` for a prefix that is longer than the address.
    pub fn new(ip: IpAddr, length: u8) -> Option<Self> {
        (length <= bits(ip)).then_some(Self { ip, length })
    }

    /// The address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The length of its prefix.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// The prefix alone: the address with zeros behind it.
    pub fn network(&self) -> Self {
        let ip = match self.ip {
            IpAddr::V4(ip) => IpAddr::V4((ip.to_bits() & !self.host_mask_v4()).into()),
            IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & !self.host_mask_v6()).into()),
        };
        Self { ip, length: self.length }
    }

    /// Is any address in both prefixes?
    pub fn overlaps(&self, other: &Self) -> bool {
        let length = self.length.min(other.length);
        self.ip.is_ipv4() == other.ip.is_ipv4()
            && Self { length, ..*self }.network() == Self { length, ..*other }.network()
    }

    /// Says why a host among others can't have this address, if so.
    ///
    /// # Errors
    ///
    /// The reason.
    pub fn check_for_host(&self) -> Result<(), String> {
        let (length, longest) = (self.length, bits(self.ip) - 2);
        if !(1..=longest).contains(&length) {
            return Err(format!("/{length} leaves no room for VMs; a prefix has 1 to {longest} bits"));
        }
        let is_odd = match self.ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast() || ip.octets()[0] == 0,
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        if is_odd || self.ip.is_loopback() || self.ip.is_multicast() || self.ip.is_unspecified() {
            return Err(format!("{} is no address of a host; take one like 10.55.0.1/24", self.ip));
        }
        if self.network().ip == self.ip {
            return Err(format!("{} is the prefix itself; take an address in it", self.ip));
        }
        if let IpAddr::V4(ip) = self.ip
            && ip.to_bits() & self.host_mask_v4() == self.host_mask_v4()
        {
            return Err(format!("{ip} is the broadcast address of its prefix; take another"));
        }
        Ok(())
    }

    fn host_mask_v4(&self) -> u32 {
        u32::MAX.checked_shr(self.length.into()).unwrap_or(0)
    }

    fn host_mask_v6(&self) -> u128 {
        u128::MAX.checked_shr(self.length.into()).unwrap_or(0)
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (ip, length) = text
            .split_once('/')
            .ok_or_else(|| format!("'{text}' has no length of a prefix; write it as in 10.55.0.1/24"))?;
        let wrong = || format!("'{text}' is no address with a prefix; write it as in 10.55.0.1/24");
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let length: u8 = length.parse().map_err(|_| wrong())?;
        Self::new(ip, length).ok_or_else(|| format!("'{text}' has a prefix of more than {} bits", bits(ip)))
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.length)
    }
}

fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        for text in ["10.55.0.1/24", "0.0.0.0/0", "10.0.0.1/32", "fd00::1/64", "::/0", "::1/128"] {
            assert_eq!(cidr(text).to_string(), text);
            assert_eq!(String::from(Cidr::try_from(text.to_owned()).unwrap()), text);
        }
        for text in [
            "10.0.0.1",
            "10.0.0.1/33",
            "::1/129",
            "10.0.0/8",
            "/8",
            "10.0.0.1/",
            "10.0.0.1/-1",
            "10.0.0.1/999",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
        assert_eq!(Cidr::new("10.0.0.1".parse().unwrap(), 33), None);
    }

    #[test]
    fn the_network_has_zeros_behind_its_prefix() {
        for (one, network) in [
            ("10.55.3.7/24", "10.55.3.0/24"),
            ("10.55.3.7/0", "0.0.0.0/0"),
            ("10.55.3.7/32", "10.55.3.7/32"),
            ("10.55.3.7/31", "10.55.3.6/31"),
            ("fd00::1:2/64", "fd00::/64"),
            ("fd00::1/0", "::/0"),
            ("fd00::1/128", "fd00::1/128"),
        ] {
            assert_eq!(cidr(one).network(), cidr(network));
        }
    }

    #[test]
    fn prefixes_overlap_if_one_has_the_other() {
        for (one, other, do_overlap) in [
            ("10.0.0.1/24", "10.0.0.9/24", true),
            ("10.0.0.1/24", "10.0.1.1/24", false),
            ("10.0.0.1/23", "10.0.1.1/24", true),
            ("10.0.1.128/25", "10.0.0.0/8", true),
            ("0.0.0.0/0", "10.0.0.0/8", true),
            ("fd00::/64", "fd00::1/128", true),
            ("fd00::/64", "fd00:0:0:1::/64", false),
            ("::/0", "10.0.0.0/8", false),
        ] {
            assert_eq!(cidr(one).overlaps(&cidr(other)), do_overlap, "{one} {other}");
            assert_eq!(cidr(other).overlaps(&cidr(one)), do_overlap, "{other} {one}");
        }
    }

    #[test]
    fn a_host_has_an_address_among_others() {
        for good in
            ["10.55.0.1/24", "10.55.0.254/24", "10.0.0.1/30", "128.0.0.1/1", "fd00::1/126", "2001:db8::1/64"]
        {
            assert_eq!(cidr(good).check_for_host(), Ok(()), "{good}");
        }
        for bad in [
            "10.55.0.0/24",
            "10.55.0.255/24",
            "10.0.0.1/31",
            "10.0.0.1/32",
            "10.0.0.1/0",
            "fd00::1/127",
            "fd00::/64",
            "127.0.0.1/8",
            "169.254.0.1/16",
            "224.0.0.1/24",
            "0.1.2.3/8",
            "fe80::1/64",
            "ff02::1/64",
            "::1/64",
        ] {
            assert!(cidr(bad).check_for_host().is_err(), "{bad}");
        }
    }
}
