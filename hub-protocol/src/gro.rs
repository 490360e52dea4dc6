//! The reverse of [`gso`](crate::gso): a run of ordinary TCP segments, joined to one bundle for a host
//! that takes such (generic receive offload).
//!
//! The rules are those of Linux (`tcp_gro_receive`, `inet_gro_receive`, `ipv6_gro_receive`), and
//! stricter in that a bundle always cuts into exactly the frames it was made of: segments of one flow
//! that follow each other, alike in every octet of their headers but for what the next one must have
//! there. Every checksum is verified first, as the bundle gets a new one. A kernel that cuts a bundle
//! counts identifications up even where all were the same; RFC 6864 allows that where nothing is
//! fragmented.

use std::ops::Range;

use crate::checksum::Sum;
use crate::ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, TAG_LEN};
use crate::gso::{
    FLAG_PSH, Gso, IPV4_DF, IPV4_LEN, IPV6_LEN, Numbering, Protocol, Pseudo, TCP, TCP_LEN, Version,
    write_ipv4_length,
};
use crate::octets::{put_length, put_u16, u16_at, u32_at};
use crate::stream::{self, PREFIX_LEN};
use crate::vnet::VnetHeader;

/// How many frames a bundle is made of at the most.
pub const FRAMES_MAX: usize = 64;

/// Octets of IP in a bundle at the most: what IPv4 can say.
const PACKET_MAX: usize = 65_535;

const NETWORK_MAX: usize = ethernet::HEADER_LEN + 2 * TAG_LEN;
const HEADER_MAX: usize = NETWORK_MAX + IPV6_LEN + 60;

const FLAG_ACK: u8 = 0x10;

/// A run of records, joined.
#[derive(Clone, Copy, Debug)]
pub struct Coalesced {
    gso: Gso,
    header: [u8; HEADER_MAX],
    frames: usize,
    octets: usize,
}

impl Coalesced {
    /// How many records it is made of; two or more.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Octets of these records, prefixes included.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// How it is cut.
    pub fn gso(&self) -> Gso {
        self.gso
    }

    /// What goes in front of it.
    pub fn vnet(&self) -> VnetHeader {
        self.gso.header()
    }

    /// All headers of the bundle, Ethernet to TCP; its [`payloads`](Self::payloads) follow them.
    pub fn header(&self) -> &[u8] {
        &self.header[..usize::from(self.gso.header_len)]
    }

    /// The payloads of the bundle, from the same `records` that it was made of.
    pub fn payloads<'r>(&self, records: &'r [u8]) -> impl Iterator<Item = &'r [u8]> + use<'r> {
        let header_len = usize::from(self.gso.header_len);
        let records = records.get(..self.octets).unwrap_or(records);
        stream::frames(records).filter_map(move |frame| frame.get(header_len..))
    }
}

/// Joins the longest run of records at the start of `records` that one bundle can stand for; `None` if
/// that is not even two.
pub fn coalesce(records: &[u8]) -> Option<Coalesced> {
    let mut frames = stream::frames(records);
    let (first, second) = (frames.next()?, frames.next()?);
    let mut run = Run::start(first)?;
    // Payloads are looked at last: what has nothing to be joined with costs little.
    if !run.leads_to(second) || !run.is_sound(first) || !run.is_sound(second) {
        return None;
    }
    run.take(second);
    for frame in frames {
        if run.is_complete() || !run.leads_to(frame) || !run.is_sound(frame) {
            break;
        }
        run.take(frame);
    }
    Some(run.join())
}

/// The run so far.
struct Run<'r> {
    first: &'r [u8],
    gso: Gso,
    /// The sum of the pseudo-header of each, but for the length.
    pseudo: Sum,
    frames: u16,
    /// Octets of records.
    octets: usize,
    /// Octets of payload.
    payload_len: usize,
    /// Those of the last frame.
    flags: u8,
}

