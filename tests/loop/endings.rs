//! Peers that go, in the middle of a frame or between two.

use std::net::Shutdown;
use std::time::Duration;

use hub_protocol::stream::{self, PREFIX_LEN};
use qhub::bridge::Mode;
use qhub::config::HIGH_MARK;
use qhub::discard::DiscardReason;

use crate::net::{MS, Net};
use crate::wire::{LENGTH, broadcast, bulk, ends_in_mid_record, frame, record};

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
