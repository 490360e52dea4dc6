//! Unix datagram clients that have connected their sockets to ours, as libkrun and vfkit do: they
//! hear that socket and no other.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use qhub::bridge::Mode;

use crate::far::Folder;
use crate::net::Net;
use crate::wire::{LENGTH, broadcast, frame, record, records, station};

#[test]
fn a_connected_client_gets_the_socket_and_newcomers_meet_its_successor() {
    let (mut net, folder) = (Net::new(Mode::Switch), Folder::new());
    let mut wire = net.unix();
    net.open(&folder.spec(",mode=0660"));
    let mut clients = Vec::new();
    for number in 0..4 {
        // Every second one is content with any socket of ours.
        let name = format!("vm{number}");
        let client = if number % 2 == 0 { folder.connected(&name) } else { folder.far(&name) };
        client.send(b"VFKT");
        net.settle();
        client.send(&frame(number, 9, 1, LENGTH));
        net.settle();
        assert_eq!(wire.read(), record(&frame(number, 9, 1, LENGTH)));
        assert_eq!(net.whereabouts(station(number)), Some(format!("dgram{}", number + 1)));
        clients.push(client);
        let file = fs::metadata(folder.path("hub")).expect("its file");
        assert!(file.file_type().is_socket() && file.permissions().mode() & 0o777 == 0o660);
    }
    clients.iter().for_each(|client| drop(client.read_all()));
    for (number, client) in clients.iter().enumerate() {
        wire.send(&record(&frame(9, number, 2, LENGTH)));
        net.settle();
        assert_eq!(client.read_all(), [frame(9, number, 2, LENGTH)]);
    }
    clients[0].send(&broadcast(0));
    net.settle();
    assert!(clients[1..].iter().all(|client| client.read_all() == [broadcast(0)]));
    assert_eq!((net.ports(), net.lost_at_door().as_str(), net.dropped()), (5, "-", 0));
    drop(net);
    assert!(!folder.path("hub").exists() && !folder.path("hub~").exists());
}

/// More than one receive takes: the port goes on with what the server left in the socket.
#[test]
fn what_a_connected_client_sends_at_once_arrives_whole_and_in_order() {
    let (mut net, folder) = (Net::new(Mode::Switch), Folder::new());
    let mut wire = net.unix();
    wire.send(&record(&broadcast(9)));
    net.open(&folder.spec(""));
    net.settle();
    let client = folder.connected("vm");
    let (mut sent, mut got) = (Vec::new(), Vec::new());
    while sent.len() < 3000 {
        let next = frame(0, 9, sent.len(), LENGTH);
        match client.try_send(&next) {
            Ok(()) => sent.push(next),
            Err(_) => {
                net.turn();
                got.extend(wire.read());
            }
        }
    }
    net.settle();
    got.extend(wire.read());
    assert!(got == records(&sent));
    assert_eq!((net.ports(), net.lost_at_door().as_str(), net.dropped()), (2, "-", 1));
}

#[test]
fn a_connected_client_is_gone_with_its_socket_and_may_come_back() {
    let (mut net, folder) = (Net::new(Mode::Switch), Folder::new());
    let mut wire = net.unix();
    net.open(&folder.spec(""));
    for life in 1..4 {
        let client = folder.connected("vm");
        client.send(b"VFKT");
        client.send(&broadcast(0));
        net.settle();
        wire.read();
        wire.send(&record(&frame(1, 0, life, 60)));
        net.settle();
        assert_eq!((client.read_all(), net.ports()), (vec![frame(1, 0, life, 60)], 2));
        drop(client);
        // That tells.
        wire.send(&record(&frame(1, 0, life, 61)));
        net.settle();
        assert_eq!((net.ports(), net.whereabouts(station(0))), (1, None));
        assert_eq!(net.snapshot().departed.drops.to_string(), format!("closed={life}"));
    }
}

/// Its former life is gone, which nothing that was sent to it has told yet.
#[test]
fn the_next_life_of_a_connected_client_gets_the_first_answer() {
    let (mut net, folder) = (Net::new(Mode::Switch), Folder::new());
    let mut wire = net.unix();
    net.open(&folder.spec(""));
    for life in 0..3 {
        let client = folder.connected("vm");
        client.send(b"VFKT");
        client.send(&broadcast(0));
        net.settle();
        wire.send(&record(&frame(1, 0, life, 60)));
        net.settle();
        assert_eq!(client.read_all(), [frame(1, 0, life, 60)], "life {life}");
    }
}

/// There may be none: the folder refuses, or the name is too long.
#[test]
fn a_client_for_which_there_is_no_successor_locks_nobody_out() {
    let (mut net, folder) = (Net::new(Mode::Switch), Folder::longest());
    net.open(&folder.spec(""));
    let other = folder.far("other");
    other.send(&broadcast(1));
    net.settle();
    let client = folder.connected("vm");
    client.send(&broadcast(0));
    net.settle();
    let goes = other.try_send(&broadcast(1));
    assert!(goes.is_ok(), "it is locked out: {goes:?}");
    net.settle();
    assert_eq!(net.counters(0).rx_frames, 2);
}
