//! The peers' ends of stream ports, and the frames that they send.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use hub_protocol::stream::{self, PREFIX_LEN};
use mio::net::UnixStream;
use qhub::batch::ARENA;
use qhub::link::{StreamLink, StreamSocket};
use socket2::Socket;

pub(crate) fn socketpair() -> (StreamLink, Wire) {
    let (ours, theirs) = UnixStream::pair().expect("descriptors");
    let wire = Wire::new(OwnedFd::from(theirs));
    // Large enough for the hub to get whole arenas, which its own writes then cut.
    wire.0.set_send_buffer_size(ARENA).expect("an open socket");
    (StreamLink::accepted(StreamSocket::Unix(ours)).expect("an open socket"), wire)
}

/// The peer's end of a port.
pub(crate) struct Wire(pub(crate) Socket);

impl Wire {
    pub(crate) fn new(socket: impl Into<Socket>) -> Self {
        let socket = socket.into();
        socket.set_nonblocking(true).expect("an open socket");
        Self(socket)
    }

    /// Writes all of `bytes`, which are few.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        assert_eq!(self.write(bytes), bytes.len());
    }

    /// Writes what the kernel takes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.0.write(&bytes[written..]) {
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("write: {error}"),
            }
        }
        written
    }

    pub(crate) fn write_error(&mut self) -> ErrorKind {
        self.0.write(&record(&broadcast(0))).expect_err("it is told to stop").kind()
    }

    /// What can be read now.
    pub(crate) fn read(&mut self) -> Vec<u8> {
        self.read_at_most(usize::MAX)
    }

    pub(crate) fn read_at_most(&mut self, limit: usize) -> Vec<u8> {
        let (mut got, mut buffer) = (Vec::new(), vec![0; limit.min(ARENA)]);
        while got.len() < limit {
            let room = buffer.len().min(limit - got.len());
            match self.0.read(&mut buffer[..room]) {
                Ok(0) => break,
                Ok(length) => got.extend(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("read: {error}"),
            }
        }
        got
    }

    /// Has the hub closed the connection, with nothing more to be read?
    pub(crate) fn is_ended(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(length) => length == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// Reads just `bytes`, and waits for them.
    pub(crate) fn expect(&mut self, bytes: &[u8]) {
        self.0.set_nonblocking(false).expect("an open socket");
        self.0.set_read_timeout(Some(Duration::from_secs(10))).expect("an open socket");
        let mut got = vec![0; bytes.len()];
        self.0.read_exact(&mut got).expect("octets in time");
        assert!(got == bytes, "what arrives is what was sent");
        self.0.set_nonblocking(true).expect("an open socket");
    }
}

/// Octets of most frames here.
pub(crate) const LENGTH: usize = 1514;

pub(crate) fn station(number: usize) -> [u8; 6] {
    [0x02, 0, 0, 0, 0, u8::try_from(number).expect("few stations")]
}

/// A frame of `length` octets with `number` all over its payload.
pub(crate) fn frame(from: usize, to: usize, number: usize, length: usize) -> Vec<u8> {
    let mut frame = [station(to), station(from)].concat();
    frame.extend([0x88, 0xb5]);
    frame.extend(number.to_be_bytes().into_iter().cycle().take(length.saturating_sub(frame.len())));
    frame
}

pub(crate) fn broadcast(from: usize) -> Vec<u8> {
    let mut frame = frame(from, 0, 0, 60);
    frame[..6].fill(0xff);
    frame
}

pub(crate) fn record(frame: &[u8]) -> Vec<u8> {
    records(&[frame.to_vec()])
}

pub(crate) fn records(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        assert!(stream::append(&mut bytes, frame));
    }
    bytes
}

pub(crate) fn ends_in_mid_record(bytes: &[u8]) -> bool {
    stream::scan(bytes).whole < bytes.len()
}

/// A bulk of frames, all of [`LENGTH`].
pub(crate) fn bulk(from: usize, to: usize, octets: usize) -> Vec<u8> {
    let count = octets / (PREFIX_LEN + LENGTH);
    records(&(0..count).map(|number| frame(from, to, number, LENGTH)).collect::<Vec<_>>())
}
