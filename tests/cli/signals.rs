//! Signals: the end, at once or in order, and the table.

use std::io::Write;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::daemon::{Bystanders, Daemon, connect_raw, read_to_end, record};
use crate::common::hub::{folder, utf8};
use crate::common::wait::{Deadline, pause};
use crate::common::wire::{BROADCAST, Flood, Station, Wire, frame, mac, settle};

#[test]
fn either_signal_ends_it_in_order() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let runtime = folder();
        let path = runtime.path().join("s");
        let mut daemon = Daemon::start(runtime.path(), &["tcp:0", &format!("unix:{},name=lab", utf8(&path))]);
        let _bystanders = Bystanders::join(&daemon);
        let lab = Wire::unix(&path);
        let tcp = connect_raw(&daemon, Some(daemon.tcp()));
        daemon.table_with("all to be up", |table| (table.ports.len() == 4).then_some(()));
        daemon.signal(signal);
        assert_eq!(daemon.exit().code(), Some(0), "{signal}");
        assert!(!daemon.socket().exists() && !path.exists(), "{signal}: it left a socket file behind");
        assert_eq!(read_to_end(&tcp), [0_u8; 0]);
        drop(lab);
        daemon.line("stopping; a second signal stops at once");
        for name in ["unix1 (uid ", "unix2 (uid ", "lab1 (uid ", "tcp1 (127.0.0.1:"] {
            let line = daemon.line(&format!("INFO ] {name}"));
            assert!(line.contains(": rx ") && line.contains(", dropped 0 (-)"), "{line}");
        }
    }
}

#[test]
fn an_idle_hub_ends_at_once() {
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &["tcp:0"]);
    let mut bystanders = Bystanders::join(&daemon);
    bystanders.talk();
    let deadline = Deadline::after(Duration::from_secs(2));
    daemon.stop();
    assert!(deadline.left().is_some(), "it took two seconds");
}

#[test]
fn what_waits_is_sent_before_the_end() {
    let runtime = folder();
    let mut daemon = Daemon::start(runtime.path(), &[]);
    let mut bystanders = Bystanders::join(&daemon);
    let mut slow = daemon.connect();
    slow.send(&frame(BROADCAST, mac(7), 60, 1));
    bystanders.one.receive_if("the slow one to be known", |frame| frame[6..12] == mac(7));
    // More than its socket holds, less than its queue.
    let sent = frame(mac(7), mac(0xe1), 1514, 5);
    bystanders.one.send_all(&vec![sent.clone(); 360]);
    let row = daemon.table_with("all to be received", |table| {
        let row = table.port("unix3");
        (row.accounted() >= 360).then(|| row.clone())
    });
    assert!(row.queued_frames > 0 && row.dropped == 0, "{row:?}");
    daemon.signal(Signal::SIGTERM);
    daemon.line("stopping");
    // Longer than a peer has to be silent to be done with, and shorter than all may take.
    pause(Duration::from_millis(60));
    for number in 0..360 {
        assert!(slow.receive() == sent, "frame {number} arrived changed");
    }
    assert_eq!(daemon.exit().code(), Some(0));
}

#[test]
fn peers_that_never_end_are_not_waited_for() {
    let runtime = folder();
    let mut daemon = Daemon::start(runtime.path(), &["tcp:0"]);
    let mut one = daemon.connect();
    let mut other = daemon.connect();
    settle(&mut one, &mut other);
    // One that stops in mid-frame, one that sends and sends, one that never reads.
    let mut half = connect_raw(&daemon, Some(daemon.tcp()));
    half.write_all(&record(&frame(mac(9), mac(3), 100, 1))[..50]).expect("the hub takes it");
    let mute = connect_raw(&daemon, None);
    let tcp = connect_raw(&daemon, Some(daemon.tcp()));
    let noise = std::thread::spawn(move || {
        let bytes = record(&frame(BROADCAST, mac(4), 1514, 1)).repeat(64);
        let mut tcp = tcp;
        while tcp.write_all(&bytes).is_ok() {}
    });
    daemon.table_with("a flood", |table| (table.ports.iter().any(|port| port.dropped > 0)).then_some(()));
    let deadline = Deadline::after(Duration::from_secs(5));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit().code(), Some(0));
    assert!(deadline.left().is_some(), "it took five seconds");
    noise.join().expect("its connection was closed");
    drop(mute);
}

