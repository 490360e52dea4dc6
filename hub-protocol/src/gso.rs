//! Bundles: one frame that stands for several (generic segmentation offload).
//!
//! A host that may leave segmentation to others passes on one frame with all of its headers once and
//! up to 64 KiB of payload, and says in a [`VnetHeader`] how it is to be cut. [`Gso::segment`] cuts it
//! as Linux would (`tcp_gso_segment`, `__udp_gso_segment`, `inet_gso_segment`, `ipv6_gso_segment`):
//!
//! * IPv4: own lengths and header checksums; the identification counts up.
//! * TCP: sequence numbers go on; FIN and PSH are left to the last segment, CWR to the first.
//! * UDP: own lengths; a checksum of 0 becomes 0xffff.
//! * Every checksum is made anew.

use crate::checksum::Sum;
use crate::ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use crate::octets::{put_length, put_u16, put_u32, u16_at, u32_at};
use crate::stream::{MAX_FRAME, PREFIX_LEN};
use crate::vnet::{BadOffload, ChecksumState, GsoKind, VnetHeader, nonzero};

pub(crate) const IPV4_LEN: usize = 20;
pub(crate) const IPV6_LEN: usize = 40;
pub(crate) const TCP_LEN: usize = 20;
const UDP_LEN: usize = 8;

/// Do not fragment, among the flags and the offset of fragments.
pub(crate) const IPV4_DF: u16 = 0x4000;

const HOP_BY_HOP: u8 = 0;
pub(crate) const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;

const FLAG_FIN: u8 = 0x01;
pub(crate) const FLAG_PSH: u8 = 0x08;
const FLAG_CWR: u8 = 0x80;

/// What the payload of a bundle travels in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Segments of a stream.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// Where its checksum is, from its header.
    const fn checksum_offset(self) -> u16 {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V4(Numbering),
    V6,
}

/// Identifications of IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbering {
    Consecutive,
    /// All the same, as some hosts have it where nothing is ever fragmented (RFC 6864 4.1).
    Constant,
}

/// Where the pseudo-header comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pseudo {
    /// The addresses of the IP header.
    Addresses,
    /// A routing header or an option may mean other addresses: the sum that the sender left in the
    /// place of the checksum, less the length of the bundle.
    Field,
}

/// How to cut a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    pub(crate) protocol: Protocol,
    pub(crate) version: Version,
    pub(crate) pseudo: Pseudo,
    /// Where the IP header begins.
    pub(crate) network: u16,
    /// Where the transport header begins.
    pub(crate) transport: u16,
    /// Where the payload begins.
    pub(crate) header_len: u16,
    /// Octets of payload in every segment but the last; not 0.
    pub(crate) size: u16,
    pub(crate) ecn: bool,
}

impl Gso {
    /// Checks that `frame` is the bundle that `header` says, and finds its headers. Nothing that either
    /// says is trusted.
    ///
    /// # Errors
    ///
    /// It is not, or it cannot be cut into frames that anybody takes.
    pub fn parse(frame: &[u8], header: &VnetHeader) -> Result<Self, BadOffload> {
        let kind = header.gso.ok_or(BadOffload::Kind(0))?;
        let (protocol, ecn) = match kind {
            GsoKind::TcpV4 { ecn } | GsoKind::TcpV6 { ecn } => (Protocol::Tcp, ecn),
            GsoKind::UdpL4 => (Protocol::Udp, false),
            GsoKind::Other(octet) => return Err(BadOffload::Kind(octet)),
        };
        if header.checksum != ChecksumState::Needed || header.csum_offset != protocol.checksum_offset() {
            return Err(BadOffload::ChecksumPlace(kind));
        }
        let transport = header.csum_start;
        let (version, network, pseudo) = find_network(frame, kind, transport)?;
        let header_len = find_payload(frame, protocol, transport)?;
        let size = header.gso_size;
        let gso = Self { protocol, version, pseudo, network, transport, header_len, size, ecn };
        if size == 0 || !gso.fits(frame) {
            return Err(BadOffload::Size(size));
        }
        Ok(gso)
    }

