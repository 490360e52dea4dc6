//! Datagrams that are no frames, too many, or read by nobody.

use std::fs;
use std::io::{ErrorKind, Read};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::Socket;

use super::peer::{Kind, Noise, Peer};
use crate::common::daemon::{Bystanders, Daemon, connect_raw};
use crate::common::hub::{folder, utf8};
use crate::common::net::{Namespace, free_udp_port, have_namespaces};
use crate::common::wait::{Deadline, LIMIT, pause, wait_for};
use crate::common::wire::{BROADCAST, Station, frame, mac, settle};

const ONE: [u8; 6] = mac(0xe1);

#[test]
fn what_is_no_frame_is_counted_and_never_passed_on() {
    Kind::each(|kind| {
        let runtime = folder();
        let (daemon, mut peer) = kind.start(&runtime);
        let mut bystanders = Bystanders::join(&daemon);
        settle(&mut peer, &mut bystanders.one);
        bystanders.drain();
        for length in [0, 13, 0, 1, 0, 13] {
            assert_eq!(peer.try_send(&vec![0xff; length]).ok(), Some(length));
        }
        let sent = frame(BROADCAST, mac(3), 14, 1);
        peer.send(&sent);
        assert_eq!(bystanders.one.receive(), sent, "{kind:?}");
        assert_eq!(bystanders.other.receive(), sent, "{kind:?}");
        let table = daemon.table();
        let lost = ["empty", "runt"].map(|reason| table.dropped_for(reason));
        assert_eq!(lost, [3, 3], "{kind:?}: {table:?}");
        // It is a port as before.
        let back = frame(mac(3), ONE, 14, 2);
        bystanders.one.send(&back);
        peer.receive_if("the answer", |frame| frame == back);
        assert_eq!(daemon.count("port down"), 0, "{kind:?}");
        bystanders.talk();
        daemon.stop();
    });
}

#[test]
fn frames_pass_up_to_their_limit_both_ways() {
    Kind::each(|kind| {
        let runtime = folder();
        let (daemon, mut peer) = kind.start(&runtime);
        let mut bystanders = Bystanders::join(&daemon);
        settle(&mut peer, &mut bystanders.one);
        let limit = kind.limit();
        let longest = frame(BROADCAST, mac(3), limit, 1);
        peer.send(&longest);
        assert!(bystanders.one.receive() == longest, "{kind:?}");
        let mut too_long = 0;
        for length in [limit + 1, 150_000] {
            // UDP itself refuses them.
            too_long += u64::from(peer.try_send(&frame(BROADCAST, mac(3), length, 2)).is_ok());
        }
        assert_eq!(too_long, if limit == 69_632 { 2 } else { 0 }, "{kind:?}");

        let longest = frame(mac(3), ONE, limit, 3);
        bystanders.one.send(&longest);
        peer.receive_if("the longest", |frame| frame == longest);
        for length in limit + 1..=69_632 {
            if [limit + 1, 69_632].contains(&length) {
                bystanders.one.send(&frame(mac(3), ONE, length, 4));
                too_long += 1;
            }
        }
        let last = frame(mac(3), ONE, 60, 5);
        bystanders.one.send(&last);
        assert!(peer.receive_if("what is not the echo", |frame| frame[6..12] == ONE) == last, "{kind:?}");
        bystanders.drain();
        bystanders.talk();
        let table = daemon.table();
        assert_eq!(table.dropped_for("too_big"), too_long, "{kind:?}: {table:?}");
        daemon.stop();
    });
}

#[test]
fn only_data_of_the_right_session_passes() {
    let runtime = folder();
    let (port, remote) = (free_udp_port(), free_udp_port());
    let spec = format!(
        "l2tpv3:{port},remote=127.0.0.1:{remote},txsession=1,rxsession=0xaabbccdd,txcookie=2,rxcookie=0x1122334455667788,cookie64=on,counter=on"
    );
    let daemon = Daemon::start(runtime.path(), &[&spec]);
    let mut bystanders = Bystanders::join(&daemon);
    let peer = Peer::udp_at(remote, port);
    let sent = frame(BROADCAST, mac(3), 14, 1);
    let header: Vec<u8> =
        [[0, 3, 0, 0], [0xaa, 0xbb, 0xcc, 0xdd], [0x11, 0x22, 0x33, 0x44], [0x55, 0x66, 0x77, 0x88], [0; 4]]
            .concat();
    let whole = [&header[..], &sent].concat();
    let mut expected = [0; 5];
    let mut send = |octets: &[u8], reason: usize| {
        peer.try_send(octets).expect("its socket takes it");
        expected[reason] += 1;
    };
    for length in 0..=whole.len() - 1 {
        send(&whole[..length], [0, 3, 4][usize::from(length >= 20) + usize::from(length > 20)]);
    }
    for (at, reason) in (0..16).map(|at| (at, [0, 1, 2, 2][at / 4])) {
        // The rest of the flags, and the two octets behind them, say nothing.
        let (bit, reason) = match at {
            0 => (0x80, 0),
            1 => (0x01, 0),
            2 | 3 => continue,
            _ => (0x01, reason),
        };
        let mut octets = whole.clone();
        octets[at] ^= bit;
        send(&octets, reason);
    }
    peer.try_send(&whole).expect("its socket takes it");
    assert_eq!(bystanders.one.receive(), sent, "nothing else arrived");
    assert_eq!(bystanders.other.receive(), sent, "nothing else arrived");
    // Others do not count, whatever they know.
    Peer::udp(port).send(&whole);
    daemon.table_with("the stranger", |table| (table.lost_for("stranger") == 1).then_some(()));
    let table = daemon.table();
    let row = table.port("l2tpv3-1");
    let counted = ["bad_header", "wrong_session", "wrong_cookie", "empty", "runt"]
        .map(|reason| row.dropped_for(reason));
    assert_eq!((counted, row.dropped), (expected, expected.iter().sum()), "{table:?}");
    bystanders.talk();
    daemon.stop();
}

