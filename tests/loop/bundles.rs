//! Frames that stand for several, from and to links that take them whole, refuse them, or have no room: whatever way they
//! go, what arrives is the same frames in the same order, and the books count those.

use std::time::Duration;

use hub_protocol::stream::MAX_FRAME;
use hub_protocol::vnet::{ChecksumState, GsoKind, VnetHeader};
use proptest::prelude::*;
use qhub::batch::ARENA;
use qhub::bridge::{BridgeConfig, Mode};
use qhub::config::PortOptions;
use qhub::discard::DiscardReason;
use qhub::hub::{self, Hub, HubConfig};
use qhub::port::REST;

use crate::card::{Arrival, Card, Left, PAYLOAD, Pair, Port, bundle, count, flat, octets, plain, segments};
use crate::net::{Net, allow_descriptors};
use crate::wire::{broadcast, frame, record, records};

#[test]
fn one_passes_whole_and_counts_as_its_frames() {
    let mut it = Pair::new(Card::default(), PortOptions::default());
    let sent = bundle(1, 2, 0, 60_001, 1448);
    let frames = segments(&sent);
    assert_eq!(frames.len(), 42);
    it.pass(std::slice::from_ref(&sent));
    assert!(it.to.card.borrow().left.len() == 1 && it.to.card.borrow().bundles() == 1);
    assert!(it.to.frames() == frames, "the bundle as it was");
    let (rx, tx) = (it.net.counters(0), it.net.counters(1));
    assert_eq!((rx.rx_frames, rx.rx_bytes), (42, octets(&frames)));
    assert_eq!((tx.tx_frames, tx.tx_bytes), (42, octets(&frames)));
    assert_eq!(it.net.dropped(), 0);
}

#[test]
fn everybody_gets_the_same_frames_in_the_form_that_he_takes() {
    for mode in [Mode::Switch, Mode::Hub] {
        let mut net = Net::new(mode);
        let from = Port::attach(&mut net.hub, Card::default(), PortOptions::default());
        let whole = Port::attach(&mut net.hub, Card::default(), PortOptions::default());
        let single =
            Port::attach(&mut net.hub, Card { joins: false, ..Card::default() }, PortOptions::default());
        let mut wires = [net.unix(), net.tcp()];
        // Nobody knows station 9.
        let sent = [
            plain(frame(1, 9, 1, 60)),
            bundle(1, 9, 1, 5000, 1000),
            bundle(1, 9, 2, 3001, 1500),
            plain(frame(1, 9, 2, 61)),
            bundle(1, 9, 3, 10, 1448),
        ];
        let frames = flat(&sent);
        assert_eq!(frames.len(), 11);
        from.arrive(&mut net.hub, &sent);
        net.settle();
        assert!(whole.frames() == frames && single.frames() == frames, "{mode:?}");
        assert_eq!((whole.card.borrow().bundles(), single.card.borrow().bundles()), (3, 0));
        for wire in &mut wires {
            wire.expect(&records(&frames));
        }
        let snapshot = net.snapshot();
        assert_eq!(snapshot.copies, 4 * 11);
        for port in &snapshot.ports[1..] {
            assert_eq!((port.counters.tx_frames, port.counters.tx_bytes), (11, octets(&frames)));
        }
    }
}

#[test]
fn what_was_queued_before_goes_first() {
    for first in 0..8 {
        let mut it = Pair::new(Card { room: first, ..Card::default() }, PortOptions::default());
        let sent: Vec<Arrival> = (0..4)
            .flat_map(|number| [plain(frame(1, 2, number, 100)), bundle(1, 2, number, 4000, 1000)])
            .collect();
        it.pass(&sent[..4]);
        it.pass(&sent[4..]);
        // It has room again, but something waits: whatever comes now has to wait, too.
        it.to.card.borrow_mut().room = 2;
        let late = [bundle(1, 2, 7, 2000, 1000), plain(frame(1, 2, 9, 80))];
        it.pass(&late);
        let frames = [flat(&sent), flat(&late)].concat();
        for _ in 0..20 {
            it.to.make_room(&mut it.net.hub, 3);
            it.net.settle();
        }
        assert!(it.to.frames() == frames, "with room for {first} at first");
        let counters = it.net.counters(1);
        assert_eq!((counters.tx_frames, counters.tx_bytes), (count(&frames), octets(&frames)));
        // Once nothing waits, they pass whole again.
        it.to.make_room(&mut it.net.hub, usize::MAX);
        let before = it.to.card.borrow().bundles();
        it.pass(&[bundle(1, 2, 8, 2000, 1000)]);
        assert_eq!(it.to.card.borrow().bundles(), before + 1);
    }
}

