//! Several datagrams in one system call (`recvmmsg`, `sendmmsg`).
//!
//! What it is worth is in `benches/README.md`.

use std::array;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::RawFd;

use hub_protocol::stream::{self, PREFIX_LEN};
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, recvmmsg, sendmmsg};

use crate::batch::{FrameBatch, Run, SLOTS, Taken};

const NO_ADDRESSES: [Option<()>; SLOTS] = [None; SLOTS];
const NO_CONTROL: [ControlMessage<'_>; 0] = [];

/// Headers for datagrams of a socket that is connected.
#[derive(Debug)]
pub(super) struct Many {
    headers: MultiHeaders<()>,
    lengths: [usize; SLOTS],
}

impl Many {
    pub(super) fn new() -> Self {
        Self { headers: MultiHeaders::preallocate(SLOTS, None), lengths: [0; SLOTS] }
    }

    /// Receives into the slots of `batch`, and returns the octets in each.
    pub(super) fn receive(&mut self, socket: RawFd, batch: &mut FrameBatch) -> io::Result<&[usize]> {
        let mut slots = batch.slots().map(|slot| [IoSliceMut::new(slot)]);
        let mut slots: [_; SLOTS] = array::from_fn(|_| slots.next().unwrap_or([IoSliceMut::new(&mut [])]));
        let mut found = 0;
        for datagram in recvmmsg(socket, &mut self.headers, &mut slots, MsgFlags::empty(), None)? {
            self.lengths[found] = datagram.bytes;
            found += 1;
        }
        Ok(&self.lengths[..found])
    }

    /// Sends from the start of `run`, as much as one call takes.
    pub(super) fn send(&mut self, socket: RawFd, run: Run<'_>) -> io::Result<Taken> {
        let mut slices = [[IoSlice::new(&[])]; SLOTS];
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
