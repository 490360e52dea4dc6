//! The frames that the load generator sends, and how a receiver knows that each came through unchanged.
//!
//! In a stream a frame follows its length (`u32`, big-endian); a datagram is a frame. Every frame of ours is
//!
//! ```text
//! destination 6 | source 6 | 88 b5 | kind 1 | sequence 8 | body
//! ```
//!
//! The body is a window of one fixed block of noise that starts at `sequence % SLOTS`. So a sender prepares
//! `SLOTS` frames once and then only stamps sequence numbers, a receiver checks a body with one `memcmp`, and
//! a body that ended up behind a neighbour's header is found out as well as a changed one.

use std::io::{self, Read};
use std::iter;
use std::sync::LazyLock;

/// Frames that a sender prepares, and the most that it puts in one write.
pub(crate) const SLOTS: usize = 64;

/// The largest frame that QEMU sends (its `NET_BUFSIZE`).
const MAX_FRAME: usize = 69632;

/// What one `read` may return, as in the relay and in the hub.
pub(crate) const READ_SIZE: usize = 256 * 1024;

/// Bytes in front of each frame.
const LENGTH: usize = 4;
const SOURCE: usize = 6;
const ETHERTYPE: usize = 12;
const KIND: usize = 14;
const SEQUENCE: usize = 15;
const BODY: usize = 23;

/// The two flags of an address' first byte: locally administered, not a group.
const LOCAL_UNICAST: u8 = 0x02;

/// How every address of ours begins.
const PREFIX: [u8; 4] = [LOCAL_UNICAST, b'q', b'h', b'b'];

const BROADCAST: [u8; 6] = [0xff; 6];

/// IEEE 802 "local experimental" EtherType.
pub(crate) const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];

static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = Random::new(1);
    (0..SLOTS + MAX_FRAME).map(|_| random.next().to_be_bytes()[0]).collect()
});

/// A station of the segment, named by the last two bytes of its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Host(pub(crate) u16);

impl Host {
    /// All stations.
    pub(crate) const ALL: Self = Self(u16::MAX);

    pub(crate) fn mac(self) -> [u8; 6] {
        if self == Self::ALL {
            return BROADCAST;
        }
        let [a, b, c, d] = PREFIX;
        let [high, low] = self.0.to_be_bytes();
        [a, b, c, d, high, low]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Says where a station is. Sent to the sender's own address, so that a switch learns and forwards
    /// nothing.
    Hello,
    Data,
    /// Says that its sender has sent all its data.
    Last,
    Ping,
    Pong,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Hello, Self::Data, Self::Last, Self::Ping, Self::Pong];
}

/// A frame of ours, as it was received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    bytes: &'a [u8],
    pub(crate) kind: Kind,
}

impl<'a> Frame<'a> {
    /// `None` when the frame is for somebody else or is not one of ours (as a flooded one with a made-up
    /// source).
    pub(crate) fn parse(bytes: &'a [u8], to: [u8; 6]) -> Option<Self> {
        let ours = bytes.len() >= BODY
            && (bytes[..SOURCE] == to || bytes[..SOURCE] == BROADCAST)
            && bytes[SOURCE..SOURCE + PREFIX.len()] == PREFIX
            && bytes[ETHERTYPE..KIND] == EXPERIMENTAL;
        let kind = *Kind::ALL.get(usize::from(*bytes.get(KIND)?))?;
        ours.then_some(Self { bytes, kind })
    }

    pub(crate) fn from(&self) -> Host {
        Host(u16::from_be_bytes([self.bytes[ETHERTYPE - 2], self.bytes[ETHERTYPE - 1]]))
    }

    pub(crate) fn sequence(&self) -> u64 {
        u64::from_be_bytes(self.bytes[SEQUENCE..BODY].try_into().expect("eight bytes"))
    }

    pub(crate) fn is_intact(&self, size: usize) -> bool {
        self.bytes.len() == size && self.bytes[BODY..] == *body(self.sequence(), size)
    }
}

