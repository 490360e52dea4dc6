//! The places of a datagram server: how many there are, and who gives way.

use std::time::Duration;

use qhub::bridge::Mode;
use qhub::discard::DiscardReason;
use qhub::hub::Snapshot;

use crate::far::{Far, Folder};
use crate::net::{NS, Net};
use crate::wire::{broadcast, frame, record, records, station};

const SECOND: Duration = Duration::from_secs(1);

/// A server with two places, whose peers give way after 10 s, and some that might be its peers.
struct Server {
    net: Net,
    fars: Vec<Far>,
    stem: &'static str,
    _folder: Folder,
}

impl Server {
    fn both() -> [Self; 2] {
        [Self::new(true), Self::new(false)]
    }

    fn new(is_udp: bool) -> Self {
        Self::within(Net::new(Mode::Switch), is_udp)
    }

    fn within(mut net: Net, is_udp: bool) -> Self {
        let folder = Folder::new();
        let options = ",max-peers=2,idle=10s";
        let (fars, stem) = if is_udp {
            let hub = net.open_udp(options);
            ((0..5).map(|_| Far::udp(hub)).collect(), "udp")
        } else {
            net.open(&folder.spec(options));
            (["a", "b", "c", "d", "e"].map(|name| folder.far(name)).into(), "dgram")
        };
        Self { net, fars, stem, _folder: folder }
    }

    /// `source` sends, and the hub takes it, somehow.
    fn send(&mut self, source: usize) {
        let before = taken(&self.net.snapshot());
        self.fars[source].send(&broadcast(source));
        self.net.until(|snapshot| taken(snapshot) > before);
        self.net.settle();
    }

    fn refused(&mut self) -> u64 {
        self.net.snapshot().doors[0].1.count(DiscardReason::NoPlace)
    }

    /// Who is there: the stations that the hub knows, which are no other than those of its ports.
    fn present(&mut self) -> Vec<usize> {
        let present: Vec<_> =
            (0..self.fars.len()).filter(|&source| self.net.whereabouts(station(source)).is_some()).collect();
        assert_eq!(self.net.ports(), present.len());
        present
    }
}

/// Frames that came in, whatever became of them.
fn taken(snapshot: &Snapshot) -> u64 {
    let ports = snapshot.ports.iter().map(|port| &port.counters);
    let received: u64 = ports.chain([&snapshot.departed]).map(|counters| counters.rx_frames).sum();
    received + snapshot.doors[0].1.total()
}

#[test]
fn one_beyond_the_bound_is_refused_and_counted() {
    for mut it in Server::both() {
        it.send(0);
        it.send(1);
        assert_eq!((it.present(), it.refused()), (vec![0, 1], 0));
        it.send(2);
        it.send(2);
        assert_eq!((it.present(), it.refused()), (vec![0, 1], 2));
        assert_eq!(it.net.lost_at_door(), "no_place=2");
        assert_eq!(it.fars[2].read(), None);
        // It is no trouble to those that are there.
        it.fars[1].read_all();
        it.send(0);
        assert_eq!(it.fars[1].read_all(), [broadcast(0)]);
    }
}

#[test]
fn who_was_silent_for_the_whole_time_gives_way_and_not_sooner() {
    for mut it in Server::both() {
        let start = it.net.now;
        it.send(0);
        it.net.now = start + 4 * SECOND;
        it.send(1);
        it.net.now = start + 10 * SECOND - NS;
        it.send(2);
        assert_eq!((it.present(), it.refused()), (vec![0, 1], 1));
        it.net.now = start + 10 * SECOND;
        it.send(2);
        assert_eq!((it.present(), it.refused()), (vec![1, 2], 1));
        // The other one is not silent for long enough yet.
        it.net.now = start + 14 * SECOND - NS;
        it.send(0);
        assert_eq!((it.present(), it.refused()), (vec![1, 2], 2));
        it.net.now = start + 14 * SECOND;
        it.send(0);
        assert_eq!((it.present(), it.refused()), (vec![0, 2], 2));
    }
}

/// Those that are heard by the socket of their own port count as those that the server hears.
#[test]
fn who_was_heard_lately_stays() {
    for mut it in Server::both() {
        let start = it.net.now;
        it.send(0);
        it.net.now = start + SECOND;
        it.send(1);
        it.net.now = start + 9 * SECOND;
        it.send(0);
        it.net.now = start + 11 * SECOND;
        it.send(2);
        assert_eq!((it.present(), it.refused()), (vec![0, 2], 0));
        it.net.now = start + 19 * SECOND - NS;
        it.send(3);
        assert_eq!((it.present(), it.refused()), (vec![0, 2], 1));
        it.net.now = start + 19 * SECOND;
        it.send(3);
        assert_eq!((it.present(), it.refused()), (vec![2, 3], 1));
    }
}