#[test]
fn nobody_there_drops_each_frame_and_is_left_alone() {
    let mut it = Pair::new(Card { is_down: true, ..Card::default() }, PortOptions::default());
    it.pass(&[bundle(1, 2, 0, 5000, 1000), bundle(1, 2, 1, 5000, 1000)]);
    let drops = it.net.counters(1).drops;
    assert_eq!((drops.count(DiscardReason::Down), drops.total()), (10, 10));
    assert_eq!(it.to.card.borrow().offered, 1, "it rests");
    it.to.card.borrow_mut().is_down = false;
    it.pass(&[bundle(1, 2, 2, 5000, 1000)]);
    assert_eq!((it.to.card.borrow().offered, it.to.card.borrow().left.len()), (1, 0), "it rests yet");
    it.net.now += REST;
    let last = bundle(1, 2, 3, 5000, 1000);
    it.pass(std::slice::from_ref(&last));
    assert!(it.to.frames() == segments(&last));
    assert_eq!(it.net.counters(1).drops.total(), 15);
}

#[test]
fn a_padded_port_gets_padded_frames() {
    // The last of them has 55 octets.
    for (pad, padded) in [(55, 55), (56, 56), (60, 60)] {
        let mut it = Pair::new(Card::default(), PortOptions { pad, ..PortOptions::default() });
        let sent = bundle(1, 2, 0, 301, 100);
        let mut frames = segments(&sent);
        frames[3].resize(padded, 0);
        it.pass(std::slice::from_ref(&sent));
        assert!(
            it.to.card.borrow().left == frames.iter().cloned().map(Left::Frame).collect::<Vec<_>>(),
            "pad={pad}"
        );
    }
}

#[test]
fn an_egress_takes_frames_up_to_its_limit() {
    // Four of 154 octets, and one of 55.
    let sent = bundle(1, 2, 0, 401, 100);
    let frames = segments(&sent);
    for joins in [true, false] {
        for (max_frame, passed, is_whole) in
            [(154, 5, joins), (153, 1, false), (55, 1, false), (54, 0, false)]
        {
            for is_links in [true, false] {
                let (card, option) = if is_links { (max_frame, MAX_FRAME) } else { (MAX_FRAME, max_frame) };
                let card = Card { joins, max_frame: card, ..Card::default() };
                let mut it = Pair::new(card, PortOptions { max_frame: option, ..PortOptions::default() });
                it.net.now += REST;
                it.pass(std::slice::from_ref(&sent));
                assert!(it.to.frames() == frames[5 - passed..], "{max_frame}");
                assert_eq!(it.to.card.borrow().bundles() > 0, is_whole, "{max_frame}");
                let counters = it.net.counters(1);
                let dropped = u64::try_from(5 - passed).expect("few");
                assert_eq!(counters.drops.count(DiscardReason::TooBig), dropped, "{max_frame}");
            }
        }
    }
}

#[test]
fn an_ingress_lets_frames_in_up_to_its_limit() {
    // Four of 154 octets, and one of 55.
    let sent = bundle(1, 2, 0, 401, 100);
    let frames = segments(&sent);
    for (max_frame, passed) in [(154, 5), (153, 1), (54, 0)] {
        let options = PortOptions { max_frame, ..PortOptions::default() };
        let mut it = Pair::with(options, Card::default(), PortOptions::default());
        it.pass(std::slice::from_ref(&sent));
        let counters = it.net.counters(0);
        assert_eq!((counters.rx_frames, counters.rx_bytes), (5, octets(&frames)));
        assert_eq!(
            (it.to.frames().len(), counters.drops.count(DiscardReason::TooBig)),
            (passed, 5 - u64::try_from(passed).expect("few")),
            "max-frame={max_frame}: a frame that is short enough passes, whatever it came with"
        );
    }
}

