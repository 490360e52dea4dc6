//! The relay of TAPs: what a thread can carry that moves a frame at a time between two of them, or between one and
//! a stream, and looks at nothing but its length.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::Socket;

use super::relay::{accept, wait_for};
use crate::frame::{Deframer, READ_SIZE};
use crate::socket::Address;
use crate::{netns, raw};

/// Frames of a TAP before the other side has its turn.
const TURN: usize = 64;

/// Room for a TCP segment of 64 KiB with its headers.
const ROOM: usize = 66 * 1024;

/// In a stream, in front of each frame.
const LENGTH: usize = 4;

enum End {
    Tap(File),
    Stream(Socket, Deframer),
}

impl End {
    fn open(address: &Address, offload: bool) -> anyhow::Result<Self> {
        match address.tap() {
            Some(tap) => {
                netns::enter(&tap.netns)?;
                Ok(Self::Tap(raw::open_tap(&tap.name, offload)?))
            }
            None => Ok(Self::Stream(accept(&address.listen()?)?, Deframer::new())),
        }
    }
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tap(tap) => tap.as_fd(),
            Self::Stream(socket, _) => socket.as_fd(),
        }
    }
}

pub(super) fn run(from: &Address, to: &Address, offload: bool) -> anyhow::Result<()> {
    // A TAP has to be there before somebody connects to a stream.
    let mut ends = if from.tap().is_some() {
        (End::open(from, offload)?, End::open(to, offload)?)
    } else {
        (End::open(to, offload)?, End::open(from, offload)?)
    };
    let mut buffer = vec![0; READ_SIZE + ROOM];
    loop {
        let [forth, back] = wait_for(&ends.0, &ends.1)?;
        if forth {
            pump(&mut ends.0, &mut ends.1, &mut buffer)?;
        }
        if back {
            pump(&mut ends.1, &mut ends.0, &mut buffer)?;
        }
    }
}

fn pump(from: &mut End, to: &mut End, buffer: &mut [u8]) -> io::Result<()> {
    match (from, to) {
        (End::Tap(from), End::Tap(to)) => cross(from, to, buffer),
        (End::Tap(from), End::Stream(to, _)) => bundle(from, to, buffer),
        (End::Stream(from, frames), End::Tap(to)) => scatter(from, frames, to),
        (End::Stream(..), End::Stream(..)) => Err(ErrorKind::Unsupported.into()),
    }
}

/// The next frame, if there is one.
fn read(tap: &mut File, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match tap.read(buffer) {
        Ok(got) => Ok(Some(got)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

fn cross(from: &mut File, to: &mut File, buffer: &mut [u8]) -> io::Result<()> {
    for _ in 0..TURN {
        let Some(got) = read(from, buffer)? else {
            break;
        };
        to.write_all(&buffer[..got])?;
    }
    Ok(())
}

/// Frames of a TAP become one write.
fn bundle(from: &mut File, to: &mut Socket, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    for _ in 0..TURN {
        let (length, room) = buffer[filled..].split_at_mut(LENGTH);
        let Some(got) = read(from, room)? else {
            break;
        };
        length.copy_from_slice(&u32::try_from(got).map_err(io::Error::other)?.to_be_bytes());
        filled += LENGTH + got;
    }
    to.write_all(&buffer[..filled])
}

/// One read of a stream becomes frames for a TAP.
fn scatter(from: &mut Socket, frames: &mut Deframer, to: &mut File) -> io::Result<()> {
    if frames.fill(from)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let mut result = Ok(());
    frames.drain(|frame| {
        if result.is_ok() {
            result = to.write_all(frame);
        }
    })?;
    result
}
