//! More frames of one datagram peer than a turn may pass on: the rest is held, and nobody stops the
//! peer meanwhile.

use std::time::Duration;

use hub_protocol::stream;
use qhub::batch::ARENA;
use qhub::bridge::Mode;
use qhub::discard::DiscardReason;

use crate::far::{Far, Folder, free_udp};
use crate::net::{Net, allow_descriptors};
use crate::wire::{Wire, broadcast, frame, record, records, station};

/// A broadcast to so many ports is most of what a turn may pass on.
const PORTS: usize = 600;

/// A hub with many ports and a server of unix datagrams.
struct Crowd {
    net: Net,
    folder: Folder,
    /// The first is station 1.
    wires: Vec<Wire>,
}

impl Crowd {
    fn new(options: &str) -> Self {
        allow_descriptors();
        let (mut net, folder) = (Net::new(Mode::Switch), Folder::new());
        net.open(&folder.spec(options));
        let mut wires: Vec<_> = (0..PORTS).map(|_| net.unix()).collect();
        wires[0].send(&record(&broadcast(1)));
        net.settle();
        wires.iter_mut().for_each(|wire| drop(wire.read()));
        Self { net, folder, wires }
    }

    /// What station 1 got, and one of the others.
    fn read(&mut self) -> (Vec<u8>, Vec<u8>) {
        let got: Vec<_> = self.wires.iter_mut().map(Wire::read).collect();
        (got[0].clone(), got[1].clone())
    }

    fn held(&mut self) -> usize {
        self.net.snapshot().memory
    }
}

/// The shortest frames, to everybody and to station 1 in turn, so that no two leave together;
/// `length` is that of those for station 1.
fn next(from: usize, number: usize, length: usize) -> Vec<u8> {
    let to = if number.is_multiple_of(2) { [0xff; 6] } else { station(1) };
    let kind = u16::try_from(0x1000 + number).expect("few").to_be_bytes();
    let mut frame = [&to[..], &station(from), &kind].concat();
    if number % 2 == 1 {
        frame.resize(length, 0);
    }
    frame
}

/// Sends from number `from` on as much as the kernel takes; returns the next number.
fn burst(far: &Far, from: usize, until: usize) -> usize {
    (from..until).find(|&number| far.try_send(&next(0, number, 14)).is_err()).unwrap_or(until)
}

fn everybodys(frames: &[Vec<u8>]) -> Vec<u8> {
    records(&frames.iter().filter(|frame| frame[0] == 0xff).cloned().collect::<Vec<_>>())
}

#[test]
fn what_a_turn_does_not_pass_on_goes_before_what_comes_next() {
    let mut it = Crowd::new("");
    let far = it.folder.far("vm");
    let (mut sent, mut got, mut most) = (0, (Vec::new(), Vec::new()), 0);
    while sent < 400 {
        sent = burst(&far, sent, 400);
        it.net.turn();
        it.net.balance();
        most = most.max(it.held());
        let more = it.read();
        got.0.extend(more.0);
        got.1.extend(more.1);
    }
    assert!(most > 100 * 18, "more than one receive was held: {most} octets");
    while it.net.is_due() {
        it.net.turn();
        let more = it.read();
        got.0.extend(more.0);
        got.1.extend(more.1);
    }
    it.net.settle();
    let frames: Vec<_> = (0..400).map(|number| next(0, number, 14)).collect();
    assert!(got.0 == records(&frames), "{} octets", got.0.len());
    assert!(got.1 == everybodys(&frames), "{} octets", got.1.len());
    assert_eq!((it.net.lost("dgram1").as_str(), it.held()), ("-", 0));
}

#[test]
fn an_arena_is_held_and_the_rest_is_dropped() {
    let mut it = Crowd::new("");
    let far = it.folder.far("vm");
    let (mut sent, mut got, mut most) = (0, Vec::new(), 0);
    for _ in 0..60 {
        while sent < 400 && far.try_send(&next(0, sent, 20_000)).is_ok() {
            sent += 1;
        }
        it.net.turn();
        it.net.balance();
        // Nothing else waits: the peers read all.
        most = most.max(it.held());
        got.extend(it.read().0);
    }
    while it.net.is_due() {
        it.net.turn();
        got.extend(it.read().0);
    }
    it.net.settle();
    got.extend(it.read().0);
    assert!((ARENA / 2..=ARENA).contains(&most), "{most}");
    let counters = it.net.counters(PORTS);
    let count = counters.drops.count(DiscardReason::QueueFull);
    assert!(count > 10 && counters.drops.total() == count, "{counters}");
    assert_eq!(counters.rx_frames, u64::try_from(sent).unwrap());
    // What came through is in order.
    let numbers: Vec<_> = stream::frames(&got).map(|frame| [frame[12], frame[13]]).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next));
    assert_eq!(numbers.len() + usize::try_from(count).unwrap(), sent);
    assert_eq!(it.held(), 0);
}

#[test]
fn what_is_held_of_a_silent_peer_goes_on_when_its_place_is_wanted() {
    let mut it = Crowd::new(",max-peers=1,idle=10s");
    let (far, other) = (it.folder.far("vm"), it.folder.far("other"));
    let mut sent = 0;
    // More than two turns pass on.
    for _ in 0..4 {
        sent = burst(&far, sent, 400);
        it.net.turn();
    }
    assert!(it.held() > 0);
    it.net.now += Duration::from_secs(10);
    other.send(&broadcast(7));
    it.net.settle();
    while !other.read_all().is_empty() {
        it.net.settle();
    }
    let got = it.read().0;
    let got: Vec<_> = stream::frames(&got).filter(|frame| frame[6..12] == station(0)).collect();
    assert!(got.into_iter().eq((0..sent).map(|number| next(0, number, 14))));
    assert_eq!((it.net.ports(), it.held()), (PORTS + 1, 0));
}

/// Its first datagrams wait at the server, those behind them at its own port.
#[test]
fn a_burst_of_a_new_udp_peer_stays_in_order() {
    let mut net = Net::new(Mode::Switch);
    let mut wire = net.unix();
    wire.send(&record(&broadcast(9)));
    let far = Far::udp(net.open_udp(""));
    net.settle();
    let sent: Vec<_> = (0..700).map(|number| frame(0, 9, number, 60)).collect();
    // More than two receives take, and not more than the system has room for by default.
    sent[..540].iter().for_each(|frame| far.send(frame));
    net.turn();
    sent[540..].iter().for_each(|frame| far.send(frame));
    net.settle();
    assert!(wire.read() == records(&sent));
}

/// What anybody sends to the server may never end.
#[test]
fn a_flood_of_strangers_does_not_keep_a_peer_from_being_heard() {
    for options in ["max-peers=1", "remote"] {
        let mut net = Net::new(Mode::Switch);
        let mut wire = net.unix();
        wire.send(&record(&broadcast(9)));
        let (hub, own) = (free_udp(), free_udp());
        let far = Far::udp_at(own, hub);
        net.open(&match options {
            "remote" => format!("udp:{hub},remote={own}"),
            _ => format!("udp:{hub},{options}"),
        });
        far.send(&broadcast(0));
        net.settle();
        wire.read();
        let stranger = Far::udp(hub);
        for _ in 0..10 {
            (0..400).for_each(|_| drop(stranger.try_send(&broadcast(1))));
            net.turn();
        }
        far.send(&frame(0, 9, 1, 60));
        (0..400).for_each(|_| drop(stranger.try_send(&broadcast(1))));
        net.turn();
        assert!(net.is_due(), "the server has more");
        assert_eq!(wire.read(), record(&frame(0, 9, 1, 60)), "{options}");
    }
}