    /// Can IP and we say the length of every segment?
    fn fits(&self, frame: &[u8]) -> bool {
        let longest = self.longest(frame);
        let uncounted = match self.version {
            Version::V4(_) => 0,
            Version::V6 => IPV6_LEN,
        };
        longest <= MAX_FRAME && u16::try_from(longest - usize::from(self.network) - uncounted).is_ok()
    }

    /// What the payload travels in.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// How many frames the bundle `frame` stands for: at least one, and at most as many as it has
    /// octets of payload.
    pub fn segments(&self, frame: &[u8]) -> usize {
        self.payload_len(frame).div_ceil(usize::from(self.size))
    }

    /// Octets of the longest of them.
    pub fn longest(&self, frame: &[u8]) -> usize {
        usize::from(self.header_len) + self.payload_len(frame).min(usize::from(self.size))
    }

    /// Octets of all of them together.
    pub fn octets(&self, frame: &[u8]) -> usize {
        self.segments(frame) * usize::from(self.header_len) + self.payload_len(frame)
    }

    fn payload_len(&self, frame: &[u8]) -> usize {
        frame.len().saturating_sub(self.header_len.into())
    }

    /// The header that goes with the bundle as a whole.
    pub fn header(&self) -> VnetHeader {
        VnetHeader {
            checksum: ChecksumState::Needed,
            gso: Some(match (self.protocol, self.version) {
                (Protocol::Tcp, Version::V4(_)) => GsoKind::TcpV4 { ecn: self.ecn },
                (Protocol::Tcp, Version::V6) => GsoKind::TcpV6 { ecn: self.ecn },
                (Protocol::Udp, _) => GsoKind::UdpL4,
            }),
            hdr_len: self.header_len,
            gso_size: self.size,
            csum_start: self.transport,
            csum_offset: self.protocol.checksum_offset(),
        }
    }

    /// Appends what the bundle `frame`, the same that was parsed, stands for to `out`: complete frames,
    /// as records of a [stream](crate::stream).
    ///
    /// `out` grows by [`octets`](Self::octets) and the prefixes of [`segments`](Self::segments) records.
    /// Whoever calls this bounds that first: a hostile size of 1 makes a frame of every octet of
    /// payload, some 5 MB out of 64 KiB.
    pub fn segment(&self, frame: &[u8], out: &mut Vec<u8>) {
        out.reserve(self.octets(frame) + self.segments(frame) * PREFIX_LEN);
        self.cut(frame, usize::MAX, out);
    }

    /// Appends the first of what [`segment`](Self::segment) appends.
    pub fn segment_first(&self, frame: &[u8], out: &mut Vec<u8>) {
        self.cut(frame, 1, out);
    }

    /// Appends up to `segments` of the frames that `frame` stands for.
    fn cut(&self, frame: &[u8], segments: usize, out: &mut Vec<u8>) {
        let Some((header, payload)) = frame.split_at_checked(self.header_len.into()) else { return };
        let mut cutter = Cutter::new(self, frame);
        let mut pieces = payload.chunks(self.size.into()).peekable();
        for _ in 0..segments {
            let Some(piece) = pieces.next() else { break };
            let length = u32::try_from(header.len() + piece.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&length.to_be_bytes());
            let start = out.len();
            out.extend_from_slice(header);
            out.extend_from_slice(piece);
            // Its octets are summed here, while they are in the cache.
            cutter.complete(&mut out[start..], pieces.peek().is_none());
        }
    }

    /// The sum of the pseudo-header of the bundle `frame`, but for its length.
    pub(crate) fn pseudo_sum(&self, frame: &[u8]) -> Sum {
        let (network, transport) = (usize::from(self.network), usize::from(self.transport));
        let addresses = match (self.pseudo, self.version) {
            (Pseudo::Addresses, Version::V4(_)) => network + 12..network + IPV4_LEN,
            (Pseudo::Addresses, Version::V6) => network + 8..network + IPV6_LEN,
            (Pseudo::Field, _) => {
                let left = u16_at(frame, transport + usize::from(self.protocol.checksum_offset()));
                let length = u32::try_from(frame.len() - transport).unwrap_or(u32::MAX);
                return Sum::default().with_word(left).with_u32(!length);
            }
        };
        Sum::pseudo_header(&frame[addresses], self.protocol.number())
    }
}

