//! Kinds of socket: IPv6, abstract names, and sockets that are dialled.

use std::net::{Ipv6Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::chown;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::id;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::common::daemon::{Bystanders, Daemon};
use crate::common::hub::{folder, free_tcp_port, utf8};
use crate::common::refusal::{refusal, refusal_by};
use crate::common::require::require;
use crate::common::wait::{LIMIT, wait_for};
use crate::common::wire::{Wire, settle};

/// Somebody who is neither root nor whoever runs the tests.
const NOBODY: u32 = 65_534;

fn abstract_name(what: &str) -> String {
    format!("qhub-test-{}-{what}", id())
}

fn connect_abstract(name: &str) -> Socket {
    let address = SocketAddr::from_abstract_name(name).expect("a short name");
    let socket =
        UnixStream::connect_addr(&address).unwrap_or_else(|error| panic!("connect to @{name}: {error}"));
    socket.set_read_timeout(Some(LIMIT)).expect("a time-out can be set");
    socket.into()
}

#[test]
fn tcp_over_ipv6() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        require("ipv6", &[], &["/proc/net/if_inet6".into(), "/proc/net/an-IPv6-loopback-address".into()]);
        return;
    }
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &["tcp:[::1]:0"]);
    let text = daemon.stdout();
    let line = text.lines().find(|line| line.contains("addr.type=inet")).expect("a line to paste");
    assert!(line.contains("-netdev stream,id=n0,addr.type=inet,addr.host=::1,addr.port="), "{line}");
    let port = line.rsplit('=').next().and_then(|port| port.parse::<u16>().ok()).expect("a port");
    let (mut one, mut other) =
        (Wire::tcp((Ipv6Addr::LOCALHOST, port).into()), Wire::tcp((Ipv6Addr::LOCALHOST, port).into()));
    settle(&mut one, &mut other);
    settle(&mut one, &mut daemon.connect());
    daemon.line("port=tcp1 peer=[::1]:");
    daemon.stop();
}

#[test]
fn an_abstract_name_serves_and_is_free_again() {
    let runtime = folder();
    let name = abstract_name("own");
    for _ in 0..2 {
        let daemon = Daemon::start(runtime.path(), &[&format!("unix:@{name}")]);
        let mut bystanders = Bystanders::join(&daemon);
        let _peer = connect_abstract(&name);
        daemon.table_with("it to be a port", |table| (table.ports.len() == 3).then_some(()));
        let line = refusal(folder().path(), &[&format!("unix:@{name}")]);
        assert!(
            line.contains(&format!("a program is listening on @{name}; stop it or choose another name")),
            "{line}"
        );
        bystanders.talk();
        daemon.stop();
    }
}

/// Can tests start programs as somebody else? Says so if not.
fn is_root() -> bool {
    let missing =
        if nix::unistd::geteuid().is_root() { vec![] } else { vec!["/proc/the-rights-of-root".into()] };
    require("root", &["setpriv"], &missing)
}

