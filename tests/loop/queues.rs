//! What waits for a datagram peer that reads less than it is sent.

use std::time::Duration;

use hub_protocol::stream::PREFIX_LEN;
use qhub::bridge::Mode;
use qhub::config::QUEUE_MIN;
use qhub::port::REST;

use crate::far::{Far, Folder};
use crate::net::Net;
use crate::wire::{LENGTH, broadcast, frame, record, records};

/// A hub with a slow unix peer, station 1, and another that sends to it.
struct Slow {
    net: Net,
    slow: Far,
    from: Far,
    folder: Folder,
}

impl Slow {
    fn new(options: &str) -> Self {
        let (mut net, folder) = (Net::new(Mode::Switch), Folder::new());
        net.open(&folder.spec(options));
        let (slow, from) = (folder.far("slow"), folder.far("from"));
        from.send(&broadcast(0));
        slow.send(&broadcast(1));
        net.settle();
        from.read_all();
        Self { net, slow, from, folder }
    }

    fn send(&mut self, count: usize) -> Vec<Vec<u8>> {
        let frames: Vec<_> = (0..count).map(|number| frame(0, 1, number, LENGTH)).collect();
        for frame in &frames {
            self.from.send(frame);
            self.net.settle();
        }
        frames
    }

    /// Frames that the hub sent to the slow one, and those that wait.
    fn sent_and_queued(&mut self) -> (usize, usize) {
        let row = &self.net.snapshot().ports[1];
        let [sent, queued] =
            [row.counters.tx_frames, row.queued_frames].map(|frames| usize::try_from(frames).expect("few"));
        (sent, queued)
    }
}

#[test]
fn what_does_not_fit_a_unix_peers_queue_waits_and_follows_in_order() {
    let mut it = Slow::new("");
    let frames = it.send(200);
    let (room, waiting) = it.sent_and_queued();
    assert!(room < 200, "its queue holds {room}");
    assert_eq!(waiting, 200 - room);
    assert!(it.net.hub.wake().is_none_or(|wake| wake > it.net.now), "the hub sleeps meanwhile");
    // It is told of room as soon as there is any.
    for (number, frame) in frames.iter().enumerate() {
        assert_eq!(it.slow.read().as_ref(), Some(frame));
        it.net.settle();
        assert_eq!(it.sent_and_queued().0, (room + number + 1).min(200));
    }
    assert_eq!((it.slow.read(), it.net.snapshot().memory), (None, 0));
    // The first broadcast went to nobody.
    assert_eq!(it.net.dropped(), 1);
}

#[test]
fn frames_for_a_unix_peer_stay_behind_those_that_wait() {
    let mut it = Slow::new("");
    let frames = it.send(50);
    let mut got = Vec::new();
    for number in 50..100 {
        // There is room again, but the poll has not yet said so.
        let next = frame(0, 1, number, LENGTH);
        it.from.send(&next);
        it.net.hub.wait(Some(Duration::ZERO)).unwrap();
        got.extend(it.slow.read_all());
        it.net.hub.turn(it.net.now);
        it.net.settle();
    }
    while got.len() < 100 {
        let more = it.slow.read_all();
        assert!(!more.is_empty(), "after {}", got.len());
        got.extend(more);
        it.net.settle();
    }
    assert_eq!(got[..50], frames);
    assert!((50..100).all(|number| got[number] == frame(0, 1, number, LENGTH)));
}

#[test]
fn a_unix_peers_frames_wait_up_to_the_queue_and_no_more() {
    let mut it = Slow::new(",queue=384K");
    let frames = it.send(500);
    let (room, waiting) = it.sent_and_queued();
    assert_eq!(waiting, QUEUE_MIN / (PREFIX_LEN + LENGTH));
    assert_eq!(it.net.lost("dgram2"), format!("queue_full={}", 500 - room - waiting));
    let mut got = Vec::new();
    loop {
        let more = it.slow.read_all();
        if more.is_empty() {
            break;
        }
        got.extend(more);
        it.net.settle();
    }
    assert_eq!(got, frames[..room + waiting], "the first ones");
    let frames = it.send(3);
    assert_eq!(it.slow.read_all(), frames);
}

#[test]
fn what_waits_for_a_peer_that_is_gone_is_dropped_and_its_next_life_is_found() {
    let mut it = Slow::new("");
    it.send(50);
    let (_, waiting) = it.sent_and_queued();
    it.slow = it.folder.far("other");
    it.net.settle();
    assert_eq!(it.net.lost("dgram2"), format!("down={waiting}"));
    assert_eq!((it.net.ports(), it.net.snapshot().memory), (2, 0));
    it.slow = it.folder.far("slow");
    it.net.now += REST;
    let frames = it.send(3);
    assert_eq!(it.slow.read_all(), frames);
}

/// A stream waits for a slow unix peer, and loses nothing.
#[test]
fn a_stream_to_a_slow_unix_peer_loses_nothing() {
    let mut it = Slow::new("");
    let mut wire = it.net.unix();
    let frames: Vec<_> = (0..3000).map(|number| frame(5, 1, number, LENGTH)).collect();
    let bytes = records(&frames);
    let (mut sent, mut got) = (0, Vec::new());
    while got.len() < frames.len() {
        sent += wire.write(&bytes[sent..]);
        it.net.settle();
        let more = it.slow.read_all();
        assert!(!more.is_empty(), "after {}", got.len());
        got.extend(more);
    }
    assert!(got == frames);
    wire.send(&record(&broadcast(5)));
    it.net.settle();
    assert_eq!(it.slow.read_all(), [broadcast(5)]);
    assert_eq!((it.net.lost("dgram2").as_str(), it.net.snapshot().memory), ("-", 0));
}
