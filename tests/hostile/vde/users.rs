//! Clients and switches of different users. A hub that joins is a client that may be anybody's.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::unistd::{Gid, Uid, chown};
use tempfile::TempDir;

use super::lab::{is_told, names};
use crate::common::daemon::Daemon;
use crate::common::hub::{folder, utf8};
use crate::common::net::have_namespaces;
use crate::common::process::Process;
use crate::common::wait::{LIMIT, wait_for};
use crate::common::wire::{Station, frame, mac, settle};

/// A user without rights, and a group.
const USER: u32 = 65_534;
const GROUP: u32 = 4321;

/// What a shell does to become a hub of some user's, with these groups.
fn as_user(user: u32, groups: &str) -> String {
    format!(r#"exec setpriv --reuid {user} --regid {user} --groups {groups} --pdeathsig KILL "$@""#)
}

/// Where hubs of different users meet.
struct Place {
    parent: TempDir,
    vde: PathBuf,
}

impl Place {
    fn new() -> Self {
        let parent = folder();
        fs::set_permissions(parent.path(), Permissions::from_mode(0o755)).expect("it is ours");
        let vde = parent.path().join("vde");
        Self { parent, vde }
    }

    /// A folder for whatever a hub of this user keeps.
    fn runtime(&self, name: &str, user: u32) -> PathBuf {
        let path = self.parent.path().join(name);
        fs::create_dir(&path).expect("a new folder");
        chown(&path, Some(Uid::from_raw(user)), Some(Gid::from_raw(user))).expect("root may");
        path
    }

    /// A folder for the switch, where `user` may make it.
    fn within(user: u32) -> Self {
        let it = Self::new();
        let home = it.runtime("home", user);
        Self { vde: home.join("vde"), ..it }
    }

    fn switch(&self, script: &str, user: u32, options: &str) -> Daemon {
        let spec = format!("vde:{}{options}", utf8(&self.vde));
        Daemon::start_by(&self.runtime("switch", user), script, &[&spec])
    }

    fn client(&self, name: &str, script: &str, user: u32) -> Daemon {
        self.client_of(name, script, user, "")
    }

    /// One with `options`.
    fn client_of(&self, name: &str, script: &str, user: u32, options: &str) -> Daemon {
        let spec = format!("connect:vde:{}{options}", utf8(&self.vde));
        Daemon::start_by(&self.runtime(name, user), script, &[&spec])
    }
}

/// Sees that frames pass from one hub to the other, long ones too.
fn are_joined(one: &Daemon, other: &Daemon) {
    let (mut here, mut there) = (one.connect(), other.connect());
    settle(&mut here, &mut there);
    for length in [14, 1514, 9014] {
        let sent = frame(mac(2), mac(1), length, 1);
        here.send(&sent);
        there.receive_if("a frame", |frame| frame == sent);
    }
}

/// Waits until nothing but `ctl` is in the folder.
fn is_clean(folder: &Path) {
    wait_for("the files of clients to go", LIMIT, || (names(folder) == ["ctl"]).then_some(()));
}

#[test]
fn everybody_may_join_a_switch_for_everybody() {
    if !have_namespaces() {
        return;
    }
    let (root, user) = (r#"exec "$@""#, as_user(USER, "65534"));
    let other = as_user(GROUP, "4321");
    for (script, owner) in [(root, 0), (&user, USER)] {
        let place = Place::within(owner);
        let switch = place.switch(script, owner, ",mode=0777");
        let clients = [
            place.client("of-root", root, 0),
            place.client("of-user", &user, USER),
            place.client("of-another", &other, GROUP),
        ];
        for (client, uid) in clients.iter().zip([0, USER, GROUP]) {
            are_joined(&switch, client);
            switch.line(&format!("peer=uid {uid} pid {}: qhub user={uid}", client.pid()));
        }
        // They can't touch each other's sockets.
        let sockets: Vec<PathBuf> =
            names(&place.vde).iter().filter(|name| *name != "ctl").map(|name| place.vde.join(name)).collect();
        assert_eq!(sockets.len(), 3);
        clients.into_iter().for_each(Daemon::stop);
        is_clean(&place.vde);
        switch.stop();
        assert!(!place.vde.exists());
    }
}

#[test]
fn only_its_own_user_and_root_may_join_a_switch_for_nobody_else() {
    if !have_namespaces() {
        return;
    }
    let (root, user) = (r#"exec "$@""#, as_user(USER, "65534"));
    let other = as_user(GROUP, "4321");
    let place = Place::within(USER);
    let switch = place.switch(&user, USER, "");
    let own = place.client("of-user", &user, USER);
    are_joined(&switch, &own);
    let of_root = place.client("of-root", root, 0);
    are_joined(&switch, &of_root);
    let stranger = place.client("of-another", &other, GROUP);
    stranger.line("its owner has to let this user in");
    // Where the folder lets him in, the socket does not.
    fs::set_permissions(&place.vde, Permissions::from_mode(0o755)).expect("root may");
    let second = place.client("of-another-2", &other, GROUP);
    second.line("its owner has to let this user in");
    is_told(&switch, "port up", 4);
    for hub in [own, of_root, stranger, second] {
        hub.stop();
    }
    is_clean(&place.vde);
    switch.stop();
}

#[test]
fn a_group_may_join_a_switch_for_it() {
    if !have_namespaces() {
        return;
    }
    for (script, owner) in [(r#"exec "$@""#.to_owned(), 0), (as_user(USER, "4321,65534"), USER)] {
        for options in [",group=4321", ",group=4321,mode=0770"] {
            let place = Place::within(owner);
            let switch = place.switch(&script, owner, options);
            let member = as_user(1234, "1234,4321");
            let by_main_group =
                r#"exec setpriv --reuid 1235 --regid 4321 --clear-groups --pdeathsig KILL "$@""#;
            let stranger = as_user(1236, "1236");
            let members =
                [place.client("member", &member, 1234), place.client("by-main-group", by_main_group, 1235)];
            for member in &members {
                are_joined(&switch, member);
            }
            let stranger = place.client("stranger", &stranger, 1236);
            stranger.line("its owner has to let this user in");
            members.into_iter().for_each(Daemon::stop);
            stranger.stop();
            is_clean(&place.vde);
            switch.stop();
            assert!(!place.vde.exists());
        }
    }
}

/// Who may not write to the folder has its own socket elsewhere, and leaves nothing there.
#[test]
fn a_client_that_may_not_write_to_the_folder_may_join() {
    if !have_namespaces() {
        return;
    }
    let place = Place::new();
    let switch = place.switch(r#"exec "$@""#, 0, ",mode=0777");
    fs::set_permissions(&place.vde, Permissions::from_mode(0o755)).expect("root may");
    let client = place.client("of-user", &as_user(USER, "65534"), USER);
    are_joined(&switch, &client);
    let litter = |folder: &str| {
        let prefix = format!("vde.{:05}-", client.pid());
        names(Path::new(folder)).iter().any(|name| name.starts_with(&prefix))
    };
    assert!(!["/run", "/var/tmp", "/tmp"].into_iter().any(litter));
    client.stop();
    is_clean(&place.vde);
    switch.stop();
}

/// As people do whose former switch had no options for that.
#[test]
fn permissions_that_are_given_later_count() {
    if !have_namespaces() {
        return;
    }
    let place = Place::new();
    let switch = place.switch(r#"exec "$@""#, 0, "");
    let ctl = place.vde.join("ctl");
    fs::set_permissions(&place.vde, Permissions::from_mode(0o755)).expect("root may");
    let stranger = place.client("stranger", &as_user(1236, "1236"), 1236);
    stranger.line("its owner has to let this user in");
    chown(&ctl, None, Some(Gid::from_raw(GROUP))).expect("root may");
    fs::set_permissions(&ctl, Permissions::from_mode(0o660)).expect("root may");
    let member = place.client("member", &as_user(1234, "1234,4321"), 1234);
    are_joined(&switch, &member);
    is_told(&switch, "port up port=vde1 ", 1);
    fs::set_permissions(&ctl, Permissions::from_mode(0o666)).expect("root may");
    are_joined(&switch, &stranger);
    for client in [member, stranger] {
        client.stop();
    }
    is_clean(&place.vde);
    switch.stop();
}

/// What only VDE's console can set.
#[test]
fn a_port_may_be_for_a_user_or_a_group() {
    if !have_namespaces() {
        return;
    }
    let place = Place::new();
    let mut command = Process::command(env!("CARGO_BIN_EXE_qhub"));
    command.args(["vde_switch", "--sock", utf8(&place.vde), "--mode", "0666", "--dirmode", "0777"]);
    let mut switch = Process::spawn("vde_switch", command.stdin(Stdio::piped()));
    let settings = "port/create 5\nport/setgroup 5 4321\nport/create 6\nport/setuser 6 1234\n";
    switch.stdin().write_all(settings.as_bytes()).expect("it reads that");
    wait_for("four answers", LIMIT, || (switch.stdout().matches("1000 Success").count() == 4).then_some(()));
    let by_main_group = r#"exec setpriv --reuid 1235 --regid 4321 --clear-groups --pdeathsig KILL "$@""#;
    for (port, user, script, is_admitted) in [
        (5, 1234, as_user(1234, "1234,4321"), true),
        (5, 1235, by_main_group.to_owned(), true),
        (5, 1234, as_user(1234, "1234"), false),
        (6, 1234, as_user(1234, "1234"), true),
        (6, 1236, as_user(1236, "1234,4321"), false),
        (6, 0, r#"exec "$@""#.to_owned(), true),
        (7, 1236, as_user(1236, "1236"), true),
    ] {
        let name = format!("client-{port}-{user}-{is_admitted}");
        let client = place.client_of(&name, &script, user, &format!(",port={port}"));
        client.line(if is_admitted { "port up" } else { "can't connect: the switch refuses" });
        assert_eq!(client.count("port up") > 0, is_admitted, "port {port} for {user}");
        client.stop();
    }
    switch.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(switch.exit(LIMIT).success());
    assert!(switch.stderr().contains("port 6 is for another user"), "{}", switch.stderr());
    assert!(!place.vde.exists());
}

/// A switch that is killed may have served other users.
#[test]
fn what_a_killed_switch_of_root_has_left_is_in_nobodys_way() {
    if !have_namespaces() {
        return;
    }
    let place = Place::new();
    let mut switch = place.switch(r#"exec "$@""#, 0, ",mode=0777");
    let client = place.client("of-user", &as_user(USER, "65534"), USER);
    are_joined(&switch, &client);
    switch.signal(nix::sys::signal::Signal::SIGKILL);
    switch.exit();
    assert_eq!(names(&place.vde).len(), 2);
    fs::remove_dir_all(place.parent.path().join("switch")).expect("it is dead");
    let switch = place.switch(r#"exec "$@""#, 0, ",mode=0777");
    are_joined(&switch, &client);
    assert_eq!(names(&place.vde).len(), 2);
    client.stop();
    is_clean(&place.vde);
    switch.stop();
}
