//! The folder of a switch: what is made, removed, and left alone.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, chown, geteuid};
use tempfile::TempDir;

use super::lab::{join, names};
use crate::common::daemon::Daemon;
use crate::common::hub::{folder, utf8};
use crate::common::net::have_namespaces;
use crate::common::refusal::{refusal, refusal_by};
use crate::common::stack::{AS_NOBODY, NOBODY};
use crate::common::vde_client::{Client, own_path};
use crate::common::wire::{Station, settle};

/// A folder, and one in it that may become a switch's.
fn place() -> (TempDir, PathBuf, String) {
    let runtime = folder();
    let path = runtime.path().join("vde");
    let spec = format!("vde:{}", utf8(&path));
    (runtime, path, spec)
}

/// Sees that clients can join at `folder`.
fn works(folder: &Path) {
    let [mut one, mut other] = [(); 2].map(|()| join(Client::come(folder), None).expect("it is not refused"));
    settle(&mut one, &mut other);
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it is there").mode() & 0o7777
}

/// The socket that the switch has for a client.
fn socket_of(client: &Client) -> PathBuf {
    let socket = client.data.peer_addr().expect("it is connected");
    socket.as_pathname().expect("it has a path").to_owned()
}

/// What there is in a folder, but for the contents.
fn picture(folder: &Path) -> Vec<(String, u64, u32)> {
    let look = |name: &String| fs::symlink_metadata(folder.join(name)).expect("it is there");
    names(folder).into_iter().map(|name| (name.clone(), look(&name).ino(), look(&name).mode())).collect()
}

#[test]
fn what_a_killed_switch_has_left_is_removed() {
    let (runtime, path, spec) = place();
    let mut daemon = Daemon::start(runtime.path(), &[&spec]);
    let clients: Vec<Client> =
        (0..20).map(|_| join(Client::come(&path), None).expect("it is not refused")).collect();
    let waits = Client::come(&path);
    assert_eq!(names(&path).len(), 1 + 20 + 1);
    daemon.signal(Signal::SIGKILL);
    daemon.exit();
    let left = names(&path);
    assert_eq!(left.len(), 22);
    // Those of clients that live stay.
    let daemon = Daemon::start(runtime.path(), &[&spec]);
    let own = utf8(waits.path.file_name().expect("a name").as_ref()).to_owned();
    assert_eq!(names(&path), [own, "ctl".to_owned()]);
    works(&path);
    drop((clients, waits));
    daemon.stop();
    if geteuid().is_root() {
        // Root removes what the clients of others have left, too.
        let theirs = path.join(".5-5");
        drop(UnixDatagram::bind(&theirs).expect("a socket"));
        chown(&theirs, Some(Uid::from_raw(4321)), None).expect("root may");
    }
    // It was there before, so it stays.
    let daemon = Daemon::start(runtime.path(), &[&spec]);
    daemon.stop();
    assert_eq!(names(&path), [""; 0]);
}

#[test]
fn what_others_have_put_there_is_left_alone() {
    let (runtime, path, spec) = place();
    fs::create_dir(&path).expect("a new folder");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("it is ours");
    let at = |name: &str| path.join(name);
    let numbers = 6..40;
    // One for each descriptor that the hub may have.
    for number in numbers.clone() {
        fs::write(at(&format!("001.{number}")), "letter").expect("a file");
        fs::create_dir(at(&format!("002.{number}"))).expect("a folder");
        symlink("/nowhere", at(&format!("003.{number}"))).expect("a link");
        // Whoever has closed it is dead: but for whoever has opened it.
        std::mem::forget(UnixDatagram::bind(at(&format!("004.{number}"))).expect("a socket"));
        symlink(format!("004.{number}"), at(&format!("005.{number}"))).expect("a link");
    }
    fs::write(at("letter"), "letter").expect("a file");
    fs::write(at(".1-1"), "letter").expect("a file");
    drop(UnixDatagram::bind(at("dead")).expect("a socket"));
    drop(UnixListener::bind(at("dead-too")).expect("a socket"));
    let _live = UnixListener::bind(at("007.7")).expect("a socket");
    let waits = UnixDatagram::bind(at(".2-2")).expect("a socket");
    let before = picture(&path);

    let daemon = Daemon::start(runtime.path(), &[&spec]);
    assert!(picture(&path).iter().filter(|(name, ..)| name != "ctl").eq(&before));
    let clients: Vec<Client> = (0..10)
        .map(|number| {
            join(Client::come(&path), [None, Some(1), Some(4)][number % 3]).expect("it has a place")
        })
        .collect();
    works(&path);
    drop(clients);
    daemon.stop();
    assert_eq!(picture(&path), before);
    assert_eq!(fs::read(at("001.6")).expect("it is there"), b"letter");
    assert!(mode(&path) == 0o755 && waits.local_addr().is_ok());
}

