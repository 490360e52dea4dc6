//! A world of hosts around one hub.
//!
//! Each host has a link with two kernel buffers: one toward the hub, which its guest fills, and one
//! from it, which its guest reads at some rate.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hub_protocol::stream::{self, Cut};
use mio::{Interest, Registry, Token};
use qhub::batch::{FrameBatch, Run, Taken};
use qhub::bridge::{BridgeConfig, Mode, PortId};
use qhub::config::PortOptions;
use qhub::hub::{self, Hub, HubConfig, Readiness, Snapshot};
use qhub::link::{Link, Peer, Received, SendError};
use qhub::port::YOUNG;

/// What a kernel holds for a socket, each way.
pub(crate) const BUFFER: usize = 200_000;

/// The grain of time.
pub(crate) const STEP: Duration = Duration::from_micros(100);

/// Octets that a hub and its hosts can move in a step: some 8 Gbit/s.
const PER_STEP: usize = 100_000;

#[derive(Debug, Default)]
struct Buffers {
    to_hub: Vec<u8>,
    from_hub: Vec<u8>,
    was_full: bool,
    closed: bool,
}

/// The hub's end of a host's link.
#[derive(Debug)]
struct SimLink {
    buffers: Rc<RefCell<Buffers>>,
    tail: Vec<u8>,
    cut: Vec<u8>,
    peer_blocks: bool,
}

impl SimLink {
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut buffers = self.buffers.borrow_mut();
        let taken = bytes.len().min(BUFFER - buffers.from_hub.len());
        buffers.from_hub.extend_from_slice(&bytes[..taken]);
        buffers.was_full |= taken < bytes.len();
        taken
    }
}

impl Link for SimLink {
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
        let buffers = &mut self.buffers.borrow_mut();
        if buffers.to_hub.is_empty() {
            return if buffers.closed {
                Err(io::ErrorKind::UnexpectedEof.into())
            } else {
                Ok(Received::Drained)
            };
        }
        let filled = batch.fill_stream(&mut self.tail, |room| {
            let taken = room.len().min(buffers.to_hub.len());
            room[..taken].copy_from_slice(&buffers.to_hub[..taken]);
            buffers.to_hub.drain(..taken);
            Ok(taken)
        })?;
        assert_eq!(filled.fault, None);
        Ok(if buffers.to_hub.is_empty() { Received::Drained } else { Received::More })
    }

    fn send(&mut self, run: Run<'_>) -> Result<Taken, SendError> {
        self.flush()?;
        if self.is_cut() {
            return Ok(Taken::default());
        }
        let written = self.write(run.records);
        let Cut { whole, frames, end } = stream::cut(run.records, written);
        self.cut.extend_from_slice(&run.records[written..end]);
        Ok(Taken { octets: end, frames: frames + usize::from(end > whole) })
    }

    fn flush(&mut self) -> io::Result<()> {
        let cut = std::mem::take(&mut self.cut);
        let written = self.write(&cut);
        self.cut = cut[written..].to_vec();
        Ok(())
    }

    fn is_cut(&self) -> bool {
        !self.cut.is_empty()
    }

    fn max_frame(&self) -> usize {
        stream::MAX_FRAME
    }

    fn patience(&self) -> Option<Duration> {
        self.peer_blocks.then_some(YOUNG)
    }

    fn stop_receiving(&mut self) -> bool {
        true
    }

    fn is_at_boundary(&self) -> bool {
        self.tail.is_empty()
    }
}

/// How fast a guest reads, in octets per second.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reads {
    AtOnce,
    Rate(f64),
}

/// Mbit/s.
pub(crate) fn mbit(rate: f64) -> Reads {
    Reads::Rate(rate * 125_000.0)
}

/// A host and its guest.
#[derive(Debug)]
pub(crate) struct Host {
    buffers: Rc<RefCell<Buffers>>,
    pub(crate) port: PortId,
    pub(crate) reads: Reads,
    credit: f64,
    partial: Vec<u8>,
    /// Frames read: when, and the frame.
    pub(crate) got: Vec<(Instant, Vec<u8>)>,
    fed: bool,
}

impl Host {
    /// Puts a frame on its way, if the kernel takes it whole.
    pub(crate) fn send(&mut self, frame: &[u8]) -> bool {
        let buffers = &mut self.buffers.borrow_mut();
        if buffers.to_hub.len() + frame.len() + stream::PREFIX_LEN > BUFFER {
            return false;
        }
        assert!(stream::append(&mut buffers.to_hub, frame), "frames are short");
        self.fed = true;
        true
    }

    /// Closes the connection; what was sent before still arrives.
    pub(crate) fn leave(&mut self) {
        self.buffers.borrow_mut().closed = true;
        self.fed = true;
        self.reads = Reads::Rate(0.0);
    }

