//! What passes between VDE clients, and how it is counted.

use hub_protocol::stream::MAX_FRAME;
use proptest::prelude::*;
use qhub::discard::DiscardReason;

use super::switch::Switch;
use crate::net::Net;
use crate::vde_client::Client;
use crate::wire::{LENGTH, broadcast, frame, station};

/// Two clients whose stations, 0 and 1, know each other, and nothing was counted but a broadcast of each.
fn pair() -> (Switch, [Client; 2]) {
    let (it, clients) = Switch::introduced();
    for client in &clients {
        // A few long ones at once.
        socket2::SockRef::from(&client.data).set_send_buffer_size(1 << 20).expect("an open socket");
    }
    (it, clients)
}

#[test]
fn an_empty_datagram_is_no_frame_and_nobodys_loss() {
    let (mut it, [one, two]) = pair();
    let before = it.net.snapshot();
    for count in [1, 63, 64, 65, 130] {
        for _ in 0..count {
            one.send(b"");
        }
        it.net.settle();
        assert_eq!(it.net.snapshot(), before, "{count} of them");
    }
    // Between frames, too.
    let sent: Vec<_> = (0..50).map(|number| frame(0, 1, number, 60 + number)).collect();
    for frame in &sent {
        one.send(b"");
        one.send(frame);
    }
    one.send(b"");
    it.net.settle();
    assert_eq!(two.read_all(), sent);
    assert_eq!((it.net.counters(0).rx_frames, it.net.dropped()), (51, 0));
}

#[test]
fn what_is_too_short_for_a_frame_is_dropped_and_counted() {
    let (mut it, [one, two]) = pair();
    for octets in 1..14 {
        one.send(&broadcast(0)[..octets]);
    }
    one.send(&broadcast(0)[..14]);
    it.net.settle();
    assert_eq!(two.read_all(), [&broadcast(0)[..14]]);
    let counters = it.net.counters(0);
    assert_eq!((counters.rx_frames, counters.drops.count(DiscardReason::Runt)), (1 + 14, 13));
    assert_eq!(counters.drops.total(), 13);
}

#[test]
fn a_frame_may_have_69632_octets_and_not_one_more() {
    let (mut it, [one, two]) = pair();
    for length in [1514, 1519, 9018, 65_535, MAX_FRAME - 1, MAX_FRAME] {
        let sent = frame(0, 1, length, length);
        one.send(&sent);
        it.net.settle();
        assert!(two.read_all() == [sent], "{length} octets");
    }
    let before = it.net.counters(0);
    for length in [MAX_FRAME + 1, MAX_FRAME + 2, 100_000] {
        one.send(&frame(0, 1, length, length));
    }
    it.net.settle();
    assert_eq!(two.read_all(), [[0; 0]; 0]);
    let counters = it.net.counters(0);
    assert_eq!(counters.rx_frames, before.rx_frames + 3);
    assert_eq!((counters.drops.count(DiscardReason::TooBig), counters.drops.total()), (3, 3));
    one.send(&frame(0, 1, 1, 60));
    it.net.settle();
    assert_eq!(two.read_all(), [frame(0, 1, 1, 60)]);
}

#[test]
fn max_frame_counts_either_way() {
    let mut it = Switch::within(Net::new(qhub::bridge::Mode::Switch), ",max-frame=1514");
    let (one, two) = (it.join(None), it.join(None));
    let mut wire = it.net.unix();
    wire.send(&crate::wire::record(&broadcast(2)));
    it.net.settle();
    one.read_all();
    for length in [1514, 1515] {
        one.send(&frame(0, 1, 1, length));
        it.net.settle();
        wire.send(&crate::wire::record(&frame(2, 1, 1, length)));
        it.net.settle();
    }
    assert_eq!(two.read_all(), [broadcast(2), frame(0, 1, 1, 1514), frame(2, 1, 1, 1514)]);
    assert_eq!(it.net.lost("vde1"), "too_big=2", "one that it sent, and one that it was to get");
    assert_eq!(it.net.lost("vde2"), "too_big=1");
}

#[test]
fn tags_pass_as_they_are() {
    let (mut it, [one, two]) = pair();
    let tags: [&[u8]; 7] = [
        b"\x81\x00\x00\x07",
        b"\x81\x00\xe0\x00",
        b"\x81\x00\xff\xff",
        b"\x81\x00\x1f\xfe",
        b"\x88\xa8\x00\x05\x81\x00\xa0\x09",
        b"\x81\x00\x00\x01\x81\x00\x00\x02\x81\x00\x00\x03",
        b"\x91\x00\x00\x07",
    ];
    for (tag, length) in tags.into_iter().zip([14, 60, 1514, 1518, 9018, 61, 64]) {
        let plain = frame(0, 1, 1, length);
        let sent = [&plain[..12], tag, &plain[12..]].concat();
        one.send(&sent);
        it.net.settle();
        assert!(two.read_all() == [sent], "{tag:02x?}");
    }
    // A station is another one in each VLAN: whoever answers there is known there.
    let tagged = |from, to| [&frame(from, to, 1, 60)[..12], b"\x81\x00\x00\x07\x08\x00......"].concat();
    two.send(&tagged(1, 0));
    it.net.settle();
    assert_eq!(one.read_all(), [tagged(1, 0)]);
    let third = it.join(None);
    one.send(&tagged(0, 1));
    one.send(&frame(0, 1, 1, 60));
    it.net.settle();
    assert_eq!((two.read_all().len(), third.read_all().len()), (2, 0));
    assert_eq!(it.net.dropped(), 0);
}