#[test]
fn what_is_in_the_way_is_said() {
    let (runtime, path, spec) = place();
    fs::create_dir(&path).expect("a new folder");
    let ctl = path.join("ctl");
    fs::write(&ctl, "letter").expect("a file");
    assert!(refusal(runtime.path(), &[&spec]).contains("is no socket"));
    assert_eq!(fs::read(&ctl).expect("it is there"), b"letter");
    fs::remove_file(&ctl).expect("it is ours");
    fs::create_dir(&ctl).expect("a new folder");
    assert!(refusal(runtime.path(), &[&spec]).contains("is no socket"));
    fs::remove_dir(&ctl).expect("it is ours");
    symlink("elsewhere", &ctl).expect("a link");
    assert!(refusal(runtime.path(), &[&spec]).contains("is no socket"));
    fs::remove_file(&ctl).expect("it is ours");
    let live = UnixListener::bind(&ctl).expect("a socket");
    assert!(refusal(runtime.path(), &[&spec]).contains("a program is listening"));
    live.set_nonblocking(true).expect("an open socket");
    assert_eq!(names(&path), ["ctl"]);
    drop(live);
    fs::remove_file(&ctl).expect("it is ours");
    fs::remove_dir(&path).expect("it is empty");

    fs::write(&path, "letter").expect("a file");
    assert!(refusal(runtime.path(), &[&spec]).contains("is no folder"));
    assert_eq!(fs::read(&path).expect("it is there"), b"letter");
    fs::remove_file(&path).expect("it is ours");
    symlink("nowhere", &path).expect("a link");
    refusal(runtime.path(), &[&spec]);
    fs::remove_file(&path).expect("it is ours");
    assert!(refusal(runtime.path(), &[&format!("{spec}/deeper")]).contains("create it first"));
    assert_eq!(names(runtime.path()), ["qhub"]);
}

/// A start that fails later takes back what it made.
#[test]
fn a_hub_that_does_not_start_leaves_no_folder() {
    let (runtime, path, spec) = place();
    refusal(runtime.path(), &[&spec, "dgram:/nowhere/to/be/found"]);
    assert!(!path.exists());
    refusal(runtime.path(), &[&format!("{spec},group=no-such-group-at-all")]);
    assert!(!path.exists());
    fs::create_dir(&path).expect("a new folder");
    refusal(runtime.path(), &[&spec, "dgram:/nowhere/to/be/found"]);
    assert_eq!(names(&path), [""; 0]);
}

#[test]
fn a_folder_that_was_made_goes_and_one_with_something_in_it_stays() {
    for is_used in [false, true] {
        let (runtime, path, spec) = place();
        let daemon = Daemon::start(runtime.path(), &[&spec]);
        assert_eq!(mode(&path), 0o700);
        works(&path);
        if is_used {
            fs::write(path.join("letter"), "letter").expect("a file");
        }
        daemon.stop();
        assert_eq!(path.exists(), is_used);
        if is_used {
            assert_eq!(names(&path), ["letter"]);
        }
    }
}

