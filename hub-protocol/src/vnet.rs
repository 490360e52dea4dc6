//! The header that says what is left to do with a frame: `struct virtio_net_hdr` (virtio 1.2, 5.1.6)
//! as TAP, macvtap and packet sockets of Linux have it in front of each frame
//! (`include/linux/virtio_net.h`):
//!
//! ```text
//! u8 flags | u8 kind of bundle | u16 hdr_len | u16 gso_size | u16 csum_start | u16 csum_offset
//! ```
//!
//! All of it is in the order of this machine. A header of 12 octets has the number of buffers behind,
//! which these interfaces set to 0 and ignore.

use std::fmt;

use crate::checksum::Sum;

/// Octets of the header.
pub const VNET_LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;

const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What an interface says of a frame beside its octets. The default says nothing: a frame as on a wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// What is known of the transport checksum.
    pub checksum: ChecksumState,
    /// What the frame stands for, if it is a [bundle](crate::gso).
    pub gso: Option<GsoKind>,
    /// Octets of all headers of a bundle: a hint, not to be trusted.
    pub hdr_len: u16,
    /// Octets of payload that each frame of a bundle has, but the last.
    pub gso_size: u16,
    /// Where the octets begin that a missing checksum covers.
    pub csum_start: u16,
    /// Where that checksum goes, from there.
    pub csum_offset: u16,
}

/// What is known of a transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChecksumState {
    /// Nothing: it may be right or wrong.
    #[default]
    Unknown,
    /// In its place is the sum of the pseudo-header only; see [`finish_checksum`].
    Needed,
    /// Somebody has verified it.
    Valid,
}

/// What a bundle is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpV4 {
        /// Is CWR set, for the first frame only?
        ecn: bool,
    },
    /// TCP over IPv6.
    TcpV6 {
        /// Is CWR set, for the first frame only?
        ecn: bool,
    },
    /// UDP datagrams over either.
    UdpL4,
    /// One that qhub never asks for, like the UDP fragments of old (3).
    Other(u8),
}

impl GsoKind {
    fn from_octet(octet: u8) -> Option<Self> {
        let ecn = octet & GSO_ECN != 0;
        match octet & !GSO_ECN {
            0 if !ecn => None,
            GSO_TCPV4 => Some(Self::TcpV4 { ecn }),
            GSO_TCPV6 => Some(Self::TcpV6 { ecn }),
            GSO_UDP_L4 if !ecn => Some(Self::UdpL4),
            _ => Some(Self::Other(octet)),
        }
    }

    pub(crate) fn octet(self) -> u8 {
        let with = |kind, ecn| if ecn { kind | GSO_ECN } else { kind };
        match self {
            Self::TcpV4 { ecn } => with(GSO_TCPV4, ecn),
            Self::TcpV6 { ecn } => with(GSO_TCPV6, ecn),
            Self::UdpL4 => GSO_UDP_L4,
            Self::Other(octet) => octet,
        }
    }
}

impl VnetHeader {
    /// Reads a header. Any octets are one; what it asks for may be impossible.
    pub fn parse(octets: &[u8; VNET_LEN]) -> Self {
        let [flags, gso, hdr0, hdr1, size0, size1, start0, start1, offset0, offset1] = *octets;
        Self {
            checksum: match (flags & NEEDS_CSUM, flags & DATA_VALID) {
                (0, 0) => ChecksumState::Unknown,
                (0, _) => ChecksumState::Valid,
                _ => ChecksumState::Needed,
            },
            gso: GsoKind::from_octet(gso),
            hdr_len: u16::from_ne_bytes([hdr0, hdr1]),
            gso_size: u16::from_ne_bytes([size0, size1]),
            csum_start: u16::from_ne_bytes([start0, start1]),
            csum_offset: u16::from_ne_bytes([offset0, offset1]),
        }
    }

