//! Frames that are no good: empty, too short, too long, in pieces.

use std::io::Write;
use std::net::SocketAddr;

use socket2::Socket;
use tempfile::TempDir;

use crate::common::daemon::{Bystanders, Daemon, connect_raw, read_to_end, record};
use crate::common::hub::{folder, utf8};
use crate::common::wire::{BROADCAST, FRAME_MAX, Station, Wire, frame, mac};

/// A hub with both kinds of stream port, and two bystanders on it.
fn start(runtime: &TempDir) -> (Daemon, Bystanders, [Option<SocketAddr>; 2]) {
    let daemon = Daemon::start(runtime.path(), &["tcp:0"]);
    let bystanders = Bystanders::join(&daemon);
    let tcp = daemon.tcp();
    (daemon, bystanders, [None, Some(tcp)])
}

fn peer_of(socket: &Socket) -> String {
    match socket.local_addr().expect("its address").as_socket() {
        Some(address) => address.to_string(),
        None => format!("uid {} pid {}", nix::unistd::getuid(), std::process::id()),
    }
}

#[test]
fn empty_frames_are_dropped_and_counted() {
    let runtime = folder();
    let (daemon, mut bystanders, places) = start(&runtime);
    for (place, name) in places.into_iter().zip(["unix3", "tcp1"]) {
        let mut peer = connect_raw(&daemon, place);
        let good = frame(BROADCAST, mac(3), 60, 1);
        let bytes = [&[0; 4][..], &record(&good), &[0; 8], &record(&good), &[0; 4]].concat();
        peer.write_all(&bytes).expect("the hub takes it");
        for _ in 0..2 {
            // A wire panics at an empty frame.
            assert_eq!(bystanders.one.receive(), good);
            assert_eq!(bystanders.other.receive(), good);
        }
        bystanders.talk();
        let row = daemon.table_with("all frames to be counted", |table| {
            let row = table.ports.iter().find(|row| row.name == name)?;
            (row.rx_frames == 6).then(|| row.clone())
        });
        assert_eq!((row.rx_bytes, row.dropped, row.dropped_for("empty")), (120, 4, 4), "{row:?}");
    }
    bystanders.talk();
    daemon.stop();
}

#[test]
fn runts_are_dropped_and_counted_and_a_bare_header_passes() {
    let runtime = folder();
    let (daemon, mut bystanders, places) = start(&runtime);
    for (place, name) in places.into_iter().zip(["unix3", "tcp1"]) {
        let mut peer = connect_raw(&daemon, place);
        let shortest = frame(BROADCAST, mac(3), 14, 0);
        for length in 1..=13 {
            peer.write_all(&record(&shortest[..length])).expect("the hub takes it");
        }
        peer.write_all(&record(&shortest)).expect("the hub takes it");
        assert_eq!(bystanders.one.receive(), shortest, "nothing came before it");
        assert_eq!(bystanders.other.receive(), shortest);
        bystanders.talk();
        let table = daemon.table();
        let row = table.port(name);
        assert_eq!((row.rx_frames, row.dropped, row.dropped_for("runt")), (14, 13, 13), "{row:?}");
    }
    daemon.stop();
}

#[test]
fn the_longest_frame_passes_and_a_longer_one_ends_its_port() {
    let runtime = folder();
    let (daemon, mut bystanders, places) = start(&runtime);
    let files = daemon.files();
    for place in places {
        for length in [69_633_u32, 0x8000_0000, 0xffff_ffff] {
            let mut peer = connect_raw(&daemon, place);
            let longest = frame(BROADCAST, mac(3), FRAME_MAX, 1);
            let bytes = [&record(&longest)[..], &length.to_be_bytes(), &[0x55; 40]].concat();
            peer.write_all(&bytes).expect("the hub takes it");
            assert!(bystanders.one.receive() == longest, "the frame before it arrived changed");
            assert!(bystanders.other.receive() == longest, "the frame before it arrived changed");

            assert_eq!(read_to_end(&peer), [0_u8; 0]);
            let reason = format!("peer={} reason=frame length {length} exceeds 69632", peer_of(&peer));
            daemon.line(&reason);
            assert_eq!(daemon.count(&reason), 1);
            bystanders.talk();
            daemon.files_return_to(files);
            drop(peer);
        }
    }
    daemon.stop();
}

#[test]
fn a_promise_of_a_long_frame_takes_no_memory() {
    let runtime = folder();
    let (daemon, mut bystanders, _) = start(&runtime);
    let before = daemon.memory();
    let peers: Vec<Socket> = (0..500)
        .map(|_| {
            let mut peer = connect_raw(&daemon, None);
            peer.write_all(&69_632_u32.to_be_bytes()).expect("the hub takes it");
            peer
        })
        .collect();
    daemon.table_with("all to be ports", |table| (table.ports.len() == 502).then_some(()));
    bystanders.talk();
    let grown = daemon.memory() - before;
    // All those frames would have 33 MiB.
    assert!(grown < 8 << 10, "{grown} KiB for 500 promises");
    drop(peers);
    daemon.stop();
}

