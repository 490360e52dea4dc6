//! Datagram ports with one peer only, whether it is there or not.

use std::fs;
use std::time::Duration;

use qhub::bridge::Mode;
use qhub::port::REST;

use crate::datagrams::exchange;
use crate::far::{Far, Folder, free_udp};
use crate::net::Net;
use crate::wire::{LENGTH, Wire, broadcast, frame, record, records, station};

/// A hub with a stream port and one for the unix socket `vm` only, which nobody has made yet.
fn net() -> (Net, Wire, Folder) {
    let (mut net, folder) = (Net::new(Mode::Switch), Folder::new());
    let wire = net.unix();
    net.open(&folder.spec(&format!(",remote={}", folder.path("vm").display())));
    net.settle();
    assert_eq!(net.names(), ["wire1", "dgram1"], "it is there from the start");
    (net, wire, folder)
}

#[test]
fn datagrams_of_strangers_are_dropped_and_counted() {
    let (mut net, mut wire, folder) = net();
    let (far, stranger) = (folder.far("vm"), folder.far("other"));
    stranger.send(&broadcast(2));
    far.send(&broadcast(0));
    stranger.send(&broadcast(2));
    stranger.send(b"VFKT");
    far.send(&frame(0, 1, 1, 60));
    net.settle();
    assert_eq!(wire.read(), records(&[broadcast(0), frame(0, 1, 1, 60)]));
    assert_eq!((net.ports(), net.lost_at_door().as_str(), net.dropped()), (2, "stranger=3", 0));
    assert_eq!(net.whereabouts(station(2)), None);
    wire.send(&record(&broadcast(1)));
    net.settle();
    assert_eq!((far.read_all(), stranger.read()), (vec![broadcast(1)], None));
}

#[test]
fn udp_datagrams_of_strangers_are_dropped_and_counted() {
    let (mut net, own) = (Net::new(Mode::Switch), free_udp());
    let mut wire = net.unix();
    let hub = net.open_udp(&format!(",remote={own}"));
    let (far, stranger) = (Far::udp_at(own, hub), Far::udp(hub));
    stranger.send(&broadcast(2));
    net.until(|snapshot| snapshot.doors[0].1.total() == 1);
    far.send(&broadcast(0));
    net.until_copies(1);
    net.settle();
    assert_eq!((wire.read(), net.ports(), net.dropped()), (record(&broadcast(0)), 2, 0));
    assert_eq!((net.lost_at_door().as_str(), net.whereabouts(station(2))), ("stranger=1", None));
}

#[test]
fn what_is_for_a_missing_peer_is_counted_and_the_next_frame_finds_it() {
    let (mut net, mut wire, folder) = net();
    let frames = [1, 2, 3].map(|number| frame(1, 0, number, LENGTH));
    for life in 0..3_u64 {
        wire.send(&records(&frames));
        net.settle();
        wire.send(&record(&broadcast(1)));
        net.settle();
        assert_eq!(net.lost("dgram1"), format!("down={}", 5 * life + 4));
        let snapshot = net.snapshot();
        assert_eq!((snapshot.ports[1].queued, snapshot.memory), (0, 0), "nothing waits for it");

        let far = folder.far("vm");
        // It is looked for ten times a second, and not for every frame.
        net.now += REST - Duration::from_nanos(1);
        wire.send(&record(&frames[0]));
        net.settle();
        assert_eq!((far.read(), net.lost("dgram1")), (None, format!("down={}", 5 * (life + 1))));
        net.now += Duration::from_nanos(1);
        wire.send(&record(&frames[0]));
        net.settle();
        assert_eq!(far.read_all(), [frames[0].clone()]);
        far.send(&broadcast(0));
        net.settle();
        assert_eq!(wire.read(), record(&broadcast(0)));
        drop(far);
        if life > 0 {
            fs::remove_file(folder.path("vm")).expect("its socket");
        }
    }
}

#[test]
fn the_next_life_of_a_peer_is_found_by_the_first_frame() {
    let (mut net, mut wire, folder) = net();
    for life in 0..3 {
        let far = folder.far("vm");
        let frames = [1, 2].map(|number| frame(1, 0, 10 * life + number, LENGTH));
        wire.send(&records(&frames));
        net.settle();
        assert_eq!(far.read_all(), frames);
    }
    assert_eq!((net.ports(), net.dropped()), (2, 0));
}

