//! What becomes of the files of unix datagram sockets, ours and those of peers.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::peer::Peer;
use crate::common::daemon::{Bystanders, Daemon};
use crate::common::hub::{folder, utf8};
use crate::common::net::free_udp_port;
use crate::common::wire::{BROADCAST, Station, frame, mac, settle};

/// Removes whatever is at `path`.
fn clear(path: &Path) {
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
        fs::remove_dir(path).expect("it is empty");
    } else {
        let _ = fs::remove_file(path);
    }
}

#[test]
fn whatever_takes_the_place_of_a_peer_costs_only_its_own_frames() {
    for is_only in [false, true] {
        let runtime = folder();
        let [hub, path] = ["hub", "peer"].map(|name| runtime.path().join(name));
        let remote = if is_only { format!(",remote={}", utf8(&path)) } else { String::new() };
        let daemon = Daemon::start(runtime.path(), &[&format!("dgram:{}{remote}", utf8(&hub))]);
        let mut bystanders = Bystanders::join(&daemon);
        let mut seed = 0;
        for takes_its_place in [
            |_: &Path| {},
            |path: &Path| fs::write(path, "letter").expect("a file"),
            |path: &Path| fs::create_dir(path).expect("a folder"),
            |path: &Path| drop(UnixListener::bind(path).expect("a socket")),
            |path: &Path| std::mem::forget(UnixListener::bind(path).expect("a socket")),
            |path: &Path| drop(UnixDatagram::bind(path).expect("a socket")),
            |path: &Path| symlink(path, path).expect("a link"),
        ] {
            let mut peer = Peer::unix(&path, &hub);
            settle(&mut peer, &mut bystanders.one);
            bystanders.drain();
            peer.die();
            takes_its_place(&path);
            let before = daemon.table().port("dgram1").dropped_for("down");
            for _ in 0..10 {
                seed += 1;
                let sent = frame(BROADCAST, mac(0xe1), 60, seed);
                bystanders.one.send(&sent);
                assert_eq!(bystanders.other.receive(), sent);
            }
            let row = daemon.table().port("dgram1").clone();
            assert_eq!(row.dropped_for("down"), before + 10, "{row:?}");
            assert_eq!(row.dropped, row.dropped_for("down"), "{row:?}");
            clear(&path);
        }
        assert!(daemon.idles(), "it spins");
        assert_eq!((daemon.count("port down"), daemon.count("port up")), (0, 3), "{}", daemon.log());
        let warned = daemon.count("can't send");
        assert!((1..=2).contains(&warned), "{}", daemon.log());
        // A peer that is there again need not say so.
        let mut peer = Peer::unix(&path, &hub);
        let sent = frame(BROADCAST, mac(0xe1), 60, 99);
        bystanders.one.send(&sent);
        peer.receive_if("a frame for its next life", |frame| frame == sent);
        daemon.line("can be sent to again");
        bystanders.drain();
        bystanders.talk();
        daemon.stop();
    }
}

#[test]
fn a_peer_that_leads_back_to_the_hub_makes_no_storm() {
    let runtime = folder();
    let [one, other, path] = ["one", "other", "peer"].map(|name| runtime.path().join(name));
    let specs = [format!("dgram:{},remote={}", utf8(&one), utf8(&path)), format!("dgram:{}", utf8(&other))];
    let daemon = Daemon::start(runtime.path(), &[&specs[0], &specs[1]]);
    let mut bystanders = Bystanders::join(&daemon);
    let mut peer = Peer::unix(&path, &one);
    settle(&mut peer, &mut bystanders.one);
    bystanders.drain();
    // What the hub sends to it, it sends to itself.
    peer.die();
    symlink(&other, &path).expect("a link");
    let sent = frame(BROADCAST, mac(0xe1), 60, 1);
    bystanders.one.send(&sent);
    assert_eq!(bystanders.other.receive(), sent);
    assert!(daemon.idles(), "a frame goes round for ever");
    bystanders.drain();
    bystanders.talk();
    daemon.stop();
}

#[test]
fn a_long_way_to_a_dead_peer_is_not_gone_for_every_frame() {
    let runtime = folder();
    let [hub, maze] = ["hub", "maze"].map(|name| runtime.path().join(name));
    let daemon = Daemon::start(runtime.path(), &[&format!("dgram:{}", utf8(&hub))]);
    let mut bystanders = Bystanders::join(&daemon);
    fs::create_dir(&maze).expect("a folder");
    for step in 0..38 {
        let next = format!("{}{}", "./".repeat(2000), step + 1);
        symlink(next, maze.join(step.to_string())).expect("a link");
    }
    for number in 0..64 {
        let path = runtime.path().join(number.to_string());
        let mut peer = Peer::unix(&path, &hub);
        settle(&mut peer, &mut bystanders.one);
        peer.die();
        symlink(maze.join("0"), &path).expect("a link");
    }
    bystanders.drain();
    let before = daemon.cpu();
    for seed in 0..40 {
        let sent = frame(BROADCAST, mac(0xe1), 60, seed);
        bystanders.one.send(&sent);
        assert_eq!(bystanders.other.receive(), sent);
        bystanders.talk();
    }
    let used = daemon.cpu() - before;
    assert!(used < Duration::from_millis(500), "40 frames took {used:?}");
    daemon.stop();
}

