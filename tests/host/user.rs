//! `--user` and sudo: what needs root is opened, and then root is given up for good.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::chown;
use tempfile::TempDir;

use crate::common::daemon::Daemon;
use crate::common::hub::{folder, utf8};
use crate::common::net::Namespace;
use crate::common::refusal::refusal_by;
use crate::common::sniffer::Sniffer;
use crate::common::stack::{AS_NOBODY, NOBODY, have_stacks, naming, privately};
use crate::common::wire::{BROADCAST, Station, Wire, frame, mac};

/// A folder of nobody's.
fn their_folder() -> TempDir {
    let folder = folder();
    chown(folder.path(), Some(NOBODY.into()), Some(NOBODY.into())).expect("root may");
    folder
}

/// What `/proc` says of each thread.
fn threads(hub: &Daemon) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", hub.pid())).expect("the hub lives");
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).expect("a thread");
    tasks.map(|task| status(task.expect("a thread"))).collect()
}

/// The words behind `name`.
fn words<'s>(status: &'s str, name: &str) -> Vec<&'s str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).split_whitespace().collect()
}

/// Sees that no thread has any right that nobody has not.
fn is_nobody(hub: &Daemon) {
    let threads = threads(hub);
    assert!(threads.len() > 1, "it logs in a thread");
    for status in threads {
        assert_eq!(words(&status, "Uid"), ["65534"; 4]);
        assert_eq!(words(&status, "Gid"), ["65534"; 4]);
        assert_eq!(words(&status, "Groups"), ["65534"]);
        for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            assert_eq!(words(&status, set), ["0000000000000000"], "{set}");
        }
        assert_eq!(words(&status, "NoNewPrivs"), ["1"]);
    }
}

#[test]
fn root_is_given_up_once_all_is_open() {
    if !have_stacks() {
        return;
    }
    // The one who calls may have more than root has.
    let with_more =
        r#"exec setpriv --groups 0,7,8 --inh-caps +net_admin,+net_raw --ambient-caps +net_admin,+net_raw"#;
    for (script, user) in [
        (format!(r#"{with_more} "$@""#), &["--user", "nobody"][..]),
        (format!(r#"{with_more} env SUDO_USER=nobody "$@""#), &[]),
        (r#"exec env SUDO_USER=root "$@""#.to_owned(), &["--user", "nobody"]),
    ] {
        let (home, runtime) = (Namespace::quiet(), their_folder());
        home.cable("v", &home, "w");
        home.cable("x", &home, "y");
        let path = runtime.path().join("ours");
        let unix = format!("unix:{}", utf8(&path));
        let ports = ["tap:lab,addr=10.9.0.1/24", "packet:v", "macvtap:x", "tcp:805", "udp:806", &unix];
        let hub = home.within(|| Daemon::start_by(runtime.path(), &script, &[user, &ports].concat()));
        let line = hub.line("root is given up");
        assert!(line.contains("INFO") && line.contains("user=nobody"), "{line}");
        is_nobody(&hub);
        for path in [hub.socket(), &path, &runtime.path().join("qhub")] {
            let found = fs::symlink_metadata(path).expect("it was made");
            assert_eq!((found.uid(), found.gid()), (NOBODY, NOBODY), "{}", path.display());
        }

        let mut wire = home.within(|| Wire::tcp("127.0.0.1:805".parse().expect("an address")));
        let (mut lab, mut cable) = (Sniffer::new(&home, "lab"), Sniffer::new(&home, "w"));
        let sent = frame(BROADCAST, mac(1), 60, 1);
        wire.send(&sent);
        for station in [&mut lab, &mut cable] {
            assert_eq!(station.receive_if("a frame", |frame| frame[6..12] == mac(1)), sent);
        }
        let answer = frame(mac(1), mac(2), 60, 2);
        lab.send(&answer);
        assert_eq!(wire.receive_if("a frame", |frame| frame[6..12] == mac(2)), answer);

        hub.stop();
        assert!(!path.exists());
        assert!(!home.has_link("lab"));
    }
}

#[test]
fn what_lies_in_a_namespace_is_opened_before() {
    if !have_stacks() {
        return;
    }
    let ([home, one], runtime) = ([(); 2].map(|()| Namespace::quiet()), their_folder());
    home.ip("link add br0 type bridge");
    home.ip("link set br0 up");
    home.ip("addr add 10.9.0.2/24 dev br0");
    let script = privately(&naming(&[("one", &one)]));
    let args = ["--user", "nobody", "tap:,bridge=br0", "tap:lab,netns=one,addr=10.9.0.1/24,persist=on"];
    let hub = home.within(|| Daemon::start_by(runtime.path(), &script, &args));
    is_nobody(&hub);
    one.pings("", "10.9.0.2");
    hub.stop();
    assert!(one.has_link("lab"), "it was to persist");
}

#[test]
fn root_stays_root_when_told_to() {
    if !have_stacks() {
        return;
    }
    for (script, user) in [
        (r#"exec env SUDO_USER=nobody "$@""#, &["--user", "root"][..]),
        (r#"exec env SUDO_USER= "$@""#, &[]),
        (r#"exec env SUDO_USER=root "$@""#, &[]),
    ] {
        let runtime = folder();
        let hub = Daemon::start_by(runtime.path(), script, user);
        assert!(threads(&hub).iter().all(|status| words(status, "Uid") == ["0"; 4]));
        assert_eq!(hub.count("given up"), 0);
        hub.stop();
    }
}

#[test]
fn ordinary_users_stay_who_they_are() {
    if !have_stacks() {
        return;
    }
    for (variables, user) in [
        ("SUDO_USER=root", &[][..]),
        ("SUDO_USER=no-such-user-here", &[]),
        ("SUDO_USER=root", &["--user", "nobody"]),
    ] {
        let runtime = their_folder();
        let script = format!(r#"{AS_NOBODY} env {variables} "$@""#);
        let hub = Daemon::start_by(runtime.path(), &script, user);
        assert!(threads(&hub).iter().all(|status| words(status, "Uid") == ["65534"; 4]));
        assert_eq!(hub.count("WARN") + hub.count("given up"), 0, "{}", hub.log());
        hub.stop();
    }
}

#[test]
fn users_that_nobody_can_become_are_told() {
    if !have_stacks() {
        return;
    }
    let home = Namespace::new();
    let refused =
        |script: &str, runtime: &Path, args: &[&str]| home.within(|| refusal_by(runtime, script, args));
    let (ours, theirs) = (folder(), their_folder());
    let unknown = "qhub: there is no user no-such-user-here; name one with --user (--user root stays root)";
    let plain = r#"exec "$@""#;
    assert_eq!(refused(plain, ours.path(), &["--user", "no-such-user-here", "tap:lab"]), unknown);
    let by_sudo = r#"exec env SUDO_USER=no-such-user-here "$@""#;
    assert_eq!(refused(by_sudo, ours.path(), &["tap:lab"]), unknown);
    assert_eq!(
        refused(&format!(r#"{AS_NOBODY} "$@""#), theirs.path(), &["--user", "root"]),
        "qhub: only root can become root; run qhub as root, or leave out --user"
    );
}