    /// The octets of the header.
    pub fn write(&self) -> [u8; VNET_LEN] {
        let flags = match self.checksum {
            ChecksumState::Unknown => 0,
            ChecksumState::Needed => NEEDS_CSUM,
            ChecksumState::Valid => DATA_VALID,
        };
        let [hdr0, hdr1] = self.hdr_len.to_ne_bytes();
        let [size0, size1] = self.gso_size.to_ne_bytes();
        let [start0, start1] = self.csum_start.to_ne_bytes();
        let [offset0, offset1] = self.csum_offset.to_ne_bytes();
        let gso = self.gso.map_or(0, GsoKind::octet);
        [flags, gso, hdr0, hdr1, size0, size1, start0, start1, offset0, offset1]
    }
}

/// Why what a [`VnetHeader`] asks for cannot be done with its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadOffload {
    /// The checksum, or what it covers, would be at this octet, past the end of the frame.
    ChecksumBeyond(usize),
    /// A bundle of this kind has its checksum somewhere else, or it is not asked for.
    ChecksumPlace(GsoKind),
    /// No frames are made of a bundle of this kind.
    Kind(u8),
    /// Frames with so many octets of payload would be none, or too long.
    Size(u16),
    /// The frame does not carry the version of IP, whole, that its kind says, but this type.
    Network(u16),
    /// IP does not say that the transport header begins here.
    Transport(u16),
    /// A frame of so many octets ends before its payload.
    NoPayload(usize),
}

impl fmt::Display for BadOffload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChecksumBeyond(at) => write!(f, "a checksum at octet {at} lies outside of its frame"),
            Self::ChecksumPlace(kind) => write!(f, "no checksum where kind {:#x} has it", kind.octet()),
            Self::Kind(kind) => write!(f, "frames of kind {kind:#x} cannot be segmented"),
            Self::Size(size) => write!(f, "no segments of {size} octets can be made"),
            Self::Network(ethertype) => write!(f, "the IP header is amiss behind type {ethertype:#06x}"),
            Self::Transport(at) => write!(f, "no transport header begins at octet {at}"),
            Self::NoPayload(len) => write!(f, "a bundle of {len} octets has no payload"),
        }
    }
}

impl std::error::Error for BadOffload {}

/// Completes the checksum of `frame` if `header` says that it is needed, as `skb_checksum_help` of
/// Linux does: a checksum of 0 becomes 0xffff for every protocol. Not for bundles.
///
/// # Errors
///
/// The checksum would lie outside of the frame, which is left as it was.
pub fn finish_checksum(frame: &mut [u8], header: &VnetHeader) -> Result<(), BadOffload> {
    if header.checksum != ChecksumState::Needed {
        return Ok(());
    }
    let start = usize::from(header.csum_start);
    let at = start + usize::from(header.csum_offset);
    if at + 2 > frame.len() {
        return Err(BadOffload::ChecksumBeyond(at));
    }
    let checksum = nonzero(Sum::default().with(&frame[start..]).checksum());
    frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}

