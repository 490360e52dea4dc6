//! What comes in by datagrams: who it is from, and what is no frame.

use std::os::unix::net::UnixDatagram;

use hub_protocol::stream::MAX_FRAME;
use qhub::bridge::Mode;
use qhub::discard::DiscardReason;

use crate::datagrams::as_u64;
use crate::far::{Far, Folder, free_udp};
use crate::net::Net;
use crate::wire::{broadcast, frame, record, records, station};

/// A server, and three that may send to it.
fn three(net: &mut Net, folder: &Folder, is_udp: bool) -> [Far; 3] {
    if is_udp {
        let hub = net.open_udp("");
        [(); 3].map(|()| Far::udp(hub))
    } else {
        net.open(&folder.spec(""));
        ["a", "b", "c"].map(|name| folder.far(name))
    }
}

#[test]
fn each_new_source_is_a_port_and_the_same_one_is_not_another() {
    for is_udp in [false, true] {
        let (mut net, folder) = (Net::new(Mode::Switch), Folder::new());
        let fars = three(&mut net, &folder, is_udp);
        let stem = if is_udp { "udp" } else { "dgram" };
        for round in 1..4 {
            for (number, far) in fars.iter().enumerate() {
                let known = if round == 1 { number + 1 } else { 3 };
                far.send(&broadcast(number));
                net.until(|snapshot| {
                    snapshot.ports.get(number).is_some_and(|port| port.counters.rx_frames == round)
                });
                assert_eq!(net.ports(), known);
                assert_eq!(net.whereabouts(station(number)), Some(format!("{stem}{}", number + 1)));
            }
        }
        // The others', of each round that found them there.
        for (number, far) in fars.iter().enumerate() {
            let heard: Vec<_> = (0..3).flat_map(|round| (0..3).map(move |other| (round, other))).collect();
            let heard =
                heard.iter().filter(|&&(round, other)| other != number && (round > 0 || other > number));
            far.expect(&heard.map(|&(_, other)| broadcast(other)).collect::<Vec<_>>());
            assert_eq!(far.read(), None);
        }
    }
}

/// What one receive brings goes on in the order in which it came, whoever it came from.
#[test]
fn a_receive_from_several_sources_keeps_them_apart_and_in_order() {
    let whose = [0, 0, 1, 0, 2, 2, 1, 0, 1, 1];
    for is_udp in [false, true] {
        let (mut net, folder) = (Net::new(Mode::Switch), Folder::new());
        let mut wire = net.unix();
        wire.send(&record(&broadcast(9)));
        net.settle();
        let fars = three(&mut net, &folder, is_udp);
        let sent: Vec<_> = whose
            .iter()
            .enumerate()
            .map(|(number, &from)| frame(from, 9, number, 14 + 100 * number))
            .collect();
        for (frame, &from) in sent.iter().zip(&whose) {
            fars[from].send(frame);
        }
        // The broadcast went to nobody.
        net.until_copies(11);
        assert_eq!(wire.read(), records(&sent));
        for source in 0..3 {
            let count = whose.iter().filter(|&&from| from == source).count();
            assert_eq!(net.counters(source + 1).rx_frames, as_u64(count));
            let name = &net.names()[source + 1];
            assert_eq!(net.whereabouts(station(source)).as_ref(), Some(name));
        }
    }
}

/// Each peer of a UDP port has a socket with the address of the server; newcomers still meet that one.
#[test]
fn many_udp_peers_do_not_take_each_others_datagrams() {
    let mut net = Net::new(Mode::Switch);
    let hub = net.open_udp("");
    let fars: Vec<Far> = (0..64).map(|_| Far::udp(hub)).collect();
    let mut wire = net.unix();
    wire.send(&record(&broadcast(99)));
    net.until_copies(1);
    for round in 0..3 {
        for (number, far) in fars.iter().enumerate() {
            let sent = frame(number, 99, round, 60);
            far.send(&sent);
            net.until_copies(2 + as_u64(64 * round + number));
            assert_eq!(wire.read(), record(&sent));
        }
    }
    net.settle();
    assert_eq!((net.ports(), net.lost_at_door().as_str()), (65, "-"));
    for (number, far) in fars.iter().enumerate() {
        wire.send(&record(&frame(99, number, 0, 60)));
        net.settle();
        far.expect(&[frame(99, number, 0, 60)]);
    }
    // Its own broadcast went to nobody.
    assert_eq!(net.dropped(), 1);
}

#[test]
fn datagrams_that_are_too_long_or_empty_are_dropped_alone() {
    let (mut net, folder) = (Net::new(Mode::Switch), Folder::new());
    let pair = net.pair();
    net.open(&folder.spec(""));
    let far = folder.far("vm");
    let longest = frame(5, 0, 1, MAX_FRAME);
    for (far, port) in [(&pair, "wire1"), (&far, "dgram1")] {
        far.send(&broadcast(5));
        net.settle();
        for datagram in [&vec![0xff; MAX_FRAME + 1], &broadcast(5), &Vec::new(), &longest] {
            far.send(datagram);
        }
        net.settle();
        assert_eq!(net.whereabouts(station(5)).as_deref(), Some(port));
    }
    assert_eq!(net.lost("dgram1"), "empty=1");
    assert_eq!(net.lost_at_door(), "too_big=1");
    // There was nobody else at first.
    assert_eq!(net.lost("wire1"), "empty=1 too_big=1 no_port=3");
    assert_eq!(pair.read_all(), [broadcast(5), broadcast(5), longest]);
}