/// Finds the IP header in front of the transport header, and what its addresses are good for.
fn find_network(frame: &[u8], kind: GsoKind, transport: u16) -> Result<(Version, u16, Pseudo), BadOffload> {
    let (at, ethertype) = ethernet::payload(frame).ok_or(BadOffload::NoPayload(frame.len()))?;
    let bad = BadOffload::Network(ethertype);
    let network = u16::try_from(at).map_err(|_| bad)?;
    let packet = frame.get(at..).ok_or(bad)?;
    let (version, headers) = match ethertype {
        ETHERTYPE_IPV4 => (Version::V4(Numbering::Consecutive), ipv4_header(packet)),
        ETHERTYPE_IPV6 => (Version::V6, ipv6_headers(packet)),
        _ => return Err(bad),
    };
    let (next, header_len, pseudo) = headers.ok_or(bad)?;
    match (kind, version, next) {
        (GsoKind::TcpV4 { .. }, Version::V4(_), TCP)
        | (GsoKind::TcpV6 { .. }, Version::V6, TCP)
        | (GsoKind::UdpL4, _, UDP) => {}
        _ => return Err(bad),
    }
    if at + header_len != usize::from(transport) {
        return Err(BadOffload::Transport(transport));
    }
    Ok((version, network, pseudo))
}

/// What follows an IPv4 header, and the header's length; `None` for a fragment.
fn ipv4_header(packet: &[u8]) -> Option<(u8, usize, Pseudo)> {
    let header = packet.first_chunk::<IPV4_LEN>()?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || header_len < IPV4_LEN || u16_at(header, 6) & !IPV4_DF != 0 {
        return None;
    }
    let pseudo = if header_len == IPV4_LEN { Pseudo::Addresses } else { Pseudo::Field };
    Some((header[9], header_len, pseudo))
}

/// What follows an IPv6 header and those extension headers that Linux segments behind, and their
/// length.
fn ipv6_headers(packet: &[u8]) -> Option<(u8, usize, Pseudo)> {
    let header = packet.first_chunk::<IPV6_LEN>()?;
    let (mut next, mut at, mut pseudo) = (header[6], IPV6_LEN, Pseudo::Addresses);
    while let HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS = next {
        if next != HOP_BY_HOP {
            pseudo = Pseudo::Field;
        }
        let &[behind, units] = packet.get(at..)?.first_chunk()?;
        (next, at) = (behind, at + (usize::from(units) + 1) * 8);
    }
    (header[0] >> 4 == 6).then_some((next, at, pseudo))
}

/// Where the payload begins; there has to be some.
fn find_payload(frame: &[u8], protocol: Protocol, transport: u16) -> Result<u16, BadOffload> {
    let segment = frame.get(usize::from(transport)..).unwrap_or_default();
    let header_len = match protocol {
        Protocol::Tcp => {
            let said = segment.get(12).ok_or(BadOffload::NoPayload(frame.len()))? >> 4;
            if usize::from(said) * 4 < TCP_LEN {
                return Err(BadOffload::Transport(transport));
            }
            usize::from(said) * 4
        }
        Protocol::Udp => UDP_LEN,
    };
    if segment.len() <= header_len {
        return Err(BadOffload::NoPayload(frame.len()));
    }
    u16::try_from(usize::from(transport) + header_len).map_err(|_| BadOffload::Transport(transport))
}

/// What differs between the segments of a bundle.
struct Cutter<'a> {
    gso: &'a Gso,
    pseudo: Sum,
    identification: u16,
    sequence: u32,
    is_first: bool,
}

impl<'a> Cutter<'a> {
    fn new(gso: &'a Gso, frame: &[u8]) -> Self {
        Self {
            gso,
            pseudo: gso.pseudo_sum(frame),
            identification: u16_at(frame, usize::from(gso.network) + 4),
            sequence: u32_at(frame, usize::from(gso.transport) + 4),
            is_first: true,
        }
    }

