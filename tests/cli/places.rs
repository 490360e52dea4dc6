//! Socket files: dead, live, somebody else's, and those that can't be.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use crate::common::daemon::{Bystanders, Daemon};
use crate::common::hub::{folder, utf8};
use crate::common::refusal::refusal;
use crate::common::wire::{Wire, settle};

fn spec(path: &Path) -> String {
    format!("unix:{}", utf8(path))
}

#[test]
fn a_dead_socket_file_is_replaced_and_a_live_one_is_not() {
    let runtime = folder();
    let path = runtime.path().join("a,b.sock");
    drop(UnixListener::bind(&path).expect("a socket in a new folder"));
    let escaped = format!("unix:{},mode=0640", utf8(&path).replace(',', ",,"));
    let daemon = Daemon::start(runtime.path(), &[&escaped]);
    assert_eq!(fs::metadata(&path).expect("it was made").permissions().mode() & 0o7777, 0o640);
    let (mut one, mut other) = (Wire::unix(&path), Wire::unix(&path));
    settle(&mut one, &mut other);

    let line = refusal(folder().path(), &[&escaped]);
    assert!(line.contains("a program is listening on"), "{line}");
    assert!(line.contains("stop it or choose another path"), "{line}");
    settle(&mut one, &mut other);
    settle(&mut Wire::unix(&path), &mut one);
    daemon.stop();
    assert!(!path.exists(), "it left its socket file behind");
}

#[test]
fn after_a_crash_it_starts_again() {
    let runtime = folder();
    let mut daemon = Daemon::start(runtime.path(), &[]);
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    daemon.exit();
    assert!(daemon.socket().exists(), "a crash leaves it");
    let daemon = Daemon::start(runtime.path(), &[]);
    Bystanders::join(&daemon).talk();
    daemon.stop();
}

#[test]
fn what_is_not_ours_is_never_touched() {
    let runtime = folder();
    let path = runtime.path().join("s");
    fs::write(&path, "letter").expect("a new folder");
    let line = refusal(runtime.path(), &[&spec(&path)]);
    assert!(line.contains("exists and is no socket; remove it or choose another path"), "{line}");
    assert_eq!(fs::read(&path).expect("it is still there"), b"letter");
    fs::remove_file(&path).expect("it is ours");

    let live = UnixListener::bind(&path).expect("a socket");
    let line = refusal(runtime.path(), &[&spec(&path)]);
    assert!(line.contains("a program is listening on"), "{line}");
    UnixStream::connect(&path).expect("it lives");
    drop(live);
    fs::remove_file(&path).expect("it is ours");

    let _datagrams = UnixDatagram::bind(&path).expect("a socket");
    let line = refusal(runtime.path(), &[&spec(&path)]);
    assert!(line.contains("choose another path"), "{line}");
    UnixDatagram::unbound().and_then(|socket| socket.connect(&path)).expect("it lives");
    fs::remove_file(&path).expect("it is ours");

    symlink(runtime.path().join("elsewhere"), &path).expect("a new name");
    let line = refusal(runtime.path(), &[&spec(&path)]);
    assert!(line.contains("is no socket"), "{line}");
    assert!(fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink()));
    assert!(!runtime.path().join("qhub/default/qhub.sock").exists(), "its own socket file stayed");
}

#[test]
fn the_file_of_a_successor_is_left_alone() {
    let runtime = folder();
    let path = runtime.path().join("s");
    let daemon = Daemon::start(runtime.path(), &[&spec(&path)]);
    fs::remove_file(&path).expect("it is ours");
    let _successor = UnixListener::bind(&path).expect("a free name");
    daemon.stop();
    UnixStream::connect(&path).expect("the successor lives");
}

#[test]
fn a_path_may_have_107_octets_and_its_folder_must_be_there() {
    let runtime = folder();
    let length = |path: &Path| utf8(path).len();
    let longest = runtime.path().join("n".repeat(107 - length(runtime.path()) - 1));
    assert_eq!(length(&longest), 107);
    let daemon = Daemon::start(runtime.path(), &[&spec(&longest)]);
    settle(&mut Wire::unix(&longest), &mut daemon.connect());
    daemon.stop();

    let line = refusal(runtime.path(), &[&spec(&runtime.path().join("none/s"))]);
    assert!(line.contains("/none does not exist; create it first"), "{line}");
    let line = refusal(runtime.path(), &["unix:/dev/null/s"]);
    assert!(line.contains("/dev/null"), "{line}");
}
