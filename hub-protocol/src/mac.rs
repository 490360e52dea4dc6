//! 48-bit MAC addresses.

use std::fmt;
use std::str::FromStr;

/// A MAC address, in transmission order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Every station: `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Is the group bit set (multicast and broadcast)?
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Can this address be the source of a frame: neither a group's nor all zeros?
    pub fn is_station(self) -> bool {
        !self.is_group() && self.0 != [0; 6]
    }

    /// Is it one of `01:80:c2:00:00:00` to `:0f`, which bridges keep to one link (IEEE 802.1Q, 8.6.3)?
    pub fn is_reserved(self) -> bool {
        self.0[..5] == [0x01, 0x80, 0xc2, 0, 0] && self.0[5] < 0x10
    }

    /// The address as the low 48 bits of an integer, first octet highest.
    pub fn to_bits(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// The address in the low 48 bits of `bits`; the others are ignored.
    pub fn from_bits(bits: u64) -> Self {
        let [_, _, a, b, c, d, e, f] = bits.to_be_bytes();
        Self([a, b, c, d, e, f])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Text that is no MAC address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseMacError(String);

impl fmt::Display for ParseMacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is no MAC address; write six hexadecimal octets, as in 52:54:00:12:34:56", self.0)
    }
}

impl std::error::Error for ParseMacError {}

impl FromStr for Mac {
    type Err = ParseMacError;

    /// Six octets of two hexadecimal digits, separated by colons.
    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let refuse = || ParseMacError(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(refuse)?;
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(refuse());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        if parts.next().is_some() {
            return Err(refuse());
        }
        Ok(Self(octets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn classes_of_addresses() {
        let station: Mac = "52:54:00:12:34:56".parse().unwrap();
        assert!(station.is_station() && !station.is_group());
        assert!(Mac::BROADCAST.is_group() && !Mac::BROADCAST.is_station());
        assert!(!Mac([0; 6]).is_station());
        let reserved = |last| Mac([0x01, 0x80, 0xc2, 0, 0, last]).is_reserved();
        assert!(reserved(0) && reserved(0x0f) && !reserved(0x10));
        assert!(!Mac([0x01, 0x80, 0xc2, 0, 1, 0]).is_reserved());
    }

    #[test]
    fn bad_text_is_refused_with_the_text() {
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52:54:00:12:34:5",
            "5254:00:12:34:56",
            "+2:54:00:12:34:56",
        ] {
            let error = text.parse::<Mac>().unwrap_err().to_string();
            assert!(error.contains(&format!("'{text}'")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn text_and_bits_return_the_address(octets: [u8; 6]) {
            let mac = Mac(octets);
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
            prop_assert_eq!(Mac::from_bits(mac.to_bits()), mac);
        }
    }
}