/// What is sent to a peer does not keep its place.
#[test]
fn who_only_listens_gives_way() {
    for mut it in Server::both() {
        let start = it.net.now;
        it.send(0);
        it.send(1);
        it.net.now = start + 5 * SECOND;
        it.send(1);
        it.fars[1].send(&frame(1, 0, 1, 60));
        it.net.settle();
        it.net.now = start + 10 * SECOND;
        it.send(2);
        assert_eq!(it.present(), [1, 2]);
    }
}

#[test]
fn the_longest_silent_of_several_gives_way() {
    for mut it in Server::both() {
        let start = it.net.now;
        it.send(0);
        it.send(1);
        it.net.now = start + SECOND;
        it.send(0);
        it.net.now = start + 100 * SECOND;
        it.send(2);
        assert_eq!(it.present(), [0, 2]);
        it.send(3);
        assert_eq!(it.present(), [2, 3]);
        it.send(4);
        assert_eq!((it.present(), it.refused()), (vec![2, 3], 1));
    }
}

#[test]
fn who_gave_way_is_forgotten_and_may_come_back() {
    for mut it in Server::both() {
        let mut wire = it.net.unix();
        it.send(0);
        it.send(1);
        it.net.now += 10 * SECOND;
        it.send(1);
        it.send(2);
        // The new one has its name.
        let present = [1, 2].map(|source| it.net.whereabouts(station(source)));
        assert_eq!(present, ["2", "1"].map(|number| Some(format!("{}{number}", it.stem))));
        assert_eq!(it.net.whereabouts(station(0)), None);
        assert_eq!(it.net.snapshot().departed.rx_frames, 1);
        it.fars.iter().for_each(|far| drop(far.read_all()));
        wire.read();
        // Its station is everybody's now.
        wire.send(&record(&frame(9, 0, 1, 60)));
        it.net.settle();
        assert_eq!(it.fars.iter().map(|far| far.read_all().len()).collect::<Vec<_>>(), [0, 1, 1, 0, 0]);

        it.net.now += 10 * SECOND;
        it.send(1);
        it.send(0);
        assert_eq!(it.net.whereabouts(station(0)), Some(format!("{}1", it.stem)), "the name is free again");
        wire.send(&record(&frame(9, 0, 2, 60)));
        it.net.settle();
        assert_eq!(it.fars[0].read_all(), [frame(9, 0, 2, 60)]);
    }
}

/// The newcomer's frames of the very receive that made place for it go on.
#[test]
fn a_newcomer_for_whom_there_is_place_loses_nothing() {
    for mut it in Server::both() {
        let mut wire = it.net.unix();
        wire.send(&record(&broadcast(9)));
        it.send(0);
        it.send(1);
        it.net.now += 10 * SECOND;
        wire.read();
        let sent = [1, 2, 3].map(|number| frame(2, 9, number, 60));
        sent.iter().for_each(|frame| it.fars[2].send(frame));
        let before = taken(&it.net.snapshot());
        it.net.until(|snapshot| snapshot.ports.iter().any(|port| port.counters.rx_frames == 3));
        assert_eq!((taken(&it.net.snapshot()), it.refused()), (before + 3, 0));
        assert_eq!(wire.read(), records(&sent));
        assert_eq!(it.net.dropped(), 0);
        assert_eq!(it.net.ports(), 3);
    }
}

/// Its frames are in the socket of its port already.
#[test]
fn who_speaks_in_the_same_turn_stays() {
    for mut it in Server::both() {
        it.send(0);
        it.send(1);
        it.net.now += 10 * SECOND;
        it.fars[0].send(&broadcast(0));
        it.send(2);
        assert_eq!(it.present(), [0, 2]);
    }
}

#[test]
fn a_newcomer_that_can_not_be_answered_costs_nobody_a_place() {
    let mut it = Server::new(false);
    it.send(0);
    it.send(1);
    it.net.now += 10 * SECOND;
    it.fars[2].send(&broadcast(2));
    it.fars.truncate(2);
    it.net.settle();
    assert_eq!((it.present(), it.refused()), (vec![0, 1], 1));
}

/// The place is one of the hub's as well.
#[test]
fn a_newcomer_finds_the_place_that_was_made_for_it_in_a_full_hub() {
    for is_udp in [true, false] {
        let mut it = Server::within(Net::with_room(Mode::Switch, 2), is_udp);
        it.send(0);
        it.send(1);
        it.net.now += 10 * SECOND;
        it.send(2);
        assert_eq!((it.present().len(), it.refused()), (2, 0));
    }
}