#[test]
fn an_abstract_name_admits_its_own_user_and_root_only() {
    if !is_root() {
        return;
    }
    let (runtime, theirs) = (folder(), folder());
    chown(theirs.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
    let name = abstract_name("users");
    let as_nobody = format!(r#"exec setpriv --reuid {NOBODY} --clear-groups --pdeathsig KILL "$@""#);
    let dial = format!("connect:unix:@{name}");
    let serve = format!("unix:@{name}");

    // The hub is root's, and nobody else gets in.
    let daemon = Daemon::start(runtime.path(), &[&serve]);
    let mut bystanders = Bystanders::join(&daemon);
    let stranger = Daemon::start_by(theirs.path(), &as_nobody, &[&dial]);
    let line = daemon.line("refused uid 65534 pid ");
    assert!(line.contains("WARN") && line.contains("any-user=on"), "{line}");
    stranger.line("closed by its peer");
    bystanders.talk();
    assert!(daemon.table().ports.len() == 2, "it is a port");
    stranger.stop();
    daemon.stop();

    // Opened to everybody.
    let daemon = Daemon::start(runtime.path(), &[&format!("{serve},any-user=on")]);
    let stranger = Daemon::start_by(theirs.path(), &as_nobody, &[&dial]);
    settle(&mut stranger.connect(), &mut daemon.connect());
    stranger.stop();
    daemon.stop();

    // The hub is somebody's: that user and root get in.
    let somebody = Daemon::start_by(theirs.path(), &as_nobody, &[&serve]);
    let root = Daemon::start(runtime.path(), &[&dial]);
    settle(&mut root.connect(), &mut somebody.connect());
    root.stop();
    let again = folder();
    chown(again.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
    let same = Daemon::start_by(again.path(), &as_nobody, &[&dial]);
    settle(&mut same.connect(), &mut somebody.connect());
    same.stop();
    somebody.stop();
}

#[test]
fn another_user_can_not_use_a_socket_file() {
    if !is_root() {
        return;
    }
    let (runtime, theirs) = (folder(), folder());
    chown(theirs.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
    let path = theirs.path().join("s");
    let daemon = Daemon::start(runtime.path(), &[&format!("unix:{}", utf8(&path))]);
    let as_nobody = format!(r#"exec setpriv --reuid {NOBODY} --clear-groups --pdeathsig KILL "$@""#);
    let dial = format!("connect:unix:{}", utf8(&path));
    let stranger = Daemon::start_by(theirs.path(), &as_nobody, &[&dial]);
    stranger.line("Permission denied");
    stranger.stop();
    // Nor take its place.
    let line = refusal_by(theirs.path(), &as_nobody, &[&format!("unix:{}", utf8(&path))]);
    assert!(line.contains("another user's socket; choose another path"), "{line}");
    assert!(path.exists());
    settle(&mut Wire::unix(&path), &mut daemon.connect());
    daemon.stop();
}

#[test]
fn a_dialler_tries_until_somebody_answers_and_again_when_it_goes() {
    let runtime = folder();
    let path = runtime.path().join("vm");
    let daemon = Daemon::start(runtime.path(), &[&format!("connect:unix:{},name=vm", utf8(&path))]);
    let mut bystanders = Bystanders::join(&daemon);
    let line = daemon.line("can't connect");
    assert!(line.contains("trying again") && line.contains(utf8(&path)), "{line}");
    for turn in 1..=3 {
        let listener = UnixListener::bind(&path).expect("a free name");
        let (connection, _) = listener.accept().expect("the hub dials");
        wait_for("the port to be up", LIMIT, || (daemon.count("port up port=vm ") == turn).then_some(()));
        bystanders.talk();
        drop((connection, listener));
        std::fs::remove_file(&path).expect("it is ours");
        wait_for("the port to be down", LIMIT, || (daemon.count("port=vm ") == 2 * turn).then_some(()));
        bystanders.talk();
    }
    assert!(daemon.idles(), "it spins");
    daemon.stop();
}

#[test]
fn a_dialler_refuses_the_hubs_own_doors() {
    let runtime = folder();
    let port = free_tcp_port();
    let path = runtime.path().join("lab");
    let ports = [
        format!("unix:{}", utf8(&path)),
        format!("connect:unix:{}", utf8(&path)),
        format!("tcp:0.0.0.0:{port}"),
        format!("connect:tcp:127.0.0.1:{port}"),
    ];
    let daemon = Daemon::start(runtime.path(), &ports.each_ref().map(String::as_str));
    let mut bystanders = Bystanders::join(&daemon);
    wait_for("both to be refused", LIMIT, || {
        (daemon.count("this hub itself serves that address") >= 2).then_some(())
    });
    bystanders.talk();
    assert!(daemon.idles(), "frames circulate");
    daemon.stop();
}

#[test]
fn a_dialler_waits_for_one_that_does_not_accept() {
    let runtime = folder();
    let path = runtime.path().join("vm");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    listener.bind(&SockAddr::unix(&path).expect("a path that fits")).expect("a free name");
    listener.listen(0).expect("a bound socket");
    // It takes the one place in the backlog.
    let blocker = UnixStream::connect(&path).expect("room for one");
    let daemon = Daemon::start(runtime.path(), &[&format!("connect:unix:{}", utf8(&path))]);
    let mut bystanders = Bystanders::join(&daemon);
    daemon.line("can't connect");
    bystanders.talk();
    drop((listener.accept().expect("the blocker"), blocker));
    let (connection, _) = listener.accept().expect("the hub dials again");
    daemon.line("port up port=unix1 ");
    drop((listener, connection));
    bystanders.talk();
    daemon.stop();
}
