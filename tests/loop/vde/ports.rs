//! The numbers of ports, and clients that share one.

use nix::errno::Errno;
use nix::unistd::geteuid;

use super::switch::Switch;
use crate::vde_client::Client;
use crate::wire::{broadcast, frame, record, station};

fn names(it: &mut Switch) -> Vec<String> {
    it.net.names()
}

/// What each of `clients` has got.
fn heard<const N: usize>(it: &mut Switch, clients: [&Client; N]) -> [Vec<Vec<u8>>; N] {
    it.net.settle();
    clients.map(Client::read_all)
}

#[test]
fn a_client_gets_the_first_free_number_or_the_one_it_wants() {
    let mut it = Switch::new();
    let clients = [None, Some(3), None, None, Some(0), Some(1024)].map(|port| it.join(port));
    assert_eq!(names(&mut it), ["vde1", "vde3", "vde2", "vde4", "vde0", "vde1024"]);
    for (client, number) in clients.iter().zip(["001.", "003.", "002.", "004.", "000.", "1024."]) {
        let socket = client.data.peer_addr().expect("it is connected");
        let socket = socket.as_pathname().expect("it has a path");
        assert_eq!(socket.parent(), Some(it.folder.as_path()));
        assert!(socket.file_name().expect("a name").to_string_lossy().starts_with(number), "{socket:?}");
    }
    for port in [1025, 0xffff, 0x1_0000, 0xff_ffff] {
        assert!(it.try_join(Some(port)).is_none(), "port {port}");
    }
    let [first, ..] = clients;
    drop(first);
    it.net.settle();
    let _next = it.join(None);
    assert!(names(&mut it).contains(&"vde1".to_owned()), "the first gap");
}

/// Port 0 is like any other, but nobody gets it without asking.
#[test]
fn port_0_is_a_port() {
    let mut it = Switch::new();
    let (zero, other) = (it.join(Some(0)), it.join(None));
    zero.send(&broadcast(0));
    other.send(&broadcast(1));
    assert_eq!(heard(&mut it, [&zero, &other]), [[broadcast(1)], [broadcast(0)]]);
    other.send(&frame(1, 0, 1, 60));
    assert_eq!(heard(&mut it, [&zero, &other]), [vec![frame(1, 0, 1, 60)], vec![]]);
}

#[test]
fn an_old_request_may_have_port_0() {
    let mut it = Switch::new();
    let mut client = it.come();
    client.say(&crate::vde_client::old_request(true, &client.path, b""));
    it.net.settle();
    assert_eq!(names(&mut it), ["vde0"]);
}

/// Two at port 5, stations 1 and 2; station 0 and a listener elsewhere.
fn shared() -> (Switch, [Client; 2], Client, Client) {
    let mut it = Switch::new();
    let mates = [it.join(Some(5)), it.join(Some(5))];
    let (other, listener) = (it.join(None), it.join(None));
    other.send(&broadcast(0));
    it.net.settle();
    for (station, mate) in [(1, &mates[0]), (2, &mates[1])] {
        mate.send(&broadcast(station));
    }
    it.net.settle();
    for client in [&mates[0], &mates[1], &other, &listener] {
        client.read_all();
    }
    (it, mates, other, listener)
}

#[test]
fn who_shares_a_port_hears_all_that_is_sent_to_it_and_nothing_of_its_mates() {
    let (mut it, [one, two], other, listener) = shared();
    assert_eq!(names(&mut it), ["vde5", "vde5-1", "vde1", "vde2"]);
    assert_eq!(it.stations(), [(0, "vde1".into()), (1, "vde5".into()), (2, "vde5".into())]);

    let all = [&one, &two, &other, &listener];
    for mate in [1, 2] {
        let sent = frame(0, mate, 1, 60);
        other.send(&sent);
        assert_eq!(heard(&mut it, all), [vec![sent.clone()], vec![sent], vec![], vec![]]);
    }
    other.send(&broadcast(0));
    assert_eq!(heard(&mut it, all), [vec![broadcast(0)], vec![broadcast(0)], vec![], vec![broadcast(0)]]);

    let dropped = it.net.dropped();
    one.send(&broadcast(1));
    two.send(&broadcast(2));
    let both = vec![broadcast(1), broadcast(2)];
    assert_eq!(heard(&mut it, all), [vec![], vec![], both.clone(), both]);
    assert_eq!(it.net.dropped(), dropped);
    one.send(&frame(1, 2, 1, 60));
    two.send(&frame(2, 1, 1, 60));
    assert!(heard(&mut it, all).iter().all(Vec::is_empty), "they are one port");
    assert_eq!(it.net.dropped(), dropped + 2);
    assert!(it.net.lost("vde5").starts_with("same_port=1"));
}