    /// Turns the headers of the bundle, in front of a piece of its payload, into those of the next
    /// segment.
    fn complete(&mut self, segment: &mut [u8], is_last: bool) {
        let packet = &mut segment[usize::from(self.gso.network)..];
        let total = packet.len();
        let (ip, rest) = packet.split_at_mut(usize::from(self.gso.transport - self.gso.network));
        match self.gso.version {
            Version::V4(numbering) => {
                put_u16(ip, 4, self.identification);
                if numbering == Numbering::Consecutive {
                    self.identification = self.identification.wrapping_add(1);
                }
                write_ipv4_length(ip, total);
            }
            Version::V6 => put_length(ip, 4, total - IPV6_LEN),
        }
        match self.gso.protocol {
            Protocol::Tcp => {
                self.complete_tcp(rest, is_last);
                put_u16(rest, 16, 0);
                put_u16(rest, 16, self.sum(rest).checksum());
            }
            Protocol::Udp => {
                put_length(rest, 4, rest.len());
                put_u16(rest, 6, 0);
                put_u16(rest, 6, nonzero(self.sum(rest).checksum()));
            }
        }
        self.is_first = false;
    }

    fn complete_tcp(&mut self, segment: &mut [u8], is_last: bool) {
        put_u32(segment, 4, self.sequence);
        self.sequence = self.sequence.wrapping_add(self.gso.size.into());
        if !is_last {
            segment[13] &= !(FLAG_FIN | FLAG_PSH);
        }
        if !self.is_first {
            segment[13] &= !FLAG_CWR;
        }
    }

    fn sum(&self, segment: &[u8]) -> Sum {
        self.pseudo.with_u32(u32::try_from(segment.len()).unwrap_or(u32::MAX)).with(segment)
    }
}

