//! Too many connections: in a row, and at once.

use std::io::Read;
use std::net::SocketAddr;

use socket2::Socket;

use crate::common::daemon::{Bystanders, Daemon, connect_raw, read_to_end};
use crate::common::hub::folder;
use crate::common::wire::{Wire, settle};

#[test]
fn ten_thousand_connections_come_and_go() {
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &["tcp:0"]);
    let mut bystanders = Bystanders::join(&daemon);
    let (files, memory) = (daemon.files(), daemon.memory());
    let places: [Option<SocketAddr>; 4] = [None, None, None, Some(daemon.tcp())];
    for _ in 0..100 {
        let peers: Vec<Socket> = (0..100).map(|n| connect_raw(&daemon, places[n % places.len()])).collect();
        bystanders.talk();
        drop(peers);
    }
    daemon.table_with("all to be gone", |table| (table.ports.len() == 2).then_some(()));
    daemon.files_return_to(files);
    let grown = daemon.memory().saturating_sub(memory);
    assert!(grown < 16 << 10, "{grown} KiB more than before");
    bystanders.talk();
    let (told, lost) = (daemon.count("port up"), daemon.count("log lines were lost"));
    assert!(told == 10_002 || lost > 0, "{told} connections were told of");
    daemon.stop();
}

#[test]
fn more_than_max_ports_are_refused_until_one_goes() {
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &["--max-ports", "4", "tcp:0"]);
    let mut bystanders = Bystanders::join(&daemon);
    let (mut third, fourth) = (daemon.connect(), daemon.connect());
    settle(&mut third, &mut bystanders.one);
    daemon.table_with("all ports to be up", |table| (table.ports.len() == 4).then_some(()));
    let files = daemon.files();
    for _ in 0..20 {
        assert_eq!(read_to_end(&connect_raw(&daemon, None)), [0_u8; 0], "it was closed at once");
    }
    daemon.line("all 4 ports are in use; raise --max-ports; of further ones -v tells");
    let refused = connect_raw(&daemon, Some(daemon.tcp()));
    assert_eq!(read_to_end(&refused), [0_u8; 0], "it was closed at once");
    let address = refused.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
    daemon.line(&format!("refused {address}: all 4 ports are in use"));
    assert_eq!(daemon.count("ports are in use"), 8 + 1, "eight of the one listener, and one of the other");
    assert_eq!(daemon.files(), files);
    bystanders.talk();

    drop(fourth);
    daemon.table_with("one to go", |table| (table.ports.len() == 3).then_some(()));
    let mut next = daemon.connect();
    settle(&mut next, &mut bystanders.one);
    bystanders.talk();
    daemon.stop();
}

#[test]
fn without_file_descriptors_it_serves_those_that_are_there() {
    let runtime = folder();
    let daemon = Daemon::start_by(runtime.path(), r#"ulimit -n 32; exec "$@""#, &["tcp:0"]);
    let mut bystanders = Bystanders::join(&daemon);
    let mut peers: Vec<Wire> = (0..40).map(|_| daemon.connect()).collect();
    let line = daemon.line("can't accept");
    assert!(line.contains("Too many open files") && line.contains("ulimit -n"), "{line}");
    let waiting = connect_raw(&daemon, Some(daemon.tcp()));

    bystanders.talk();
    assert!(daemon.idles(), "it spins");
    bystanders.talk();
    assert!(daemon.count("can't accept") <= 2, "once for each listener: {}", daemon.log());

    let accepted = daemon.table().ports.len() - 2;
    assert!((8..32).contains(&accepted), "{accepted} found a descriptor");
    // The last is served when enough of those before it have gone.
    let mut last = peers.pop().expect("there are 40");
    drop(peers);
    settle(&mut last, &mut bystanders.one);
    drop(waiting);
    bystanders.talk();
    assert!(daemon.count("can't accept") <= 2, "once for each listener: {}", daemon.log());
    daemon.stop();
}

#[test]
fn a_starved_listener_tries_again_by_itself() {
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &["tcp:0"]);
    let mut bystanders = Bystanders::join(&daemon);
    // No port goes here, so nothing but time can tell it that there are descriptors again.
    let limit = |files: &str| {
        let pid = daemon.pid().to_string();
        let mut command = std::process::Command::new("prlimit");
        let status = command.args(["--pid", &pid, &format!("--nofile={files}")]).status();
        assert!(status.expect("util-linux has prlimit").success());
    };
    limit(&format!("{}:20000", daemon.next_file()));
    let mut peer = daemon.connect();
    daemon.line("can't accept");
    assert_eq!(daemon.count("port up port=unix3 "), 0);
    bystanders.talk();
    limit("1000:20000");
    // Nothing happens meanwhile that would wake it.
    daemon.line("port up port=unix3 ");
    settle(&mut peer, &mut bystanders.one);
    bystanders.talk();
    assert_eq!(daemon.count("can't accept"), 1);
    daemon.stop();
}

#[test]
fn idle_connections_cost_nothing() {
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &[]);
    let mut bystanders = Bystanders::join(&daemon);
    let peers: Vec<Socket> = (0..1000).map(|_| connect_raw(&daemon, None)).collect();
    daemon.table_with("all to be ports", |table| (table.ports.len() == 1002).then_some(()));
    assert!(daemon.memory() < 64 << 10, "{} KiB", daemon.memory());
    assert!(daemon.idles(), "it has nothing to do");
    bystanders.talk();
    // Nothing came for them: the two knew each other.
    for mut peer in peers {
        peer.set_nonblocking(true).expect("a socket option");
        assert!(peer.read(&mut [0; 64]).is_err(), "a frame came for somebody else");
    }
    bystanders.talk();
    daemon.stop();
}