#[test]
fn a_greeting_makes_a_port_and_is_no_frame() {
    let (mut net, folder) = (Net::new(Mode::Switch), Folder::new());
    let mut wire = net.unix();
    net.open(&folder.spec(""));
    let far = folder.far("vm");
    far.send(b"VFKT");
    net.settle();
    assert_eq!((net.ports(), net.counters(1).rx_frames, net.dropped()), (2, 0, 0));
    wire.send(&record(&broadcast(0)));
    net.settle();
    assert_eq!(far.read_all(), [broadcast(0)]);
}

/// Who has no name can't be answered; one in Linux's abstract namespace can.
#[test]
fn a_unix_source_needs_a_name() {
    let (mut net, folder) = (Net::new(Mode::Switch), Folder::new());
    let mut wire = net.unix();
    net.open(&folder.spec(""));
    let unnamed = UnixDatagram::unbound().unwrap();
    let named = folder.hidden();
    named.send(&broadcast(0));
    unnamed.send_to(&broadcast(2), folder.path("hub")).unwrap();
    named.send(&frame(0, 1, 1, 60));
    net.settle();
    assert_eq!((net.ports(), net.lost_at_door().as_str(), net.dropped()), (2, "stranger=1", 0));
    assert_eq!(wire.read(), records(&[broadcast(0), frame(0, 1, 1, 60)]));
    wire.send(&record(&broadcast(1)));
    net.settle();
    assert_eq!(named.read_all(), [broadcast(1)]);
}

#[test]
fn what_is_no_l2tpv3_of_ours_is_dropped_and_counted() {
    let (mut net, hub, own) = (Net::new(Mode::Switch), free_udp(), free_udp());
    let mut wire = net.unix();
    net.open(&format!("l2tpv3:{hub},remote={own},txsession=7,rxsession=8,txcookie=1,rxcookie=2"));
    let (far, stranger) = (Far::udp_at(own, hub), Far::udp(hub));
    let datagram = |first: [u8; 4], session: u32, cookie: u32| {
        let header = [&first[..], &session.to_be_bytes(), &cookie.to_be_bytes()].concat();
        [header, broadcast(0)].concat()
    };
    let (data, good) = ([0, 3, 0, 0], datagram([0, 3, 0, 0], 8, 2));
    let bad = [
        datagram([0, 2, 0, 0], 8, 2),
        datagram([0x80, 3, 0, 0], 8, 2),
        good[..11].to_vec(),
        Vec::new(),
        datagram(data, 7, 2),
        datagram(data, 8, 1),
        datagram(data, 7, 1),
        // A header and no frame.
        good[..12].to_vec(),
    ];
    for datagram in &bad {
        far.send(datagram);
        far.send(&good);
    }
    stranger.send(&good);
    net.until(|snapshot| snapshot.doors[0].1.total() == 1 && snapshot.ports[1].counters.rx_frames == 16);
    net.settle();
    assert_eq!(wire.read(), records(&vec![broadcast(0); bad.len()]));
    assert_eq!(net.lost("l2tpv3-1"), "empty=1 bad_header=4 wrong_session=2 wrong_cookie=1");
    assert_eq!((net.ports(), net.lost_at_door().as_str()), (2, "stranger=1"));
}

/// The system tells how many it dropped with the next datagram that it takes.
#[test]
fn udp_datagrams_that_the_system_had_no_room_for_are_counted() {
    let mut net = Net::new(Mode::Switch);
    let mut wire = net.unix();
    wire.send(&record(&broadcast(1)));
    let hub = net.open_udp("");
    let far = Far::udp(hub);
    far.send(&frame(0, 1, 0, 60));
    net.until_copies(2);
    let mut sent = 1;
    for _ in 0..2 {
        for _ in 0..15_000 {
            far.send(&frame(0, 1, 0, 60));
            sent += 1;
        }
        net.until(|snapshot| snapshot.ports[1].counters.rx_frames > 100);
        net.settle();
        far.send(&frame(0, 1, 0, 60));
        sent += 1;
        net.until(|snapshot| snapshot.ports[1].counters.rx_frames == sent);
        net.settle();
    }
    let counters = net.counters(1);
    let lost = counters.drops.count(DiscardReason::Overrun);
    assert!(lost > 0, "there was room for all");
    assert_eq!((counters.drops.total(), net.lost_at_door().as_str()), (lost, "-"));
    assert_eq!(counters.rx_bytes, 60 * (sent - lost), "what was lost had no octets");
}