/// A sender's frames for one destination, ready to be written.
#[derive(Debug)]
pub(crate) struct Flow {
    wire: Vec<u8>,
    stride: usize,
    sent: u64,
    disguise: Option<Random>,
}

impl Flow {
    pub(crate) fn new(from: Host, to: Host, size: usize) -> Self {
        let wire: Vec<u8> =
            (0..).take(SLOTS).flat_map(|slot| encode(Kind::Data, from, to, slot, size)).collect();
        Self { stride: wire.len() / SLOTS, wire, sent: 0, disguise: None }
    }

    /// Gives every frame a made-up source address.
    pub(crate) fn disguised(self) -> Self {
        Self { disguise: Some(Random::new(2)), ..self }
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// The next frames as they go on the wire: `count` of them, or fewer where the prepared ones wrap around.
    pub(crate) fn next(&mut self, count: usize) -> &[u8] {
        let first = slot(self.sent);
        let end = SLOTS.min(first + count);
        let frames = &mut self.wire[first * self.stride..end * self.stride];
        for frame in frames.chunks_exact_mut(self.stride) {
            frame[LENGTH + SEQUENCE..LENGTH + BODY].copy_from_slice(&self.sent.to_be_bytes());
            if let Some(random) = &mut self.disguise {
                let [_, _, a, b, c, d, e, f] = random.next().to_be_bytes();
                frame[LENGTH + SOURCE..LENGTH + ETHERTYPE].copy_from_slice(&[
                    LOCAL_UNICAST | a << 2,
                    b,
                    c,
                    d,
                    e,
                    f,
                ]);
            }
            self.sent += 1;
        }
        frames
    }
}

/// One frame behind its length.
pub(crate) fn encode(kind: Kind, from: Host, to: Host, sequence: u64, size: usize) -> Vec<u8> {
    let length = u32::try_from(size).expect("a frame is small");
    let mut wire = Vec::with_capacity(LENGTH + size);
    wire.extend(length.to_be_bytes());
    wire.extend(to.mac());
    wire.extend(from.mac());
    wire.extend(EXPERIMENTAL);
    wire.push(kind as u8);
    wire.extend(sequence.to_be_bytes());
    wire.extend(body(sequence, size));
    wire
}

fn body(sequence: u64, size: usize) -> &'static [u8] {
    &NOISE[slot(sequence)..][..size - BODY]
}

fn slot(sequence: u64) -> usize {
    usize::try_from(sequence % SLOTS as u64).expect("less than SLOTS")
}

/// The frames of what [`Flow::next`] and [`encode`] make, without their lengths.
pub(crate) fn split(mut wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    iter::from_fn(move || {
        let (length, rest) = wire.split_first_chunk::<LENGTH>()?;
        let (frame, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        wire = rest;
        Some(frame)
    })
}

/// Cuts a byte stream into frames.
#[derive(Debug)]
pub(crate) struct Deframer {
    buffer: Box<[u8]>,
    filled: usize,
}

impl Deframer {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; READ_SIZE + LENGTH + MAX_FRAME].into_boxed_slice(), filled: 0 }
    }

    /// Reads once and returns what `read` returned. [`Deframer::drain`] must empty the buffer in between.
    pub(crate) fn fill(&mut self, mut source: impl Read) -> io::Result<usize> {
        let got = source.read(&mut self.buffer[self.filled..][..READ_SIZE])?;
        self.filled += got;
        Ok(got)
    }

    /// Hands out every whole frame and keeps the rest for the next read.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut rest = &self.buffer[..self.filled];
        while let Some((length, after)) = rest.split_first_chunk::<LENGTH>() {
            let length = u32::from_be_bytes(*length) as usize;
            if length == 0 || length > MAX_FRAME {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
            }
            let Some((frame, after)) = after.split_at_checked(length) else {
                break;
            };
            each(frame);
            rest = after;
        }
        let left = rest.len();
        self.buffer.copy_within(self.filled - left..self.filled, 0);
        self.filled = left;
        Ok(())
    }
}

/// xorshift64: addresses and noise need to differ, not to be unpredictable.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