#[test]
fn a_peer_that_never_reads_its_datagrams_is_not_waited_for() {
    Kind::each(|kind| {
        let runtime = folder();
        let (daemon, mut peer) = kind.start(&runtime);
        let mut bystanders = Bystanders::join(&daemon);
        let deaf = mac(7);
        settle(&mut peer, &mut bystanders.one);
        peer.send(&frame(BROADCAST, deaf, 60, 1));
        bystanders.one.receive_if("the mute peer to be known", |frame| frame[6..12] == deaf);
        bystanders.other.receive_if("the mute peer to be known", |frame| frame[6..12] == deaf);

        // 3 MB for the one that does not read: far more than sockets and queue hold.
        let bulk = vec![frame(deaf, ONE, 1514, 2); 20];
        for _ in 0..100 {
            bystanders.one.send_all(&bulk);
            let asked = Deadline::after(Duration::from_secs(1));
            bystanders.talk();
            assert!(asked.left().is_some(), "{kind:?} kept others waiting");
        }
        let table = daemon.table();
        let port = table.ports.iter().find(|port| !port.name.starts_with("unix")).expect("a port");
        assert!(table.memory <= 3 << 19, "{kind:?}: one queue holds {} octets", table.memory);
        // Where nothing is waited for, all goes, and the system drops it.
        let is_unix = kind.limit() > 65_507;
        assert_eq!(port.dropped_for("queue_full") > 0, is_unix, "{kind:?}: {port:?}");
        assert!(daemon.idles(), "{kind:?}: it spins");

        // It reads again: whole frames, and no less than what was kept for it.
        let kept = if is_unix { port.queued_frames } else { 10 };
        for _ in 0..kept {
            let got = peer.receive_if("what waited", |frame| frame[6..12] == ONE);
            assert!(got == bulk[0] || got[..6] != deaf, "a frame arrived changed");
        }
        let last = frame(deaf, ONE, 60, 3);
        bystanders.one.send(&last);
        peer.receive_if("a fresh frame", |frame| frame == last);
        let table = daemon.table();
        assert_eq!((table.port("unix1").dropped, table.port("unix2").dropped), (0, 0), "{table:?}");
        assert_eq!(daemon.count("port down"), 0, "{kind:?}");
        bystanders.talk();
        daemon.stop();
    });
}

#[test]
fn a_flood_of_the_shortest_frames_does_not_stop_the_clock() {
    let runtime = folder();
    let hub = runtime.path().join("hub");
    let daemon = Daemon::start(runtime.path(), &[&format!("dgram:{}", utf8(&hub))]);
    let mut bystanders = Bystanders::join(&daemon);
    let readers: Vec<Socket> = (0..300).map(|_| connect_raw(&daemon, None)).collect();
    daemon.table_with("all to be ports", |table| (table.ports.len() == 302).then_some(()));
    let drained = thread::spawn(|| read_all(readers));
    // Two that take turns: whatever one has sent ends where the other begins.
    let peers = (0..2).map(|number| Peer::unix(&runtime.path().join(format!("{number}")), &hub));
    let noise = Noise::start(peers.collect(), &frame(BROADCAST, mac(3), 14, 1));
    daemon.table_with("both to be heard", |table| (table.ports.len() == 304).then_some(()));
    for _ in 0..20 {
        let asked = Deadline::after(Duration::from_secs(3));
        daemon.table();
        assert!(asked.left().is_some(), "the hub did not answer for seconds");
    }
    noise.stop();
    bystanders.drain();
    bystanders.talk();
    daemon.stop();
    drained.join().expect("the readers read");
}

#[test]
fn two_that_take_turns_do_not_stop_the_clock() {
    if have_namespaces() {
        Namespace::new().within(|| take_turns(512));
    }
}

