//! Frames as datagrams: as many as there are in one system call.

use std::array;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, recvmmsg, send, sendmmsg};

use crate::frame::SLOTS;

/// The most frames of one system call.
const BATCH: usize = SLOTS;

/// Room for the largest frame that is measured. No multiple of a page, or the frames would fight for the same
/// few lines of the cache. A frame that is cut off is found out by its length.
const ROOM: usize = 9280;

/// The frames that one system call has found.
pub(crate) struct Inbox {
    headers: MultiHeaders<()>,
    buffer: Box<[u8]>,
    lengths: Vec<usize>,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            headers: MultiHeaders::preallocate(BATCH, None),
            buffer: vec![0; BATCH * ROOM].into_boxed_slice(),
            lengths: Vec::with_capacity(BATCH),
        }
    }

    /// Takes what there is. `flags` say whether to wait for the first.
    pub(crate) fn receive(&mut self, socket: impl AsFd, flags: MsgFlags) -> io::Result<()> {
        let mut rooms = self.buffer.chunks_exact_mut(ROOM);
        let mut slices: [_; BATCH] =
            array::from_fn(|_| [IoSliceMut::new(rooms.next().expect("one for each frame"))]);
        self.lengths.clear();
        let fd = socket.as_fd().as_raw_fd();
        let frames = recvmmsg(fd, &mut self.headers, &mut slices, flags, None)?;
        self.lengths.extend(frames.map(|frame| frame.bytes));
        Ok(())
    }

    pub(crate) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.buffer.chunks_exact(ROOM).zip(&self.lengths).map(|(room, length)| &room[..*length])
    }
}

/// Sends frames, and waits where they are not taken.
pub(crate) struct Outbox {
    headers: MultiHeaders<()>,
    flags: MsgFlags,
}

impl Outbox {
    /// Waits in `poll`.
    pub(crate) fn new() -> Self {
        Self { headers: MultiHeaders::preallocate(BATCH, None), flags: MsgFlags::MSG_DONTWAIT }
    }

    /// Waits in the call that sends, on a socket that blocks.
    pub(crate) fn blocking() -> Self {
        Self { flags: MsgFlags::empty(), ..Self::new() }
    }

    /// Sends all of them, `BATCH` at the most.
    pub(crate) fn send<'a>(
        &mut self,
        socket: impl AsFd,
        frames: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        const NO_ADDRESSES: [Option<()>; BATCH] = [None; BATCH];
        const NO_CONTROL: [ControlMessage<'_>; 0] = [];
        let socket = socket.as_fd();
        let mut slices = [[IoSlice::new(&[])]; BATCH];
        let mut count = 0;
        for (slice, frame) in slices.iter_mut().zip(frames) {
            *slice = [IoSlice::new(frame)];
            count += 1;
        }
        let (fd, flags) = (socket.as_raw_fd(), self.flags);
        let mut left = &slices[..count];
        while !left.is_empty() {
            // A client that has one frame calls `send`, as QEMU does.
            let sent = match left {
                [[frame]] => send(fd, frame, flags).map(|_| 1),
                _ => {
                    let headers = &mut self.headers;
                    sendmmsg(fd, headers, left, NO_ADDRESSES, NO_CONTROL, flags).map(Iterator::count)
                }
            };
            match sent {
                Ok(sent) => left = &left[sent..],
                // An interface had no room, and has dropped it.
                Err(Errno::ENOBUFS) => left = &left[1..],
                Err(Errno::EAGAIN) => {
                    poll(&mut [PollFd::new(socket, PollFlags::POLLOUT)], PollTimeout::NONE)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
