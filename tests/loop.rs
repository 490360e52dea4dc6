//! The hub on real sockets: the loop is turned by hand, time stands still unless a test moves it,
//! and nothing sleeps.
//!
//! A unix socket hands over at once what is written to it, so what the hub can do it does before
//! [`Net::settle`] returns. TCP may take a moment, which [`Net::until`] waits for in the poll.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hub_protocol::stream::{self, MAX_FRAME, PREFIX_LEN};
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use qhub::batch::{ARENA, FrameBatch, Run, Taken};
use qhub::bridge::{BridgeConfig, Mode};
use qhub::config::{HIGH_MARK, PortOptions};
use qhub::discard::DiscardReason;
use qhub::hub::{self, Hub, HubConfig, Snapshot};
use qhub::link::{Link, Peer, Received, SendError, StreamLink, StreamSocket};
use qhub::port::Counters;
use socket2::Socket;

const NS: Duration = Duration::from_nanos(1);
const MS: Duration = Duration::from_millis(1);
const SILENCE: Duration = Duration::from_millis(20);
const DRAIN_LIMIT: Duration = Duration::from_millis(500);

/// A hub and the time it is told.
struct Net {
    hub: Hub,
    now: Instant,
}

impl Net {
    fn new(mode: Mode) -> Self {
        let bridge = BridgeConfig { mode, ageing: Duration::from_secs(300), fdb_max: 2048 };
        let hub = Hub::new(HubConfig { bridge, max_ports: 1024, memory: 256 << 20 }).expect("a poll");
        Self { hub, now: hub::now() }
    }

    fn attach(&mut self, link: Box<dyn Link>) {
        self.hub.attach("wire", link, Peer::Unknown, PortOptions::default(), self.now).expect("room");
    }

    fn unix(&mut self) -> Wire {
        let (link, wire) = socketpair();
        self.attach(Box::new(link));
        wire
    }

