//! Two segments joined by a pipe: what `dpipe qhub plug = ssh host qhub plug` does.

use std::io::pipe;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use super::peer::{FRAMINGS, Framing, Plug};
use crate::common::daemon::Daemon;
use crate::common::hub::{folder, free_tcp_port, utf8};
use crate::common::process::Process;
use crate::common::wire::{BROADCAST, Station, Wire, frame, mac, settle};

/// Frames of many lengths pass both ways as they are.
fn carries(one: &mut Wire, other: &mut Wire, longest: usize) {
    settle(one, other);
    for (number, length) in (1..).zip([14, 15, 60, 1514, 1518, 4096, 9014, longest]) {
        let there = frame(BROADCAST, mac(1), length, number);
        one.send(&there);
        assert!(other.receive() == there, "{length} octets there");
        let back = frame(mac(1), mac(2), length, number);
        other.send(&back);
        assert!(one.receive() == back, "{length} octets back");
    }
}

#[test]
fn two_segments_are_joined_by_two_pipes() {
    for framing in FRAMINGS {
        let (here, there) = (folder(), folder());
        let (one, other) = (Daemon::start(here.path(), &[]), Daemon::start(there.path(), &[]));
        let ((input, to), (from, output)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
        let args = ["--framing", framing.name()];
        let near = Plug::start(here.path(), &args, input, output);
        let far = Plug::start(there.path(), &args, from, to);
        carries(&mut one.connect(), &mut other.connect(), framing.longest());
        near.signal(Signal::SIGTERM);
        assert_eq!(near.exit(), (Some(0), String::new()));
        assert_eq!(far.exit(), (Some(0), String::new()), "its stdin is at its end");
        one.stop();
        other.stop();
    }
}

#[test]
fn two_segments_are_joined_by_a_socket() {
    let (here, there) = (folder(), folder());
    let (one, other) = (Daemon::start(here.path(), &[]), Daemon::start(there.path(), &["--name", "lab"]));
    let (near, far) = Socket::pair(Domain::UNIX, Type::STREAM, None).expect("a socket pair");
    let [near, far] = [near, far].map(OwnedFd::from);
    // As sshd does it.
    let twice = |end: OwnedFd| (end.try_clone().expect("a descriptor"), end);
    let ((input, output), (from, to)) = (twice(near), twice(far));
    let near = Plug::start(here.path(), &[], input, output);
    let far = Plug::start(there.path(), &["--name", "lab"], from, to);
    carries(&mut one.connect(), &mut other.connect(), Framing::Vde.longest());
    far.signal(Signal::SIGINT);
    assert_eq!(far.exit(), (Some(0), String::new()));
    assert_eq!(near.exit(), (Some(0), String::new()));
}

#[test]
fn what_the_framing_cannot_carry_is_dropped() {
    let runtime = folder();
    let hub = Daemon::start(runtime.path(), &[]);
    let (plug, mut far) = Plug::between(runtime.path(), Framing::Vde, &["-v"]);
    let mut wire = hub.connect();
    settle(&mut wire, &mut far);
    wire.send(&frame(BROADCAST, mac(1), 9_235, 1));
    let fits = frame(BROADCAST, mac(1), 9_234, 1);
    wire.send(&fits);
    assert!(far.receive() == fits);
    far.close_stdin();
    let (code, log) = plug.exit();
    assert!(code == Some(0) && log.contains("dropped 1 (too_big=1)"), "{log}");
}

#[test]
fn a_name_or_an_address_is_joined() {
    let runtime = folder();
    let (path, port) = (runtime.path().join("s"), free_tcp_port());
    let tcp = format!("tcp:{port}");
    let hub = Daemon::start(runtime.path(), &[&format!("unix:{}", utf8(&path)), &tcp]);
    let mut wire = hub.connect();
    for spec in [format!("connect:unix:{}", utf8(&path)), format!("connect:tcp:localhost:{port}")] {
        let (plug, mut far) = Plug::between(runtime.path(), Framing::Vde, &[&spec]);
        settle(&mut wire, &mut far);
        far.close_stdin();
        assert_eq!(plug.exit(), (Some(0), String::new()), "{spec}");
    }
}

#[test]
fn no_environment_is_needed() {
    let runtime = folder();
    let hub = Daemon::start(runtime.path(), &[]);
    let spec = format!("connect:unix:{}", utf8(hub.socket()));
    let ((input, to), (from, output)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
    let mut command = Process::command("env");
    // As sshd runs a forced command, which what the client has asked for is nothing to.
    command.args(["-i", "SSH_ORIGINAL_COMMAND=rm -rf /", env!("CARGO_BIN_EXE_qhub"), "plug", &spec]);
    command.current_dir("/");
    let plug = Plug::spawn(&mut command, input, output);
    let mut wire = hub.connect();
    let probe = frame(BROADCAST, mac(1), 60, 1);
    let mut to = to;
    std::io::Write::write_all(&mut to, &Framing::Vde.record(&probe)).expect("the plug reads");
    assert!(wire.receive_if("the frame of the plug", |frame| frame == probe) == probe);
    drop((to, from));
    assert_eq!(plug.exit(), (Some(0), String::new()));
}

#[test]
fn a_signal_ends_an_attempt_to_dial() {
    let runtime = folder();
    // Its backlog is full, so a connection takes for ever.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    listener.listen(0).expect("a bound socket");
    let listener = TcpListener::from(listener);
    let address = listener.local_addr().expect("its address");
    let _first = std::net::TcpStream::connect(address).expect("one has a place");
    let (mut plug, _far) =
        Plug::between(runtime.path(), Framing::Vde, &["-v", &format!("connect:tcp:{address}")]);
    crate::common::wait::pause(Duration::from_millis(300));
    assert_eq!(plug.try_exit(), None);
    plug.signal(Signal::SIGTERM);
    assert_eq!(plug.exit(), (Some(0), String::new()));
}
