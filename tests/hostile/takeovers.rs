//! Clients that have connected their socket to the hub's: each is given that very socket, and another takes its place
//! under the same path. Whatever they do, the path stays good for others.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::peer::Peer;
use crate::common::daemon::{Bystanders, Daemon};
use crate::common::hub::{folder, utf8};
use crate::common::wait::{Deadline, LIMIT, wait_for};
use crate::common::wire::{BROADCAST, Station, frame, mac, settle};

/// A hub that serves `dgram:PATH`, the path, and its bystanders.
fn start(runtime: &TempDir) -> (Daemon, PathBuf, Bystanders) {
    start_at(runtime, runtime.path().join("hub"))
}

fn start_at(runtime: &TempDir, hub: PathBuf) -> (Daemon, PathBuf, Bystanders) {
    let daemon = Daemon::start(runtime.path(), &[&format!("dgram:{},mode=0640", utf8(&hub))]);
    let bystanders = Bystanders::join(&daemon);
    (daemon, hub, bystanders)
}

fn client(runtime: &TempDir, name: &str, hub: &Path) -> Peer {
    Peer::unix(&runtime.path().join(name), hub).connect(hub)
}

/// Sees that the path serves a newcomer of either sort, and has the mode that it was given.
fn still_serves(runtime: &TempDir, hub: &Path, bystanders: &mut Bystanders) {
    let mut plain = Peer::unix(&runtime.path().join("plain"), hub);
    settle(&mut plain, &mut bystanders.one);
    settle(&mut client(runtime, "connected", hub), &mut bystanders.one);
    let found = fs::symlink_metadata(hub).expect("the hub's socket file");
    assert_eq!(found.permissions().mode() & 0o7777, 0o640);
    bystanders.drain();
    bystanders.talk();
}

/// Where the successor of the hub's socket is made first: as long a name, with another end.
fn aside(hub: &Path) -> PathBuf {
    let name = utf8(hub);
    PathBuf::from(format!("{}a", &name[..name.len() - 1]))
}

#[test]
fn a_client_may_die_and_come_again_in_any_way() {
    let runtime = folder();
    let (daemon, hub, mut bystanders) = start(&runtime);
    let path = runtime.path().join("peer");
    let files = daemon.files();
    for is_connected in [true, true, false, false, true] {
        let mut peer = Peer::unix(&path, &hub);
        if is_connected {
            peer = peer.connect(&hub);
            // What vfkit and libkrun say first.
            peer.send(b"VFKT");
        }
        ask(&mut peer, &mut bystanders);
        bystanders.drain();
        bystanders.talk();
        peer.die();
    }
    // One that connects only when it is known already, twice.
    let mut peer = Peer::unix(&path, &hub);
    ask(&mut peer, &mut bystanders);
    for _ in 0..2 {
        peer = peer.connect(&hub);
        ask(&mut peer, &mut bystanders);
    }
    assert!(daemon.files() <= files + 2, "{} files, {files} before", daemon.files());
    assert_eq!(daemon.table().ports.len(), 3);
    assert!(daemon.idles(), "it spins");
    assert_eq!(daemon.count("] refused "), 0, "{}", daemon.log());
    still_serves(&runtime, &hub, &mut bystanders);
    daemon.stop();
    assert!(!hub.exists() && !aside(&hub).exists());
}

/// Asks until there is an answer: that to the first frame may still go to its former life.
fn ask(peer: &mut Peer, bystanders: &mut Bystanders) {
    wait_for("an answer", LIMIT, || {
        peer.send(&frame(BROADCAST, mac(3), 60, 1));
        bystanders.talk();
        bystanders.one.send(&frame(mac(3), mac(0xe1), 60, 2));
        peer.try_receive(Duration::from_millis(50))
    });
}

#[test]
fn a_client_that_comes_again_is_answered_at_once() {
    let runtime = folder();
    let (daemon, hub, mut bystanders) = start(&runtime);
    for life in 0..3 {
        let mut peer = client(&runtime, "peer", &hub);
        peer.send(b"VFKT");
        let sent = frame(BROADCAST, mac(3), 60, life);
        peer.send(&sent);
        bystanders.one.receive_if("a request", |frame| frame == sent);
        let answer = frame(mac(3), mac(0xe1), 60, life);
        bystanders.one.send(&answer);
        let got = peer.try_receive(Duration::from_secs(1));
        assert_eq!(got, Some(answer), "its life number {life}: {}", daemon.log());
        peer.die();
    }
    daemon.stop();
}

#[test]
fn two_hundred_clients_come_and_go_by_one_socket_file() {
    let runtime = folder();
    let (daemon, hub, mut bystanders) = start(&runtime);
    let (files, memory) = (daemon.files(), daemon.memory());
    for round in 0..20 {
        let mut peers: Vec<Peer> = Vec::new();
        for number in 0..10 {
            let mut peer = client(&runtime, &format!("{round}.{number}"), &hub);
            settle(&mut peer, &mut bystanders.one);
            peers.push(peer);
        }
        peers.into_iter().for_each(Peer::die);
        // Only who sends to them sees that they are gone.
        let sent = frame(BROADCAST, mac(0xe1), 60, round);
        bystanders.one.send(&sent);
        bystanders.other.receive_if("a broadcast", |frame| frame == sent);
        bystanders.talk();
    }
    daemon.files_return_to(files);
    let grown = daemon.memory().saturating_sub(memory);
    assert!(grown < 4 << 10, "{grown} KiB more than before");
    assert_eq!(daemon.count("] refused "), 0, "{}", daemon.log());
    still_serves(&runtime, &hub, &mut bystanders);
    daemon.stop();
    assert!(!hub.exists() && !aside(&hub).exists());
}

