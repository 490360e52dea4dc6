//! `fd:N`: sockets that the parent left open.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use socket2::{Domain, Socket, Type};

use crate::common::daemon::{Bystanders, Daemon, record};
use crate::common::hub::{Hub, folder, utf8};
use crate::common::refusal::{refusal_by, refusal_with};
use crate::common::wait::{LIMIT, wait_for};
use crate::common::wire::{BROADCAST, Station, Wire, frame, mac, settle, socket_pair};

#[test]
fn a_connected_socket_is_a_port_until_it_ends() {
    let runtime = folder();
    let (ours, theirs) = socket_pair();
    let hub = Hub::start_with_fd0(&runtime, &["--no-tcp", "fd:0,name=vm"], ours);
    let mut inherited = UnixStream::from(theirs);
    let mut wire = hub.connect();
    let mut other = hub.connect();
    settle(&mut wire, &mut other);
    let sent = frame(BROADCAST, mac(3), 100, 1);
    inherited.write_all(&record(&sent)).expect("the hub takes it");
    assert_eq!(wire.receive(), sent);
    drop(inherited);
    wait_for("the port to go", LIMIT, || {
        hub.log().lines().any(|line| line.contains("port down") && line.contains("port=vm")).then_some(())
    });
    settle(&mut wire, &mut other);
    hub.stop();
}

#[test]
fn a_connected_tcp_socket_is_a_port() {
    let runtime = folder();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let mut theirs = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
    let (ours, _) = listener.accept().expect("a connection");
    let hub = Hub::start_with_fd0(&runtime, &["--no-tcp", "fd:0"], OwnedFd::from(ours));
    let mut wire = hub.connect();
    let mut other = hub.connect();
    settle(&mut wire, &mut other);
    let sent = frame(BROADCAST, mac(3), 100, 1);
    theirs.write_all(&record(&sent)).expect("the hub takes it");
    assert_eq!(wire.receive(), sent);
    hub.stop();
}

#[test]
fn listening_sockets_are_served() {
    let runtime = folder();
    let path = runtime.path().join("passed");
    let listener = UnixListener::bind(&path).expect("a socket");
    let hub = Hub::start_with_fd0(&runtime, &["--no-tcp", "fd:0"], listener.into());
    let (mut one, mut other) = (Wire::unix(&path), Wire::unix(&path));
    settle(&mut one, &mut other);
    settle(&mut one, &mut hub.connect());
    hub.stop();
    assert!(path.exists(), "the file belongs to whoever made it");

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("its address");
    let hub = Hub::start_with_fd0(&runtime, &["--no-tcp", "fd:0"], listener.into());
    let (mut one, mut other) = (Wire::tcp(address), Wire::tcp(address));
    settle(&mut one, &mut other);
    settle(&mut one, &mut hub.connect());
    hub.stop();
}

#[test]
fn a_listening_socket_that_its_owner_shuts_down_stops_nobody() {
    let runtime = folder();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let passed = listener.try_clone().expect("a copy");
    let daemon =
        Daemon::launch(runtime.path(), r#"exec "$@""#, &["--no-tcp", "fd:0"], OwnedFd::from(passed).into())
            .served();
    let mut bystanders = Bystanders::join(&daemon);
    socket2::SockRef::from(&listener).shutdown(std::net::Shutdown::Both).expect("it is ours");
    let line = daemon.line("can't accept");
    assert!(line.contains("Invalid argument") && !line.contains("ulimit"), "{line}");
    bystanders.talk();
    assert!(daemon.idles(), "it spins");
    daemon.stop();
}

#[test]
fn a_socket_under_another_number_is_found_and_taken_once() {
    let runtime = folder();
    let (ours, theirs) = socket_pair();
    let script = r#"exec "$@" 7<&0 0</dev/null"#;
    let daemon = Daemon::launch(runtime.path(), script, &["--no-tcp", "fd:7"], ours.into()).served();
    let mut bystanders = Bystanders::join(&daemon);
    let sent = frame(BROADCAST, mac(3), 100, 1);
    UnixStream::from(theirs).write_all(&record(&sent)).expect("the hub takes it");
    assert_eq!(bystanders.one.receive(), sent);
    daemon.line("port down");
    bystanders.talk();
    daemon.stop();

    let (ours, _theirs) = socket_pair();
    let line = refusal_with(runtime.path(), script, &["fd:7", "fd:7"], ours.into());
    assert!(line.contains("port fd:7: ") && line.contains("it is used by another port already"), "{line}");
}

#[test]
fn what_carries_no_frames_is_refused() {
    let runtime = folder();
    let path = runtime.path().join("file");
    for (script, spec, hint) in [
        (
            r#"exec "$@" 9<&-"#,
            "fd:9",
            "it is to be a socket or a TAP that the parent process left open: Bad file descriptor",
        ),
        (r#"exec "$@" 9</dev/null"#, "fd:9", "it is neither a socket nor a TAP"),
        (r#"true | exec "$@""#, "fd:0", "it is neither a socket nor a TAP"),
        (&format!(r#"exec "$@" 9>{}"#, utf8(&path)), "fd:9", "it is neither a socket nor a TAP"),
    ] {
        let line = refusal_by(runtime.path(), script, &[spec]);
        assert!(line.contains(&format!("port {spec}: ")) && line.contains(hint), "{line}");
    }
    let datagrams = UnixDatagram::unbound().expect("a socket");
    let unconnected = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let packets = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).expect("a pair").0;
    for (fd, hint) in [
        (OwnedFd::from(datagrams), "it is neither bound nor connected"),
        (packets.into(), "pass one of a stream or of datagrams"),
        (unconnected.into(), "it is not connected"),
    ] {
        let line = refusal_with(runtime.path(), r#"exec "$@""#, &["fd:0"], fd.into());
        assert!(line.contains("port fd:0: ") && line.contains(hint), "{line}");
    }
}

#[test]
fn a_name_that_a_listener_would_give_is_used_once() {
    let runtime = folder();
    let (ours, _theirs) = socket_pair();
    let args = ["--no-tcp", "fd:0,name=unix1"];
    let daemon = Daemon::launch(runtime.path(), r#"exec "$@""#, &args, ours.into()).served();
    let mut bystanders = Bystanders::join(&daemon);
    let names: Vec<String> = daemon.table().ports.into_iter().map(|port| port.name).collect();
    assert_eq!(names.len(), 3);
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 3, "{names:?}");
    bystanders.talk();
    daemon.stop();
}