impl<'r> Run<'r> {
    /// Begins with `first`, if that is a segment of TCP that another may follow.
    fn start(first: &'r [u8]) -> Option<Self> {
        let (network, ethertype) = ethernet::payload(first)?;
        let packet = first.get(network..)?;
        let (version, ip_len) = match ethertype {
            ETHERTYPE_IPV4 => (Version::V4(Numbering::Consecutive), IPV4_LEN),
            ETHERTYPE_IPV6 => (Version::V6, IPV6_LEN),
            _ => return None,
        };
        if network > NETWORK_MAX || packet.len() < ip_len + TCP_LEN {
            return None;
        }
        let (ip, segment) = packet.split_at(ip_len);
        let carries_tcp = match version {
            Version::V4(_) => ip[0] == 0x45 && u16_at(ip, 6) & !IPV4_DF == 0 && ip[9] == TCP,
            Version::V6 => ip[0] >> 4 == 6 && ip[6] == TCP,
        };
        // Behind the length of the header are bits of the future, one of them a flag by now.
        let tcp_len = usize::from(segment[12] >> 4) * 4;
        let is_bulk = segment[13] == FLAG_ACK && segment[12] & 0x0f == 0;
        if !carries_tcp || !is_bulk || tcp_len < TCP_LEN || segment.len() <= tcp_len {
            return None;
        }
        let gso = Gso {
            protocol: Protocol::Tcp,
            version,
            pseudo: Pseudo::Addresses,
            network: u16::try_from(network).ok()?,
            transport: u16::try_from(network + ip_len).ok()?,
            header_len: u16::try_from(network + ip_len + tcp_len).ok()?,
            size: u16::try_from(segment.len() - tcp_len).ok()?,
            ecn: false,
        };
        says_its_length(&gso, first).then(|| Self {
            first,
            gso,
            pseudo: gso.pseudo_sum(first),
            frames: 1,
            octets: PREFIX_LEN + first.len(),
            payload_len: usize::from(gso.size),
            flags: FLAG_ACK,
        })
    }

    /// Does `frame` continue the run, by its headers and its length? The second frame says how they are
    /// numbered.
    fn leads_to(&mut self, frame: &[u8]) -> bool {
        let (network, header_len) = (usize::from(self.gso.network), usize::from(self.gso.header_len));
        frame.len() > header_len
            && frame.len() <= self.first.len()
            && frame.len() + self.payload_len <= network + PACKET_MAX
            && self.first[..network] == frame[..network]
            && says_its_length(&self.gso, frame)
            && self.leads_to_ip(&frame[network..])
            && self.leads_to_tcp(&frame[usize::from(self.gso.transport)..header_len])
    }

    fn leads_to_ip(&mut self, packet: &[u8]) -> bool {
        let first = &self.first[usize::from(self.gso.network)..];
        let is_alike = |octets: Range<usize>| first[octets.clone()] == packet[octets];
        let Version::V4(numbering) = self.gso.version else {
            return is_alike(0..4) && is_alike(6..IPV6_LEN);
        };
        // Only what is never fragmented may have one identification for all.
        let numbering = match u16_at(packet, 4).wrapping_sub(u16_at(first, 4)) {
            0 if self.frames == 1 && u16_at(first, 6) & IPV4_DF != 0 => Numbering::Constant,
            0 if numbering == Numbering::Constant => Numbering::Constant,
            step if numbering == Numbering::Consecutive && step == self.frames => numbering,
            _ => return false,
        };
        self.gso.version = Version::V4(numbering);
        is_alike(0..2) && is_alike(6..10) && is_alike(12..IPV4_LEN)
    }

    fn leads_to_tcp(&self, header: &[u8]) -> bool {
        let first = &self.first[usize::from(self.gso.transport)..];
        let is_alike = |octets: Range<usize>| first[octets.clone()] == header[octets];
        let distance = u32_at(header, 4).wrapping_sub(u32_at(first, 4));
        usize::try_from(distance).is_ok_and(|distance| distance == self.payload_len)
            && header[13] & !FLAG_PSH == FLAG_ACK
            && is_alike(0..4)
            && is_alike(8..13)
            && is_alike(14..16)
            && is_alike(18..header.len())
    }