#[test]
fn two_hubs_do_not_share_a_folder_but_by_its_groups() {
    let (runtime, path, spec) = place();
    let first = Daemon::start(runtime.path(), &[&spec]);
    let mut client = join(Client::come(&path), None).expect("it is not refused");
    let before = (picture(&path), mode(&path));
    for options in ["", ",mode=0777", ",mode=0755"] {
        let args = ["--name", "second", &format!("{spec}{options}")];
        assert!(refusal(runtime.path(), &args).contains("a program is listening"));
        assert_eq!((picture(&path), mode(&path)), before, "{options}");
    }
    let group = format!("{spec},port-group=lan");
    let second = Daemon::start(runtime.path(), &["--name", "second", &group]);
    let come = || Client::come_to(&path.join("lan"), &own_path(&path));
    let [mut one, mut two] = [(); 2].map(|()| join(come(), Some(1)).expect("it is not refused"));
    let third = join(come(), None).expect("it is not refused");
    drop(third);
    let mut other = second.connect();
    settle(&mut one, &mut other);
    settle(&mut two, &mut other);
    assert!(
        client.try_receive(std::time::Duration::from_millis(50)).is_none(),
        "they are two hubs, and two segments"
    );
    // Who ends first disturbs nobody.
    drop((one, two));
    second.stop();
    assert_eq!((picture(&path), mode(&path)), before);
    let mut other = first.connect();
    settle(&mut client, &mut other);
    first.stop();
    assert!(!path.exists());
}

#[test]
fn who_made_the_folder_may_end_before_the_others() {
    let (runtime, path, spec) = place();
    let first = Daemon::start(runtime.path(), &[&spec]);
    let second = Daemon::start(runtime.path(), &["--name", "second", &format!("{spec},port-group=lan")]);
    first.stop();
    assert_eq!(names(&path), ["lan"]);
    let client = Client::come_to(&path.join("lan"), &own_path(&path));
    let mut client = join(client, None).expect("it is not refused");
    settle(&mut client, &mut second.connect());
    second.stop();
    drop(client);
    assert_eq!(names(&path), [""; 0], "it was there before");
}

#[test]
fn a_path_may_have_90_octets() {
    let runtime = folder();
    let long = |octets: usize| {
        let name = "n".repeat(octets - utf8(runtime.path()).len() - 1);
        runtime.path().join(name)
    };
    let spec = |path: &Path| format!("vde:{}", utf8(path));
    let mut daemon = Daemon::launch(
        runtime.path(),
        r#"exec "$@""#,
        &["--no-tcp", &spec(&long(91))],
        std::process::Stdio::null(),
    );
    assert_eq!(daemon.exit().code(), Some(2));
    daemon.line("at most 90 octets");
    let path = long(90);
    let daemon = Daemon::start(runtime.path(), &[&spec(&path)]);
    works(&path);
    let clients: Vec<Client> =
        (0..10).map(|_| join(Client::come(&path), Some(1024)).expect("there is room for its name")).collect();
    drop(clients);
    daemon.stop();
    assert!(!path.exists());

    // What counts is where it really is, which clients are told.
    for octets in [90, 91] {
        let (path, link) = (long(octets), runtime.path().join("link"));
        fs::create_dir(&path).expect("a new folder");
        symlink(&path, &link).expect("a link");
        if octets == 90 {
            let daemon = Daemon::start(runtime.path(), &[&spec(&link)]);
            works(&path);
            works(&link);
            daemon.stop();
        } else {
            assert!(refusal(runtime.path(), &[&spec(&link)]).contains("1 octets too long"));
        }
        assert_eq!(names(&path), [""; 0]);
        fs::remove_file(&link).expect("it is ours");
        fs::remove_dir(&path).expect("it is empty");
    }
}

