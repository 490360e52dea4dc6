//! How it is called, and where it can't start.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use super::switch::{Switch, program, refusal};
use crate::common::hub::{folder, utf8};
use crate::common::net::{Namespace, have_namespaces};
use crate::common::wait::{LIMIT, wait_for};

#[test]
fn it_has_two_names() {
    let folder = folder();
    let by_name = Command::new(program(folder.path())).arg("-help").output().expect("it runs");
    let by_verb =
        Command::new(env!("CARGO_BIN_EXE_qhub")).args(["vde_switch", "-help"]).output().expect("it runs");
    assert!(by_name.status.success());
    assert_eq!(by_name.stdout, by_verb.stdout);
    let version = Command::new(program(folder.path())).arg("-v").output().expect("it runs");
    let version = String::from_utf8(version.stdout).expect("UTF-8");
    assert!(version.contains("qhub") && version.contains("VDE 2.3.2"), "{version}");
}

#[test]
fn single_dashes_will_do() {
    let folder = folder();
    let sock = folder.path().join("x");
    let mgmt = folder.path().join("m");
    let switch = Switch::start_in(
        folder,
        &[
            "-sock",
            utf8(&sock),
            "-s",
            utf8(&sock.with_file_name("c")),
            "-hub",
            "-mod",
            "600",
            "-mgmt",
            utf8(&mgmt),
            "-numports",
            "5",
        ],
        Stdio::null(),
    );
    assert!(!sock.exists(), "the last one counts");
    assert!(switch.console().ask("port/showinfo").contains("Numports=5\nHUB=true\n"));
    switch.stop();
}

#[test]
fn wrong_words_are_refused_with_advice() {
    let folder = folder();
    for (args, status, words) in [
        (&["-F"][..], 2, "there is no spanning tree"),
        (&["-bogus"], 2, "unexpected argument"),
        (&["word"], 2, "unexpected argument"),
        (&["-n", "0"], 2, "'--numports <N>'"),
        (&["-s", "none/c"], 1, "create it first"),
        (&["-s", "c", "-g", "no-such-group"], 1, "there is no group 'no-such-group'"),
        (&["-s", "c", "-M", "m", "-mgmtgroup", "no-such-group"], 1, "there is no group 'no-such-group'"),
        (&["-s", "c", "-M", "none/m"], 1, "create it first"),
        (&["-s", "c", "-p", "none/pid"], 1, "choose another one"),
        (&["-s", "c", "-p", "/dev/full"], 1, "no regular file"),
    ] {
        let (code, error) = refusal(folder.path(), args);
        assert_eq!(code.code(), Some(status), "{args:?}: {error}");
        assert!(error.contains(words), "{args:?}: {error}");
        assert_eq!(fs::read_dir(folder.path()).expect("ours").count(), 1, "{args:?} left something behind");
    }
}

#[test]
fn sockets_of_others_are_left_alone() {
    let switch = Switch::start(&[]);
    let (sock, mgmt) = (switch.path("c"), switch.path("m"));
    let home = folder();
    let other = home.path().join("c");
    let (_, error) = refusal(home.path(), &["-s", utf8(&sock)]);
    assert!(error.contains("a program is listening on"), "{error}");
    let (_, error) = refusal(home.path(), &["-s", utf8(&other), "-M", utf8(&mgmt)]);
    assert!(error.contains("a program is listening on"), "{error}");
    let letter = home.path().join("letter");
    fs::write(&letter, "dear").expect("it is ours");
    let (_, error) = refusal(home.path(), &["-s", utf8(&other), "-M", utf8(&letter)]);
    assert!(error.contains("is no socket"), "{error}");
    assert_eq!(fs::read(&letter).expect("it is there"), b"dear");
    assert!(switch.console().ask("port/showinfo").ends_with("1000 Success\n"));
    switch.stop();
}

#[test]
fn a_dead_socket_is_replaced() {
    let folder = folder();
    let mgmt = folder.path().join("m");
    drop(UnixListener::bind(&mgmt).expect("a socket"));
    let switch =
        Switch::start_in(folder, &["-M", utf8(&mgmt), "-mgmtmode", "0660", "-m", "0640"], Stdio::null());
    assert!(switch.console().ask("port/showinfo").ends_with("1000 Success\n"));
    let mode = |name: &str| fs::metadata(switch.path(name)).expect("it is there").mode() & 0o7777;
    wait_for("the mode", LIMIT, || (mode("m") == 0o660).then_some(()));
    assert_eq!((mode("c"), mode("c/ctl")), (0o2750, 0o640));
    switch.stop();
}

#[test]
fn sockets_are_given_to_groups() {
    // Only root may.
    if !have_namespaces() {
        return;
    }
    let folder = folder();
    let mgmt = folder.path().join("m");
    let args = ["-M", utf8(&mgmt), "-mgmtgroup", "54321", "-mgmtmode", "660", "-g", "54322", "-m", "660"];
    let switch = Switch::start_in(folder, &args, Stdio::null());
    let gid = |name: &str| fs::metadata(switch.path(name)).expect("it is there").gid();
    // It serves a moment before the last one.
    wait_for("the groups", LIMIT, || {
        ((gid("m"), gid("c"), gid("c/ctl")) == (54321, 54322, 54322)).then_some(())
    });
    switch.stop();
}

#[test]
fn a_folder_that_was_there_stays() {
    let folder = folder();
    let sock = folder.path().join("c");
    fs::create_dir(&sock)
        .and_then(|()| fs::set_permissions(&sock, Permissions::from_mode(0o711)))
        .expect("ours");
    let mut process = super::switch::launch(folder.path(), &["-s", utf8(&sock)], Stdio::piped());
    wait_for("the switch to serve", LIMIT, || sock.join("ctl").exists().then_some(()));
    process.close_stdin();
    assert!(process.exit(LIMIT).success());
    assert_eq!(fs::metadata(&sock).expect("it is there").mode() & 0o7777, 0o711);
    assert_eq!(fs::read_dir(&sock).expect("ours").count(), 0);
}

#[test]
fn taps_are_ports() {
    if !have_namespaces() {
        return;
    }
    let host = Namespace::new();
    host.ip("tuntap add one mode tap");
    host.ip("tuntap add two mode tap");
    host.ip("link set two up");
    let folder = folder();
    let mgmt = folder.path().join("m");
    let switch = host.within(|| {
        Switch::start_in(folder, &["-M", utf8(&mgmt), "-tap", "one", "-t", "two", "-n", "4"], Stdio::null())
    });
    let text = switch.console().ask("port/print");
    for (number, name) in [(1, "one"), (2, "two")] {
        let port =
            text.split("Port ").find(|part| part.starts_with(&format!("000{number} "))).expect("a port");
        assert!(
            port.contains("  -- endpoint ID ") && port.contains(&format!(" module tuntap      : {name}\n")),
            "{text}"
        );
    }
    let flags =
        |name: &str| String::from_utf8(host.output("ip", &["-o", "link", "show", name])).expect("UTF-8");
    assert!(!flags("one").contains(",UP") && flags("two").contains(",UP"), "they are left as they are");
    let client = switch.plug(0, "client");
    assert!(switch.console().ask("port/print 3").contains(": client\n"));
    drop(client);
    switch.stop();
}