    fn tcp(&mut self) -> Wire {
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
    fn introduced<const N: usize>(mode: Mode) -> (Self, [Wire; N]) {
        let mut net = Self::new(mode);
        let mut wires: [Wire; N] = std::array::from_fn(|_| net.unix());
        for (station, wire) in wires.iter_mut().enumerate() {
            wire.send(&record(&broadcast(station)));
        }
        net.settle();
        wires.iter_mut().for_each(|wire| drop(wire.read()));
        (net, wires)
    }

    fn turn(&mut self) {
        self.hub.wait(Some(Duration::ZERO)).expect("a poll");
        self.hub.turn(self.now);
    }

    fn is_due(&self) -> bool {
        self.hub.wake().is_some_and(|wake| wake <= self.now)
    }

    fn snapshot(&mut self) -> Snapshot {
        self.hub.snapshot(self.now)
    }

    fn counters(&mut self, port: usize) -> Counters {
        self.snapshot().ports[port].counters
    }

    fn ports(&mut self) -> usize {
        self.snapshot().ports.len()
    }

    /// Turns until nothing happens any more; then nothing may be due, and the books balance.
    fn settle(&mut self) {
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
    fn until(&mut self, is_done: impl Fn(&Snapshot) -> bool) {
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
    fn balance(&mut self) {
        let snapshot = self.snapshot();
        let ports = snapshot.ports.iter().map(|port| (&port.counters, port.queued_frames));
        let all = ports.chain([(&snapshot.departed, 0)]);
        let booked: u64 = all.map(|(it, queued)| it.tx_frames + it.drops.total() + queued).sum();
        assert_eq!(snapshot.copies, booked, "{snapshot}");
    }

    fn dropped(&mut self) -> u64 {
        let snapshot = self.snapshot();
        let ports = snapshot.ports.iter().map(|port| port.counters.drops.total());
        ports.sum::<u64>() + snapshot.departed.drops.total()
    }

    /// Writes all that the hub and the sockets take, of `bytes`; returns how much that is.
    fn fill(&mut self, from: &mut Wire, bytes: &[u8]) -> usize {
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
    fn pump(&mut self, from: &mut Wire, to: &mut Wire, bytes: &[u8], chunks: &[usize]) -> bool {
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

fn socketpair() -> (StreamLink, Wire) {
    let (ours, theirs) = UnixStream::pair().expect("descriptors");
    let wire = Wire::new(OwnedFd::from(theirs));
    // Large enough for the hub to get whole arenas, which its own writes then cut.
    wire.0.set_send_buffer_size(ARENA).expect("an open socket");
    (StreamLink::accepted(StreamSocket::Unix(ours)).expect("an open socket"), wire)
}

/// The peer's end of a port.
struct Wire(Socket);

impl Wire {
    fn new(socket: impl Into<Socket>) -> Self {
        let socket = socket.into();
        socket.set_nonblocking(true).expect("an open socket");
        Self(socket)
    }

    /// Writes all of `bytes`, which are few.
    fn send(&mut self, bytes: &[u8]) {
        assert_eq!(self.write(bytes), bytes.len());
    }

    /// Writes what the kernel takes.
    fn write(&mut self, bytes: &[u8]) -> usize {
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

    fn write_error(&mut self) -> ErrorKind {
        self.0.write(&record(&broadcast(0))).expect_err("it is told to stop").kind()
    }

    /// What can be read now.
    fn read(&mut self) -> Vec<u8> {
        self.read_at_most(usize::MAX)
    }

    fn read_at_most(&mut self, limit: usize) -> Vec<u8> {
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
    fn is_ended(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(length) => length == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// Reads just `bytes`, and waits for them.
    fn expect(&mut self, bytes: &[u8]) {
        self.0.set_nonblocking(false).expect("an open socket");
        self.0.set_read_timeout(Some(Duration::from_secs(10))).expect("an open socket");
        let mut got = vec![0; bytes.len()];
        self.0.read_exact(&mut got).expect("octets in time");
        assert!(got == bytes, "what arrives is what was sent");
        self.0.set_nonblocking(true).expect("an open socket");
    }
}

/// Octets of most frames here.
const LENGTH: usize = 1514;

fn station(number: usize) -> [u8; 6] {
    [0x02, 0, 0, 0, 0, u8::try_from(number).expect("few stations")]
}

/// A frame of `length` octets with `number` all over its payload.
fn frame(from: usize, to: usize, number: usize, length: usize) -> Vec<u8> {
    let mut frame = [station(to), station(from)].concat();
    frame.extend([0x88, 0xb5]);
    frame.extend(number.to_be_bytes().into_iter().cycle().take(length.saturating_sub(frame.len())));
    frame
}

fn broadcast(from: usize) -> Vec<u8> {
    let mut frame = frame(from, 0, 0, 60);
    frame[..6].fill(0xff);
    frame
}

fn record(frame: &[u8]) -> Vec<u8> {
    records(&[frame.to_vec()])
}

fn records(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        assert!(stream::append(&mut bytes, frame));
    }
    bytes
}

fn ends_in_mid_record(bytes: &[u8]) -> bool {
    stream::scan(bytes).whole < bytes.len()
}

/// A bulk of frames, all of [`LENGTH`].
fn bulk(from: usize, to: usize, octets: usize) -> Vec<u8> {
    let count = octets / (PREFIX_LEN + LENGTH);
    records(&(0..count).map(|number| frame(from, to, number, LENGTH)).collect::<Vec<_>>())
}

/// A link that counts how often it is asked to receive.
#[derive(Debug)]
struct Counted {
    link: StreamLink,
    receives: Rc<Cell<usize>>,
}

impl Link for Counted {
    fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.link.register(registry, token, interest)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.link.reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.link.deregister(registry)
    }

    fn receive(&mut self, batch: &mut FrameBatch) -> io::Result<Received> {
        self.receives.set(self.receives.get() + 1);
        self.link.receive(batch)
    }

    fn send(&mut self, run: Run<'_>) -> Result<Taken, SendError> {
        self.link.send(run)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.link.flush()
    }

    fn is_cut(&self) -> bool {
        self.link.is_cut()
    }

    fn max_frame(&self) -> usize {
        self.link.max_frame()
    }

    fn patience(&self) -> Option<Duration> {
        self.link.patience()
    }

    fn stop_receiving(&mut self) -> bool {
        self.link.stop_receiving()
    }

    fn is_at_boundary(&self) -> bool {
        self.link.is_at_boundary()
    }
}

#[test]
fn half_a_frame_waits_for_its_other_half() {
    let (mut net, [mut from, mut to]) = Net::introduced(Mode::Switch);
    let bytes = record(&frame(0, 1, 7, LENGTH));
    for cut in [1, PREFIX_LEN - 1, PREFIX_LEN, PREFIX_LEN + 5, bytes.len() - 1] {
        from.send(&bytes[..cut]);
        net.settle();
        assert!(to.read().is_empty(), "cut at {cut}");
        from.send(&bytes[cut..]);
        net.settle();
        assert!(to.read() == bytes, "cut at {cut}");
    }
}

#[test]
fn octets_one_at_a_time_make_frames() {
    let (mut net, [mut from, mut to]) = Net::introduced(Mode::Switch);
    let frames = [frame(0, 1, 1, 60), Vec::new(), frame(0, 1, 2, 14), vec![9; 13], frame(0, 1, 3, 100)];
    for octet in records(&frames) {
        from.send(&[octet]);
        net.turn();
    }
    net.settle();
    let whole = [frames[0].clone(), frames[2].clone(), frames[4].clone()];
    assert_eq!(to.read(), records(&whole));
    let drops = net.counters(0).drops;
    assert_eq!((drops.count(DiscardReason::Empty), drops.count(DiscardReason::Runt)), (1, 1));
    assert_eq!(net.dropped(), 2);
}

#[test]
fn more_than_an_arena_takes_turns() {
    let (mut net, [mut from, mut to]) = Net::introduced(Mode::Switch);
    let bytes = bulk(0, 1, 2 << 20);
    let sent = from.write(&bytes);
    assert!(sent > ARENA, "the socket holds {sent}");
    let before = net.counters(0).rx_bytes;
    net.turn();
    let first = usize::try_from(net.counters(0).rx_bytes - before).unwrap();
    assert!((ARENA - 2 * LENGTH..=ARENA).contains(&first), "one arena: {first}");
    let mut got = Vec::new();
    while got.len() < sent / (PREFIX_LEN + LENGTH) * (PREFIX_LEN + LENGTH) {
        net.settle();
        let more = to.read();
        assert!(!more.is_empty());
        got.extend(more);
    }
    assert!(bytes.starts_with(&got));
}

#[test]
fn a_slow_peer_gets_every_octet_in_order() {
    for chunks in [&[1, 3, 40_000, 4095, 500_000, 7][..], &[usize::MAX], &[PREFIX_LEN + LENGTH, 500_000]] {
        let (mut net, [mut from, mut to]) = Net::introduced(Mode::Switch);
        let was_cut = net.pump(&mut from, &mut to, &bulk(0, 1, 3 << 20), chunks);
        assert!(was_cut, "{chunks:?}: no write was ever cut");
        assert_eq!(net.counters(1).congested, Duration::ZERO, "time stood still");
    }
}

/// The peer has made room, but the poll has not yet said so.
#[test]
fn frames_stay_behind_those_that_wait() {
    let (mut net, [mut from, mut to]) = Net::introduced(Mode::Switch);
    let (mut sent, mut number) = (Vec::new(), 0);
    let mut next = || {
        number += 1;
        record(&frame(0, 1, number, LENGTH))
    };
    while net.snapshot().ports[1].queued_frames < 3 {
        let bytes = next();
        from.send(&bytes);
        sent.extend(bytes);
        net.settle();
    }
    let bytes = next();
    from.send(&bytes);
    sent.extend(bytes);
    net.hub.wait(Some(Duration::ZERO)).unwrap();
    let mut got = to.read();
    net.hub.turn(net.now);
    net.settle();
    got.extend(to.read());
    assert!(got == sent, "{} of {} octets in order", got.len(), sent.len());
}

/// Frames to one and the other in turn can't leave together: a batch of them takes several turns,
/// in which its sender may be gone.
#[test]
fn a_batch_of_single_frames_takes_turns() {
    for dies in [false, true] {
        let (mut net, [mut from, mut one, mut other]) = Net::introduced(Mode::Switch);
        let frames: Vec<_> = (0..3500).map(|number| frame(0, 1 + number % 2, number, 60)).collect();
        from.send(&records(&frames));
        if dies {
            drop(from);
        }
        let (mut got, mut turns) = ((Vec::new(), Vec::new()), 0);
        while turns == 0 || net.is_due() {
            net.turn();
            turns += 1;
            got.0.extend(one.read());
            got.1.extend(other.read());
        }
        assert!(turns > 2, "{turns}");
        let every_second = |first| records(&frames[first..].iter().step_by(2).cloned().collect::<Vec<_>>());
        assert!(got.0 == every_second(0) && got.1 == every_second(1), "dies: {dies}");
        net.settle();
        assert_eq!((net.ports(), net.dropped()), (if dies { 2 } else { 3 }, 0));
    }
}

#[test]
fn the_longest_frames_pass_a_slow_peer() {
    let (mut net, [mut from, mut to]) = Net::introduced(Mode::Switch);
    let lengths = [MAX_FRAME, 14, 60_000, MAX_FRAME, 15, MAX_FRAME - 1];
    let frames: Vec<_> = (0..60).map(|number| frame(0, 1, number, lengths[number % 6])).collect();
    assert!(net.pump(&mut from, &mut to, &records(&frames), &[10_000, 500_000]));
}

#[test]
fn a_sender_that_dies_in_mid_frame_leaves_nothing_behind() {
    let (mut net, [mut dying, mut other, mut third]) = Net::introduced(Mode::Switch);
    let whole = record(&frame(0, 1, 1, LENGTH));
    let half = record(&frame(0, 1, 2, LENGTH));
    dying.send(&[&whole[..], &half[..700]].concat());
    net.settle();
    dying.send(&half[700..900]);
    drop(dying);
    net.settle();
    assert!(other.read() == whole);
    assert_eq!((net.ports(), net.snapshot().departed.rx_frames), (2, 2));

    // The next port stands in its place, and begins anew.
    let mut next = net.unix();
    next.send(&record(&frame(5, 1, 3, 60)));
    net.settle();
    assert_eq!(net.snapshot().ports[0].name, "wire1");
    assert_eq!(other.read(), record(&frame(5, 1, 3, 60)));
    other.send(&record(&frame(1, 0, 4, 60)));
    net.settle();
    assert_eq!(third.read(), next.read(), "its station is forgotten: the frame is flooded");
}

#[test]
fn a_receiver_that_dies_in_mid_frame_frees_its_sender() {
    let (mut net, [mut from, mut dying, mut other]) = Net::introduced(Mode::Switch);
    let bytes = bulk(0, 1, 3 << 20);
    let sent = net.fill(&mut from, &bytes);
    assert!(net.snapshot().ports[1].queued > HIGH_MARK, "its sender waits");
    assert!(ends_in_mid_record(&dying.read()), "it stands in mid-frame");
    drop(dying);
    net.settle();
    let snapshot = net.snapshot();
    assert_eq!((snapshot.ports.len(), snapshot.memory), (2, 0));
    assert!(snapshot.departed.drops.count(DiscardReason::Closed) > 50, "what it had queued");
    // The rest of the bulk is flooded now; the other port gets it from a frame's beginning on.
    let next = record(&frame(0, 2, 1, 60));
    let rest = bytes[sent..].len() % (PREFIX_LEN + LENGTH);
    from.send(&[&bytes[sent..sent + rest], &next[..]].concat());
    let mut got = Vec::new();
    loop {
        net.settle();
        let more = other.read();
        if more.is_empty() {
            break;
        }
        got.extend(more);
    }
    assert_eq!(stream::scan(&got), stream::Scan { whole: got.len(), fault: None });
    assert!(got.ends_with(&next));
}

/// The error comes with a send, while the frames that the peer sent before are still unread.
#[test]
fn what_a_dead_peer_sent_is_forwarded_after_a_failed_send() {
    for unread_by_peer in [false, true] {
        let (mut net, [mut dying, mut other]) = Net::introduced(Mode::Switch);
        if unread_by_peer {
            // Its death is then a reset.
            other.send(&record(&frame(1, 0, 1, 60)));
            net.settle();
        }
        other.send(&record(&frame(1, 0, 2, 60)));
        net.hub.wait(Some(Duration::ZERO)).unwrap();
        let last_words = bulk(0, 1, 100_000);
        dying.send(&last_words);
        drop(dying);
        net.hub.turn(net.now);
        assert_eq!(net.counters(0).drops.count(DiscardReason::Closed), 1, "the send failed first");
        net.settle();
        assert!(other.read() == last_words, "unread by peer: {unread_by_peer}");
        assert_eq!(net.ports(), 1);
        assert_eq!(net.dropped(), 1);
    }
}

/// The same, when the error comes with the flush of a queue.
#[test]
fn what_a_dead_peer_sent_is_forwarded_after_a_failed_flush() {
    let (mut net, [mut dying, mut other]) = Net::introduced(Mode::Switch);
    let bytes = bulk(1, 0, 3 << 20);
    net.fill(&mut other, &bytes);
    let queued = net.snapshot().ports[0].queued_frames;
    assert!(queued > 0);
    let last_words = bulk(0, 1, 100_000);
    dying.send(&last_words);
    drop(dying);
    net.settle();
    assert!(other.read() == last_words);
    let departed = net.snapshot().departed;
    assert!(departed.drops.count(DiscardReason::Closed) >= queued);
    assert_eq!((net.ports(), net.snapshot().memory), (1, 0));
}

#[test]
fn a_peer_that_only_stops_reading_is_heard_out() {
    for last_words in [bulk(0, 1, 50_000), Vec::new()] {
        let (mut net, [mut deaf, mut other]) = Net::introduced(Mode::Switch);
        deaf.0.shutdown(Shutdown::Read).unwrap();
        net.settle();
        assert_eq!(net.ports(), 2, "nothing was to be sent to it yet");
        other.send(&record(&frame(1, 0, 1, 60)));
        net.hub.wait(Some(Duration::ZERO)).unwrap();
        deaf.send(&last_words);
        net.settle();
        assert!(other.read() == last_words);
        assert_eq!(net.ports(), 1);
        assert!(deaf.is_ended());
    }
}

#[test]
fn a_half_closed_peer_is_heard_out_and_closed() {
    let (mut net, [mut half, mut other]) = Net::introduced(Mode::Switch);
    let last_words = bulk(0, 1, 100_000);
    half.send(&last_words);
    half.0.shutdown(Shutdown::Write).unwrap();
    other.send(&record(&frame(1, 0, 1, 60)));
    net.settle();
    assert!(other.read() == last_words);
    assert_eq!(half.read(), record(&frame(1, 0, 1, 60)));
    assert!(half.is_ended());
    assert_eq!(net.ports(), 1);
}

#[test]
fn two_ports_send_to_each_other() {
    for mode in [Mode::Switch, Mode::Hub] {
        let (mut net, [mut one, mut other]) = Net::introduced(mode);
        let (right, left) = (bulk(0, 1, 3 << 20), bulk(1, 0, 3 << 20));
        let (mut sent, mut got) = ((0, 0), (Vec::new(), Vec::new()));
        for round in 0..10_000 {
            sent.0 += one.write(&right[sent.0..]);
            sent.1 += other.write(&left[sent.1..]);
            net.settle();
            got.0.extend(other.read_at_most(60_000));
            got.1.extend(one.read_at_most(if round % 3 == 0 { 200_000 } else { 1 }));
            if (got.0.len(), got.1.len()) == (right.len(), left.len()) {
                break;
            }
        }
        assert!(got.0 == right, "{mode:?}: {} of {}", got.0.len(), right.len());
        assert!(got.1 == left, "{mode:?}: {} of {}", got.1.len(), left.len());
        assert_eq!(net.dropped(), 0, "{mode:?}");
    }
}

#[test]
fn a_hub_repeats_every_frame_to_everyone_else() {
    let (mut net, [mut from, mut to, mut third]) = Net::introduced(Mode::Hub);
    let pause = [&[0x01, 0x80, 0xc2, 0, 0, 1], &station(0)[..], &[0x88, 8, 0, 1]].concat();
    let frames = [frame(0, 1, 1, 60), pause, frame(0, 0, 2, 60), frame(0, 2, 3, 5000)];
    let bytes = records(&frames);
    from.send(&bytes);
    net.settle();
    assert_eq!((to.read(), third.read()), (bytes.clone(), bytes));
    assert!(from.read().is_empty());
}

#[test]
fn a_bad_length_closes_its_port_after_the_good_frames() {
    for (bad, cut) in [(u32::MAX, 0), (69_633, 2), (0x8000_0000, 4)] {
        let (mut net, [mut from, mut to]) = Net::introduced(Mode::Switch);
        let good = bulk(0, 1, 10_000);
        let bytes = [&good[..], &bad.to_be_bytes(), &bulk(0, 1, 10_000)].concat();
        let (first, second) = bytes.split_at(good.len() + cut);
        from.send(first);
        net.turn();
        if net.ports() == 2 {
            from.send(second);
        }
        net.settle();
        assert!(to.read() == good, "{bad}");
        assert!(from.is_ended(), "{bad}");
        assert_eq!((net.ports(), net.dropped()), (1, 0), "{bad}");
    }
}

#[test]
fn a_thousand_idle_ports_cost_a_busy_pair_nothing() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(4096.min(hard)), hard).unwrap();
    let mut net = Net::new(Mode::Switch);
    let counted = |net: &mut Net| {
        let (link, wire) = socketpair();
        let receives = Rc::new(Cell::new(0));
        net.attach(Box::new(Counted { link, receives: Rc::clone(&receives) }));
        (wire, receives)
    };
    let mut idle: Vec<_> = (0..1000).map(|_| counted(&mut net)).collect();
    let (mut from, from_receives) = counted(&mut net);
    let (mut to, to_receives) = counted(&mut net);
    from.send(&record(&broadcast(0)));
    to.send(&record(&broadcast(1)));
    net.settle();
    to.read();
    let before = from_receives.get();
    for number in 0..100 {
        let bytes = record(&frame(0, 1, number, LENGTH));
        from.send(&bytes);
        net.turn();
        assert_eq!(to.read(), bytes, "one turn");
        assert!(!net.is_due(), "and no more");
    }
    assert_eq!(from_receives.get() - before, 100, "each burst is one short read");
    assert_eq!(to_receives.get(), 1);
    assert!(idle.iter().all(|(_, receives)| receives.get() == 0), "an idle port is never read");
    assert!(idle.iter_mut().all(|(wire, _)| wire.read() == records(&[broadcast(0), broadcast(1)])));
}

#[test]
fn a_drain_tells_unix_peers_and_forwards_what_they_sent() {
    let (mut net, [mut from, mut to]) = Net::introduced(Mode::Switch);
    let bytes = bulk(0, 1, 100_000);
    from.send(&bytes);
    assert!(!net.hub.is_drained(net.now + DRAIN_LIMIT), "no drain was asked for");
    net.hub.drain(net.now);
    assert_eq!(from.write_error(), ErrorKind::BrokenPipe);
    assert_eq!(to.write_error(), ErrorKind::BrokenPipe);
    net.settle();
    assert!(to.read() == bytes);
    assert_eq!(net.ports(), 2, "their ends are no news");
    assert_eq!(net.hub.wake(), Some(net.now + SILENCE));
    assert!(!net.hub.is_drained(net.now + SILENCE - NS));
    assert!(net.hub.is_drained(net.now + SILENCE));
}

#[test]
fn a_drain_waits_for_a_queue_but_500_ms_at_the_most() {
    for reads_again in [true, false] {
        let (mut net, [mut from, mut slow]) = Net::introduced(Mode::Switch);
        let bytes = bulk(0, 1, 3 << 20);
        let sent = net.fill(&mut from, &bytes);
        net.hub.drain(net.now);
        let start = net.now;
        net.settle();
        // The sender's gate is open now: all that it had sent waits for the slow one.
        assert_eq!(usize::try_from(net.counters(0).rx_frames - 1), Ok(sent / (PREFIX_LEN + LENGTH)));
        net.now = start + 100 * MS;
        net.settle();
        assert!(!net.hub.is_drained(net.now), "its queue is not empty");
        assert_eq!(net.hub.wake(), Some(start + DRAIN_LIMIT));
        if reads_again {
            let mut got = Vec::new();
            loop {
                let more = slow.read();
                if more.is_empty() {
                    break;
                }
                got.extend(more);
                net.settle();
                let is_queued = net.snapshot().ports[1].queued > 0;
                assert!(!is_queued || !net.hub.is_drained(net.now + SILENCE));
            }
            let whole = sent / (PREFIX_LEN + LENGTH) * (PREFIX_LEN + LENGTH);
            assert!(got == bytes[..whole], "{} of {whole}", got.len());
            assert!(net.hub.is_drained(net.now + SILENCE));
            assert_eq!(net.dropped(), 0);
        } else {
            assert!(!net.hub.is_drained(start + DRAIN_LIMIT - NS));
            assert!(net.hub.is_drained(start + DRAIN_LIMIT));
        }
    }
}

#[test]
fn a_drain_reads_tcp_until_it_is_silent_between_two_frames() {
    let mut net = Net::new(Mode::Switch);
    let (mut from, mut to) = (net.tcp(), net.tcp());
    let (whole, half) = (record(&frame(0, 1, 1, LENGTH)), record(&frame(0, 1, 2, LENGTH)));
    let start = net.now;
    net.hub.drain(start);
    net.turn();

    // A TCP peer is told nothing, and goes on.
    net.now = start + 15 * MS;
    from.send(&[&whole[..], &half[..700]].concat());
    net.until(|snapshot| snapshot.ports[0].counters.rx_frames == 1);
    to.expect(&whole);
    net.now = start + 300 * MS;
    net.turn();
    assert!(!net.hub.is_drained(net.now), "silent for long, but in mid-frame");
    assert_eq!(net.hub.wake(), Some(start + DRAIN_LIMIT));
    assert!(!net.hub.is_drained(start + DRAIN_LIMIT - NS));
    assert!(net.hub.is_drained(start + DRAIN_LIMIT));

    from.send(&half[700..]);
    net.until(|snapshot| snapshot.ports[0].counters.rx_frames == 2);
    to.expect(&half);
    assert_eq!(net.hub.wake(), Some(net.now + SILENCE));
    assert!(!net.hub.is_drained(net.now + SILENCE - NS), "silence counts from the last octet");
    assert!(net.hub.is_drained(net.now + SILENCE));
}

#[test]
fn an_empty_hub_is_drained_at_once() {
    let mut net = Net::new(Mode::Switch);
    net.hub.drain(net.now);
    assert!(net.hub.is_drained(net.now));
}

#[test]
fn tcp_carries_a_bulk_and_a_reset_ends_one_port_only() {
    let mut net = Net::new(Mode::Switch);
    let (mut from, mut to, mut third) = (net.tcp(), net.tcp(), net.unix());
    to.send(&record(&broadcast(1)));
    net.until(|snapshot| snapshot.ports[0].counters.tx_frames == 1);
    let bytes = bulk(0, 1, 2 << 20);
    let (mut sent, mut got) = (0, Vec::new());
    for _ in 0..100_000 {
        sent += from.write(&bytes[sent..]);
        net.hub.wait(Some(MS)).unwrap();
        net.hub.turn(net.now);
        got.extend(to.read_at_most(70_000));
        if got.len() == bytes.len() {
            break;
        }
    }
    assert!(got == bytes, "{} of {}", got.len(), bytes.len());
    assert_eq!(net.dropped(), 0);

    third.read();
    let last_words = record(&broadcast(0));
    from.send(&last_words);
    from.0.set_linger(Some(Duration::ZERO)).unwrap();
    drop(from);
    net.until(|snapshot| snapshot.ports.len() == 2);
    assert_eq!(third.read(), last_words);
    to.expect(&last_words);
    let sent = net.counters(0).tx_frames;
    third.send(&record(&frame(2, 1, 1, 60)));
    net.until(|snapshot| snapshot.ports[0].counters.tx_frames > sent);
    to.expect(&record(&frame(2, 1, 1, 60)));
}
