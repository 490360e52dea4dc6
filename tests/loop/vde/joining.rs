//! Joining a switch that a test plays.

use std::env;
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use nix::unistd::{Gid, Uid, chown, geteuid};
use qhub::bridge::Mode;
use qhub::config::{PortOptions, Remote, VdePlace};
use qhub::hub;
use qhub::link::{Dialer, Link};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tempfile::TempDir;

use super::switch::{files, hear_all, is_root, parent};
use crate::net::{MS, NS, Net};
use crate::vde_client::{ANSWER_LEN, V3_LEN, address, words};
use crate::wire::{broadcast, frame, record, records};

/// How long the switch may take for its answer.
const ATTEMPT: Duration = Duration::from_secs(5);

/// A switch, played by a test, and who joins it.
struct Stage {
    parent: TempDir,
    folder: PathBuf,
    ctl: Option<UnixListener>,
    poll: Poll,
    dialer: Dialer,
    now: Instant,
}

/// A client that has come to the switch.
struct Caller {
    control: UnixStream,
    request: Vec<u8>,
}

impl Stage {
    fn new() -> Self {
        Self::with(|place| place)
    }

    /// One with a place that is not just its folder.
    fn with(place: impl Fn(VdePlace) -> VdePlace) -> Self {
        Self::at("vde", place)
    }

    fn at(name: &str, place: impl Fn(VdePlace) -> VdePlace) -> Self {
        let parent = parent();
        let folder = parent.path().join(name);
        fs::create_dir(&folder).expect("a new folder");
        let remote = Remote::Vde(place(VdePlace { folder: folder.clone(), port_group: None, port: None }));
        let now = hub::now();
        let dialer = Dialer::new(&remote, now).expect("a folder has no name to resolve");
        let mut it = Self { parent, folder, ctl: None, poll: Poll::new().expect("a poll"), dialer, now };
        it.serve("ctl");
        it
    }

    fn serve(&mut self, entry: &str) {
        let path = self.folder.join(entry);
        // Its former life has left it.
        let _ = fs::remove_file(&path);
        self.ctl = Some(listen_as_another(&path));
    }

    /// The dialler goes a step on, after the poll has told.
    fn advance(&mut self) -> std::io::Result<Option<Box<dyn Link>>> {
        let mut events = Events::with_capacity(8);
        self.poll.poll(&mut events, Some(Duration::ZERO)).expect("a poll");
        if !events.is_empty() {
            self.dialer.note();
        }
        let dialled = self.dialer.advance(self.poll.registry(), Token(0), self.now)?;
        Ok(dialled.map(|dialled| {
            assert!(dialled.is_local);
            dialled.link
        }))
    }

    /// It has begun and waits for the answer.
    fn call(&mut self) -> Caller {
        assert!(self.advance().expect("there is a switch").is_none());
        self.accept().expect("it calls")
    }

    fn accept(&self) -> Option<Caller> {
        let (mut control, _) = self.ctl.as_ref()?.accept().ok()?;
        let mut request = vec![0; 1000];
        let octets = control.read(&mut request).expect("it says at once what it wants");
        request.truncate(octets);
        control.set_nonblocking(true).expect("an open socket");
        Some(Caller { control, request })
    }

    /// The switch's own socket for a caller.
    fn socket(&self, caller: &Caller, name: &str) -> (UnixDatagram, PathBuf) {
        let path = self.folder.join(name);
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("a free name");
        socket.connect(caller.path()).expect("its socket");
        socket.set_nonblocking(true).expect("an open socket");
        (socket, path)
    }

    /// Joins to the end.
    fn join(&mut self) -> (Box<dyn Link>, Caller, UnixDatagram) {
        let mut caller = self.call();
        let (socket, path) = self.socket(&caller, "001.6");
        caller.control.write_all(&address(&path)).expect("room");
        let link = self.advance().expect("it is a good answer").expect("it is a whole one");
        (link, caller, socket)
    }

    /// An attempt that has failed: how.
    fn failure(&mut self) -> std::io::Error {
        let error = self.advance().map(|made| made.is_some()).expect_err("it fails");
        self.dialer.rest(self.now);
        error
    }
}

/// In the environment of a process that is to listen.
const LISTENS: &str = "QHUB_TEST_LISTENS";

/// Listens at `path` as if another process did: a hub does not join itself, and whose socket it is was settled when it
/// began to listen.
fn listen_as_another(path: &Path) -> UnixListener {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    socket.bind(&SockAddr::unix(path).expect("a short path")).expect("a free name");
    let shared = OwnedFd::from(socket.try_clone().expect("descriptors"));
    let mut other = Command::new(env::current_exe().expect("this test"));
    other.args(["--exact", "vde::joining::another_process_listens"]).env(LISTENS, "");
    other.stdin(shared).stdout(Stdio::null());
    assert!(other.status().expect("it can be started again").success());
    socket.set_nonblocking(true).expect("an open socket");
    socket.into()
}

