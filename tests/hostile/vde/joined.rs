//! Switches that misbehave against a hub that joins them.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::lab::{is_told, names};
use crate::common::daemon::{Bystanders, Daemon};
use crate::common::hub::{folder, utf8};
use crate::common::vde_client::{V3_LEN, address};
use crate::common::wait::{LIMIT, wait_for};
use crate::common::wire::{BROADCAST, Station, frame, mac, settle};

/// A switch that a test plays, and a hub that joins it.
struct Stage {
    daemon: Daemon,
    bystanders: Bystanders,
    folder: PathBuf,
    ctl: UnixListener,
    _runtime: TempDir,
}

/// What the hub has come with.
struct Caller {
    control: UnixStream,
    own: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let runtime = folder();
        let folder = runtime.path().join("switch");
        fs::create_dir(&folder).expect("a new folder");
        let ctl = UnixListener::bind(folder.join("ctl")).expect("a socket");
        ctl.set_nonblocking(true).expect("an open socket");
        let spec = format!("connect:vde:{}", utf8(&folder));
        let daemon = Daemon::start(runtime.path(), &[&spec]);
        let bystanders = Bystanders::join(&daemon);
        Self { daemon, bystanders, folder, ctl, _runtime: runtime }
    }

    /// The next time that the hub comes.
    fn call(&self) -> Caller {
        let mut control = wait_for("the hub to come", LIMIT, || self.ctl.accept().ok()).0;
        control.set_read_timeout(Some(LIMIT)).expect("a time-out can be set");
        let mut request = [0; V3_LEN];
        control.read_exact(&mut request).expect("it asks");
        let own = request[14..].split(|&octet| octet == 0).next().expect("a path");
        Caller { control, own: std::ffi::OsStr::from_bytes(own).into() }
    }

    /// Answers with a socket that is connected to the hub's.
    fn admit(&self, caller: &mut Caller) -> UnixDatagram {
        let path = self.folder.join("001.1");
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.connect(&caller.own).expect("it waits for that");
        socket.set_read_timeout(Some(LIMIT)).expect("a time-out can be set");
        caller.control.write_all(&address(&path)).expect("it waits for that");
        socket
    }

    /// Sees that frames pass both ways.
    fn works(&mut self, socket: &UnixDatagram) {
        let sent = frame(BROADCAST, mac(0x51), 1000, 5);
        wait_for("the switch to be heard", LIMIT, || {
            socket.send(&sent).expect("it is connected");
            self.bystanders.one.try_receive(Duration::from_millis(50)).filter(|frame| *frame == sent)
        });
        self.bystanders.drain();
        let sent = frame(mac(0x51), mac(0xe1), 9014, 5);
        self.bystanders.one.send(&sent);
        let mut got = vec![0; 1 << 17];
        loop {
            let octets = socket.recv(&mut got).expect("a frame");
            if got[..octets] == sent {
                return;
            }
        }
    }
}

impl Caller {
    /// Waits until the hub has given it up.
    fn see_end(mut self) {
        let mut rest = Vec::new();
        match self.control.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        wait_for("its file to go", LIMIT, || (!self.own.exists()).then_some(()));
    }
}

#[test]
fn a_switch_that_dies_is_joined_again() {
    let mut stage = Stage::new();
    let files = stage.daemon.files();
    for life in 1..4 {
        let mut caller = stage.call();
        let socket = stage.admit(&mut caller);
        stage.works(&socket);
        assert!(!caller.own.exists());
        is_told(&stage.daemon, "port up port=plug1 ", life);
        // It may leave by either end first.
        if life % 2 == 0 {
            drop(socket);
            stage.bystanders.one.send(&frame(BROADCAST, mac(0xe1), 60, 1));
            stage.daemon.table_with("the port to go", |table| (table.ports.len() == 2).then_some(()));
            drop(caller);
        } else {
            drop(caller);
            stage.daemon.table_with("the port to go", |table| (table.ports.len() == 2).then_some(()));
            drop(socket);
        }
        stage.bystanders.drain();
        stage.bystanders.talk();
    }
    // It waits for the answer to its next request, and no more than that.
    drop(stage.call());
    assert!(stage.daemon.files() <= files + 2);
    stage.daemon.stop();
}

