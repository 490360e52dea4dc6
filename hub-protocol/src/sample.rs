//! Frames for tests of offload, made without the code that they test; `tests/offload.rs` has them too.
#![allow(dead_code, reason = "each test uses its own part of this")]

pub(crate) const FIN: u8 = 0x01;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const CWR: u8 = 0x80;

pub(crate) const DESTINATION: [u8; 6] = [2, 0x71, 0x68, 0, 0, 2];
pub(crate) const SOURCE: [u8; 6] = [2, 0x71, 0x68, 0, 0, 1];

const TCP: u8 = 6;
const UDP: u8 = 17;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ip {
    V4,
    V6,
}

/// A frame, or a bundle.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) ip: Ip,
    pub(crate) is_udp: bool,
    /// The VIDs of 802.1Q tags.
    pub(crate) tags: Vec<u16>,
    /// Options of IPv4, in whole words.
    pub(crate) ip_options: Vec<u8>,
    /// The numbers of extension headers of IPv6, each of 8 octets.
    pub(crate) extensions: Vec<u8>,
    pub(crate) identification: u16,
    /// Flags and offset of IPv4 fragments.
    pub(crate) fragment: u16,
    pub(crate) sequence: u32,
    pub(crate) flags: u8,
    /// Options of TCP, in whole words.
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Sample {
    /// A plain segment of TCP.
    pub(crate) fn tcp(ip: Ip, payload: Vec<u8>) -> Self {
        Self {
            ip,
            is_udp: false,
            tags: vec![],
            ip_options: vec![],
            extensions: vec![],
            identification: 7,
            fragment: 0x4000,
            sequence: 0x0102_0304,
            flags: ACK,
            options: vec![],
            payload,
        }
    }

    pub(crate) fn udp(ip: Ip, payload: Vec<u8>) -> Self {
        Self { is_udp: true, ..Self::tcp(ip, payload) }
    }

    /// Where the IP header begins.
    pub(crate) fn network(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// Where the transport header begins.
    pub(crate) fn transport(&self) -> usize {
        let ip = match self.ip {
            Ip::V4 => 20 + self.ip_options.len(),
            Ip::V6 => 40 + 8 * self.extensions.len(),
        };
        self.network() + ip
    }

    pub(crate) fn header_len(&self) -> usize {
        self.transport() + if self.is_udp { 8 } else { 20 + self.options.len() }
    }

    /// Where the checksum of the transport header is.
    pub(crate) fn checksum_at(&self) -> usize {
        self.transport() + if self.is_udp { 6 } else { 16 }
    }

    /// The frame with its checksums; 0 is written as it is.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut frame = self.partial();
        let checksum = !sum(&frame[self.transport()..]);
        put(&mut frame, self.checksum_at(), checksum);
        frame
    }

    /// The frame with the sum of the pseudo-header in the place of its checksum.
    pub(crate) fn partial(&self) -> Vec<u8> {
        let mut frame = [&DESTINATION[..], &SOURCE].concat();
        for tag in &self.tags {
            frame.extend([0x81, 0x00]);
            frame.extend(tag.to_be_bytes());
        }
        let transport_len = self.header_len() - self.transport() + self.payload.len();
        let pseudo = match self.ip {
            Ip::V4 => self.push_ipv4(&mut frame, transport_len),
            Ip::V6 => self.push_ipv6(&mut frame, transport_len),
        };
        frame.extend([0x12, 0x34, 0x00, 0x50]);
        if self.is_udp {
            frame.extend(length(transport_len));
            frame.extend(pseudo.to_be_bytes());
        } else {
            frame.extend(self.sequence.to_be_bytes());
            frame.extend([9, 8, 7, 6]);
            let words = u8::try_from(5 + self.options.len() / 4).expect("four bits of words");
            frame.extend([words << 4, self.flags, 0x01, 0xf4]);
            frame.extend(pseudo.to_be_bytes());
            frame.extend([0, 0]);
            frame.extend(&self.options);
        }
        assert_eq!(frame.len(), self.header_len());
        frame.extend(&self.payload);
        frame
    }

    fn push_ipv4(&self, frame: &mut Vec<u8>, transport_len: usize) -> u16 {
        let words = u8::try_from(5 + self.ip_options.len() / 4).expect("four bits of words");
        frame.extend([0x08, 0x00, 0x40 | words, 0x02]);
        frame.extend(length(20 + self.ip_options.len() + transport_len));
        frame.extend(self.identification.to_be_bytes());
        frame.extend(self.fragment.to_be_bytes());
        frame.extend([63, self.protocol(), 0, 0]);
        let addresses = [10, 77, 0, 1, 10, 77, 0, 2];
        frame.extend(addresses);
        frame.extend(&self.ip_options);
        let checksum = !sum(&frame[self.network()..]);
        put(frame, self.network() + 10, checksum);
        sum(&[&addresses[..], &[0, self.protocol()], &length(transport_len)].concat())
    }

    fn push_ipv6(&self, frame: &mut Vec<u8>, transport_len: usize) -> u16 {
        frame.extend([0x86, 0xdd, 0x60, 0x2a, 0xbc, 0xde]);
        frame.extend(length(8 * self.extensions.len() + transport_len));
        let mut next = self.extensions.iter().copied().chain([self.protocol()]);
        frame.extend([next.next().expect("at least the protocol"), 63]);
        let mut addresses = [0; 32];
        for (at, number) in [(0, 1), (16, 2)] {
            (addresses[at], addresses[at + 1], addresses[at + 15]) = (0xfd, 0x77, number);
        }
        frame.extend(addresses);
        for next in next {
            // Padding, as options; of a routing header, no segment left.
            frame.extend([next, 0, 1, 4, 0, 0, 0, 0]);
        }
        sum(&[&addresses[..], &[0, self.protocol()], &length(transport_len)].concat())
    }

    fn protocol(&self) -> u8 {
        if self.is_udp { UDP } else { TCP }
    }

    /// The vnet header of a frame whose checksum is left to others, a bundle of segments of `size` if
    /// that is not 0.
    pub(crate) fn vnet(&self, size: u16) -> [u8; 10] {
        let kind = match (size, self.is_udp, self.ip) {
            (0, _, _) => 0,
            (_, true, _) => 5,
            (_, false, Ip::V4) => 1,
            (_, false, Ip::V6) => 4,
        };
        let ecn = if kind != 0 && self.flags & CWR != 0 { 0x80 } else { 0 };
        let [hdr0, hdr1] = short(self.header_len()).to_ne_bytes();
        let [size0, size1] = size.to_ne_bytes();
        let [start0, start1] = short(self.transport()).to_ne_bytes();
        let [offset0, offset1] = short(self.checksum_at() - self.transport()).to_ne_bytes();
        [1, kind | ecn, hdr0, hdr1, size0, size1, start0, start1, offset0, offset1]
    }

    /// What it is cut to, of payloads of `size`, by the rules in prose.
    pub(crate) fn cut(&self, size: u16) -> Vec<Vec<u8>> {
        let pieces: Vec<_> = self.payload.chunks(size.into()).collect();
        let mut segments = Vec::new();
        for (number, piece) in (0_u16..).zip(&pieces) {
            let mut segment = Self { payload: piece.to_vec(), ..self.clone() };
            segment.identification = self.identification.wrapping_add(number);
            segment.sequence = self.sequence.wrapping_add(u32::from(number) * u32::from(size));
            if number > 0 {
                segment.flags &= !CWR;
            }
            if usize::from(number) + 1 < pieces.len() {
                segment.flags &= !(FIN | PSH);
            }
            let mut frame = segment.frame();
            let at = segment.checksum_at();
            if self.is_udp && frame[at..at + 2] == [0, 0] {
                frame[at..at + 2].fill(0xff);
            }
            segments.push(frame);
        }
        segments
    }
}

