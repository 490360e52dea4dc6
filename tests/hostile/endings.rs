//! Peers that leave: in the middle of a frame, by a reset, half, or at any other moment.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::Socket;

use crate::common::daemon::{Bystanders, Daemon, connect_raw, read_to_end, record};
use crate::common::hub::folder;
use crate::common::wire::{BROADCAST, Flood, Station, frame, mac};

/// Closes so that the other end of a TCP connection gets a reset.
fn reset(socket: Socket) {
    socket.set_linger(Some(Duration::ZERO)).expect("a socket option");
    drop(socket);
}

/// Waits until only the two bystanders are left, and nothing else that was opened.
fn alone_again(daemon: &Daemon, bystanders: &mut Bystanders, files: usize) {
    daemon.table_with("the peer's port to go", |table| (table.ports.len() == 2).then_some(()));
    daemon.files_return_to(files);
    bystanders.talk();
}

#[test]
fn death_in_mid_frame_leaves_nothing_behind() {
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &["tcp:0"]);
    let mut bystanders = Bystanders::join(&daemon);
    let (files, tcp) = (daemon.files(), daemon.tcp());
    let (before, after) = (frame(BROADCAST, mac(3), 60, 1), frame(BROADCAST, mac(3), 1514, 2));
    for place in [None, Some(tcp)] {
        for cut in [1, 4, 5, 18, 1517] {
            for is_reset in [false, true] {
                let mut peer = connect_raw(&daemon, place);
                let bytes = [&record(&before)[..], &record(&after)[..cut]].concat();
                peer.write_all(&bytes).expect("the hub takes it");
                assert_eq!(bystanders.one.receive(), before, "what was whole is passed on");
                assert_eq!(bystanders.other.receive(), before, "what was whole is passed on");
                if is_reset {
                    reset(peer)
                } else {
                    drop(peer)
                }
                // The next frame that they receive is their own.
                alone_again(&daemon, &mut bystanders, files);
            }
        }
    }
    let log = daemon.log();
    daemon.stop();
    for reason in ["reason=closed by its peer", "reason=Connection reset by peer"] {
        assert!(log.contains(reason), "the log has no '{reason}'");
    }
    assert_eq!(log.matches("port up").count(), 22);
    assert_eq!(log.matches("port down").count(), 20, "one line for each that went");
}

#[test]
fn half_a_close_is_a_whole_one() {
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &["tcp:0"]);
    let mut bystanders = Bystanders::join(&daemon);
    let (files, tcp) = (daemon.files(), daemon.tcp());
    let last = frame(BROADCAST, mac(3), 500, 3);
    for place in [None, Some(tcp)] {
        // As QEMU has it: who sends no more is gone. What was sent before counts.
        let mut peer = connect_raw(&daemon, place);
        peer.write_all(&record(&last)).expect("the hub takes it");
        peer.shutdown(Shutdown::Write).expect("a connected socket");
        assert_eq!(bystanders.one.receive(), last);
        assert_eq!(bystanders.other.receive(), last);
        assert_eq!(read_to_end(&peer), [0_u8; 0]);
        alone_again(&daemon, &mut bystanders, files);
    }

    // A unix peer that receives no more is found out by the first frame for it; it is still heard to the end.
    let mut peer = connect_raw(&daemon, None);
    peer.write_all(&record(&last)).expect("the hub takes it");
    assert_eq!(bystanders.one.receive(), last);
    assert_eq!(bystanders.other.receive(), last);
    peer.shutdown(Shutdown::Read).expect("a connected socket");
    daemon.signal(Signal::SIGSTOP);
    bystanders.one.send(&last);
    peer.write_all(&record(&last)).expect("its socket takes it");
    daemon.signal(Signal::SIGCONT);
    assert_eq!(bystanders.other.receive(), last, "from the other bystander");
    assert_eq!(bystanders.other.receive(), last, "from the peer");
    assert_eq!(bystanders.one.receive(), last, "from the peer");
    alone_again(&daemon, &mut bystanders, files);
    daemon.line("reason=Broken pipe");
    daemon.stop();
}

#[test]
fn peers_vanish_at_every_moment() {
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &["tcp:0"]);
    let mut bystanders = Bystanders::join(&daemon);
    let (files, tcp) = (daemon.files(), daemon.tcp());
    // To nobody, so that the bystanders need not read it.
    let bytes = [record(&frame(mac(9), mac(3), 14, 1)), record(&frame(mac(9), mac(3), 30, 1))].concat();
    let noise = daemon.connect();
    let flood = Flood::start(noise, vec![frame(BROADCAST, mac(4), 1514, 1); 4]);
    for place in [None, Some(tcp)] {
        for sent in 0..=bytes.len() {
            // One that leaves without having read what came for it, and one that resets.
            let mut peer = connect_raw(&daemon, place);
            // The hub may be quicker to find that its peer is gone than the peer to write all.
            let _ = peer.write(&bytes[..sent]);
            drop(peer);
            let mut peer = connect_raw(&daemon, place);
            let _ = peer.write(&bytes[..sent]);
            if sent % 2 == 0 {
                let mut some = [0; 64];
                assert_ne!(peer.read(&mut some).expect("there is a flood"), 0);
            }
            reset(peer);
        }
    }
    flood.stop();
    let gone = daemon
        .table_with("the last port to go", |table| (table.ports.len() == 2).then(|| table.gone.clone()));
    assert!(gone.tx_frames > 0, "the flood reached those that went: {gone:?}");
    daemon.files_return_to(files);
    bystanders.drain();
    bystanders.talk();
    assert_eq!(daemon.count("port up"), daemon.count("port down") + 2);
    daemon.stop();
}

#[test]
fn a_peer_that_is_gone_before_it_is_accepted_is_nothing_special() {
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &["tcp:0"]);
    let mut bystanders = Bystanders::join(&daemon);
    let (files, tcp) = (daemon.files(), daemon.tcp());
    daemon.signal(Signal::SIGSTOP);
    for place in [None, Some(tcp)] {
        for turn in 0..40 {
            let mut peer = connect_raw(&daemon, place);
            if turn % 4 > 1 {
                peer.write_all(&record(&frame(mac(9), mac(3), 60, 1))).expect("its socket takes it");
            }
            if turn % 2 == 1 {
                peer.set_linger(Some(Duration::ZERO)).expect("a socket option");
            }
        }
    }
    daemon.signal(Signal::SIGCONT);
    let gone = daemon.table_with("all to be gone", |table| {
        (table.ports.len() == 2 && table.gone.rx_frames >= 30).then(|| table.gone.clone())
    });
    assert!((30..=40).contains(&gone.rx_frames), "a reset may take a frame with it: {gone:?}");
    daemon.files_return_to(files);
    bystanders.talk();
    daemon.stop();
}