#[test]
fn a_client_that_comes_costs_nobody_else_a_frame() {
    let runtime = folder();
    let (daemon, hub, mut bystanders) = start(&runtime);
    let mut plain = Peer::unix(&runtime.path().join("peer"), &hub);
    plain.socket().set_send_buffer_size(4 << 20).expect("a socket option");
    settle(&mut plain, &mut bystanders.one);
    bystanders.drain();
    // More than is received at once waits behind the first that the client says.
    daemon.signal(Signal::SIGSTOP);
    let mut client = client(&runtime, "client", &hub);
    client.send(b"VFKT");
    let sent: Vec<Vec<u8>> = (0..8).map(|seed| frame(mac(0xe1), mac(3), 69_000, seed)).collect();
    sent.iter().for_each(|frame| plain.send(frame));
    daemon.signal(Signal::SIGCONT);
    for (number, expected) in sent.iter().enumerate() {
        let got = bystanders.one.try_receive(Duration::from_secs(2));
        assert!(got.as_ref() == Some(expected), "frame {number} is lost: {:?}", daemon.table().ports);
    }
    daemon.stop();
}

/// A client that has spoken, which the hub has seen to.
fn client_that_speaks(runtime: &TempDir, hub: &Path, bystanders: &mut Bystanders) -> Peer {
    let mut peer = client(runtime, "client", hub);
    peer.send(&frame(BROADCAST, mac(3), 60, 1));
    bystanders.talk();
    bystanders.talk();
    peer
}

#[test]
fn a_path_of_107_octets_has_room_for_a_client() {
    let runtime = folder();
    let name = "n".repeat(107 - utf8(runtime.path()).len() - 1);
    let (daemon, hub, mut bystanders) = start_at(&runtime, runtime.path().join(name));
    let _peer = client_that_speaks(&runtime, &hub, &mut bystanders);
    still_serves(&runtime, &hub, &mut bystanders);
    daemon.stop();
}

#[test]
fn what_lies_beside_the_socket_file_is_in_nobodys_way() {
    let runtime = folder();
    let (daemon, hub, mut bystanders) = start(&runtime);
    fs::write(aside(&hub), "letter").expect("a file");
    let _peer = client_that_speaks(&runtime, &hub, &mut bystanders);
    still_serves(&runtime, &hub, &mut bystanders);
    daemon.stop();
    assert_eq!(fs::read(aside(&hub)).expect("it is there"), b"letter");
}

#[test]
fn what_took_the_place_of_the_socket_file_is_not_replaced() {
    let runtime = folder();
    let (daemon, hub, mut bystanders) = start(&runtime);
    let mut peer = client(&runtime, "client", &hub);
    fs::remove_file(&hub).expect("the hub's socket file");
    fs::write(&hub, "letter").expect("a file");
    peer.send(&frame(BROADCAST, mac(3), 60, 1));
    bystanders.talk();
    bystanders.talk();
    assert_eq!(fs::read(&hub).ok(), Some(b"letter".to_vec()), "{}", daemon.log());
    daemon.stop();
    assert_eq!(fs::read(&hub).ok(), Some(b"letter".to_vec()));
}

#[test]
fn without_a_descriptor_for_the_next_socket_the_path_stays_good() {
    for spare in 0..4 {
        let runtime = folder();
        let (daemon, hub, mut bystanders) = start(&runtime);
        let limit = |files: usize| {
            let arguments = ["--pid", &daemon.pid().to_string(), &format!("--nofile={files}:20000")];
            let status = Command::new("prlimit").args(arguments).status();
            assert!(status.expect("util-linux has prlimit").success());
        };
        limit(daemon.next_file() + spare);
        let peer = client(&runtime, "client", &hub);
        peer.try_send(&frame(BROADCAST, mac(3), 60, 1)).expect("the hub's socket takes it");
        bystanders.talk();
        bystanders.talk();
        limit(1000);
        still_serves(&runtime, &hub, &mut bystanders);
        daemon.stop();
    }
}

#[test]
fn a_lock_on_the_folder_stops_nobody() {
    let runtime = folder();
    let (daemon, hub, mut bystanders) = start(&runtime);
    let lock = File::open(runtime.path()).expect("a folder of ours");
    lock.lock().expect("nobody else has it");
    let mut peer = client(&runtime, "client", &hub);
    peer.send(&frame(BROADCAST, mac(3), 60, 1));
    let asked = Deadline::after(Duration::from_millis(700));
    bystanders.talk();
    assert!(asked.left().is_some(), "the hub waited for a lock");
    daemon.stop();
}
