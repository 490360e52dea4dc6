//! Sending to an interface: one system call moves one frame, or many that belong together.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use hub_protocol::gro::{self, Coalesced};
use hub_protocol::gso::Protocol;
use hub_protocol::stream::PREFIX_LEN;
use hub_protocol::vnet::{VNET_LEN, VnetHeader};
use nix::libc;
use nix::sys::uio::writev;

use crate::batch::{Bundle, Run, Taken};
use crate::host::netlink::{LinkRow, Watch};
use crate::link::SendError;

/// The longest header in front of a frame that a system may ask for.
pub(super) const HEADER_MAX: usize = 24;

/// Slices of one system call: two headers, and the frames that [`gro`] joins at the most.
const SLICES: usize = 2 + gro::FRAMES_MAX;

/// How frames are written to an interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transmit {
    /// Octets in front of each frame, where what is left to be done stands; 0 when nothing may be.
    pub(super) header_len: usize,
    /// The longest frame that may be a part of something longer.
    pub(super) longest_part: usize,
}

impl Transmit {
    /// Sends from the start of `run`, until the system has no room.
    pub(super) fn send(self, interface: impl AsFd, run: Run<'_>) -> Result<Taken, SendError> {
        let (mut taken, mut alone) = (Taken::default(), 0);
        while taken.frames < run.frames {
            let rest = run.split(taken).1;
            match self.send_first(&interface, rest, &mut alone) {
                Ok(more) => {
                    taken = Taken { octets: taken.octets + more.octets, frames: taken.frames + more.frames }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock || taken.frames > 0 => break,
                Err(error) => return Err(classify(error)),
            }
        }
        Ok(taken)
    }

    /// Sends `bundle` as it is; false when the system does not take it.
    pub(super) fn send_bundle(self, interface: impl AsFd, bundle: &Bundle<'_>) -> bool {
        let Bundle { frame, gso } = bundle;
        let is_known = self.header_len > 0 && gso.protocol() == Protocol::Tcp;
        is_known
            && bundle.longest() <= self.longest_part
            && self.write(interface, &gso.header(), &[frame]).is_ok()
    }

    /// Sends the first frame, and those behind it that can be joined with it; not the next `alone` frames,
    /// which could not be sent together.
    fn send_first(self, interface: impl AsFd, run: Run<'_>, alone: &mut usize) -> io::Result<Taken> {
        let first = run.first();
        let frame = run.records.get(PREFIX_LEN..first.octets).unwrap_or_default();
        if self.header_len > 0
            && run.frames > 1
            && *alone == 0
            && frame.len() <= self.longest_part
            && let Some(joined) = gro::coalesce(run.records)
        {
            match self.send_joined(&interface, &joined, run.records) {
                Ok(()) => return Ok(Taken { octets: joined.octets(), frames: joined.frames() }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                // What is wrong with all together may not be wrong with one.
                Err(_) => *alone = joined.frames(),
            }
        }
        *alone = alone.saturating_sub(1);
        self.write(interface, &VnetHeader::default(), &[frame])?;
        Ok(first)
    }

    fn send_joined(self, interface: impl AsFd, joined: &Coalesced, records: &[u8]) -> io::Result<()> {
        let mut parts = [&[][..]; SLICES - 1];
        let all = std::iter::once(joined.header()).chain(joined.payloads(records));
        let mut count = 0;
        for (part, slice) in parts.iter_mut().zip(all) {
            *part = slice;
            count += 1;
        }
        self.write(interface, &joined.vnet(), &parts[..count])
    }

    /// Writes one frame, whose `parts` are in several places.
    fn write(self, interface: impl AsFd, header: &VnetHeader, parts: &[&[u8]]) -> io::Result<()> {
        let mut octets = [0; HEADER_MAX];
        octets[..VNET_LEN].copy_from_slice(&header.write());
        let mut slices = [IoSlice::new(&[]); SLICES];
        let all = std::iter::once(&octets[..self.header_len]).chain(parts.iter().copied());
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(all) {
            *slice = IoSlice::new(part);
            count += 1;
        }
        // An interface takes a frame whole or not at all.
        writev(interface, &slices[..count])?;
        Ok(())
    }
}

fn classify(error: io::Error) -> SendError {
    match error.raw_os_error() {
        // A TAP says the first when it is down, a packet socket the second.
        Some(libc::EIO | libc::ENETDOWN) => SendError::Down(down()),
        Some(libc::EBADFD | libc::ENXIO) => SendError::Broken(deleted()),
        _ => SendError::Refused(error),
    }
}

/// What the interface that is watched is like, if it takes anything.
pub(super) fn running(watch: &Watch) -> Result<&LinkRow, SendError> {
    let row = watch.row().ok_or_else(|| SendError::Broken(deleted()))?;
    if row.is_running { Ok(row) } else { Err(SendError::Down(down())) }
}

/// Why nothing can be sent to an interface at present.
fn down() -> io::Error {
    io::Error::other("the interface is down")
}

/// The end of an interface.
pub(super) fn deleted() -> io::Error {
    io::Error::other("the interface was deleted")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_told_from_what_may_not() {
        for (errno, is_down, is_broken) in [
            (libc::EIO, true, false),
            (libc::ENETDOWN, true, false),
            (libc::EBADFD, false, true),
            (libc::ENXIO, false, true),
            (libc::ENOBUFS, false, false),
            (libc::EMSGSIZE, false, false),
            (libc::EINVAL, false, false),
        ] {
            let class = classify(io::Error::from_raw_os_error(errno));
            assert_eq!(matches!(class, SendError::Down(_)), is_down, "{errno}");
            assert_eq!(matches!(class, SendError::Broken(_)), is_broken, "{errno}");
        }
    }
}