/// The other zero of ones' complement, where 0 means that there is no checksum.
pub(crate) fn nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Ip, Sample, octets, put};
    use proptest::prelude::*;

    #[test]
    fn golden_headers() {
        let bundle = VnetHeader {
            checksum: ChecksumState::Needed,
            gso: Some(GsoKind::TcpV4 { ecn: true }),
            hdr_len: 0x0102,
            gso_size: 0x0304,
            csum_start: 0x0506,
            csum_offset: 0x0708,
        };
        let fields = [0x0102_u16, 0x0304, 0x0506, 0x0708].map(u16::to_ne_bytes);
        let golden = [&[1, 0x81][..], fields.as_flattened()].concat();
        assert_eq!(bundle.write(), golden[..]);
        assert_eq!(VnetHeader::default().write(), [0; 10]);
        let valid = VnetHeader { checksum: ChecksumState::Valid, ..VnetHeader::default() };
        assert_eq!(valid.write(), [2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn kinds_of_bundles() {
        for (octet, kind) in [
            (0, None),
            (1, Some(GsoKind::TcpV4 { ecn: false })),
            (3, Some(GsoKind::Other(3))),
            (4, Some(GsoKind::TcpV6 { ecn: false })),
            (5, Some(GsoKind::UdpL4)),
            (0x80, Some(GsoKind::Other(0x80))),
            (0x84, Some(GsoKind::TcpV6 { ecn: true })),
            (0x85, Some(GsoKind::Other(0x85))),
        ] {
            assert_eq!(GsoKind::from_octet(octet), kind);
        }
    }

    /// A frame without its checksum, and its header.
    fn partial(sample: &Sample) -> (Vec<u8>, VnetHeader) {
        (sample.partial(), VnetHeader::parse(&sample.vnet(0)))
    }

    #[test]
    fn a_checksum_is_finished() {
        for ip in [Ip::V4, Ip::V6] {
            for sample in [Sample::tcp(ip, octets(77, 1)), Sample::udp(ip, octets(78, 2))] {
                let (mut frame, header) = partial(&sample);
                let known = VnetHeader { checksum: ChecksumState::Valid, ..header };
                assert_eq!(finish_checksum(&mut frame, &known), Ok(()));
                assert_eq!(frame, sample.partial());
                assert_eq!(finish_checksum(&mut frame, &header), Ok(()));
                assert_eq!(frame, sample.frame());
            }
        }
    }

    #[test]
    fn a_checksum_of_zero_is_written_as_ones() {
        let mut sample = Sample::udp(Ip::V4, vec![0; 2]);
        let checksum = u16::from_be_bytes(*sample.frame()[sample.checksum_at()..].first_chunk().unwrap());
        put(&mut sample.payload, 0, checksum);
        let mut golden = sample.frame();
        assert_eq!(golden[40..42], [0, 0]);
        golden[40..42].fill(0xff);
        let (mut frame, header) = partial(&sample);
        assert_eq!(finish_checksum(&mut frame, &header), Ok(()));
        assert_eq!(frame, golden);
    }

    #[test]
    fn a_checksum_lies_within_its_frame() {
        let sample = Sample::udp(Ip::V4, vec![]);
        let (frame, header) = partial(&sample);
        assert_eq!(frame.len(), 42);
        assert_eq!(finish_checksum(&mut frame.clone(), &header), Ok(()));
        let mut short = frame[..41].to_vec();
        let beyond = Err(BadOffload::ChecksumBeyond(40));
        assert_eq!(finish_checksum(&mut short, &header), beyond);
        assert_eq!(short, frame[..41]);
        let far = VnetHeader { csum_start: u16::MAX, csum_offset: u16::MAX, ..header };
        assert_eq!(finish_checksum(&mut short, &far), Err(BadOffload::ChecksumBeyond(131_070)));
        let last = VnetHeader { csum_start: 39, csum_offset: 0, ..header };
        assert_eq!(finish_checksum(&mut short, &last), Ok(()));
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_again(octets: [u8; VNET_LEN]) {
            let header = VnetHeader::parse(&octets);
            prop_assert_eq!(VnetHeader::parse(&header.write()), header);
            prop_assert_eq!(&header.write()[1..], &octets[1..]);
        }

        #[test]
        fn no_header_panics(octets: [u8; VNET_LEN], mut frame in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut header = VnetHeader::parse(&octets);
            header.checksum = ChecksumState::Needed;
            let before = frame.clone();
            if finish_checksum(&mut frame, &header).is_err() {
                prop_assert_eq!(&frame, &before);
            }
            (header.csum_start, header.csum_offset) = (header.csum_start % 128, header.csum_offset % 32);
            let at = usize::from(header.csum_start + header.csum_offset);
            let fits = at + 2 <= before.len();
            prop_assert_eq!(finish_checksum(&mut before.clone(), &header).is_ok(), fits);
        }
    }
}
