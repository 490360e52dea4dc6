//! Frames on their way from one stream port to another.

use std::time::Duration;

use hub_protocol::stream::{MAX_FRAME, PREFIX_LEN};
use qhub::batch::ARENA;
use qhub::bridge::Mode;
use qhub::discard::DiscardReason;

use crate::net::Net;
use crate::wire::{LENGTH, bulk, frame, record, records, station};

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
    // As many octets as 2048 frames as short as the one before have.
    let short = 2048 * 64;
    assert!((short - 2 * LENGTH..=short).contains(&first), "one arena of short frames: {first}");
    let before = net.counters(0).rx_bytes;
    net.turn();
    let next = usize::try_from(net.counters(0).rx_bytes - before).unwrap();
    assert!((ARENA - 2 * LENGTH..=ARENA).contains(&next), "one arena: {next}");
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