/// Nothing is padded, cut or mixed with what was there before.
#[test]
fn short_frames_stay_short_and_clean() {
    let (mut it, [one, two]) = pair();
    one.send(&frame(0, 1, 0x5ec_2e7_5ec_2e7, 9000));
    for length in 14..80 {
        one.send(&frame(0, 1, 0, length));
    }
    it.net.settle();
    let got = two.read_all();
    let expected = (14..80).map(|length| frame(0, 1, 0, length));
    assert_eq!(got[1..], expected.collect::<Vec<_>>());
}

#[test]
fn a_bulk_arrives_whole_and_in_order_both_ways() {
    let (mut it, [one, two]) = pair();
    let (mut sent, mut got) = ([0, 0], [0, 0]);
    while got.iter().sum::<usize>() < 6000 {
        for (from, client) in [&one, &two].into_iter().enumerate() {
            while sent[from] < 3000 && client.try_send(&frame(from, 1 - from, sent[from], LENGTH)) {
                sent[from] += 1;
            }
        }
        it.net.settle();
        for (to, client) in [&one, &two].into_iter().enumerate() {
            for arrived in client.read_all() {
                assert!(arrived == frame(1 - to, to, got[to], LENGTH), "frame {} to {to}", got[to]);
                got[to] += 1;
            }
        }
    }
    it.net.settle();
    for port in 0..2 {
        let counters = it.net.counters(port);
        // And a broadcast each.
        let octets = u64::try_from(3000 * LENGTH + 60).expect("not many");
        assert_eq!((counters.rx_frames, counters.rx_bytes), (3001, octets));
        assert_eq!((counters.tx_frames, counters.drops.total()), (3001, 0));
    }
}

#[test]
fn the_books_balance_to_the_frame() {
    let (mut it, clients) = Switch::introduced::<4>();
    let before = it.net.snapshot();
    let (mut expected, mut own) = ([0_u64; 4], 0);
    for round in 0..200_usize {
        let from = round % 4;
        let to = (round / 4) % 6;
        // To others, to itself, to nobody that is known, and to all.
        let sent = match to {
            0..4 => frame(from, to, round, 60 + round),
            4 => frame(from, 99, round, 60),
            _ => broadcast(from),
        };
        clients[from].send(&sent);
        own += u64::from(to == from);
        for (other, count) in expected.iter_mut().enumerate() {
            *count += u64::from(other != from && (to == other || to > 3));
        }
        it.net.settle();
    }
    let after = it.net.snapshot();
    let mut returned = 0;
    for (port, client) in clients.iter().enumerate() {
        let (then, now) = (&before.ports[port].counters, &after.ports[port].counters);
        assert_eq!(now.rx_frames - then.rx_frames, 50);
        assert_eq!(now.tx_frames - then.tx_frames, expected[port]);
        let arrived = client.read_all();
        assert_eq!(u64::try_from(arrived.len()).expect("few"), expected[port]);
        let octets: usize = arrived.iter().map(Vec::len).sum();
        assert_eq!(now.tx_bytes - then.tx_bytes, u64::try_from(octets).expect("not many"));
        returned += now.drops.count(DiscardReason::SamePort) - then.drops.count(DiscardReason::SamePort);
    }
    assert_eq!(returned, own, "what stations sent to themselves");
    assert!(own > 20);
    assert_eq!(after.copies - before.copies, expected.iter().sum::<u64>() + own);
    assert_eq!(it.net.whereabouts(station(99)), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// However long the datagrams are, and however many come at once, what is a frame arrives as it was sent, and the
    /// rest is counted.
    #[test]
    fn datagrams_of_any_lengths_in_any_order(
        bursts in prop::collection::vec(
            prop::collection::vec(
                prop_oneof![
                    2 => Just(0_usize), 2 => 1_usize..14, 20 => 14_usize..2000, 10 => Just(60_usize),
                    10 => Just(LENGTH), 3 => 2000_usize..20_000, 1 => MAX_FRAME - 2..MAX_FRAME + 3,
                ],
                1..150,
            ),
            1..8,
        ),
    ) {
        let (mut it, [one, two]) = pair();
        let (mut number, mut runts, mut long) = (0, 0, 0);
        for burst in bursts {
            let mut expected = Vec::new();
            for length in burst {
                number += 1;
                let sent = &frame(0, 1, number, length.max(14))[..length];
                // What does not fit any more was never sent.
                if !one.try_send(sent) {
                    break;
                }
                match length {
                    0 => {}
                    1..14 => runts += 1,
                    14..=MAX_FRAME => expected.push(sent.to_vec()),
                    _ => long += 1,
                }
            }
            // The hub drops nothing that the other one takes in time.
            let mut got = Vec::new();
            for _ in 0..1000 {
                it.net.turn();
                got.extend(two.read_all());
                if !it.net.is_due() && got.len() >= expected.len() {
                    break;
                }
            }
            it.net.settle();
            got.extend(two.read_all());
            prop_assert_eq!(got.len(), expected.len());
            prop_assert!(got == expected);
        }
        let drops = it.net.counters(0).drops;
        prop_assert_eq!(drops.total(), runts + long);
        prop_assert_eq!(drops.count(DiscardReason::Runt), runts);
        prop_assert_eq!(drops.count(DiscardReason::TooBig), long);
        prop_assert_eq!(it.net.counters(1).drops.total(), 0);
    }
}