/// Where `waiting` datagrams may wait at a socket, as systemd sets it; without it these are ten.
fn take_turns(waiting: usize) {
    fs::write("/proc/sys/net/unix/max_dgram_qlen", waiting.to_string()).expect("root may set it");
    let runtime = folder();
    let hub = runtime.path().join("hub");
    let daemon = Daemon::start(runtime.path(), &[&format!("dgram:{}", utf8(&hub))]);
    let mut bystanders = Bystanders::join(&daemon);
    let mut peers = [1, 2].map(|number: u8| Peer::unix(&runtime.path().join(number.to_string()), &hub));
    for peer in &mut peers {
        settle(peer, &mut bystanders.one);
    }
    let readers: Vec<Socket> = (0..300).map(|_| connect_raw(&daemon, None)).collect();
    daemon.table_with("all to be ports", |table| (table.ports.len() == 304).then_some(()));
    let drained = thread::spawn(|| read_all(readers));
    // Each frame is a run of its own, and each run a write to every reader.
    let sent = [1, 2].map(|number| frame(BROADCAST, mac(number), 14, number));
    let limit = Duration::from_secs(10);
    let mut rounds = [(); 5].map(|()| {
        daemon.signal(Signal::SIGSTOP);
        for turn in 0..waiting {
            peers[turn % 2].send(&sent[turn % 2]);
        }
        daemon.signal(Signal::SIGCONT);
        let asked = Deadline::after(limit);
        bystanders.talk();
        let took = limit - asked.left().unwrap_or_default();
        bystanders.drain();
        took
    });
    // The machine may have been busy now and then.
    rounds.sort();
    assert!(rounds[2] < Duration::from_millis(100), "bystanders waited {rounds:?}");
    daemon.stop();
    drained.join().expect("the readers read");
}

/// Reads whatever comes for any of `sockets` until all are closed.
fn read_all(mut sockets: Vec<Socket>) {
    let mut chunk = vec![0; 1 << 16];
    for socket in &sockets {
        socket.set_nonblocking(true).expect("a socket option");
    }
    while !sockets.is_empty() {
        sockets.retain_mut(|socket| match socket.read(&mut chunk) {
            Ok(length) => length > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        });
        pause(Duration::from_millis(1));
    }
}

#[test]
fn a_flood_ends_with_the_hub_within_a_second() {
    Kind::each(|kind| {
        let runtime = folder();
        let (mut daemon, mut peer) = kind.start(&runtime);
        let mut bystanders = Bystanders::join(&daemon);
        settle(&mut peer, &mut bystanders.one);
        let noise = Noise::start(vec![peer], &frame(mac(0xe1), mac(3), 1000, 1));
        let flood = frame(mac(0xe1), mac(3), 1000, 1);
        bystanders.one.receive_if("the flood", |frame| frame == flood);
        let asked = Deadline::after(Duration::from_secs(1));
        daemon.signal(Signal::SIGTERM);
        let status = daemon.exit();
        assert!(status.success() && asked.left().is_some(), "{kind:?}: {status}, a second or more later");
        noise.stop();
        for name in ["hub", "hub~", "qhub/default/qhub.sock"] {
            assert!(!runtime.path().join(name).exists(), "{kind:?}: {name} is left");
        }
    });
}

#[test]
fn a_port_where_nobody_listens_is_kept_without_effort() {
    for spec in ["", ",remote=127.0.0.1:"] {
        let runtime = folder();
        let (port, own) = (free_udp_port(), free_udp_port());
        let spec = if spec.is_empty() { format!("udp:{port}") } else { format!("udp:{port}{spec}{own}") };
        let daemon = Daemon::start(runtime.path(), &[&spec]);
        let mut bystanders = Bystanders::join(&daemon);
        let mut peer = Peer::udp_at(own, port);
        settle(&mut peer, &mut bystanders.one);
        peer.die();
        for seed in 0..200 {
            let sent = frame(BROADCAST, ONE, 60, seed);
            bystanders.one.send(&sent);
            bystanders.other.receive_if("a broadcast", |frame| frame == sent);
        }
        bystanders.talk();
        assert!(daemon.idles(), "it spins");
        let mut peer = Peer::udp_at(own, port);
        settle(&mut peer, &mut bystanders.one);
        assert_eq!(
            (daemon.count("port down"), daemon.count("can't send") < 3),
            (0, true),
            "{}",
            daemon.log()
        );
        bystanders.talk();
        daemon.stop();
    }
}

#[test]
fn a_flood_on_the_group_leaves_others_their_turns() {
    let runtime = folder();
    let (daemon, mut peer) = Kind::Mcast.start(&runtime);
    let mut bystanders = Bystanders::join(&daemon);
    settle(&mut peer, &mut bystanders.one);
    let noise = Noise::start(vec![peer], &frame(mac(0x99), mac(3), 60, 1));
    wait_for("a flood to be under way", LIMIT, || {
        bystanders.drain();
        (daemon.table().port("mcast1").rx_frames > 5_000).then_some(())
    });
    noise.stop();
    bystanders.drain();
    bystanders.talk();
    assert!(daemon.idles(), "it spins");
    daemon.stop();
}