#[test]
fn a_socket_file_that_is_gone_or_replaced_is_not_missed() {
    let runtime = folder();
    let [hub, path] = ["hub", "peer"].map(|name| runtime.path().join(name));
    for replace in [
        |_: &Path| {},
        |path: &Path| fs::write(path, "letter").expect("a file"),
        |path: &Path| {
            std::mem::forget(UnixDatagram::bind(path).expect("a socket"));
        },
    ] {
        clear(&hub);
        let daemon = Daemon::start(runtime.path(), &[&format!("dgram:{}", utf8(&hub))]);
        let mut bystanders = Bystanders::join(&daemon);
        let mut peer = Peer::unix(&path, &hub);
        settle(&mut peer, &mut bystanders.one);
        fs::remove_file(&hub).expect("the hub's socket file");
        replace(&hub);
        let sent = frame(BROADCAST, mac(0xe1), 60, 1);
        bystanders.one.send(&sent);
        peer.receive_if("a broadcast", |frame| frame == sent);
        bystanders.talk();
        assert!(daemon.idles(), "it spins");
        peer.die();
        let found = fs::symlink_metadata(&hub).ok().map(|found| found.file_type());
        daemon.stop();
        let left = fs::symlink_metadata(&hub).ok().map(|found| found.file_type());
        assert_eq!(left, found, "the end removed what is another's");
    }
}

#[test]
fn the_file_has_the_mode_that_was_asked_for_and_is_removed() {
    for (asked, mode) in [("", 0o600), (",mode=0660", 0o660)] {
        for remote in ["", ",remote=/nowhere/to/be/found"] {
            let runtime = folder();
            let hub = runtime.path().join("hub");
            // One whose owner has died.
            drop(UnixDatagram::bind(&hub).expect("a socket"));
            let daemon = Daemon::start(runtime.path(), &[&format!("dgram:{}{asked}{remote}", utf8(&hub))]);
            let mut bystanders = Bystanders::join(&daemon);
            let found = fs::symlink_metadata(&hub).expect("the hub's socket file");
            assert!(found.file_type().is_socket());
            assert_eq!(found.permissions().mode() & 0o7777, mode);
            bystanders.talk();
            daemon.stop();
            assert_eq!(left_in(runtime.path()), ["qhub"]);
        }
    }
}

fn left_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let names = entries.map(|entry| entry.expect("its entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// What a hub says that does not start.
fn complaint(runtime: &Path, spec: &str, hint: &str) -> String {
    let args = ["--name", "second", "--no-tcp", spec];
    let mut daemon = Daemon::launch(runtime, r#"exec "$@""#, &args, Stdio::null());
    assert!(!daemon.exit().success(), "it started with {spec}");
    daemon.line(hint)
}

#[test]
fn a_place_that_is_taken_is_left_alone() {
    let runtime = folder();
    let (hub, port) = (runtime.path().join("hub"), free_udp_port());
    let specs = [format!("udp:{port}"), format!("dgram:{}", utf8(&hub))];
    let daemon = Daemon::start(runtime.path(), &[&specs[0], &specs[1]]);
    let mut bystanders = Bystanders::join(&daemon);
    let remotes = [format!(",remote=127.0.0.1:{}", free_udp_port()), ",remote=/nowhere".to_owned()];
    let hints = ["is taken", "a program is listening"];
    for ((spec, remote), hint) in specs.iter().zip(&remotes).zip(hints) {
        for spec in [spec.clone(), format!("{spec}{remote}")] {
            complaint(runtime.path(), &spec, hint);
        }
    }
    let [letter, socket] = ["letter", "socket"].map(|name| runtime.path().join(name));
    fs::write(&letter, "letter").expect("a file");
    let _stream = UnixListener::bind(&socket).expect("a socket");
    for (path, hint) in [(&letter, "is no socket"), (&socket, "a program is listening")] {
        complaint(runtime.path(), &format!("dgram:{}", utf8(path)), hint);
    }
    assert_eq!(fs::read(&letter).expect("it is there"), b"letter");
    settle(&mut Peer::unix(&runtime.path().join("peer"), &hub), &mut bystanders.one);
    settle(&mut Peer::udp(port), &mut bystanders.one);
    bystanders.talk();
    daemon.stop();
}

#[test]
fn a_path_may_have_107_octets() {
    let runtime = folder();
    let path = |octets: usize| {
        let name = "n".repeat(octets - utf8(runtime.path()).len() - 1);
        runtime.path().join(name)
    };
    complaint(runtime.path(), &format!("dgram:{}", utf8(&path(108))), "107 octets");
    let hub = path(107);
    let daemon = Daemon::start(runtime.path(), &[&format!("dgram:{}", utf8(&hub))]);
    let mut bystanders = Bystanders::join(&daemon);
    settle(&mut Peer::unix(&runtime.path().join("peer"), &hub), &mut bystanders.one);
    bystanders.talk();
    daemon.stop();
    assert!(!hub.exists());
}