/// No test, but what such a process does.
#[test]
fn another_process_listens() {
    if env::var_os(LISTENS).is_some() {
        SockRef::from(&std::io::stdin()).listen(16).expect("a bound socket");
    }
}

impl Caller {
    /// Has it closed its end?
    fn is_let_go(&mut self) -> bool {
        match self.control.read(&mut [0]) {
            Ok(octets) => octets == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// Where its own socket is.
    fn path(&self) -> PathBuf {
        let path = self.request[14..V3_LEN].split(|&octet| octet == 0).next().expect("a path");
        std::ffi::OsStr::from_bytes(path).into()
    }
}

#[test]
fn it_asks_as_vde_plug_does() {
    for (port, kind) in [(None, 0), (Some(0), 1), (Some(5), 0x500), (Some(0xff_ffff), 0xffff_ff00)] {
        let mut it = Stage::with(|place| VdePlace { port, ..place });
        let caller = it.call();
        let own = caller.path();
        let expected = [words(&[0xfeed_face, 3, kind]), address(&own).to_vec()].concat();
        assert_eq!(caller.request[..V3_LEN], expected);
        let description = format!("qhub user={} pid={}", geteuid(), std::process::id());
        assert_eq!(caller.request[V3_LEN..], *description.as_bytes());

        let canonical = fs::canonicalize(&it.folder).expect("it is there");
        assert_eq!(own.parent(), Some(canonical.as_path()));
        let name = own.file_name().expect("a name").to_string_lossy().into_owned();
        let (pid, number) =
            name.strip_prefix('.').and_then(|name| name.split_once('-')).expect("a client's name");
        assert_eq!(pid, format!("{:05}", std::process::id()));
        assert!(number.len() == 5 && number.parse::<u32>().is_ok());
        assert_eq!(fs::metadata(&own).expect("its file").mode() & 0o7777, 0o700);
    }
}

/// What this very process serves.
#[test]
fn it_does_not_join_itself() {
    let mut it = Stage::new();
    let ctl = it.folder.join("ctl");
    fs::remove_file(&ctl).expect("it is there");
    let own = UnixListener::bind(&ctl).expect("a free name");
    assert!(it.failure().to_string().contains("this hub itself serves that folder"));
    drop(own);
    assert_eq!(files(&it.folder), ["ctl"]);
}

#[test]
fn it_may_join_a_port_group() {
    let mut it = Stage::with(|place| VdePlace { port_group: Some("lan".to_owned()), ..place });
    it.serve("lan");
    assert_eq!(it.call().request[8..12], [0; 4]);
}

#[test]
fn the_answer_may_come_octet_by_octet() {
    let mut it = Stage::new();
    let mut caller = it.call();
    let (socket, path) = it.socket(&caller, "001.6");
    for (at, octet) in address(&path).into_iter().enumerate() {
        assert!(it.advance().expect("nothing is wrong").is_none(), "after {at} octets");
        caller.control.write_all(&[octet]).expect("room");
    }
    let link = it.advance().expect("nothing is wrong").expect("that is all");
    assert_eq!(files(&it.folder), ["001.6", "ctl"], "its own file is not needed any more");

    let mut net = Net::new(Mode::Switch);
    let mut wire = net.unix();
    net.attach(link);
    wire.send(&record(&broadcast(0)));
    net.settle();
    let mut got = [0; 100];
    assert_eq!(socket.recv(&mut got).expect("a frame"), 60);
    assert_eq!(got[..60], broadcast(0));
    socket.send(&broadcast(1)).expect("room");
    net.settle();
    assert_eq!(wire.read(), record(&broadcast(1)));
}

#[test]
fn whatever_comes_behind_the_answer_means_nothing() {
    let mut it = Stage::new();
    let mut caller = it.call();
    let (socket, path) = it.socket(&caller, "001.6");
    caller.control.write_all(&[&address(&path)[..], &[0; 3000]].concat()).expect("room");
    let mut net = Net::new(Mode::Switch);
    let mut wire = net.unix();
    net.attach(it.advance().expect("a good answer").expect("all of it"));
    socket.send(&broadcast(1)).expect("room");
    hear_all(&mut net);
    assert_eq!((wire.read(), net.ports()), (record(&broadcast(1)), 2));
    drop(caller);
    hear_all(&mut net);
    assert_eq!(net.ports(), 1, "the end is seen behind it");
}

#[test]
fn a_switch_that_closes_refuses() {
    for said in [0, 1, ANSWER_LEN - 1] {
        let mut it = Stage::new();
        let mut caller = it.call();
        caller.control.write_all(&address(&it.folder.join("001.6"))[..said]).expect("room");
        drop(caller);
        assert!(it.failure().to_string().contains("the switch refuses"));
        assert_eq!(files(&it.folder), ["ctl"]);
    }
}

#[test]
fn a_switch_that_is_silent_is_given_up_after_five_seconds() {
    for said in [0, ANSWER_LEN - 1] {
        let mut it = Stage::new();
        let start = it.now;
        let mut caller = it.call();
        assert_eq!(it.dialer.deadline(), Some(start + ATTEMPT));
        it.now = start + ATTEMPT - NS;
        caller.control.write_all(&address(&it.folder.join("001.6"))[..said]).expect("room");
        assert!(it.advance().expect("there is time").is_none());
        assert_eq!(files(&it.folder).len(), 2);
        it.now = start + ATTEMPT;
        assert!(it.failure().to_string().contains("the switch does not answer"));
        assert_eq!(files(&it.folder), ["ctl"]);
        assert!(crate::vde_client::Client::come(&it.folder).control.peer_addr().is_ok());
    }
}

#[test]
fn it_tries_again_later_and_later() {
    let mut it = Stage::new();
    let mut rests = Vec::new();
    for _ in 0..8 {
        drop(it.call());
        it.failure();
        let next = it.dialer.deadline().expect("it tries again");
        rests.push((next - it.now).as_millis());
        it.now = next - NS;
        assert!(it.advance().expect("it rests").is_none());
        assert!(it.accept().is_none(), "not before");
        it.now = next;
    }
    assert_eq!(rests, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
}

#[test]
fn without_a_switch_it_waits_for_one() {
    let mut it = Stage::new();
    it.ctl = None;
    assert_eq!(it.failure().kind(), ErrorKind::ConnectionRefused, "a dead one");
    let again = |it: &mut Stage| it.now = it.dialer.deadline().expect("it tries again");
    again(&mut it);
    fs::remove_file(it.folder.join("ctl")).expect("it is there");
    assert_eq!(it.failure().kind(), ErrorKind::NotFound);
    again(&mut it);
    fs::write(it.folder.join("ctl"), "letter").expect("a file");
    assert_eq!(it.failure().kind(), ErrorKind::ConnectionRefused);
    again(&mut it);
    fs::remove_file(it.folder.join("ctl")).expect("it is there");
    fs::remove_dir(&it.folder).expect("it is empty");
    assert_eq!(it.failure().kind(), ErrorKind::NotFound);
    again(&mut it);
    fs::create_dir(&it.folder).expect("a new folder");
    it.serve("ctl");
    it.join();
}

#[test]
fn it_joins_again_when_the_switch_is_back() {
    let mut it = Stage::new();
    let mut net = Net::new(Mode::Switch);
    let mut wire = net.unix();
    for life in 0..3 {
        let (link, caller, socket) = it.join();
        it.dialer.succeeded(it.now);
        assert_eq!(it.dialer.deadline(), None);
        net.attach(link);
        wire.send(&record(&frame(0, 1, life, 60)));
        net.settle();
        let mut got = [0; 100];
        assert_eq!(socket.recv(&mut got).expect("a frame"), 60, "life {life}");
        // It leaves a last frame behind.
        socket.send(&frame(1, 0, life, 60)).expect("room");
        drop((caller, socket));
        it.ctl = None;
        net.settle();
        assert_eq!((net.ports(), wire.read()), (1, record(&frame(1, 0, life, 60))));
        it.dialer.rest(it.now);
        it.now = it.dialer.deadline().expect("it tries again");
        it.failure();
        it.now = it.dialer.deadline().expect("it tries again");
        it.serve("ctl");
    }
}

#[test]
fn a_bad_answer_is_the_end_of_the_attempt() {
    let mut it = Stage::new();
    let path = it.folder.join("001.6");
    let good = address(&path);
    let with = |at: usize, octets: &[u8]| [&good[..at], octets, &good[at + octets.len()..]].concat();
    let letter = it.folder.join("letter");
    fs::write(&letter, "letter").expect("a file");
    let stream = it.folder.join("stream");
    let _stream = UnixListener::bind(&stream).expect("a socket");
    let link = it.folder.join("link");
    std::os::unix::fs::symlink(&path, &link).expect("a link");
    for (what, octets) in [
        ("family 0", with(0, &[0, 0])),
        ("family 2", with(0, &2_u16.to_ne_bytes())),
        ("no path", with(2, &[0; 108])),
        ("an abstract path", with(2, &[0])),
        ("a relative path", with(2, b".")),
        ("108 octets of path", with(2, &[b'/'; 108])),
        ("a path where nothing is", address(&it.folder.join("none")).to_vec()),
        ("a letter", address(&letter).to_vec()),
        ("a stream", address(&stream).to_vec()),
        ("a folder", address(&it.folder).to_vec()),
        ("a link", address(&link).to_vec()),
        ("no answer at all", vec![0; ANSWER_LEN]),
    ] {
        let mut caller = it.call();
        let _socket = it.socket(&caller, "001.6");
        caller.control.write_all(&octets).expect("room");
        it.failure();
        assert!(caller.is_let_go(), "{what}");
        it.now = it.dialer.deadline().expect("it tries again");
    }
    assert_eq!(files(&it.folder), ["001.6", "ctl", "letter", "link", "stream"]);
    it.join();
}

/// The switch tells where its socket is: that may be another's.
#[test]
fn a_switch_can_not_make_it_send_to_somebody_else() {
    if !is_root() {
        return;
    }
    let mut it = Stage::new();
    let other = it.parent.path().join("other");
    let _other = UnixDatagram::bind(&other).expect("a socket");
    chown(&other, Some(Uid::from_raw(4321)), None).expect("root may");
    let mut caller = it.call();
    caller.control.write_all(&address(&other)).expect("room");
    assert!(it.failure().to_string().contains("belongs to another user"));
}

/// A path that has room for the switch's sockets but not for a client's stands for a folder that refuses.
#[test]
fn where_the_folder_refuses_its_socket_is_elsewhere() {
    let parent = parent();
    let long = 100 - parent.path().as_os_str().len() - 1;
    drop(parent);
    let mut it = Stage::at(&"f".repeat(long), |place| place);
    let (link, caller, _socket) = it.join();
    let own = caller.path();
    let places = ["/var/run", "/run", "/var/tmp", "/tmp"].map(Path::new);
    assert!(own.parent().is_some_and(|folder| places.contains(&folder)), "{}", own.display());
    let name = own.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(name.starts_with(&format!("vde.{:05}-", std::process::id())), "{name}");
    assert!(!own.exists(), "it is removed once it is not needed");
    let mut net = Net::new(Mode::Switch);
    net.attach(link);
    net.settle();
    assert_eq!(net.ports(), 1);
}

/// Another user's switch has to be able to send to it.
#[test]
fn its_socket_admits_the_switch() {
    if !is_root() {
        return;
    }
    for (owner, mode, group) in [(0, 0o700, 0), (4321, 0o770, 8765)] {
        let mut it = Stage::new();
        let ctl = it.folder.join("ctl");
        chown(&ctl, Some(Uid::from_raw(owner)), Some(Gid::from_raw(8765))).expect("root may");
        fs::set_permissions(&ctl, Permissions::from_mode(0o660)).expect("root may");
        let caller = it.call();
        let own = fs::metadata(caller.path()).expect("its file");
        assert_eq!((own.mode() & 0o7777, own.uid(), own.gid()), (mode, 0, group));
    }
}

/// What is sent to a switch that does not read is not what others wait for.
#[test]
fn a_switch_that_does_not_read_costs_what_a_client_costs() {
    let mut it = Stage::new();
    let (link, _caller, socket) = it.join();
    let mut net = Net::new(Mode::Switch);
    let options = PortOptions { name: Some("sw".to_owned()), ..PortOptions::default() };
    net.hub.attach("sw", link, qhub::link::Peer::Unknown, options, net.now).expect("room");
    let (mut one, mut two) = (net.unix(), net.unix());
    for (station, wire) in [(1, &mut one), (2, &mut two)] {
        wire.send(&record(&broadcast(station)));
    }
    socket.send(&broadcast(0)).expect("room");
    net.settle();
    one.read();
    two.read();
    let sent: Vec<_> = (0..3000).map(|number| frame(1, 0, number, 1514)).collect();
    net.fill(&mut one, &records(&sent));
    for round in 0..20 {
        two.send(&record(&frame(2, 1, round, 60)));
        net.settle();
        assert_eq!(one.read(), record(&frame(2, 1, round, 60)));
        net.now += MS;
    }
    // It is read at once itself.
    socket.send(&frame(0, 2, 1, 60)).expect("room");
    net.settle();
    assert_eq!(two.read(), record(&frame(0, 2, 1, 60)));
}
