//! A card that exists only here: a link that takes bundles whole, refuses them, or has no room, and what is made of them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use hub_protocol::gso::Gso;
use hub_protocol::stream::{self, MAX_FRAME, PREFIX_LEN};
use hub_protocol::vnet::{ChecksumState, GsoKind, VnetHeader};
use mio::{Interest, Registry, Token};
use qhub::batch::{Bundle, FrameBatch, Run, Taken};
use qhub::bridge::{Mode, PortId};
use qhub::config::PortOptions;
use qhub::hub::{self, Hub, Readiness};
use qhub::link::{Link, Peer, Received, SendError};

use crate::net::Net;
use crate::wire::{broadcast, station};

pub(crate) const IP: usize = 14;
pub(crate) const TCP: usize = 34;
pub(crate) const PAYLOAD: usize = 54;

/// What one receive hands over.
pub(crate) type Arrival = (Vec<u8>, VnetHeader);

/// What left by a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Frame(Vec<u8>),
    Bundle(Vec<u8>, Gso),
}

/// The system behind an interface that exists only here.
#[derive(Debug)]
pub(crate) struct Card {
    /// Each entry is what one receive takes.
    pub(crate) inbox: VecDeque<Vec<Arrival>>,
    pub(crate) left: Vec<Left>,
    /// Does it take bundles?
    pub(crate) joins: bool,
    pub(crate) is_down: bool,
    /// Sends that there is room for.
    pub(crate) room: usize,
    pub(crate) max_frame: usize,
    pub(crate) is_bus: bool,
    /// Bundles that it was offered.
    pub(crate) offered: usize,
}

impl Default for Card {
    fn default() -> Self {
        Self {
            inbox: VecDeque::new(),
            left: Vec::new(),
            joins: true,
            is_down: false,
            room: usize::MAX,
            max_frame: MAX_FRAME,
            is_bus: false,
            offered: 0,
        }
    }
}

impl Card {
    /// The frames that left, none of them a bundle any more.
    pub(crate) fn frames(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for left in &self.left {
            match left {
                Left::Frame(frame) => frames.push(frame.clone()),
                Left::Bundle(frame, gso) => frames.extend(cut(frame, gso)),
            }
        }
        frames
    }

    pub(crate) fn bundles(&self) -> usize {
        self.left.iter().filter(|left| matches!(left, Left::Bundle(..))).count()
    }
}

#[derive(Debug)]
pub(crate) struct CardLink(Rc<RefCell<Card>>);

impl Link for CardLink {
    fn register(&mut self, _: &Registry, _: Token, _: Interest) -> io::Result<()> {
        Ok(())
    }

    fn reregister(&mut self, _: &Registry, _: Token, _: Interest) -> io::Result<()> {
        Ok(())
    }

    fn deregister(&mut self, _: &Registry) -> io::Result<()> {
        Ok(())
    }

    fn receive(&mut self, batch: &mut FrameBatch) -> io::Result<Received> {
        let mut card = self.0.borrow_mut();
        let Some(arrivals) = card.inbox.pop_front() else { return Ok(Received::Nothing) };
        for (frame, header) in arrivals {
            batch.room().expect("the test sends no more than there is room for")[..frame.len()]
                .copy_from_slice(&frame);
            batch.push_offloaded(frame.len(), &header);
        }
        Ok(if card.inbox.is_empty() { Received::Drained } else { Received::More })
    }

    fn send(&mut self, run: Run<'_>) -> Result<Taken, SendError> {
        let (mut card, mut taken) = (self.0.borrow_mut(), Taken::default());
        if card.is_down {
            return Err(SendError::Down(io::Error::other("as told")));
        }
        for frame in stream::frames(run.records) {
            if card.room == 0 {
                break;
            }
            card.room -= 1;
            card.left.push(Left::Frame(frame.to_vec()));
            taken.octets += PREFIX_LEN + frame.len();
            taken.frames += 1;
        }
        Ok(taken)
    }

    fn send_bundle(&mut self, bundle: &Bundle<'_>) -> bool {
        let mut card = self.0.borrow_mut();
        card.offered += 1;
        let is_taken = card.joins && !card.is_down && card.room > 0;
        if is_taken {
            card.room -= 1;
            card.left.push(Left::Bundle(bundle.frame.to_vec(), bundle.gso));
        }
        is_taken
    }

    fn max_frame(&self) -> usize {
        self.0.borrow().max_frame
    }

    fn patience(&self) -> Option<Duration> {
        None
    }

    fn has_end(&self) -> bool {
        false
    }

    fn is_bus(&self) -> bool {
        self.0.borrow().is_bus
    }
}

/// A port of a [`Card`].
pub(crate) struct Port {
    pub(crate) card: Rc<RefCell<Card>>,
    pub(crate) id: PortId,
}

impl Port {
    pub(crate) fn attach(hub: &mut Hub, card: Card, options: PortOptions) -> Self {
        let card = Rc::new(RefCell::new(card));
        let link = Box::new(CardLink(Rc::clone(&card)));
        let id = hub.attach("card", link, Peer::Unknown, options, hub::now()).expect("room");
        Self { card, id }
    }

    /// Puts down what one receive is to take.
    pub(crate) fn arrive(&self, hub: &mut Hub, arrivals: &[Arrival]) {
        self.card.borrow_mut().inbox.push_back(arrivals.to_vec());
        hub.note(self.id, Readiness { readable: true, ..Readiness::default() });
    }

    /// There is room for so many sends more.
    pub(crate) fn make_room(&self, hub: &mut Hub, room: usize) {
        self.card.borrow_mut().room = room;
        hub.note(self.id, Readiness { writable: true, ..Readiness::default() });
    }