    /// Are the checksums of `frame` right, and what would be made of them again?
    fn is_sound(&self, frame: &[u8]) -> bool {
        let (packet, segment) =
            (&frame[usize::from(self.gso.network)..], &frame[self.gso.transport.into()..]);
        let has_sound_ip = match self.gso.version {
            Version::V4(_) => is_right(Sum::default().with(&packet[..IPV4_LEN]), u16_at(packet, 10)),
            Version::V6 => true,
        };
        let length = u32::try_from(segment.len()).unwrap_or(u32::MAX);
        has_sound_ip && is_right(self.pseudo.with_u32(length).with(segment), u16_at(segment, 16))
    }

    fn take(&mut self, frame: &[u8]) {
        self.frames += 1;
        self.octets += PREFIX_LEN + frame.len();
        self.payload_len += frame.len() - usize::from(self.gso.header_len);
        self.flags = frame[usize::from(self.gso.transport) + 13];
    }

    /// Can nothing follow: was the last frame a short one, or pushed, or are there enough?
    fn is_complete(&self) -> bool {
        let is_short = !self.payload_len.is_multiple_of(self.gso.size.into());
        is_short || self.flags & FLAG_PSH != 0 || usize::from(self.frames) == FRAMES_MAX
    }

    fn join(self) -> Coalesced {
        let Self { first, gso, pseudo, frames, octets, payload_len, flags } = self;
        let header_len = usize::from(gso.header_len);
        let mut header = [0; HEADER_MAX];
        header[..header_len].copy_from_slice(&first[..header_len]);
        let (front, segment) = header[..header_len].split_at_mut(gso.transport.into());
        let ip = &mut front[usize::from(gso.network)..];
        let length = segment.len() + payload_len;
        match gso.version {
            Version::V4(_) => write_ipv4_length(ip, IPV4_LEN + length),
            Version::V6 => put_length(ip, 4, length),
        }
        segment[13] = flags;
        put_u16(segment, 16, pseudo.with_u32(u32::try_from(length).unwrap_or(u32::MAX)).fold());
        Coalesced { gso, header, frames: frames.into(), octets }
    }
}

/// Is `frame` as long as its IP header says, with nothing behind?
fn says_its_length(gso: &Gso, frame: &[u8]) -> bool {
    let packet = &frame[usize::from(gso.network)..];
    match gso.version {
        Version::V4(_) => usize::from(u16_at(packet, 2)) == packet.len(),
        Version::V6 => usize::from(u16_at(packet, 4)) == packet.len() - IPV6_LEN,
    }
}