#[test]
fn one_for_nobody_or_for_its_own_side_counts_all_its_frames() {
    let mut it = Pair::new(Card::default(), PortOptions::default());
    it.pass(&[plain(frame(1, 2, 0, 60))]);
    // Station 1 is on the port that this comes from.
    it.pass(&[bundle(7, 1, 0, 3000, 1000), bundle(1, 2, 1, 3000, 1000)]);
    let counters = it.net.counters(0);
    assert_eq!((counters.drops.count(DiscardReason::SamePort), counters.rx_frames), (3, 7));
    assert_eq!(it.to.frames().len(), 4);
}

#[test]
fn an_impossible_one_is_one_bad_frame_and_the_next_is_not_taken_for_it() {
    let mut it = Pair::new(Card::default(), PortOptions::default());
    let good = bundle(1, 2, 5, 3000, 1000);
    let broken = |change: fn(&mut VnetHeader)| {
        let mut bad = bundle(1, 2, 6, 3000, 1000);
        change(&mut bad.1);
        bad
    };
    let short = (good.0[..PAYLOAD].to_vec(), good.1);
    let bad = [
        broken(|header| header.gso_size = 0),
        broken(|header| header.gso = Some(GsoKind::Other(3))),
        broken(|header| header.gso = Some(GsoKind::TcpV6 { ecn: false })),
        broken(|header| header.gso = Some(GsoKind::UdpL4)),
        broken(|header| header.checksum = ChecksumState::Unknown),
        broken(|header| header.csum_start = 0xffff),
        broken(|header| header.csum_start = 35),
        broken(|header| header.csum_offset = 0xffff),
        broken(|header| *header = VnetHeader { gso: None, csum_start: 0xffff, ..*header }),
        short,
    ];
    let all: Vec<_> =
        bad.iter().flat_map(|bad| [bad.clone(), good.clone(), plain(frame(1, 2, 3, 77))]).collect();
    it.pass(&all);
    let expected = vec![[segments(&good), vec![frame(1, 2, 3, 77)]].concat(); bad.len()].concat();
    assert!(it.to.frames() == expected, "{} frames of {}", it.to.frames().len(), expected.len());
    let counters = it.net.counters(0);
    assert_eq!(counters.drops.count(DiscardReason::BadOffload), count(&expected) / 4);
    assert_eq!(counters.rx_frames, count(&expected) / 4 * 5);
}

#[test]
fn one_stands_for_a_mebibyte_of_frames_and_not_more() {
    for (payload, is_good) in [(19_065, true), (19_066, false)] {
        let mut it = Pair::new(Card::default(), PortOptions::default());
        it.pass(&[bundle(1, 2, 0, payload, 1)]);
        let rx = it.net.counters(0);
        let frames = u64::try_from(payload).expect("few");
        assert_eq!(rx.rx_frames, if is_good { frames } else { 1 });
        assert_eq!(rx.drops.count(DiscardReason::BadOffload), u64::from(!is_good));
    }
}

/// More sends than one turn may cause.
struct Crowd {
    net: Net,
    from: Port,
    others: Vec<Port>,
}

impl Crowd {
    fn new(others: usize) -> Self {
        allow_descriptors();
        let mut net = Net::new(Mode::Switch);
        let from = Port::attach(&mut net.hub, Card::default(), PortOptions::default());
        let others = (0..others).map(|number| {
            let card = Card { joins: number % 2 == 0, ..Card::default() };
            Port::attach(&mut net.hub, card, PortOptions::default())
        });
        let others = others.collect();
        Self { net, from, others }
    }
}

