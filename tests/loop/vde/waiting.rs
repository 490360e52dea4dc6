//! Clients that read less than they are sent, and what others notice of them.

use std::time::Duration;

use qhub::bridge::Mode;
use qhub::config::QUEUE_MIN;
use qhub::discard::DiscardReason;

use super::switch::Switch;
use crate::net::{MS, NS, Net};
use crate::vde_client::{Answer, Client};
use crate::wire::{LENGTH, Wire, broadcast, frame, record};

/// How long a client may be left unread.
const PATIENCE: Duration = Duration::from_millis(5);

/// How long others wait for one that is stuck: what is free, and the budget of its port.
const PAUSE: Duration = Duration::from_millis(55);

/// Station 1 reads nothing, and station 0 has sent to it until it was stopped. A stream port, station 9, is there as well.
struct Stuck {
    it: Switch,
    from: Client,
    stuck: Client,
    wire: Wire,
    sent: usize,
}

impl Stuck {
    fn new() -> Self {
        let (mut it, [from, stuck]) = Switch::introduced();
        let mut wire = it.net.unix();
        wire.send(&record(&broadcast(9)));
        it.net.settle();
        from.read_all();
        stuck.read_all();
        let mut stuck = Self { it, from, stuck, wire, sent: 0 };
        stuck.push();
        stuck
    }

    /// Sends to the stuck one until there is no room.
    fn push(&mut self) {
        while self.from.try_send(&frame(0, 1, self.sent, LENGTH)) {
            self.sent += 1;
            self.it.net.settle();
        }
    }

    fn received(&mut self) -> u64 {
        self.it.net.counters(0).rx_frames
    }
}

#[test]
fn a_client_whose_target_is_stuck_is_read_again_after_5_ms() {
    let mut it = Stuck::new();
    let start = it.it.net.now;
    for round in 0..4 {
        let (before, now) = (it.received(), start + round * PATIENCE);
        assert_eq!(it.it.net.hub.wake(), Some(now + PATIENCE));
        it.it.net.now = now + PATIENCE - NS;
        it.it.net.settle();
        assert_eq!(it.received(), before, "it waits all the time");
        it.it.net.now = now + PATIENCE;
        it.it.net.settle();
        assert!(it.received() > before, "it waits no longer");
        it.push();
    }
    assert_eq!(it.it.net.counters(1).drops.total(), 0, "there was room in the queue");
}

/// Nobody else has less time than the port has to give.
#[test]
fn a_stream_waits_longer_for_the_same_target() {
    let mut it = Stuck::new();
    let start = it.it.net.now;
    it.wire.send(&record(&frame(9, 1, 0, LENGTH)));
    it.it.net.settle();
    assert!(it.it.net.counters(2).rx_frames > 1, "it did not know that it has to wait");
    let before = it.it.net.counters(2).rx_frames;
    it.wire.send(&record(&frame(9, 1, 0, LENGTH)));
    for elapsed in [PATIENCE, PAUSE / 2, PAUSE - NS] {
        it.it.net.now = start + elapsed;
        it.it.net.settle();
        assert_eq!(it.it.net.counters(2).rx_frames, before, "after {elapsed:?}");
    }
    // What nobody looked at for long is not the port's fault: so a few milliseconds at a time.
    for step in 0..60 {
        it.it.net.now = start + PAUSE + step * MS;
        it.it.net.settle();
    }
    assert_eq!(it.it.net.counters(2).rx_frames, before + 1);
}

#[test]
fn a_stuck_client_costs_the_others_nothing() {
    let mut it = Stuck::new();
    let other = it.it.join(None);
    other.send(&broadcast(3));
    it.it.net.settle();
    it.from.read_all();
    it.wire.read();
    for number in 0..50 {
        other.send(&frame(3, 0, number, LENGTH));
        it.wire.send(&record(&frame(9, 3, number, LENGTH)));
        it.it.net.settle();
        assert_eq!(it.from.read_all(), [frame(3, 0, number, LENGTH)]);
        assert_eq!(other.read_all(), [frame(9, 3, number, LENGTH)]);
    }
}

