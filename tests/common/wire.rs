//! The ends of a segment that a test holds itself: frames go in, frames come out.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::wait::{Deadline, LIMIT, pause};

/// The longest frame that QEMU sends or takes.
pub(crate) const FRAME_MAX: usize = 69_632;

pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];

/// For local experiments, says IEEE 802.
const ETHERTYPE_TEST: [u8; 2] = [0x88, 0xb5];
const ETHERTYPE_PROBE: [u8; 2] = [0x88, 0xb6];

/// A locally administered MAC for a test's own station.
pub(crate) const fn mac(number: u8) -> [u8; 6] {
    [0x02, 0x71, 0x68, 0x00, 0x00, number]
}

/// A frame of `length` bytes, header included, filled with what `seed` makes.
pub(crate) fn frame(destination: [u8; 6], source: [u8; 6], length: usize, seed: u8) -> Vec<u8> {
    let mut frame = [&destination[..], &source, &ETHERTYPE_TEST].concat();
    assert!(length >= frame.len(), "{length} bytes are no frame");
    let mut byte = seed;
    frame.resize_with(length, || {
        byte = byte.wrapping_mul(5).wrapping_add(seed | 1);
        byte
    });
    frame
}

/// Something that takes part in the segment and is driven by the test.
pub(crate) trait Station {
    fn send(&mut self, frame: &[u8]);

    /// The next frame, or `None` if none came within `limit`.
    fn try_receive(&mut self, limit: Duration) -> Option<Vec<u8>>;

    /// The next frame that `wanted` accepts; others are dropped.
    fn receive_if(&mut self, what: &str, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let deadline = Deadline::after(LIMIT);
        while let Some(left) = deadline.left() {
            match self.try_receive(left) {
                Some(frame) if wanted(&frame) => return frame,
                _ => {}
            }
        }
        panic!("waited {LIMIT:?} for {what}")
    }

    /// The next frame that is not a probe of `settle`.
    fn receive(&mut self) -> Vec<u8> {
        self.receive_if("a frame", |frame| frame[12..14] != ETHERTYPE_PROBE)
    }
}

/// Returns once frames pass between the two, first from `one` to `other`, then back: a connection counts only when its
/// other end serves it, and nothing but a frame can tell.
pub(crate) fn settle(one: &mut impl Station, other: &mut impl Station) {
    settle_one_way(one, other, 1);
    settle_one_way(other, one, 2);
}

fn settle_one_way(from: &mut impl Station, to: &mut impl Station, direction: u8) {
    let probe = [&BROADCAST[..], &mac(0xf0 + direction), &ETHERTYPE_PROBE, &[direction; 46]].concat();
    let deadline = Deadline::after(LIMIT);
    while deadline.left().is_some() {
        from.send(&probe);
        while let Some(frame) = to.try_receive(Duration::from_millis(50)) {
            if frame == probe {
                return;
            }
        }
    }
    panic!("waited {LIMIT:?} for a frame to pass");
}

/// A bare client of a stream port: `u32 length | frame`, as QEMU speaks it.
pub(crate) struct Wire {
    socket: Socket,
    input: Vec<u8>,
}

impl Wire {
    pub(crate) fn unix(path: impl AsRef<Path>) -> Self {
        let address = SockAddr::unix(path).expect("a path that fits in a socket address");
        Self::connect(Domain::UNIX, &address)
    }

    pub(crate) fn tcp(address: SocketAddr) -> Self {
        Self::connect(Domain::for_address(address), &address.into())
    }

    fn connect(domain: Domain, address: &SockAddr) -> Self {
        let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
        socket.connect(address).unwrap_or_else(|error| panic!("connect to {address:?}: {error}"));
        socket.set_write_timeout(Some(LIMIT)).expect("a time-out can be set");
        Self { socket, input: Vec::new() }
    }

    /// Sends bytes that are framed already, or wrongly, by the test.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the hub takes what is sent");
    }

    /// Sends all frames in one write.
    pub(crate) fn send_all(&mut self, frames: &[Vec<u8>]) {
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| framed(frame)).collect();
        self.send_bytes(&bytes);
    }

    fn take_frame(&mut self) -> Option<Vec<u8>> {
        let (length, rest) = self.input.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).expect("a length fits");
        assert!((1..=FRAME_MAX).contains(&length), "the hub sent a frame of {length} bytes");
        let frame = rest.get(..length)?.to_vec();
        self.input.drain(..4 + length);
        Some(frame)
    }
}

impl Station for Wire {
    fn send(&mut self, frame: &[u8]) {
        self.send_bytes(&framed(frame));
    }

    fn try_receive(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let deadline = Deadline::after(limit);
        loop {
            if let Some(frame) = self.take_frame() {
                return Some(frame);
            }
            self.socket.set_read_timeout(Some(deadline.left()?)).expect("a time-out can be set");
            let mut chunk = vec![0; 1 << 16];
            match self.socket.read(&mut chunk) {
                Ok(0) => panic!("the hub closed the connection"),
                Ok(length) => self.input.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("read from the hub: {error}"),
            }
        }
    }
}

/// Sends the same frames again and again, 32,000 or so a second, until it is stopped or the hub is gone.
pub(crate) struct Flood {
    done: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Flood {
    pub(crate) fn start(mut wire: Wire, frames: Vec<Vec<u8>>) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicU64::new(0));
        let (until, count) = (Arc::clone(&done), Arc::clone(&rounds));
        let thread = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                wire.send_all(&frames);
                count.fetch_add(1, Ordering::Relaxed);
                // Others want some of the CPU too.
                pause(Duration::from_millis(1));
            }
        });
        Self { done, rounds, thread }
    }

    /// How often all frames have been sent.
    pub(crate) fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(self) {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().expect("the hub took all that was sent");
    }
}

fn framed(frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).expect("a frame's length fits");
    [&length.to_be_bytes(), frame].concat()
}

/// Two connected stream sockets: one for the hub's `fd:0`, one for another's.
pub(crate) fn socket_pair() -> (OwnedFd, OwnedFd) {
    let (one, other) = Socket::pair(Domain::UNIX, Type::STREAM, None).expect("a socket pair");
    (one.into(), other.into())
}
