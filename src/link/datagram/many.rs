//! Several datagrams in one system call (`recvmmsg`, `sendmmsg`).
//!
//! What it is worth is in `benches/README.md`.

use std::array;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::RawFd;

use hub_protocol::ethernet;
use hub_protocol::stream::{self, PREFIX_LEN};
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, recvmmsg, sendmmsg};

use crate::batch::{FrameBatch, MANY, Run, Taken};
use crate::link::Received;

const NO_ADDRESSES: [Option<()>; MANY] = [None; MANY];
const NO_CONTROL: [ControlMessage<'_>; 0] = [];

/// How slowly a length is forgotten: this part of it with each call.
const DECAY: usize = 8;

/// Rooms that are offered to a link on which there is little traffic.
const FEW: usize = 4;

/// Headers for datagrams of a socket that is connected.
#[derive(Debug)]
pub(super) struct Many {
    headers: MultiHeaders<()>,
    lengths: [usize; MANY],
    /// How long the longest of the next datagrams will be, most likely.
    expected: usize,
    /// How many there will be at the most, most likely: rooms take time to prepare.
    likely: usize,
}

impl Many {
    pub(super) fn new() -> Self {
        Self {
            headers: MultiHeaders::preallocate(MANY, None),
            lengths: [0; MANY],
            expected: ethernet::MIN_LEN,
            likely: FEW,
        }
    }

    /// Receives into `batch` what one call gives; what `is_noise` is no frame.
    pub(super) fn receive(
        &mut self,
        socket: RawFd,
        batch: &mut FrameBatch,
        is_noise: impl Fn(&[u8]) -> bool,
    ) -> io::Result<Received> {
        let expected = self.expected;
        let (offered, found) = self.fill(socket, batch.rooms(expected).take(self.likely))?;
        self.likely = if found == offered { MANY } else { (2 * found).clamp(FEW, MANY) };
        let lengths = &self.lengths[..found];
        let longest = lengths.iter().copied().max().unwrap_or_default().min(stream::MAX_FRAME);
        self.expected = longest.max(expected - expected / DECAY).max(ethernet::MIN_LEN);
        batch.push_many(expected, lengths, is_noise);
        Ok(if found < offered { Received::Drained } else { Received::More })
    }

    /// Receives into `rooms`; says how many these are, and how many were needed.
    fn fill<'r>(
        &mut self,
        socket: RawFd,
        mut rooms: impl ExactSizeIterator<Item = [&'r mut [u8]; 2]>,
    ) -> io::Result<(usize, usize)> {
        let (offered, mut found) = (rooms.len(), 0);
        let mut rooms: [[_; 2]; MANY] =
            array::from_fn(|_| rooms.next().unwrap_or_default().map(IoSliceMut::new));
        for datagram in recvmmsg(socket, &mut self.headers, &mut rooms[..offered], MsgFlags::empty(), None)? {
            self.lengths[found] = datagram.bytes;
            found += 1;
        }
        Ok((offered, found))
    }

    /// Sends from the start of `run`, as much as one call takes.
    pub(super) fn send(&mut self, socket: RawFd, run: Run<'_>) -> io::Result<Taken> {
        let mut slices = [[IoSlice::new(&[])]; MANY];
        let mut count = 0;
        for (slice, frame) in slices.iter_mut().zip(stream::frames(run.records)) {
            *slice = [IoSlice::new(frame)];
            count += 1;
        }
        let slices = &slices[..count];
        let sent = sendmmsg(socket, &mut self.headers, slices, NO_ADDRESSES, NO_CONTROL, MsgFlags::empty())?;
        let frames = sent.count();
        let octets = slices[..frames].iter().map(|[slice]| PREFIX_LEN + slice.len()).sum();
        Ok(Taken { octets, frames })
    }
}