    /// Reads what the rate allows; true when the kernel would call its socket writable again.
    fn read(&mut self, now: Instant) -> bool {
        let mut buffers = self.buffers.borrow_mut();
        let allowed = match self.reads {
            Reads::AtOnce => buffers.from_hub.len(),
            Reads::Rate(rate) => {
                self.credit = (self.credit + rate * STEP.as_secs_f64()).min(1e9);
                let whole = self.credit.floor();
                self.credit -= whole;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "small and positive"
                )]
                let whole = whole as usize;
                whole.min(buffers.from_hub.len())
            }
        };
        self.partial.extend_from_slice(&buffers.from_hub[..allowed]);
        buffers.from_hub.drain(..allowed);
        let whole = stream::scan(&self.partial).whole;
        self.got.extend(stream::frames(&self.partial[..whole]).map(|frame| (now, frame.to_vec())));
        self.partial.drain(..whole);
        let is_writable = buffers.was_full && buffers.from_hub.len() <= BUFFER / 4;
        buffers.was_full &= !is_writable;
        is_writable
    }
}

/// A hub and its hosts.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) hub: Hub,
    pub(crate) hosts: Vec<Host>,
    pub(crate) now: Instant,
    /// Since when frames count.
    pub(crate) start: Instant,
}

impl World {
    pub(crate) fn new(mode: Mode) -> Self {
        Self::with_memory(mode, 256 << 20)
    }

    pub(crate) fn with_memory(mode: Mode, memory: usize) -> Self {
        let bridge = BridgeConfig { mode, ageing: Duration::from_secs(300), fdb_max: 64 };
        let start = hub::now();
        let hub = Hub::new(HubConfig { bridge, max_ports: 64, memory }).expect("a poll");
        Self { hub, hosts: Vec::new(), now: start, start }
    }

    /// Adds a host, and returns its index.
    pub(crate) fn host(&mut self, reads: Reads) -> usize {
        self.host_with(reads, PortOptions::default(), false)
    }

    /// The same with options of its port, and perhaps one whose own socket blocks.
    pub(crate) fn host_with(&mut self, reads: Reads, options: PortOptions, peer_blocks: bool) -> usize {
        let buffers = Rc::new(RefCell::new(Buffers::default()));
        let link = SimLink { buffers: Rc::clone(&buffers), tail: Vec::new(), cut: Vec::new(), peer_blocks };
        let port = self.hub.attach("sim", Box::new(link), Peer::Unknown, options, self.now).expect("room");
        self.hosts.push(Host {
            buffers,
            port,
            reads,
            credit: 0.0,
            partial: Vec::new(),
            got: Vec::new(),
            fed: false,
        });
        self.hosts.len() - 1
    }

    /// Lets everybody hear of everybody.
    pub(crate) fn introduce(&mut self) {
        for host in 0..self.hosts.len() {
            assert!(self.hosts[host].send(&broadcast(host)));
            self.run(20 * STEP, |_| {});
        }
        for host in &mut self.hosts {
            host.got.clear();
        }
        self.start = self.now;
    }

    /// Lets `time` pass. `act` is what the guests do in each step.
    pub(crate) fn run(&mut self, time: Duration, mut act: impl FnMut(&mut Self)) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            act(self);
            self.step();
        }
    }

    /// Lets `time` pass in which the guests read and the hub does not come to run.
    pub(crate) fn hold_up_the_hub(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            self.read();
        }
    }

    fn step(&mut self) {
        self.read();
        let mut moved = 0;
        for _ in 0..1000 {
            let before = self.waiting_for_hub();
            self.hub.turn(self.now);
            moved += before - self.waiting_for_hub();
            if moved >= PER_STEP || self.hub.wake().is_none_or(|wake| wake > self.now) {
                return;
            }
        }
        panic!("the hub spins: it is awake and moves nothing");
    }

    /// The guests read, and the hub is told what that makes possible.
    fn read(&mut self) {
        for index in 0..self.hosts.len() {
            let host = &mut self.hosts[index];
            let writable = host.read(self.now);
            let readable = std::mem::take(&mut host.fed);
            if readable || writable {
                let read_closed = host.buffers.borrow().closed;
                self.hub.note(host.port, Readiness { readable, writable, read_closed });
            }
        }
    }

    fn waiting_for_hub(&self) -> usize {
        self.hosts.iter().map(|host| host.buffers.borrow().to_hub.len()).sum()
    }

    pub(crate) fn snapshot(&mut self) -> Snapshot {
        self.hub.snapshot(self.now)
    }
}

/// The address of a host.
pub(crate) fn station(host: usize) -> [u8; 6] {
    let [low, ..] = host.to_le_bytes();
    [0x02, 0, 0, 0, 0, low]
}

/// A frame of `length` octets from one host to another, with `number` in it.
pub(crate) fn frame(from: usize, to: usize, number: u32, length: usize) -> Vec<u8> {
    let mut frame = vec![0; length];
    frame[..6].copy_from_slice(&station(to));
    frame[6..12].copy_from_slice(&station(from));
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    frame
}

/// A frame from a host to everybody.
pub(crate) fn broadcast(from: usize) -> Vec<u8> {
    let mut frame = frame(from, 0, 0, 60);
    frame[..6].fill(0xff);
    frame
}

/// The number in a frame.
pub(crate) fn number(frame: &[u8]) -> u32 {
    frame[14..18].try_into().map(u32::from_be_bytes).expect("a whole frame")
}