#[test]
fn what_one_turn_does_not_pass_on_goes_before_what_comes_next() {
    let mut it = Crowd::new(600);
    let batches: Vec<Vec<Arrival>> = (0..3)
        .map(|batch| {
            let two = |number| [bundle(1, 9, number, 300, 100), plain(frame(1, 9, number, 60))];
            (batch * 5..batch * 5 + 5).flat_map(two).collect()
        })
        .collect();
    for batch in &batches {
        it.from.arrive(&mut it.net.hub, batch);
    }
    let (mut turns, mut most) = (0, 0);
    while it.net.is_due() || turns == 0 {
        it.net.turn();
        it.net.balance();
        most = most.max(it.net.snapshot().memory);
        turns += 1;
    }
    assert!(turns > 3 && most > 1000, "{turns} turns, {most} octets held");
    let frames = flat(&batches.concat());
    for other in &it.others {
        assert!(other.frames() == frames);
    }
    assert_eq!((it.net.dropped(), it.net.snapshot().memory), (0, 0));
}

#[test]
fn the_rest_of_a_monstrous_batch_is_bounded_and_booked() {
    let mut it = Crowd::new(600);
    // Frames of 55 octets, tens of thousands of each: the first is passed on, and of the others only an arena is kept.
    let monsters: Vec<Arrival> = (0..3).map(|number| bundle(1, 9, number, 15_000, 1)).collect();
    it.others.iter().for_each(|other| other.card.borrow_mut().room = 0);
    it.from.arrive(&mut it.net.hub, &monsters);
    it.net.turn();
    it.net.balance();
    for _ in 0..20 {
        it.net.now += Duration::from_millis(10);
        it.net.turn();
    }
    it.net.balance();
    let snapshot = it.net.snapshot();
    assert_eq!(snapshot.ports[0].counters.rx_frames, 45_000);
    assert!(snapshot.memory <= 256 << 20, "{}", snapshot.memory);
}

/// What is dropped in any case makes no room for itself.
#[test]
fn what_will_not_be_kept_costs_no_other_port_its_queue() {
    let bridge = BridgeConfig { mode: Mode::Switch, ageing: Duration::from_secs(300), fdb_max: 64 };
    let config = HubConfig { bridge, max_ports: 1024, memory: 2 << 20 };
    let (mut hub, now) = (Hub::new(config).expect("a poll"), hub::now());
    let guest = Port::attach(&mut hub, Card::default(), PortOptions::default());
    let victim = Port::attach(&mut hub, Card::default(), PortOptions::default());
    victim.arrive(&mut hub, &[plain(broadcast(2))]);
    hub.turn(now);
    victim.card.borrow_mut().room = 0;
    let backlog: Vec<_> = (0..60).map(|number| plain(frame(3, 2, number, 1514))).collect();
    guest.arrive(&mut hub, &backlog);
    hub.turn(now);
    assert_eq!(hub.snapshot(now).ports[1].queued_frames, 60);
    let others: Vec<_> = (0..600)
        .map(|_| Port::attach(&mut hub, Card { max_frame: 1, ..Card::default() }, PortOptions::default()))
        .collect();
    // One more than one turn passes on of the first two, and 2.6 MB of the rest, of which 256 KiB are kept.
    let burst: Vec<_> =
        (0..5).map(|number| bundle(1, 9, number, if number < 2 { 10 } else { 15_000 }, 1)).collect();
    let tap = Port::attach(&mut hub, Card::default(), PortOptions::default());
    victim.card.borrow_mut().room = 0;
    tap.arrive(&mut hub, &burst);
    hub.turn(now);
    let memory = hub.snapshot(now).memory;
    assert!(memory > ARENA / 2, "{memory}: the rest was to be held");
    let drops = hub.snapshot(now).ports[1].counters.drops;
    assert_eq!(drops.count(DiscardReason::MemoryFull), 0, "{} ports, {memory} octets used", others.len());
}