#[test]
fn nobody_is_accepted_any_more() {
    let runtime = folder();
    let mut daemon = Daemon::start(runtime.path(), &["tcp:0"]);
    let tcp = daemon.tcp();
    // Stopped in mid-frame, it keeps the hub from its end for half a second.
    let mut half = connect_raw(&daemon, Some(tcp));
    half.write_all(&[0, 0]).expect("the hub takes it");
    daemon.table_with("the peer to be a port", |table| (table.ports.len() == 1).then_some(()));
    daemon.signal(Signal::SIGTERM);
    daemon.line("stopping");
    assert!(std::net::TcpStream::connect(tcp).is_err(), "it still listens");
    assert!(!daemon.socket().exists(), "its socket file is still there");
    assert_eq!(daemon.exit().code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second, code) in [
        (Signal::SIGTERM, Signal::SIGTERM, 143),
        (Signal::SIGINT, Signal::SIGINT, 130),
        (Signal::SIGINT, Signal::SIGTERM, 143),
    ] {
        let runtime = folder();
        let mut daemon = Daemon::start(runtime.path(), &["tcp:0"]);
        let mut half = connect_raw(&daemon, Some(daemon.tcp()));
        half.write_all(&[0, 0]).expect("the hub takes it");
        daemon.table_with("the peer to be a port", |table| (table.ports.len() == 1).then_some(()));
        daemon.signal(first);
        daemon.line("stopping; a second signal stops at once");
        daemon.signal(second);
        assert_eq!(daemon.exit().code(), Some(code), "{first} and {second}");
        assert!(!daemon.socket().exists(), "{first} and {second}: it left its socket file behind");
    }
}

#[test]
fn the_table_tells_all() {
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &["tcp:0"]);
    let tcp = connect_raw(&daemon, Some(daemon.tcp()));
    let mut bystanders = Bystanders::join(&daemon);
    bystanders.talk();
    let before = daemon.table();
    assert_eq!(before.gone, Default::default());

    let local = tcp.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
    assert_eq!(before.port("tcp1").peer, local.to_string());
    let uid_pid = format!("uid {} pid {}", nix::unistd::getuid(), std::process::id());
    assert_eq!(before.port("unix1").peer, uid_pid);

    let mut tagged = frame(BROADCAST, mac(5), 100, 1);
    tagged[12..16].copy_from_slice(&[0x81, 0x00, 0x60, 0x2a]);
    bystanders.one.send(&tagged);
    assert_eq!(bystanders.other.receive(), tagged);
    bystanders.one.send(&frame(BROADCAST, mac(6), 60, 1));
    bystanders.other.receive();
    let table = daemon.table();
    let change = |name: &str| {
        let (now, then) = (table.port(name), before.port(name));
        (
            now.rx_frames - then.rx_frames,
            now.rx_bytes - then.rx_bytes,
            now.tx_frames - then.tx_frames,
            now.tx_bytes - then.tx_bytes,
        )
    };
    assert_eq!(change("unix1"), (2, 160, 0, 0));
    assert_eq!(change("unix2"), (0, 0, 2, 160));
    assert_eq!(change("tcp1"), (0, 0, 2, 160));
    let has = |station: &str| table.fdb.iter().any(|line| line.starts_with(station));
    assert!(has("02:71:68:00:00:05 vid 42 port unix1 age "), "{:?}", table.fdb);
    assert!(has("02:71:68:00:00:06 vid 0 port unix1 age "), "{:?}", table.fdb);

    drop(bystanders);
    let table = daemon.table_with("two to go", |table| (table.ports.len() == 1).then(|| table.gone.clone()));
    assert!(table.rx_frames >= 6 && table.tx_frames >= 6, "{table:?}");
    let stations = daemon.table().fdb;
    assert_eq!(stations.len(), 1, "they went with their ports: {stations:?}");
    daemon.stop();
}

#[test]
fn signals_in_a_storm_lose_no_frames() {
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &[]);
    let mut bystanders = Bystanders::join(&daemon);
    let flood = Flood::start(daemon.connect(), vec![frame(mac(0xe2), mac(4), 1000, 1); 4]);
    for _ in 0..200 {
        daemon.signal(Signal::SIGUSR1);
        bystanders.talk();
    }
    flood.stop();
    bystanders.talk();
    daemon.stop();
}
