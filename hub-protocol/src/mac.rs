//! 48-bit MAC addresses.

use std::fmt;

/// A MAC address, in transmission order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Is the group bit set (multicast and broadcast)?
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Can this address be the source of a frame: neither a group's nor all zeros?
    pub fn is_station(self) -> bool {
        !self.is_group() && self.0 != [0; 6]
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn classes_of_addresses() {
        let station = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        assert!(station.is_station() && !station.is_group());
        let everybody = Mac([0xff; 6]);
        assert!(everybody.is_group() && !everybody.is_station());
        assert!(!Mac([0; 6]).is_station());
        assert_eq!(station.to_string(), "52:54:00:12:34:56");
    }

    proptest! {
        #[test]
        fn bits_return_the_address(octets: [u8; 6]) {
            prop_assert_eq!(Mac::from_bits(Mac(octets).to_bits()), Mac(octets));
        }
    }
}