#[test]
fn a_switch_that_refuses_or_answers_nonsense_is_asked_again() {
    let mut stage = Stage::new();
    let good = address(&stage.folder.join("none"));
    let with = |at: usize, octets: &[u8]| [&good[..at], octets, &good[at + octets.len()..]].concat();
    for answer in
        [vec![], good[..109].to_vec(), with(0, &[9]), with(2, b"x"), good.to_vec(), vec![0xff; 5000]]
    {
        let mut caller = stage.call();
        let _ = caller.control.write_all(&answer);
        if answer.len() < good.len() {
            caller.control.shutdown(std::net::Shutdown::Both).expect("it is connected");
        }
        caller.see_end();
        stage.bystanders.talk();
    }
    let mut caller = stage.call();
    let socket = stage.admit(&mut caller);
    stage.works(&socket);
    assert_eq!(names(&stage.folder), ["001.1", "ctl"]);
    stage.daemon.stop();
}

#[test]
fn a_silent_switch_costs_nothing_and_nobody_any_time() {
    let mut stage = Stage::new();
    let caller = stage.call();
    assert!(stage.daemon.idles(), "it spins");
    stage.bystanders.talk();
    caller.see_end();
    stage.daemon.line("the switch does not answer");
    stage.bystanders.talk();
    stage.daemon.stop();
}

/// Its own socket: what it sends comes back.
#[test]
fn a_switch_that_joins_the_hub_to_itself_makes_no_storm() {
    let mut stage = Stage::new();
    let mut caller = stage.call();
    let own = address(&caller.own);
    caller.control.write_all(&own).expect("it waits for that");
    stage.daemon.table_with("something to become of it", |table| {
        (table.ports.len() == 3 || stage.daemon.count("can't connect") > 0).then_some(())
    });
    stage.bystanders.one.send(&frame(BROADCAST, mac(0xe1), 60, 1));
    stage.bystanders.drain();
    assert!(stage.daemon.idles(), "a frame goes round for ever");
    stage.bystanders.talk();
    stage.daemon.stop();
}

#[test]
fn a_switch_that_floods_is_borne() {
    let mut stage = Stage::new();
    let mut caller = stage.call();
    let socket = stage.admit(&mut caller);
    stage.works(&socket);
    let (files, memory) = (stage.daemon.files(), stage.daemon.memory());
    socket.set_nonblocking(true).expect("an open socket");
    caller.control.set_nonblocking(true).expect("an open socket");
    for seed in 0..20_000_u32 {
        let [.., seed] = seed.to_be_bytes();
        let _ = match seed % 4 {
            0 => socket.send(&[]),
            1 => socket.send(&[seed; 13]),
            2 => socket.send(&frame(mac(0x99), mac(0x98), 60, seed)),
            _ => caller.control.write(&[seed; 500]),
        };
        if seed == 0 {
            stage.bystanders.talk();
        }
    }
    stage.bystanders.drain();
    stage.bystanders.talk();
    assert!(stage.daemon.idles(), "it spins");
    assert_eq!(stage.daemon.files(), files);
    assert!(stage.daemon.memory().saturating_sub(memory) < 16 << 10);
    stage.daemon.stop();
}

#[test]
fn a_hub_does_not_join_itself() {
    let runtime = folder();
    let path = runtime.path().join("vde");
    let daemon = Daemon::start(
        runtime.path(),
        &[&format!("vde:{}", utf8(&path)), &format!("connect:vde:{}", utf8(&path))],
    );
    let mut bystanders = Bystanders::join(&daemon);
    daemon.line("this hub itself serves that folder");
    assert!(daemon.idles(), "it spins");
    is_told(&daemon, "port up", 2);
    bystanders.talk();
    assert_eq!(names(&path), ["ctl"]);
    daemon.stop();
    assert!(!path.exists());
}

#[test]
fn two_ports_do_not_join_one_switch() {
    let runtime = folder();
    let [path, link] = ["vde", "link"].map(|name| runtime.path().join(name));
    let switch = Daemon::start(runtime.path(), &[&format!("vde:{}", utf8(&path))]);
    let spec = format!("connect:vde:{}", utf8(&path));
    // Whatever it is called.
    std::os::unix::fs::symlink(&path, &link).expect("a link");
    let by_link = format!("connect:vde:{}", utf8(&link));
    let mut bystanders = Bystanders::join(&switch);
    for again in [&spec, &by_link] {
        let other = Daemon::start(runtime.path(), &["--name", "other", &spec, again]);
        other.line("another port joins the same switch");
        let mut guest = other.connect();
        settle(&mut guest, &mut bystanders.one);
        bystanders.drain();
        assert!(switch.idles() && other.idles(), "a frame goes round for ever");
        bystanders.talk();
        other.stop();
    }
    switch.stop();
}