#[test]
fn folder_and_sockets_have_the_modes_that_were_asked_for() {
    for (options, folder_mode, ctl_mode) in [
        ("", 0o700, 0o600),
        (",mode=0700", 0o700, 0o600),
        (",mode=0755", 0o755, 0o644),
        // Who may write there may not remove what is another's.
        (",mode=0770", 0o1770, 0o660),
        (",mode=0777", 0o1777, 0o666),
    ] {
        for is_there in [false, true] {
            let (runtime, path, spec) = place();
            if is_there {
                fs::create_dir(&path).expect("a new folder");
                fs::set_permissions(&path, Permissions::from_mode(0o750)).expect("it is ours");
            }
            let script = if is_there { r#"umask 0; exec "$@""# } else { r#"umask 077; exec "$@""# };
            let daemon = Daemon::start_by(runtime.path(), script, &[&format!("{spec}{options}")]);
            let expected = if is_there && options.is_empty() { 0o750 } else { folder_mode };
            assert_eq!((mode(&path), mode(&path.join("ctl"))), (expected, ctl_mode), "{options} {is_there}");
            works(&path);
            // Who may not join is not to send either.
            let client = join(Client::come(&path), None).expect("it is not refused");
            assert_eq!(mode(&socket_of(&client)), ctl_mode | 0o600);
            drop(client);
            daemon.stop();
            assert_eq!(path.exists(), is_there);
        }
    }
}

#[test]
fn folder_and_sockets_belong_to_the_group_that_was_asked_for() {
    if !have_namespaces() {
        return;
    }
    for (options, folder_mode, ctl_mode) in [
        (",group=4321", 0o3770, 0o660),
        (",group=4321,mode=0770", 0o3770, 0o660),
        (",group=4321,mode=0750", 0o2750, 0o640),
        (",group=4321,mode=0777", 0o3777, 0o666),
    ] {
        let (runtime, path, spec) = place();
        let daemon = Daemon::start(runtime.path(), &[&format!("{spec}{options}")]);
        let client = join(Client::come(&path), None).expect("it is not refused");
        for name in ["", "ctl"] {
            let found = fs::metadata(path.join(name)).expect("it is there");
            assert_eq!((found.uid(), found.gid()), (0, 4321), "{options} {name}");
        }
        assert_eq!((mode(&path), mode(&path.join("ctl"))), (folder_mode, ctl_mode), "{options}");
        let found = fs::metadata(socket_of(&client)).expect("it is there");
        assert!(found.file_type().is_socket());
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (0, 4321, ctl_mode | 0o600));
        drop(client);
        daemon.stop();
        assert!(!path.exists());
    }
}

/// Of other users' folders only root's will do, and none gets another mode.
#[test]
fn folders_of_others_keep_what_they_have() {
    if !have_namespaces() {
        return;
    }
    let as_nobody = format!(r#"{AS_NOBODY} "$@""#);
    for (owner, folder_mode, options, user, hint) in [
        (4321, 0o755, "", 0, "belongs to user 4321"),
        (4321, 0o777, "", NOBODY, "belongs to user 4321"),
        (0, 0o777, "", NOBODY, "everybody may write"),
        (0, 0o777, "", 0, "everybody may write"),
        (0, 0o755, "", NOBODY, "Permission denied"),
        (0, 0o1777, ",mode=0777", NOBODY, ""),
        (0, 0o1777, ",mode=0700", NOBODY, "not this user's alone"),
        (0, 0o1777, ",mode=0700", 0, "not this user's alone"),
    ] {
        let (runtime, path, spec) = place();
        fs::create_dir(&path).expect("a new folder");
        fs::set_permissions(&path, Permissions::from_mode(folder_mode)).expect("it is ours");
        for (path, owner) in [(path.as_path(), owner), (runtime.path(), user)] {
            chown(path, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner))).expect("root may");
        }
        let script = if user == 0 { r#"exec "$@""# } else { &as_nobody };
        let spec = format!("{spec}{options}");
        if hint.is_empty() {
            Daemon::start_by(runtime.path(), script, &[&spec]).stop();
        } else {
            let line = refusal_by(runtime.path(), script, &[&spec]);
            assert!(line.contains(hint), "{line}");
        }
        let found = fs::metadata(&path).expect("it is there");
        assert_eq!((found.uid(), found.mode() & 0o7777, names(&path).len()), (owner, folder_mode, 0));
    }
}

/// What a link leads to is not what was meant.
#[test]
fn a_link_in_the_place_of_the_folder_changes_no_other_folder() {
    let (runtime, path, spec) = place();
    let other = runtime.path().join("other");
    fs::create_dir(&other).expect("a new folder");
    fs::set_permissions(&other, Permissions::from_mode(0o750)).expect("it is ours");
    symlink(&other, &path).expect("a link");
    let daemon = Daemon::start(runtime.path(), &[&spec]);
    works(&other);
    daemon.stop();
    assert_eq!((mode(&other), names(&other).len()), (0o750, 0));
}