/// Does `sum`, with the checksum `field` in it, verify? The zero that is written 0xffff is refused: it
/// would come back as 0.
fn is_right(sum: Sum, field: u16) -> bool {
    sum.fold() == 0xffff && field != 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{ACK, Ip, PSH, Sample, octets, repair, sum};
    use crate::stream::append;
    use crate::vnet::ChecksumState;
    use proptest::prelude::*;

    fn records<'a>(frames: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<u8> {
        let mut records = Vec::new();
        for frame in frames {
            assert!(append(&mut records, frame));
        }
        records
    }

    /// The bundle as one frame.
    fn bundle(joined: &Coalesced, records: &[u8]) -> Vec<u8> {
        joined.payloads(records).fold(joined.header().to_vec(), |bundle, payload| [&bundle, payload].concat())
    }

    /// What comes of `records`, and how many bundles were in between.
    fn there_and_back(records: &[u8]) -> (Vec<u8>, usize) {
        let (mut rest, mut back, mut bundles) = (records, Vec::new(), 0);
        while let Some(len) = stream::record_len(rest) {
            let mut taken = len;
            if let Some(joined) = coalesce(rest) {
                taken = joined.octets();
                assert_eq!(stream::count(&rest[..taken]), joined.frames());
                assert!((2..=FRAMES_MAX).contains(&joined.frames()));
                let bundle = bundle(&joined, rest);
                let parsed = Gso::parse(&bundle, &joined.vnet()).expect("it is a bundle");
                assert_eq!(parsed.header(), joined.gso().header());
                joined.gso().segment(&bundle, &mut back);
                bundles += 1;
            } else {
                back.extend_from_slice(&rest[..taken]);
            }
            rest = &rest[taken..];
        }
        (back, bundles)
    }

    fn count(frames: &[Vec<u8>]) -> Option<usize> {
        coalesce(&records(frames)).map(|joined| joined.frames())
    }

    fn kinds(payload: &[u8]) -> Vec<Sample> {
        let plain = |ip| Sample::tcp(ip, payload.to_vec());
        let options = vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        vec![
            plain(Ip::V4),
            plain(Ip::V6),
            Sample { options: options.clone(), fragment: 0, ..plain(Ip::V4) },
            Sample { options, tags: vec![0x2005, 7], ..plain(Ip::V6) },
        ]
    }

    #[test]
    fn golden_bundle() {
        let sample = Sample { flags: ACK | PSH, ..Sample::tcp(Ip::V4, b"abcdefgh".to_vec()) };
        let records = records(&sample.cut(3));
        let joined = coalesce(&records).unwrap();
        assert_eq!((joined.frames(), joined.octets()), (3, records.len()));
        assert_eq!(bundle(&joined, &records), sample.partial());
        assert_eq!(joined.vnet().write(), sample.vnet(3));
        assert_eq!(joined.payloads(&records).collect::<Vec<_>>(), [&b"abc"[..], b"def", b"gh"]);
        assert_eq!(joined.header(), &sample.partial()[..54]);
    }

    #[test]
    fn what_is_joined_is_cut_again() {
        for sample in kinds(&octets(20_100, 1)) {
            let records = records(&sample.cut(1000));
            let joined = coalesce(&records).unwrap();
            assert_eq!(joined.frames(), 21);
            assert_eq!(bundle(&joined, &records), sample.partial());
            assert_eq!(there_and_back(&records), (records.clone(), 1));
        }
    }

    #[test]
    fn a_short_or_a_pushed_segment_is_the_last() {
        for sample in kinds(&octets(40, 1)) {
            let mut frames = sample.cut(10);
            let next = Sample { sequence: sample.sequence + 40, identification: 11, ..sample.clone() };
            frames.extend(next.cut(10));
            assert_eq!(count(&frames), Some(8));
            let push = |at: usize| {
                let mut frames = frames.clone();
                frames[at][sample.transport() + 13] |= PSH;
                repair(&sample, &mut frames[at]);
                count(&frames)
            };
            assert_eq!((push(0), push(1), push(3)), (None, Some(2), Some(4)));

            let short = Sample { payload: octets(39, 1), ..sample.clone() }.cut(10);
            let next = Sample { sequence: sample.sequence + 39, ..next };
            let frames = [short, next.cut(10)].concat();
            assert_eq!(count(&frames), Some(4));
            assert_eq!(count(&frames[3..]), None, "a long one does not follow a short one");
        }
    }

    #[test]
    fn both_sides_of_the_most_frames_and_octets() {
        for sample in kinds(&octets(650, 1)) {
            let frames = sample.cut(10);
            assert_eq!(count(&frames), Some(64));
            assert_eq!(count(&frames[..64]), Some(64));
            assert_eq!(count(&frames[..63]), Some(63));
            assert_eq!(count(&frames[64..]), None);
        }
        for (ip, headers) in [(Ip::V4, 40), (Ip::V6, 60)] {
            let fitting = Sample::tcp(ip, octets(65_535 - headers, 1));
            let mut frames = fitting.cut(20_000);
            assert_eq!(count(&frames), Some(4));
            let bundle = bundle(&coalesce(&records(&frames)).unwrap(), &records(&frames));
            assert_eq!(bundle.len(), 14 + 65_535);
            frames[3].push(0);
            let (at, field) = if ip == Ip::V4 { (16, 1) } else { (18, 1) };
            frames[3][at + field] += 1;
            repair(&fitting, &mut frames[3]);
            assert_eq!(count(&frames), Some(3));
        }
    }

    #[test]
    fn at_most_two_tags() {
        let with = |tags| Sample { tags, ..Sample::tcp(Ip::V4, octets(20, 1)) }.cut(10);
        assert_eq!(count(&with(vec![1, 2])), Some(2));
        assert_eq!(count(&with(vec![1, 2, 3])), None);
        // With the longest headers, too.
        let longest = Sample { tags: vec![1, 2], options: vec![1; 40], ..Sample::tcp(Ip::V6, octets(20, 1)) };
        let joined = coalesce(&records(&longest.cut(10))).unwrap();
        assert_eq!(joined.header().len(), HEADER_MAX);
    }

    #[test]
    fn identifications_count_up_or_stay_with_df() {
        let pieces = |identifications: [u16; 3], fragment| {
            let sample = Sample { fragment, ..Sample::tcp(Ip::V4, octets(30, 1)) };
            let mut frames = sample.cut(10);
            for (frame, identification) in frames.iter_mut().zip(identifications) {
                put_u16(frame, 18, identification);
                repair(&sample, frame);
            }
            let records = records(&frames);
            assert_eq!(there_and_back(&records).0, records);
            count(&frames)
        };
        for fragment in [0, 0x4000] {
            assert_eq!(pieces([0xfffe, 0xffff, 0], fragment), Some(3));
            assert_eq!(pieces([5, 6, 8], fragment), Some(2));
            assert_eq!(pieces([5, 6, 6], fragment), Some(2));
            assert_eq!(pieces([5, 6, 5], fragment), Some(2));
            assert_eq!(pieces([5, 7, 8], fragment), None);
            assert_eq!(pieces([5, 4, 3], fragment), None);
        }
        assert_eq!(pieces([5, 5, 5], 0x4000), Some(3));
        assert_eq!(pieces([5, 5, 6], 0x4000), Some(2));
        assert_eq!(pieces([5, 5, 7], 0x4000), Some(2));
        assert_eq!(pieces([5, 5, 5], 0), None);
    }

    #[test]
    fn what_is_no_plain_bulk_is_left_alone() {
        for flags in [ACK | 1, ACK | 2, ACK | 4, ACK | 0x20, ACK | 0x40, ACK | 0x80, 0] {
            let sample = Sample::tcp(Ip::V4, octets(20, 1));
            let mut frames = sample.cut(10);
            for which in [vec![0, 1], vec![1], vec![0]] {
                for at in which {
                    frames[at][47] = flags;
                    repair(&sample, &mut frames[at]);
                }
                assert_eq!(count(&frames), None, "flags {flags:#x}");
                frames = sample.cut(10);
            }
        }
        for sample in [
            Sample::udp(Ip::V4, octets(20, 1)),
            Sample { ip_options: vec![1; 4], ..Sample::tcp(Ip::V4, octets(20, 1)) },
            Sample { extensions: vec![0], ..Sample::tcp(Ip::V6, octets(20, 1)) },
            Sample { fragment: 0x2000, ..Sample::tcp(Ip::V4, octets(20, 1)) },
            Sample { fragment: 0x8000, ..Sample::tcp(Ip::V4, octets(20, 1)) },
            Sample { fragment: 1, ..Sample::tcp(Ip::V4, octets(20, 1)) },
        ] {
            assert_eq!(count(&sample.cut(10)), None, "{sample:?}");
        }
    }

    #[test]
    fn headers_are_those_of_plain_ip_and_tcp() {
        for (ip, at, octet) in [
            (Ip::V4, 14, 0x46),
            (Ip::V4, 14, 0x44),
            (Ip::V4, 14, 0x55),
            (Ip::V4, 23, 17),
            (Ip::V6, 14, 0x40),
            (Ip::V6, 20, 17),
            (Ip::V6, 20, 0),
        ] {
            let sample = Sample::tcp(ip, octets(20, 1));
            let mut frames = sample.cut(10);
            for frame in &mut frames {
                frame[at] = octet;
                repair(&sample, frame);
            }
            assert_eq!(count(&frames), None, "{octet:#x} in octet {at}");
        }
    }

    /// Such as sum up to the same.
    #[test]
    fn addresses_are_compared_and_not_just_summed() {
        for (ip, words) in [(Ip::V4, [26, 28]), (Ip::V4, [28, 32]), (Ip::V6, [22, 36]), (Ip::V6, [36, 52])] {
            let sample = Sample::tcp(ip, octets(20, 1));
            let mut frames = sample.cut(10);
            let [one, other] = words.map(|at| u16_at(&frames[1], at));
            assert_ne!(one, other);
            put_u16(&mut frames[1], words[0], other);
            put_u16(&mut frames[1], words[1], one);
            let mut repaired = frames[1].clone();
            repair(&sample, &mut repaired);
            assert_eq!(repaired, frames[1]);
            assert_eq!(count(&frames), None);
        }
    }

    #[test]
    fn reserved_bits_and_trailing_octets_are_left_alone() {
        for sample in kinds(&octets(30, 1)) {
            let clean = sample.cut(10);
            let changed = |change: &dyn Fn(&mut Vec<u8>)| {
                let mut frames = clean.clone();
                frames.iter_mut().for_each(change);
                count(&frames)
            };
            assert_eq!(changed(&|_| {}), Some(3));
            assert_eq!(changed(&|frame| frame.push(0)), None);
            assert_eq!(changed(&|frame| frame.extend([0; 20])), None);
            assert_eq!(changed(&|frame| frame.truncate(frame.len() - 1)), None);
            assert_eq!(
                changed(&|frame| {
                    frame[sample.transport() + 12] |= 1;
                    repair(&sample, frame);
                }),
                None
            );
            let empty = Sample { payload: vec![], ..sample.clone() };
            assert_eq!(count(&[empty.frame(), empty.frame()]), None);
            let (sequence, identification) = (sample.sequence + 10, sample.identification + 1);
            let next = Sample { sequence, identification, ..empty };
            assert_eq!(count(&[clean[0].clone(), next.frame()]), None);
            assert_eq!(count(&clean[..1]), None);
        }
        assert_eq!(count(&[]), None);
    }

    /// The other zero verifies as well, but nothing that is cut would have it.
    #[test]
    fn a_zero_written_as_ones_is_left_alone() {
        let mut sample = Sample::tcp(Ip::V4, vec![0; 30]);
        let checksum = u16_at(&sample.cut(10)[1], sample.checksum_at());
        put_u16(&mut sample.payload, 10, checksum);
        let mut frames = sample.cut(10);
        assert_eq!(u16_at(&frames[1], 50), 0);
        assert_eq!(count(&frames), Some(3));
        put_u16(&mut frames[1], 50, 0xffff);
        assert_eq!(count(&frames), None);
        assert_eq!(count(&frames[1..]), None);
    }

    /// Every bit of either frame, alone and with the checksums made right again.
    #[test]
    fn no_bit_is_laundered() {
        for sample in kinds(&octets(20, 1)) {
            let clean = sample.cut(10);
            assert_eq!(count(&clean), Some(2));
            for which in 0..2 {
                for bit in 0..clean[0].len() * 8 {
                    let mut frames = clean.clone();
                    frames[which][bit / 8] ^= 1 << (bit % 8);
                    for is_repaired in [false, true] {
                        if is_repaired {
                            repair(&sample, &mut frames[which]);
                        }
                        let records = records(&frames);
                        let (back, bundles) = there_and_back(&records);
                        assert_eq!(back, records, "bit {bit} of frame {which}");
                        let is_in_checksums = !is_repaired && bit / 8 >= sample.network();
                        assert!(!(is_in_checksums && sample.ip == Ip::V4) || bundles == 0, "bit {bit}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_bad_checksum_ends_a_run() {
        for sample in kinds(&octets(50, 1)) {
            let clean = sample.cut(10);
            for (which, expected) in [(0, None), (1, None), (2, Some(2)), (4, Some(4))] {
                for at in [sample.checksum_at(), sample.header_len() + 9] {
                    let mut frames = clean.clone();
                    frames[which][at] ^= 0x10;
                    assert_eq!(count(&frames), expected);
                }
                if sample.ip == Ip::V4 {
                    let mut frames = clean.clone();
                    frames[which][sample.network() + 10] ^= 1;
                    assert_eq!(count(&frames), expected);
                }
            }
        }
    }

    #[test]
    fn the_sum_of_the_pseudo_header_is_left_for_the_kernel() {
        let sample = Sample::tcp(Ip::V6, octets(20, 1));
        let records = records(&sample.cut(10));
        let joined = coalesce(&records).unwrap();
        assert_eq!(joined.vnet().checksum, ChecksumState::Needed);
        let pseudo = [&joined.header()[22..54], &[0, 6, 0, 40]].concat();
        assert_eq!(u16_at(joined.header(), sample.checksum_at()), sum(&pseudo));
    }

    prop_compose! {
        /// Frames of a stream, with now and then something in between.
        fn any_stream()(
            kind in 0_usize..4,
            size in 1_u16..200,
            count in 1_usize..80,
            tail in 0_usize..200,
            sequence in prop_oneof![any::<u32>(), Just(u32::MAX - 500)],
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0..6), 0..6),
        ) -> Vec<Vec<u8>> {
            let payload = octets(usize::from(size) * count + tail % usize::from(size), 9);
            let sample = Sample { sequence, ..kinds(&payload).swap_remove(kind) };
            let mut frames = sample.cut(size);
            for (at, change) in changes {
                let index = at.index(frames.len());
                let is_segment = frames[index].len() > sample.header_len();
                match change {
                    0 => frames[index].push(0),
                    1 if is_segment => {
                        frames[index][sample.transport() + 13] |= PSH;
                        repair(&sample, &mut frames[index]);
                    }
                    2 if is_segment => {
                        frames[index][sample.transport() + 15] ^= 1;
                        repair(&sample, &mut frames[index]);
                    }
                    3 => frames.insert(index, vec![0xff; index % 80 + 1]),
                    4 => frames.swap(index, 0),
                    _ => *at.get_mut(&mut frames[index]) ^= 4,
                }
            }
            frames
        }
    }

    proptest! {
        #[test]
        fn any_stream_comes_back(frames in any_stream()) {
            let records = records(&frames);
            prop_assert_eq!(there_and_back(&records).0, records);
        }

        #[test]
        fn clean_streams_are_joined_as_far_as_it_goes(
            kind in 0_usize..4, size in 1_u16..1500, count in 2_usize..200,
        ) {
            let sample = kinds(&octets(usize::from(size) * count, 9)).swap_remove(kind);
            if sample.payload.len() < 65_000 {
                let records = records(&sample.cut(size));
                let expected = count / 64 + usize::from(count % 64 > 1);
                prop_assert_eq!(there_and_back(&records), (records.clone(), expected));
            }
        }

        #[test]
        fn no_octets_panic(
            mut records in any_stream().prop_map(|frames| records(&frames)),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..9),
            start in any::<prop::sample::Index>(),
        ) {
            for (at, octet) in changes {
                *at.get_mut(&mut records) = octet;
            }
            let records = &records[start.index(records.len())..];
            if let Some(joined) = coalesce(records) {
                prop_assert_eq!(joined.payloads(records).count(), joined.frames());
            }
        }
    }
}