/// Makes the checksums of a frame of plain IP and TCP right again.
pub(crate) fn repair(sample: &Sample, frame: &mut [u8]) {
    let (network, transport) = (sample.network(), sample.transport());
    if sample.ip == Ip::V4 {
        put(frame, network + 10, 0);
        let checksum = !sum(&frame[network..transport]);
        put(frame, network + 10, checksum);
    }
    let addresses = match sample.ip {
        Ip::V4 => network + 12..network + 20,
        Ip::V6 => network + 8..network + 40,
    };
    put(frame, sample.checksum_at(), 0);
    let pseudo = [&[0, TCP], &length(frame.len() - transport)[..], &frame[addresses]].concat();
    let checksum = !sum(&[&pseudo, &frame[transport..]].concat());
    put(frame, sample.checksum_at(), checksum);
}

/// Octets that are not all alike.
pub(crate) fn octets(count: usize, seed: u8) -> Vec<u8> {
    let mut octet = seed;
    let mut next = || {
        octet = octet.wrapping_mul(5).wrapping_add(seed | 1);
        octet
    };
    (0..count).map(|_| next()).collect()
}

/// The ones' complement sum, word by word (RFC 1071 1).
pub(crate) fn sum(octets: &[u8]) -> u16 {
    let mut sum = 0_u16;
    for pair in octets.chunks(2) {
        let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        let (total, carry) = sum.overflowing_add(word);
        sum = total + u16::from(carry);
    }
    sum
}

pub(crate) fn put(octets: &mut [u8], at: usize, value: u16) {
    octets[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn length(length: usize) -> [u8; 2] {
    short(length).to_be_bytes()
}

fn short(value: usize) -> u16 {
    u16::try_from(value).expect("16 bits")
}
