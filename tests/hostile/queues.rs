//! Peers that do not read: what is for them waits in bounds, then is dropped and counted, and nobody else pays.

use socket2::Socket;

use crate::common::daemon::{Bystanders, Daemon, Row, connect_raw};
use crate::common::hub::folder;
use crate::common::wire::{BROADCAST, Flood, Station, frame, mac, settle};

/// What all queues together may hold, in octets.
const QUEUE_MEMORY: u64 = 256 << 20;

#[test]
fn a_peer_that_never_reads_costs_nobody_else_a_frame() {
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &[]);
    let mut bystanders = Bystanders::join(&daemon);
    let deaf = mac(7);
    let mut mute = daemon.connect();
    mute.send(&frame(BROADCAST, deaf, 60, 1));
    bystanders.one.receive_if("the mute peer to be known", |frame| frame[6..12] == deaf);
    bystanders.other.receive_if("the mute peer to be known", |frame| frame[6..12] == deaf);

    // 3 MB for the one that does not read, from a bystander: far more than sockets and queue hold.
    let bulk = vec![frame(deaf, mac(0xe1), 1514, 2); 20];
    for _ in 0..100 {
        bystanders.one.send_all(&bulk);
        bystanders.talk();
    }
    let row = daemon.table().port("unix3").clone();
    assert!(row.dropped_for("queue_full") > 500, "{row:?}");
    assert_eq!(row.accounted(), 2000, "{row:?}");
    let table = daemon.table();
    assert_eq!((table.port("unix1").dropped, table.port("unix2").dropped), (0, 0), "{table:?}");
    assert!(table.memory <= 3 << 19, "one queue holds {} octets", table.memory);

    // It was never cut off, and what it gets is whole.
    let queued = row.tx_frames + row.queued_frames;
    for _ in 0..queued {
        assert!(mute.receive() == bulk[0], "a frame arrived changed");
    }
    settle(&mut mute, &mut bystanders.one);
    let table = daemon.table();
    assert_eq!((table.port("unix3").queued_frames, table.memory), (0, 0), "{table:?}");
    bystanders.talk();
    daemon.stop();
}

#[test]
fn the_books_balance() {
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &["--hub", "tcp:0"]);
    let mut sender = daemon.connect();
    let mut reader = daemon.connect();
    settle(&mut reader, &mut sender);
    let mute = [connect_raw(&daemon, None), connect_raw(&daemon, Some(daemon.tcp()))];
    daemon.table_with("all to be ports", |table| (table.ports.len() == 4).then_some(()));
    let before = daemon.table();

    let rounds = 120;
    for round in 0..rounds {
        let mut frames: Vec<_> = (0..20).map(|seed| frame(BROADCAST, mac(3), 60 + 100 * seed, 1)).collect();
        frames.push(vec![1; 13]);
        frames.push(Vec::new());
        frames.push(frame(mac(9), mac(3), 69_632, round));
        sender.send_all(&frames);
        for expected in frames.iter().filter(|frame| frame.len() > 13) {
            assert!(&reader.receive() == expected, "a frame arrived changed");
        }
    }
    let rounds = u64::from(rounds);
    let table = daemon.table();
    let source = table.port("unix1");
    assert_eq!(source.rx_frames, before.port("unix1").rx_frames + 23 * rounds, "{source:?}");
    assert_eq!((source.dropped_for("runt"), source.dropped_for("empty")), (rounds, rounds), "{source:?}");
    assert_eq!(source.dropped, 2 * rounds, "{source:?}");
    for port in table.ports.iter().filter(|port| port.name != "unix1") {
        let accounted = port.accounted() - before.port(&port.name).accounted();
        assert_eq!(accounted, 21 * rounds, "{port:?}");
    }
    assert_eq!(table.port("unix2").dropped, 0);
    assert!(table.port("unix3").dropped_for("queue_full") > 0, "{table:?}");
    assert!(table.port("tcp1").queued_frames > 0, "{table:?}");

    // They balance after the end of a port, too.
    let (unsent, all): (u64, u64) = table
        .ports
        .iter()
        .filter(|port| ["unix3", "tcp1"].contains(&port.name.as_str()))
        .fold((0, 0), |(unsent, all), port| (unsent + port.queued_frames, all + port.accounted()));
    drop(mute);
    let gone =
        daemon.table_with("two ports to go", |table| (table.ports.len() == 2).then(|| table.gone.clone()));
    assert_eq!((gone.dropped_for("closed"), gone.accounted()), (unsent, all), "{gone:?}");
    daemon.stop();
}

#[test]
fn a_thousand_that_never_read_stay_in_the_budget() {
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &[]);
    let mut bystanders = Bystanders::join(&daemon);
    let mut noise = daemon.connect();
    let mut listener = daemon.connect();
    settle(&mut noise, &mut listener);
    let peers: Vec<Socket> = (0..1000).map(|_| connect_raw(&daemon, None)).collect();
    daemon.table_with("all to be ports", |table| (table.ports.len() == 1004).then_some(()));
    let files = daemon.files();
    let before = daemon.table();

    // 30 MB to each: the 1 MiB that a queue may hold, a thousand times, is four times the budget.
    let rounds: u8 = 25;
    for seed in 0..rounds {
        let burst = vec![frame(BROADCAST, mac(4), 60_000, seed); 2];
        noise.send_all(&burst);
        for _ in 0..2 {
            assert!(listener.receive() == burst[0], "a frame arrived changed");
        }
        // They receive what is for everybody, too.
        bystanders.talk();
        let resident = daemon.memory();
        assert!(resident < 320 << 10, "{resident} KiB after {seed} rounds");
    }
    let table = daemon.table();
    assert!(table.memory <= QUEUE_MEMORY, "{} octets", table.memory);
    assert!(table.memory > QUEUE_MEMORY / 10 * 9, "{} octets are no test of the budget", table.memory);
    let deaf: Vec<&Row> = table.ports.iter().filter(|port| before.port(&port.name).rx_frames == 0).collect();
    assert_eq!(deaf.len(), 1000);
    for port in &deaf {
        assert_eq!(port.accounted(), 2 * u64::from(rounds), "{port:?}");
    }
    assert!(deaf.iter().any(|port| port.dropped_for("memory_full") > 0), "the budget was never felt");
    for name in ["unix1", "unix2", "unix3", "unix4"] {
        assert_eq!(table.port(name).dropped, 0, "{table:?}");
    }

    drop(peers);
    daemon.files_return_to(files - 1000);
    let memory =
        daemon.table_with("the ports to go", |table| (table.ports.len() == 4).then_some(table.memory));
    assert_eq!(memory, 0);
    bystanders.talk();
    daemon.stop();
}

#[test]
fn a_flood_that_nobody_reads_spares_those_that_do() {
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &["tcp:0"]);
    let mut bystanders = Bystanders::join(&daemon);
    let files = daemon.files();
    let mute = [connect_raw(&daemon, None), connect_raw(&daemon, Some(daemon.tcp()))];
    let flood = Flood::start(daemon.connect(), vec![frame(BROADCAST, mac(4), 1514, 1); 32]);
    // A bystander that reads at its leisure may miss frames itself, so it tries until it is heard.
    while flood.rounds() < 300 {
        bystanders.drain();
    }
    flood.stop();
    bystanders.drain();
    bystanders.talk();
    drop(mute);
    daemon.files_return_to(files);
    daemon.stop();
}