#[test]
fn max_frame_holds_both_ways_and_the_port_lives() {
    let runtime = folder();
    let path = runtime.path().join("short.sock");
    let daemon = Daemon::start(runtime.path(), &[&format!("unix:{},max-frame=100,name=short", utf8(&path))]);
    let mut bystanders = Bystanders::join(&daemon);
    let mut short = Wire::unix(&path);

    let (fits, longer) = (frame(BROADCAST, mac(3), 100, 1), frame(BROADCAST, mac(3), 101, 2));
    short.send_all(&[longer.clone(), fits.clone(), longer]);
    assert_eq!(bystanders.one.receive(), fits);
    assert_eq!(bystanders.other.receive(), fits);
    bystanders.talk();

    let (fits, longer) = (frame(BROADCAST, mac(4), 100, 3), frame(BROADCAST, mac(4), 101, 4));
    bystanders.one.send_all(&[longer.clone(), fits.clone(), longer.clone(), longer.clone(), fits.clone()]);
    for expected in [&longer, &fits, &longer, &longer, &fits] {
        assert_eq!(&bystanders.other.receive(), expected, "another port has no such limit");
    }
    assert_eq!(short.receive(), fits);
    assert_eq!(short.receive(), fits);

    let table = daemon.table();
    let row = table.port("short1");
    assert_eq!((row.dropped, row.dropped_for("too_big")), (5, 5), "{row:?}");
    assert_eq!((row.rx_frames, row.tx_frames), (3, 2), "{row:?}");
    daemon.stop();
}

#[test]
fn padding_is_zeros_on_the_way_out_and_nothing_else() {
    let runtime = folder();
    let path = runtime.path().join("pad.sock");
    let daemon = Daemon::start(runtime.path(), &[&format!("unix:{},pad=60", utf8(&path))]);
    let mut bystanders = Bystanders::join(&daemon);
    let mut padded = Wire::unix(&path);
    let sent: Vec<_> = [14, 59, 60, 61, 1514, 15].map(|length| frame(BROADCAST, mac(3), length, 0xa5)).into();

    padded.send_all(&sent);
    for expected in &sent {
        assert_eq!(&bystanders.one.receive(), expected, "it came in by the padded port");
        assert_eq!(&bystanders.other.receive(), expected, "it came in by the padded port");
    }
    bystanders.one.send_all(&sent);
    for expected in &sent {
        assert_eq!(&bystanders.other.receive(), expected, "it left by another port");
        let mut with_zeros = expected.clone();
        with_zeros.resize(expected.len().max(60), 0);
        assert_eq!(padded.receive(), with_zeros);
    }
    bystanders.talk();
    daemon.stop();
}

#[test]
fn a_frame_that_stops_anywhere_holds_up_nobody_and_may_go_on() {
    let runtime = folder();
    let (daemon, mut bystanders, places) = start(&runtime);
    let whole = frame(BROADCAST, mac(3), 200, 7);
    let bytes = record(&whole);
    // In the length, behind it, in the header, and one short of the end.
    let mut peers: Vec<(Socket, usize)> = places
        .into_iter()
        .flat_map(|place| [1, 3, 4, 10, 203].map(|sent| (place, sent)))
        .map(|(place, sent)| {
            let mut peer = connect_raw(&daemon, place);
            peer.write_all(&bytes[..sent]).expect("the hub takes it");
            (peer, sent)
        })
        .collect();
    daemon.table_with("all to be ports", |table| (table.ports.len() == 12).then_some(()));
    assert!(daemon.idles(), "it has nothing to do");
    for _ in 0..100 {
        bystanders.talk();
    }
    for (peer, sent) in &mut peers {
        peer.write_all(&bytes[*sent..]).expect("the hub takes it");
        assert_eq!(bystanders.one.receive(), whole);
        assert_eq!(bystanders.other.receive(), whole);
    }
    daemon.stop();
}

#[test]
fn one_byte_at_a_time_makes_whole_frames() {
    let runtime = folder();
    let (daemon, mut bystanders, places) = start(&runtime);
    for place in places {
        let mut peer = connect_raw(&daemon, place);
        peer.set_tcp_nodelay(place.is_some()).ok();
        let sent = [frame(BROADCAST, mac(3), 14, 1), frame(BROADCAST, mac(3), 300, 2)];
        for byte in sent.iter().flat_map(|frame| record(frame)) {
            peer.write_all(&[byte]).expect("the hub takes it");
        }
        for expected in &sent {
            assert_eq!(&bystanders.one.receive(), expected);
            assert_eq!(&bystanders.other.receive(), expected);
        }
        bystanders.talk();
    }
    daemon.stop();
}