/// What the former life had not read is gone with it; what waits here is for the next.
#[test]
fn the_next_life_of_a_peer_gets_what_waited() {
    let (mut net, mut wire, folder) = net();
    let former = folder.far("vm");
    let frames: Vec<_> = (0..100).map(|number| frame(1, 0, number, LENGTH)).collect();
    wire.send(&records(&frames));
    net.settle();
    let waiting = usize::try_from(net.snapshot().ports[1].queued_frames).expect("few");
    assert!((50..100).contains(&waiting), "{waiting}");
    drop(former);
    let next = folder.far("vm");
    let mut got = Vec::new();
    while got.len() < waiting {
        net.settle();
        let more = next.read_all();
        assert!(!more.is_empty(), "after {} of {waiting}", got.len());
        got.extend(more);
    }
    assert_eq!(got, frames[100 - waiting..]);
    assert_eq!(net.dropped(), 0);
}

/// The peer comes again, and gets the next frame once it is looked for.
fn next_life_is_found(net: &mut Net, wire: &mut Wire, folder: &Folder) {
    let far = folder.far("vm");
    net.now += REST;
    wire.send(&record(&broadcast(1)));
    net.settle();
    assert_eq!(far.read_all(), [broadcast(1)]);
}

#[test]
fn what_waited_for_a_peer_that_went_is_counted() {
    let (mut net, mut wire, folder) = net();
    let far = folder.far("vm");
    wire.send(&records(&(0..100).map(|number| frame(1, 0, number, LENGTH)).collect::<Vec<_>>()));
    net.settle();
    let waiting = net.snapshot().ports[1].queued_frames;
    drop(far);
    net.settle();
    assert_eq!((net.lost("dgram1"), net.snapshot().memory), (format!("down={waiting}"), 0));
    next_life_is_found(&mut net, &mut wire, &folder);
}

/// What is heard is there, however lately it was not.
#[test]
fn a_peer_that_speaks_is_looked_for_at_once() {
    let (mut net, mut wire, folder) = net();
    wire.send(&record(&broadcast(1)));
    net.settle();
    assert_eq!(net.lost("dgram1"), "down=1");
    let far = folder.far("vm");
    far.send(&broadcast(0));
    net.settle();
    wire.send(&record(&broadcast(1)));
    net.settle();
    assert_eq!(far.read_all(), [broadcast(1)]);
}

/// It hears the socket that it has connected to and no other, which is not how `remote=` sends.
#[test]
fn a_peer_that_has_connected_its_socket_is_down() {
    let (mut net, mut wire, folder) = net();
    let far = folder.connected("vm");
    far.send(&broadcast(0));
    net.settle();
    assert_eq!(wire.read(), record(&broadcast(0)), "it is heard all the same");
    wire.send(&records(&[broadcast(1), frame(1, 0, 1, 60)]));
    net.settle();
    assert_eq!((net.ports(), net.lost("dgram1").as_str(), far.read()), (2, "down=2", None));
    // Until it is one that does not.
    next_life_is_found(&mut net, &mut wire, &folder);
}

/// The system tells of a datagram that nobody took when the next one is sent, which is not sent then.
#[test]
fn a_udp_peer_that_was_away_costs_no_other_frame() {
    let (mut net, own) = (Net::new(Mode::Switch), free_udp());
    let mut wire = net.unix();
    let hub = net.open_udp(&format!(",remote={own}"));
    for life in 0..3 {
        let far = Far::udp_at(own, hub);
        let frames = [1, 2].map(|number| frame(1, 0, 10 * life + number, 60));
        wire.send(&records(&frames));
        net.settle();
        far.expect(&frames);
        assert_eq!(far.read(), None);
        far.send(&broadcast(0));
        net.until(|snapshot| snapshot.fdb.iter().any(|(row, _)| row.mac.0 == station(0)));
        drop(far);
        // To nobody, and apart: the one is for a port that is known, the other for all.
        wire.send(&records(&[frame(1, 0, 0, 60), broadcast(1), frame(1, 0, 0, 60)]));
        net.settle();
    }
    assert_eq!((net.lost("udp1").as_str(), net.counters(1).tx_frames), ("-", 15));
}

#[test]
fn the_longest_path_may_have_a_remote() {
    let (mut net, folder) = (Net::new(Mode::Switch), Folder::longest());
    net.open(&folder.spec(&format!(",remote={}", folder.path("vm").display())));
    let far = folder.far("vm");
    exchange(net, &far, [&[]; 2], "dgram1");
}