/// Writes the total length, and the checksum, of an IPv4 header.
pub(crate) fn write_ipv4_length(header: &mut [u8], total: usize) {
    put_length(header, 2, total);
    put_u16(header, 10, 0);
    put_u16(header, 10, Sum::default().with(header).checksum());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{self, ACK, CWR, FIN, Ip, PSH, Sample, octets, put};
    use crate::stream;
    use crate::vnet::VNET_LEN;
    use proptest::prelude::*;

    const NOPS: [u8; 12] = [1; 12];

    fn bundle(sample: &Sample, size: u16) -> (Vec<u8>, VnetHeader) {
        (sample.partial(), VnetHeader::parse(&sample.vnet(size)))
    }

    fn parsed(sample: &Sample, size: u16) -> (Vec<u8>, Gso) {
        let (frame, header) = bundle(sample, size);
        let gso = Gso::parse(&frame, &header).unwrap();
        (frame, gso)
    }

    fn segments(gso: &Gso, frame: &[u8]) -> Vec<Vec<u8>> {
        let mut out = b"kept".to_vec();
        gso.segment(frame, &mut out);
        let (kept, records) = out.split_at(4);
        assert_eq!(kept, b"kept");
        assert_eq!(records.len(), gso.octets(frame) + 4 * gso.segments(frame));
        let segments: Vec<_> = stream::frames(records).map(<[u8]>::to_vec).collect();
        assert_eq!(segments.len(), gso.segments(frame));
        assert_eq!(segments.iter().map(Vec::len).max(), Some(gso.longest(frame)));
        segments
    }

    fn refusal(frame: &[u8], header: &VnetHeader) -> BadOffload {
        Gso::parse(frame, header).unwrap_err()
    }

    #[test]
    fn golden_segments() {
        let sample = Sample { flags: ACK | PSH | FIN | CWR, ..Sample::tcp(Ip::V4, b"abcde".to_vec()) };
        let (frame, gso) = parsed(&sample, 2);
        assert_eq!((gso.protocol(), gso.header_len), (Protocol::Tcp, 54));
        let segments = segments(&gso, &frame);
        let ip = |segment: usize| &segments[segment][14..26];
        assert_eq!(ip(0), [0x45, 2, 0, 42, 0, 7, 0x40, 0, 63, 6, 0x27, 0x29]);
        assert_eq!(ip(1), [0x45, 2, 0, 42, 0, 8, 0x40, 0, 63, 6, 0x27, 0x28]);
        assert_eq!(ip(2), [0x45, 2, 0, 41, 0, 9, 0x40, 0, 63, 6, 0x27, 0x28]);
        let rest =
            |segment: usize| (&segments[segment][38..42], segments[segment][47], &segments[segment][54..]);
        assert_eq!(rest(0), (&[1, 2, 3, 4][..], 0x90, &b"ab"[..]));
        assert_eq!(rest(1), (&[1, 2, 3, 6][..], 0x10, &b"cd"[..]));
        assert_eq!(rest(2), (&[1, 2, 3, 8][..], 0x19, &b"e"[..]));
        assert_eq!(segments, sample.cut(2));
    }

    #[test]
    fn all_headers_in_front_are_kept() {
        for sample in [
            Sample { tags: vec![5, 6, 7], ..Sample::tcp(Ip::V4, octets(3000, 1)) },
            Sample { options: NOPS.to_vec(), ..Sample::tcp(Ip::V6, octets(3001, 2)) },
            Sample { ip_options: vec![1; 8], ..Sample::tcp(Ip::V4, octets(3002, 3)) },
            Sample { extensions: vec![0, 60, 43], tags: vec![1], ..Sample::tcp(Ip::V6, octets(3003, 4)) },
            Sample { extensions: vec![0], ..Sample::udp(Ip::V6, octets(3004, 5)) },
            Sample { ip_options: vec![1; 40], ..Sample::udp(Ip::V4, octets(3005, 6)) },
        ] {
            let (frame, gso) = parsed(&sample, 1000);
            assert_eq!(segments(&gso, &frame), sample.cut(1000));
            assert_eq!(gso.header().write(), sample.vnet(1000));
        }
    }

    #[test]
    fn counters_wrap() {
        let sample = Sample::tcp(Ip::V4, octets(50, 1));
        let sample = Sample { identification: 0xfffe, sequence: 0xffff_fff0, ..sample };
        let (frame, gso) = parsed(&sample, 10);
        assert_eq!(segments(&gso, &frame), sample.cut(10));
    }

    #[test]
    fn the_checksum_field_is_not_trusted_where_the_addresses_are_known() {
        let sample = Sample::tcp(Ip::V6, octets(100, 1));
        let (mut frame, gso) = parsed(&sample, 60);
        put(&mut frame, sample.checksum_at(), 0xabcd);
        assert_eq!(segments(&gso, &frame), sample.cut(60));
    }

    #[test]
    fn the_checksum_field_says_where_a_route_ends() {
        let v4 = Sample { ip_options: vec![1; 4], ..Sample::tcp(Ip::V4, octets(100, 1)) };
        let v6 = |number| Sample { extensions: vec![number], ..Sample::tcp(Ip::V6, octets(100, 1)) };
        for (sample, destination) in [(v4, 30), (v6(43), 38), (v6(60), 38)] {
            // The next hop is another address than the last, which the sum is for.
            let reroute = |frame: &mut [u8]| {
                frame[destination + 3] ^= 0xff;
                if sample.ip == Ip::V4 {
                    put(frame, 24, 0);
                    let checksum = !sample::sum(&frame[14..sample.transport()]);
                    put(frame, 24, checksum);
                }
            };
            let (mut frame, gso) = parsed(&sample, 60);
            reroute(&mut frame);
            let mut expected = sample.cut(60);
            expected.iter_mut().for_each(|frame| reroute(frame));
            assert_eq!(segments(&gso, &frame), expected);
        }
    }

    #[test]
    fn a_datagram_has_a_checksum_even_if_it_is_zero() {
        let mut sample = Sample::udp(Ip::V6, vec![0; 20]);
        let at = sample.checksum_at();
        let checksum = u16::from_be_bytes(*sample.cut(10)[1][at..].first_chunk().unwrap());
        put(&mut sample.payload, 10, checksum);
        let (frame, gso) = parsed(&sample, 10);
        assert_eq!(segments(&gso, &frame)[1][at..at + 2], [0xff, 0xff]);
        assert_eq!(segments(&gso, &frame), sample.cut(10));
    }

    #[test]
    fn a_segment_of_tcp_may_have_a_checksum_of_zero() {
        let mut sample = Sample::tcp(Ip::V4, vec![0; 20]);
        let at = sample.checksum_at();
        let checksum = u16::from_be_bytes(*sample.cut(10)[0][at..].first_chunk().unwrap());
        put(&mut sample.payload, 0, checksum);
        let (frame, gso) = parsed(&sample, 10);
        assert_eq!(segments(&gso, &frame)[0][at..at + 2], [0, 0]);
        assert_eq!(segments(&gso, &frame), sample.cut(10));
    }

    #[test]
    fn one_segment_is_a_bundle_and_none_is_not() {
        let sample = Sample::tcp(Ip::V4, octets(10, 1));
        for (size, count) in [(9, 2), (10, 1), (11, 1), (u16::MAX, 1), (1, 10)] {
            let (frame, gso) = parsed(&sample, size);
            assert_eq!(gso.segments(&frame), count);
            assert_eq!(segments(&gso, &frame), sample.cut(size));
        }
        let (frame, header) = bundle(&sample, 0);
        assert_eq!(refusal(&frame, &header), BadOffload::Kind(0));
        let empty = VnetHeader { gso: Some(GsoKind::TcpV4 { ecn: false }), ..header };
        assert_eq!(refusal(&frame, &empty), BadOffload::Size(0));

        let (frame, header) = bundle(&sample, 5);
        for len in 0..54 {
            Gso::parse(&frame[..len], &header).unwrap_err();
        }
        assert_eq!(refusal(&frame[..54], &header), BadOffload::NoPayload(54));
        Gso::parse(&frame[..55], &header).unwrap();
    }

    #[test]
    fn a_bundle_is_what_its_kind_says() {
        let tcp4 = GsoKind::TcpV4 { ecn: false };
        let tcp6 = GsoKind::TcpV6 { ecn: false };
        let (frame, header) = bundle(&Sample::tcp(Ip::V4, octets(10, 1)), 5);
        let with = |gso| VnetHeader { gso: Some(gso), ..header };
        assert_eq!(refusal(&frame, &with(tcp6)), BadOffload::Network(0x0800));
        assert_eq!(refusal(&frame, &with(GsoKind::UdpL4)), BadOffload::ChecksumPlace(GsoKind::UdpL4));
        assert_eq!(refusal(&frame, &with(GsoKind::Other(3))), BadOffload::Kind(3));
        let udp = VnetHeader { csum_offset: 6, ..with(GsoKind::UdpL4) };
        assert_eq!(refusal(&frame, &udp), BadOffload::Network(0x0800));
        let whole = VnetHeader { checksum: ChecksumState::Valid, ..header };
        assert_eq!(refusal(&frame, &whole), BadOffload::ChecksumPlace(tcp4));

        for (at, octet) in [(14, 0x65), (14, 0x44), (20, 0x20), (21, 1), (20, 0x80), (23, 17)] {
            let mut frame = frame.clone();
            frame[at] = octet;
            assert_eq!(refusal(&frame, &header), BadOffload::Network(0x0800), "octet {at}");
        }
        let mut other = frame.clone();
        other[12] = 9;
        assert_eq!(refusal(&other, &header), BadOffload::Network(0x0900));

        let (frame, header) = bundle(&Sample::tcp(Ip::V6, octets(10, 1)), 5);
        assert_eq!(refusal(&frame, &VnetHeader { gso: Some(tcp4), ..header }), BadOffload::Network(0x86dd));
        for (at, octet) in [(14, 0x45), (20, 44), (20, 17)] {
            let mut frame = frame.clone();
            frame[at] = octet;
            assert_eq!(refusal(&frame, &header), BadOffload::Network(0x86dd), "octet {at}");
        }
    }

    #[test]
    fn the_transport_header_is_where_both_say() {
        for sample in [Sample::tcp(Ip::V4, octets(10, 1)), Sample::tcp(Ip::V6, octets(10, 1))] {
            let (mut frame, header) = bundle(&sample, 5);
            for csum_start in [0, header.csum_start - 1, header.csum_start + 1, u16::MAX] {
                let header = VnetHeader { csum_start, ..header };
                assert_eq!(refusal(&frame, &header), BadOffload::Transport(csum_start));
            }
            frame[sample.transport() + 12] = 0x40;
            assert_eq!(refusal(&frame, &header), BadOffload::Transport(header.csum_start));
            frame[sample.transport() + 12] = 0x50;
            Gso::parse(&frame, &header).unwrap();
        }
    }

    #[test]
    fn segments_are_no_longer_than_ip_can_say() {
        let v4 = Sample::tcp(Ip::V4, octets(70_000 - 54, 1));
        let v6 = Sample::tcp(Ip::V6, octets(70_000 - 74, 1));
        for (sample, longest) in [(v4, 65_535 - 40), (v6, 65_535 - 20)] {
            let mut small = sample.clone();
            small.payload.truncate(10);
            let (mut frame, mut header) = bundle(&small, longest);
            frame.extend(&sample.payload[10..]);
            let gso = Gso::parse(&frame, &header).unwrap();
            assert_eq!(segments(&gso, &frame).len(), 2);
            header.gso_size += 1;
            assert_eq!(refusal(&frame, &header), BadOffload::Size(longest + 1));
        }
        // A header that leaves no room for the rest in a record.
        let tags = vec![1; (MAX_FRAME - 65_535) / 4];
        let mut sample = Sample { tags, ..Sample::tcp(Ip::V6, octets(65_515, 1)) };
        let (frame, header) = bundle(&sample, u16::MAX);
        assert_eq!(refusal(&frame, &header), BadOffload::Size(u16::MAX));
        sample.payload.truncate(MAX_FRAME - sample.header_len());
        let (frame, header) = bundle(&sample, u16::MAX);
        assert_eq!(frame.len(), MAX_FRAME);
        Gso::parse(&frame, &header).unwrap();
    }

    prop_compose! {
        fn any_sample()(
            (is_v4, is_udp) in any::<(bool, bool)>(),
            tags in prop::collection::vec(0_u16..4096, 0..3),
            (ip_words, words) in (0_usize..11, 0_usize..11),
            extensions in prop::collection::vec(prop::sample::select(vec![0_u8, 43, 60]), 0..3),
            (identification, sequence, flags) in any::<(u16, u32, u8)>(),
            payload in prop::collection::vec(any::<u8>(), 1..3000),
        ) -> Sample {
            let ip = if is_v4 { Ip::V4 } else { Ip::V6 };
            let ip_options = vec![1; if is_v4 { ip_words * 4 } else { 0 }];
            let options = vec![1; if is_udp { 0 } else { words * 4 }];
            let extensions = if is_v4 { vec![] } else { extensions };
            let sample = Sample { is_udp, tags, ip_options, extensions, options, ..Sample::tcp(ip, payload) };
            Sample { identification, sequence, flags: if is_udp { 0 } else { flags }, ..sample }
        }
    }

    proptest! {
        #[test]
        fn any_bundle_is_cut_by_the_rules(sample in any_sample(), size in 1_u16..2000) {
            let (frame, gso) = parsed(&sample, size);
            prop_assert_eq!(segments(&gso, &frame), sample.cut(size));
            prop_assert_eq!(gso.header().write(), sample.vnet(size));
        }

        #[test]
        fn no_octets_panic(
            sample in any_sample(),
            size: u16,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            vnet in prop::option::of(any::<[u8; VNET_LEN]>()),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut all = [&sample.vnet(size)[..], &sample.partial()].concat();
            for (at, octet) in changes {
                *at.get_mut(&mut all) = octet;
            }
            all.truncate(VNET_LEN + cut.index(all.len()));
            let (said, frame) = all.split_first_chunk().unwrap_or((&[0; VNET_LEN], &[]));
            let header = VnetHeader::parse(&vnet.unwrap_or(*said));
            if let Ok(gso) = Gso::parse(frame, &header) {
                segments(&gso, frame);
                prop_assert_eq!(Gso::parse(frame, &gso.header()), Ok(gso));
            }
        }
    }

    #[test]
    fn the_samples_sum_to_ones() {
        let frame = Sample::tcp(Ip::V4, octets(10, 1)).frame();
        assert_eq!(sample::sum(&frame[14..34]), 0xffff);
    }
}