    pub(crate) fn frames(&self) -> Vec<Vec<u8>> {
        self.card.borrow().frames()
    }
}

/// A hub with a card as its port 0, whose station is 1, and one at port 1, whose station is 2.
pub(crate) struct Pair {
    pub(crate) net: Net,
    pub(crate) from: Port,
    pub(crate) to: Port,
}

impl Pair {
    pub(crate) fn new(card: Card, options: PortOptions) -> Self {
        Self::with(PortOptions::default(), card, options)
    }

    pub(crate) fn with(own: PortOptions, card: Card, options: PortOptions) -> Self {
        let mut net = Net::new(Mode::Switch);
        let from = Port::attach(&mut net.hub, Card::default(), own);
        let to = Port::attach(&mut net.hub, card, options);
        let mut it = Self { net, from, to };
        // As short as can be.
        it.to.arrive(&mut it.net.hub, &[plain(broadcast(2)[..14].to_vec())]);
        it.net.settle();
        it
    }

    pub(crate) fn pass(&mut self, arrivals: &[Arrival]) {
        self.from.arrive(&mut self.net.hub, arrivals);
        self.net.settle();
    }
}

pub(crate) fn plain(frame: Vec<u8>) -> Arrival {
    (frame, VnetHeader::default())
}

/// `payload` octets of TCP from one station to another, in segments of `size`.
pub(crate) fn bundle(from: usize, to: usize, number: usize, payload: usize, size: u16) -> Arrival {
    let mut frame = [station(to), station(from)].concat();
    frame.extend([0x08, 0x00]);
    let total = u16::try_from(payload + 40).expect("IPv4 can say it").to_be_bytes();
    frame.extend([0x45, 0, total[0], total[1], 0xff, 0xfe, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let checksum = (!sum(&frame[IP..])).to_be_bytes();
    frame[24..26].copy_from_slice(&checksum);
    frame.extend([0x12, 0x34, 0, 80]);
    frame.extend(u32::try_from(number).expect("small").wrapping_mul(100_000).to_be_bytes());
    // ACK and PSH.
    frame.extend([0, 0, 0, 9, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend((0..payload).map(|at| u8::try_from((at * 7 + number) % 251).expect("an octet")));
    let partial = pseudo(&frame).to_be_bytes();
    frame[50..52].copy_from_slice(&partial);
    let header = VnetHeader {
        checksum: ChecksumState::Needed,
        gso: Some(GsoKind::TcpV4 { ecn: false }),
        hdr_len: 54,
        gso_size: size,
        csum_start: 34,
        csum_offset: 16,
    };
    (frame, header)
}

pub(crate) fn sum(octets: &[u8]) -> u16 {
    let words =
        octets.chunks(2).map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |&low| low.into()));
    let mut sum: u32 = words.sum();
    while let (high @ 1.., low) = (sum >> 16, sum & 0xffff) {
        sum = high + low;
    }
    u16::try_from(sum).expect("it is folded")
}

/// The sum of the pseudo-header.
pub(crate) fn pseudo(frame: &[u8]) -> u16 {
    let length = u16::try_from(frame.len() - TCP).expect("IPv4 can say it").to_be_bytes();
    sum(&[&frame[26..34], &[0, 6], &length].concat())
}

/// What [`bundle`] stands for, made as simply as can be.
pub(crate) fn segments((frame, header): &Arrival) -> Vec<Vec<u8>> {
    let (head, payload) = frame.split_at(PAYLOAD);
    let pieces = payload.chunks(header.gso_size.into());
    let last = pieces.len() - 1;
    let mut sequence = u32::from_be_bytes(head[38..42].try_into().expect("four octets"));
    let mut number = u16::from_be_bytes([head[18], head[19]]);
    let mut frames = Vec::new();
    for (index, piece) in pieces.enumerate() {
        let mut frame = [head, piece].concat();
        let total = u16::try_from(frame.len() - IP).expect("IPv4 can say it").to_be_bytes();
        frame[16..18].copy_from_slice(&total);
        frame[18..20].copy_from_slice(&number.to_be_bytes());
        frame[24..26].fill(0);
        let checksum = (!sum(&frame[IP..TCP])).to_be_bytes();
        frame[24..26].copy_from_slice(&checksum);
        frame[38..42].copy_from_slice(&sequence.to_be_bytes());
        if index < last {
            frame[47] &= !0x08;
        }
        frame[50..52].fill(0);
        let all = [&pseudo(&frame).to_be_bytes()[..], &frame[TCP..]].concat();
        let checksum = (!sum(&all)).to_be_bytes();
        frame[50..52].copy_from_slice(&checksum);
        frames.push(frame);
        sequence = sequence.wrapping_add(u32::from(header.gso_size));
        number = number.wrapping_add(1);
    }
    frames
}

/// What `gso` makes of `frame`.
pub(crate) fn cut(frame: &[u8], gso: &Gso) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    gso.segment(frame, &mut records);
    stream::frames(&records).map(<[u8]>::to_vec).collect()
}

/// All frames that `arrivals` stand for.
pub(crate) fn flat(arrivals: &[Arrival]) -> Vec<Vec<u8>> {
    let flat = arrivals.iter().flat_map(|arrival| match arrival.1.gso {
        None => vec![arrival.0.clone()],
        Some(_) => segments(arrival),
    });
    flat.collect()
}

pub(crate) fn octets(frames: &[Vec<u8>]) -> u64 {
    frames.iter().map(|frame| u64::try_from(frame.len()).expect("small")).sum()
}

pub(crate) fn count(frames: &[Vec<u8>]) -> u64 {
    u64::try_from(frames.len()).expect("few")
}
