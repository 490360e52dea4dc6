//! The header of an Ethernet frame: IEEE 802.3 clause 3, tags of IEEE 802.1Q clause 9.
//!
//! A frame here is what QEMU exchanges: destination to payload, without preamble and FCS.

use crate::mac::Mac;

/// Octets of an untagged header, and so the shortest frame that has addresses.
pub const HEADER_LEN: usize = 14;

/// Octets that a VLAN tag adds.
pub const TAG_LEN: usize = 4;

/// The shortest frame that a wire would carry, without its FCS; senders between VMs seldom pad to it.
pub const MIN_LEN: usize = 60;

/// Where MAC control PAUSE frames go: never across a bridge.
pub const PAUSE_ADDRESS: Mac = Mac([0x01, 0x80, 0xc2, 0x00, 0x00, 0x01]);

/// Reverse ARP; QEMU announces a migrated guest with it.
pub const ETHERTYPE_RARP: u16 = 0x8035;

/// Internet Protocol, version 4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;

/// Internet Protocol, version 6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

const TPID_CUSTOMER: u16 = 0x8100;
const TPID_SERVICE: u16 = 0x88a8;

/// What a bridge looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Destination address.
    pub destination: Mac,
    /// Source address.
    pub source: Mac,
    /// VLAN identifier of the outermost tag; 0 without a tag and for a priority tag.
    pub vid: u16,
    /// The type or length field, which is a TPID when the frame is tagged.
    pub ethertype: u16,
}

impl Header {
    /// Reads the header of `frame`; `None` for a runt.
    ///
    /// A frame that ends inside its tag counts as untagged.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let (header, payload) = frame.split_first_chunk::<HEADER_LEN>()?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
        let ethertype = u16::from_be_bytes([t0, t1]);
        let vid = match (ethertype, payload) {
            (TPID_CUSTOMER | TPID_SERVICE, [high, low, ..]) => u16::from_be_bytes([high & 0x0f, *low]),
            _ => 0,
        };
        Some(Self {
            destination: Mac([d0, d1, d2, d3, d4, d5]),
            source: Mac([s0, s1, s2, s3, s4, s5]),
            vid,
            ethertype,
        })
    }
}

/// Where the payload of `frame` begins, behind all of its tags, and the type that it has; `None` if the
/// frame ends before.
pub fn payload(frame: &[u8]) -> Option<(usize, u16)> {
    let mut at = HEADER_LEN;
    loop {
        let ethertype = u16::from_be_bytes(*frame.get(at - 2..)?.first_chunk()?);
        match ethertype {
            TPID_CUSTOMER | TPID_SERVICE => at += TAG_LEN,
            _ => return Some((at, ethertype)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: [u8; 14] =
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 0x80, 0x35];

    fn with_tail(ethertype: [u8; 2], tail: &[u8]) -> Header {
        let mut frame = HEADER.to_vec();
        frame[12..].copy_from_slice(&ethertype);
        frame.extend_from_slice(tail);
        Header::parse(&frame).unwrap()
    }

    #[test]
    fn golden_announcement() {
        let header = Header::parse(&HEADER).unwrap();
        assert_eq!(header.destination, Mac([0xff; 6]));
        assert_eq!(header.source, Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        assert_eq!((header.vid, header.ethertype), (0, ETHERTYPE_RARP));
        assert_eq!(Header::parse(&HEADER[..13]), None);
    }

    #[test]
    fn the_outermost_tag_gives_the_vid() {
        assert_eq!(with_tail([0x81, 0x00], &[0xe0, 0x07]).vid, 7, "PCP is not part of it");
        assert_eq!(with_tail([0x88, 0xa8], &[0x0f, 0xfe, 0x81, 0x00, 0, 9]).vid, 0xffe);
        assert_eq!(with_tail([0x81, 0x00], &[0xe0, 0x00]).vid, 0, "a priority tag");
        assert_eq!(with_tail([0x81, 0x00], &[0x07]).vid, 0, "cut in the tag");
        assert_eq!(with_tail([0x08, 0x00], &[0x45, 0x00]).vid, 0);
    }

    #[test]
    fn the_payload_is_behind_all_tags() {
        let frame = |tail: &[u8]| [&HEADER[..12], tail].concat();
        assert_eq!(payload(&frame(&[8, 0])), Some((14, ETHERTYPE_IPV4)));
        assert_eq!(payload(&frame(&[8])), None);
        let tagged = frame(&[0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 0x86, 0xdd]);
        assert_eq!(payload(&tagged), Some((22, ETHERTYPE_IPV6)));
        assert_eq!(payload(&tagged[..21]), None);
        assert_eq!(payload(&[]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_runts(frame in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(Header::parse(&frame).is_some(), frame.len() >= HEADER_LEN);
        }
    }
}