#[test]
fn the_one_who_leads_may_leave() {
    for leaves_first in [true, false] {
        let (mut it, [one, two], other, listener) = shared();
        let (gone, rest, name) = if leaves_first { (one, two, "vde5-1") } else { (two, one, "vde5") };
        drop(gone);
        it.net.settle();
        let behind = |name: &str| [(0, "vde1".into()), (1, name.to_owned()), (2, name.to_owned())];
        assert_eq!(it.stations(), behind(name), "the stations of a port stay with it");
        let all = [&rest, &other, &listener];
        for station in [1, 2] {
            let sent = frame(0, station, 2, 60);
            other.send(&sent);
            assert_eq!(heard(&mut it, all), [vec![sent], vec![], vec![]]);
        }
        let third = it.join(Some(5));
        let all = [&rest, &third, &other, &listener];
        let sent = frame(0, 1, 3, 60);
        other.send(&sent);
        assert_eq!(heard(&mut it, all), [vec![sent.clone()], vec![sent], vec![], vec![]]);
        drop(rest);
        it.net.settle();
        let sent = frame(0, 2, 4, 60);
        other.send(&sent);
        assert_eq!(heard(&mut it, [&third, &other, &listener]), [vec![sent], vec![], vec![]]);
        drop(third);
        it.net.settle();
        assert_eq!(it.stations(), [(0, "vde1".into())], "with the last one they go");
    }
}

/// Ten come to one port and leave it in some order: whoever is there hears what the port is sent.
#[test]
fn a_port_may_have_many_clients() {
    let mut it = Switch::new();
    let other = it.join(None);
    let mut mates: Vec<Client> = (0..10).map(|_| it.join(Some(9))).collect();
    other.send(&broadcast(0));
    mates[7].send(&broadcast(1));
    it.net.settle();
    for (round, leaves) in [0, 6, 0, 3, 5, 1, 0, 2, 1].into_iter().enumerate() {
        mates.iter().for_each(|mate| drop(mate.read_all()));
        let sent = frame(0, 1, round, 60);
        other.send(&sent);
        it.net.settle();
        for mate in &mates {
            assert_eq!(mate.read_all(), std::slice::from_ref(&sent), "round {round}");
        }
        drop(mates.remove(leaves));
        it.net.settle();
        assert_eq!(it.net.ports(), 1 + mates.len());
        assert_eq!(it.stations().len(), 2);
    }
}

#[test]
fn a_station_that_moves_between_ports_has_moved_at_once() {
    let (mut it, [one, two, three]) = Switch::introduced();
    for number in 0..4 {
        // As a VM does that has been migrated.
        let (here, there) = if number % 2 == 0 { (&two, &one) } else { (&one, &two) };
        here.send(&broadcast(9));
        it.net.settle();
        drop(heard(&mut it, [&one, &two, &three]));
        let sent = frame(2, 9, number, 60);
        three.send(&sent);
        assert_eq!(heard(&mut it, [here, there, &three]), [vec![sent], vec![], vec![]]);
    }
}

#[test]
fn who_comes_and_goes_leaves_the_stations_of_others_alone() {
    let (mut it, [one, two]) = Switch::introduced();
    let before = it.net.snapshot().fdb;
    let counted = it.net.snapshot().fdb_counters;
    assert_eq!(before.len(), 2);
    for port in [None, Some(1), Some(2), Some(0), Some(1024)] {
        let third = it.join(port);
        assert_eq!(it.net.snapshot().fdb, before);
        let sent = frame(0, 1, 1, 60);
        one.send(&sent);
        let shared = if port == Some(2) { vec![sent.clone()] } else { vec![] };
        assert_eq!(heard(&mut it, [&one, &two, &third]), [vec![], vec![sent], shared]);
        drop(third);
        it.net.settle();
        assert_eq!(it.net.snapshot().fdb, before);
    }
    assert_eq!(it.net.snapshot().fdb_counters, counted);
}

#[test]
fn stations_go_with_the_last_client_of_their_port() {
    let (mut it, [one, two, three]) = Switch::introduced();
    drop(two);
    it.net.settle();
    assert_eq!(it.stations(), [(0, "vde1".into()), (2, "vde3".into())]);
    // It is everybody's now.
    one.send(&frame(0, 1, 1, 60));
    assert_eq!(heard(&mut it, [&three]), [[frame(0, 1, 1, 60)]]);
}

/// Those that were made for some: of the others only root gets one.
#[test]
fn a_port_may_be_for_somebody() {
    let mut it = Switch::new();
    let us = geteuid().as_raw();
    let plan = it.net.hub.plan().expect("it is a VDE switch");
    assert_eq!(plan.create(7), Ok(()));
    plan.set_user(7, Some(us + 1)).expect("it was made");
    assert_eq!(it.try_join(Some(7)).is_some(), us == 0);
    let plan = it.net.hub.plan().expect("it is a VDE switch");
    assert_eq!(plan.set_user(7, Some(us)), Ok(()));
    let client = it.join(Some(7));
    drop(client);
    it.net.settle();
    let plan = it.net.hub.plan().expect("it is a VDE switch");
    assert_eq!((plan.remove(7), plan.remove(7)), (Ok(()), Err(Errno::ENXIO)));
    it.join(Some(7));
}

#[test]
fn clients_of_a_vde_switch_and_others_are_one_segment() {
    let mut it = Switch::new();
    let mut wire = it.net.unix();
    let client = it.join(None);
    wire.send(&record(&broadcast(0)));
    client.send(&broadcast(1));
    it.net.settle();
    assert_eq!((client.read_all(), wire.read()), (vec![broadcast(0)], record(&broadcast(1))));
    wire.send(&record(&frame(0, 1, 1, 9014)));
    client.send(&frame(1, 0, 1, 9014));
    it.net.settle();
    assert_eq!(client.read_all(), [frame(0, 1, 1, 9014)]);
    assert_eq!(wire.read(), record(&frame(1, 0, 1, 9014)));
    assert_eq!(it.net.whereabouts(station(1)), Some("vde1".into()));
}