/// Somebody joined a bus to this hub in a second way as well: what went out whole comes back cut.
#[test]
fn a_loop_is_found_whatever_form_the_frames_have() {
    for is_bundle in [false, true] {
        let mut net = Net::new(Mode::Switch);
        let from = Port::attach(&mut net.hub, Card::default(), PortOptions::default());
        let bus =
            Port::attach(&mut net.hub, Card { is_bus: true, ..Card::default() }, PortOptions::default());
        let back =
            Port::attach(&mut net.hub, Card { joins: false, ..Card::default() }, PortOptions::default());
        from.arrive(&mut net.hub, &[plain(frame(1, 9, 0, 60))]);
        net.settle();
        for number in 0..20 {
            let sent = bundle(1, 9, number, 3000, 1000);
            let seen = bus.frames().len();
            if is_bundle {
                from.arrive(&mut net.hub, &[sent]);
            } else {
                from.arrive(&mut net.hub, &segments(&sent).into_iter().map(plain).collect::<Vec<_>>());
            }
            net.settle();
            let returned: Vec<_> = bus.frames().split_off(seen).into_iter().map(plain).collect();
            back.arrive(&mut net.hub, &returned);
            net.settle();
        }
        let drops = net.counters(2).drops;
        assert!(drops.count(DiscardReason::Loop) > 0, "as bundles: {is_bundle}; {drops}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever waits and whoever takes bundles, everybody gets all frames in order, as long as queues hold them.
    #[test]
    fn any_mixture_arrives_complete_and_in_order(
        steps in prop::collection::vec(
            (prop::collection::vec((any::<bool>(), 1_usize..4, 1_usize..4000, 1_u16..1600), 1..6), 0_usize..40, any::<bool>()),
            1..12,
        ),
        pad in prop::sample::select(vec![0, 60, 1000]),
    ) {
        let mut net = Net::new(Mode::Switch);
        let from = Port::attach(&mut net.hub, Card::default(), PortOptions::default());
        let options = [PortOptions::default(), PortOptions { pad, ..PortOptions::default() }];
        let to = options.map(|options| Port::attach(&mut net.hub, Card { room: 0, ..Card::default() }, options));
        for (port, station) in to.iter().zip(2..) {
            port.arrive(&mut net.hub, &[plain(broadcast(station))]);
        }
        net.settle();
        let mut wire = net.unix();
        wire.send(&record(&broadcast(4)));
        net.settle();
        to.iter().for_each(|port| port.make_room(&mut net.hub, usize::MAX));
        net.settle();
        let before = to.each_ref().map(|port| port.frames().len());
        to.iter().for_each(|port| port.card.borrow_mut().room = 0);
        let (mut expected, mut got) = ([Vec::new(), Vec::new(), Vec::new()], Vec::new());
        let _ = wire.read();
        for (number, (batch, room, joins)) in steps.iter().enumerate() {
            let arrivals: Vec<Arrival> = batch
                .iter()
                .map(|&(is_bundle, to, octets, size)| match is_bundle {
                    // A size of a few octets makes more frames than queues hold.
                    true => bundle(1, to + 1, number, octets, size.max(60)),
                    false => plain(frame(1, to + 1, number, 14 + octets)),
                })
                .collect();
            for (arrival, &(_, to, ..)) in arrivals.iter().zip(batch) {
                expected[to - 1].extend(flat(std::slice::from_ref(arrival)));
            }
            from.arrive(&mut net.hub, &arrivals);
            for port in &to {
                port.card.borrow_mut().joins = *joins;
                port.make_room(&mut net.hub, *room);
            }
            net.settle();
            got.extend(wire.read());
        }
        to.iter().for_each(|port| port.make_room(&mut net.hub, usize::MAX));
        net.settle();
        net.settle();
        got.extend(wire.read());
        for frame in &mut expected[1] {
            frame.resize(frame.len().max(pad), 0);
        }
        for ((port, before), expected) in to.iter().zip(before).zip(&expected) {
            prop_assert!(port.frames()[before..] == expected[..]);
        }
        prop_assert!(got == records(&expected[2]));
    }
}
