//! The hub under test, and the time it is told.

use std::time::{Duration, Instant};

use mio::net::TcpStream;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use qhub::bridge::{BridgeConfig, Mode};
use qhub::config::PortOptions;
use qhub::hub::{self, Hub, HubConfig, Snapshot};
use qhub::link::{Link, Peer, StreamLink, StreamSocket};
use qhub::port::Counters;

use crate::wire::{Wire, broadcast, ends_in_mid_record, record, socketpair};

pub(crate) const NS: Duration = Duration::from_nanos(1);
pub(crate) const MS: Duration = Duration::from_millis(1);

/// Lets this process have descriptors for a thousand ports and their peers.
pub(crate) fn allow_descriptors() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(4096.min(hard)), hard).expect("no more than the hard one");
}

/// A hub and the time it is told.
pub(crate) struct Net {
    pub(crate) hub: Hub,
    pub(crate) now: Instant,
}

impl Net {
    pub(crate) fn new(mode: Mode) -> Self {
        Self::with_room(mode, 1024)
    }

    /// A hub that has room for so many ports.
    pub(crate) fn with_room(mode: Mode, max_ports: usize) -> Self {
        let bridge = BridgeConfig { mode, ageing: Duration::from_secs(300), fdb_max: 2048 };
        let hub = Hub::new(HubConfig { bridge, max_ports, memory: 256 << 20 }).expect("a poll");
        Self { hub, now: hub::now() }
    }

    pub(crate) fn attach(&mut self, link: Box<dyn Link>) {
        self.hub.attach("wire", link, Peer::Unknown, PortOptions::default(), self.now).expect("room");
    }

    pub(crate) fn unix(&mut self) -> Wire {
        let (link, wire) = socketpair();
        self.attach(Box::new(link));
        wire
    }

    pub(crate) fn tcp(&mut self) -> Wire {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let theirs =
            std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (ours, _) = listener.accept().expect("a connection");
        ours.set_nonblocking(true).expect("an open socket");
        let link =
            StreamLink::accepted(StreamSocket::Tcp(TcpStream::from_std(ours))).expect("an open socket");
        self.attach(Box::new(link));
        Wire::new(theirs)
    }

    /// Unix ports whose stations, 0 and up, were heard already.
    pub(crate) fn introduced<const N: usize>(mode: Mode) -> (Self, [Wire; N]) {
        let mut net = Self::new(mode);
        let mut wires: [Wire; N] = std::array::from_fn(|_| net.unix());
        for (station, wire) in wires.iter_mut().enumerate() {
            wire.send(&record(&broadcast(station)));
        }
        net.settle();
        wires.iter_mut().for_each(|wire| drop(wire.read()));
        (net, wires)
    }

    pub(crate) fn turn(&mut self) {
        self.hub.wait(Some(Duration::ZERO)).expect("a poll");
        self.hub.turn(self.now);
    }

    pub(crate) fn is_due(&self) -> bool {
        self.hub.wake().is_some_and(|wake| wake <= self.now)
    }

    pub(crate) fn snapshot(&mut self) -> Snapshot {
        self.hub.snapshot(self.now)
    }

    pub(crate) fn counters(&mut self, port: usize) -> Counters {
        self.snapshot().ports[port].counters
    }

    pub(crate) fn ports(&mut self) -> usize {
        self.snapshot().ports.len()
    }

    /// Turns until nothing happens any more; then nothing may be due, and the books balance.
    pub(crate) fn settle(&mut self) {
        let mut still = 0;
        for _ in 0..10_000 {
            let before = self.snapshot();
            self.turn();
            still = if before == self.snapshot() { still + 1 } else { 0 };
            if still == 3 {
                assert!(!self.is_due(), "the hub is awake for nothing");
                return self.balance();
            }
        }
        panic!("the hub never rests");
    }

    /// Turns until `is_done`, and waits for the poll meanwhile.
    pub(crate) fn until(&mut self, is_done: impl Fn(&Snapshot) -> bool) {
        for _ in 0..1000 {
            if is_done(&self.snapshot()) {
                return self.balance();
            }
            let timeout = if self.is_due() { Duration::ZERO } else { 10 * MS };
            self.hub.wait(Some(timeout)).expect("a poll");
            self.hub.turn(self.now);
        }
        panic!("it never comes: {}", self.snapshot());
    }

    /// Received x fan-out = sent + queued + dropped.
    pub(crate) fn balance(&mut self) {
        let snapshot = self.snapshot();
        let ports = snapshot.ports.iter().map(|port| (&port.counters, port.queued_frames));
        let all = ports.chain([(&snapshot.departed, 0)]);
        let booked: u64 = all.map(|(it, queued)| it.tx_frames + it.drops.total() + queued).sum();
        assert_eq!(snapshot.copies, booked, "{snapshot}");
    }

    pub(crate) fn dropped(&mut self) -> u64 {
        let snapshot = self.snapshot();
        let ports = snapshot.ports.iter().map(|port| port.counters.drops.total());
        ports.sum::<u64>() + snapshot.departed.drops.total()
    }

    /// Writes all that the hub and the sockets take, of `bytes`; returns how much that is.
    pub(crate) fn fill(&mut self, from: &mut Wire, bytes: &[u8]) -> usize {
        let mut sent = 0;
        loop {
            let more = from.write(&bytes[sent..]);
            if more == 0 {
                return sent;
            }
            sent += more;
            self.settle();
        }
    }

    /// Writes `bytes` to one wire and reads them from the other, in pieces of `chunks` in turn.
    /// True when the hub was seen to have written no more than the beginning of a record.
    pub(crate) fn pump(&mut self, from: &mut Wire, to: &mut Wire, bytes: &[u8], chunks: &[usize]) -> bool {
        let (mut sent, mut got, mut was_cut) = (0, Vec::new(), false);
        for &chunk in chunks.iter().cycle().take(100_000) {
            sent += from.write(&bytes[sent..]);
            self.settle();
            let more = to.read_at_most(chunk);
            let is_all = more.len() < chunk;
            got.extend(more);
            assert!(bytes.starts_with(&got), "what arrives is what was sent");
            if got.len() == bytes.len() {
                self.settle();
                assert_eq!((self.dropped(), self.snapshot().memory), (0, 0));
                return was_cut;
            }
            was_cut |= is_all && ends_in_mid_record(&got);
        }
        panic!("stuck: {} of {} octets", got.len(), bytes.len());
    }
}