#[test]
fn a_client_that_reads_again_gets_all_that_waited_in_order() {
    let mut it = Stuck::new();
    let mut got = Vec::new();
    while got.len() < it.sent {
        let before = got.len();
        got.extend(it.stuck.read());
        it.it.net.settle();
        assert!(got.len() > before, "{before} of {} came", it.sent);
    }
    let sent: Vec<_> = (0..it.sent).map(|number| frame(0, 1, number, LENGTH)).collect();
    assert!(got == sent);
    assert_eq!((it.it.net.counters(1).drops.total(), it.it.net.snapshot().memory), (0, 0));
}

/// One that has never connected its socket to ours: the system lets a handful of datagrams wait for it.
#[test]
fn a_client_that_is_not_connected_gets_all_of_a_few() {
    let (mut it, [one]) = Switch::introduced();
    let mut client = it.come();
    client.ask(None);
    it.net.settle();
    assert!(matches!(client.answer(), Answer::Socket(_)));
    let sent: Vec<_> = (0..100).map(|number| [broadcast(0), vec![number]].concat()).collect();
    for frame in &sent {
        one.send(frame);
        it.net.settle();
    }
    let waiting = it.net.snapshot().ports[1].queued_frames;
    assert!(waiting > 0, "the system took all");
    // It is told of room as soon as there is any.
    for (number, frame) in sent.iter().enumerate() {
        assert_eq!(client.read().as_ref(), Some(frame), "frame {number}");
        it.net.settle();
    }
    assert_eq!((client.read(), it.net.counters(1).drops.total()), (None, 0));
}

/// A flood makes nobody wait; what finds no room is counted, and the rest comes when it is read.
#[test]
fn what_a_client_does_not_read_is_dropped_and_counted() {
    let options = format!(",queue={QUEUE_MIN}");
    let mut it = Switch::within(Net::new(Mode::Switch), &options);
    let [from, reads, stuck] = [(); 3].map(|()| it.join(None));
    let mut sent = Vec::new();
    for number in 0..1000 {
        let next = [broadcast(0), vec![0; LENGTH], number.to_string().into_bytes()].concat();
        from.send(&next);
        it.net.settle();
        assert_eq!(reads.read_all(), std::slice::from_ref(&next), "frame {number}");
        sent.push(next);
    }
    let row = it.net.snapshot().ports[2].clone();
    let dropped = row.counters.drops.count(DiscardReason::QueueFull);
    assert!(dropped > 0 && row.counters.tx_frames > 0 && row.queued_frames > 0, "{row:?}");
    assert_eq!(row.counters.tx_frames + row.queued_frames + dropped, 1000);
    assert_eq!(row.counters.drops.total(), dropped);
    let mut got = Vec::new();
    while let Some(frame) = stuck.read() {
        got.push(frame);
        it.net.settle();
    }
    assert_eq!(u64::try_from(got.len()).expect("few"), row.counters.tx_frames + row.queued_frames);
    assert!(sent.starts_with(&got), "the first ones, in order");
    assert_eq!(it.net.counters(1).drops.total(), 0);
    assert_eq!(it.net.snapshot().memory, 0);
}

/// The others can wait; a client stands still meanwhile.
#[test]
fn clients_are_served_before_others_in_a_turn() {
    let (mut it, [client]) = Switch::introduced();
    let (mut receiver, mut wire) = (it.net.unix(), it.net.unix());
    receiver.send(&record(&broadcast(1)));
    wire.send(&record(&broadcast(2)));
    it.net.settle();
    for round in 0..3 {
        receiver.read();
        wire.send(&record(&frame(2, 1, round, 60)));
        client.send(&frame(0, 1, round, 60));
        it.net.turn();
        let expected = [frame(0, 1, round, 60), frame(2, 1, round, 60)];
        assert_eq!(receiver.read(), crate::wire::records(&expected));
        it.net.settle();
        client.read_all();
    }
}
