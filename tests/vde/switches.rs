//! Joining a vde_switch.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use nix::unistd::chown;
use tempfile::TempDir;

use crate::common::daemon::Daemon;
use crate::common::hub::{folder, utf8};
use crate::common::net::have_namespaces;
use crate::common::process::Process;
use crate::common::stack::NOBODY;
use crate::common::vde::{Plug, SWITCH_MAX, Switch, have_vde, sockets};
use crate::common::wait::{LIMIT, wait_for};
use crate::common::wire::{BROADCAST, Station, frame, mac, settle};

/// A user without rights who is somebody else than nobody.
const MEMBER: u32 = NOBODY - 1;

#[test]
fn a_hub_joins_a_switch() {
    if !have_vde() {
        return;
    }
    let runtime = folder();
    let vde = runtime.path().join("vde");
    let switch = Switch::start(&vde, &[]);
    let hub = Daemon::start(runtime.path(), &[&format!("connect:vde:{}", utf8(&vde))]);
    let (mut wire, mut plug) = (hub.connect(), Plug::start(&[utf8(&vde)]));
    settle(&mut wire, &mut plug);
    for (length, seed) in [14, 60, 1514, SWITCH_MAX].into_iter().zip(1..) {
        for (to_plug, to_wire) in [(mac(9), mac(9)), (BROADCAST, BROADCAST), (mac(2), mac(1))] {
            let sent = frame(to_plug, mac(1), length, seed);
            wire.send(&sent);
            assert!(plug.receive() == sent, "{length} octets arrived changed");
            let sent = frame(to_wire, mac(2), length, seed ^ 0x55);
            plug.send(&sent);
            assert!(wire.receive() == sent, "{length} octets arrived changed");
        }
    }
    hub.stop();
    // The switch has seen it go.
    wait_for("the hub's port to go", LIMIT, || (sockets(&vde).len() == 2).then_some(()));
    switch.stop();
}

#[test]
fn a_hub_joins_the_port_that_it_is_told() {
    if !have_vde() {
        return;
    }
    let runtime = folder();
    let vde = runtime.path().join("vde");
    let mut switch = Switch::start(&vde, &[]);
    let hub = Daemon::start(runtime.path(), &[&format!("connect:vde:{},port=7", utf8(&vde))]);
    settle(&mut hub.connect(), &mut Plug::start(&[utf8(&vde)]));
    let told = switch.console("port/print 7");
    assert!(told.contains("qhub"), "the switch does not know it: {told}");
    hub.stop();
    switch.stop();
}

#[test]
fn a_hub_joins_a_switch_again_and_again() {
    if !have_vde() {
        return;
    }
    let runtime = folder();
    let vde = runtime.path().join("vde");
    let hub = Daemon::start(runtime.path(), &[&format!("connect:vde:{}", utf8(&vde))]);
    let mut wire = hub.connect();
    let end: [fn(Switch); 3] = [Switch::crash, Switch::stop, Switch::crash];
    for end in end {
        let switch = Switch::start(&vde, &[]);
        let mut plug = Plug::start(&[utf8(&vde)]);
        settle(&mut wire, &mut plug);
        end(switch);
        hub.table_with("its port to go", |table| (table.ports.len() == 1).then_some(()));
        plug.exit();
        // What is left is the switch's.
        assert!(sockets(&vde).iter().all(|name| !name.starts_with('.')), "{:?}", sockets(&vde));
    }
    let switch = Switch::start(&vde, &[]);
    settle(&mut wire, &mut Plug::start(&[utf8(&vde)]));
    hub.stop();
    switch.stop();
}

/// vde_switch says nothing to who asks for a port that it does not have.
#[test]
fn a_switch_that_does_not_answer_is_asked_again() {
    if !have_vde() {
        return;
    }
    let runtime = folder();
    let vde = runtime.path().join("vde");
    let mut switch = Switch::start(&vde, &[]);
    let hub = Daemon::start(runtime.path(), &[&format!("connect:vde:{},port=40", utf8(&vde))]);
    wait_for("the hub to ask", LIMIT, || {
        sockets(&vde).iter().any(|name| name.starts_with('.')).then_some(())
    });
    let line = hub.line("the switch does not answer");
    assert!(line.contains("WARN"), "{line}");
    assert!(switch.console("port/setnumports 50").contains("1000 Success"));
    settle(&mut hub.connect(), &mut Plug::start(&[utf8(&vde)]));
    hub.stop();
    assert!(sockets(&vde).iter().all(|name| !name.starts_with('.')), "{:?}", sockets(&vde));
    switch.stop();
}

/// They would make a loop.
#[test]
fn a_hub_joins_a_switch_once() {
    if !have_vde() {
        return;
    }
    let runtime = folder();
    let [vde, link] = ["vde", "link"].map(|name| runtime.path().join(name));
    let switch = Switch::start(&vde, &[]);
    symlink(&vde, &link).expect("a folder of ours");
    let ports = [&vde, &link].map(|path| format!("connect:vde:{}", utf8(path)));
    let hub = Daemon::start(runtime.path(), &[&ports[0], &ports[1]]);
    hub.line("another port joins the same switch");
    settle(&mut hub.connect(), &mut Plug::start(&[utf8(&vde)]));
    assert_eq!(hub.count("port up port=plug"), 1);
    hub.stop();
    switch.stop();
}

/// A hub of the user `uid`, who is of `group`; without one, of nobody's.
fn hub_of(uid: u32, group: Option<u32>, port: &str) -> (TempDir, Daemon) {
    let runtime = folder();
    chown(runtime.path(), Some(uid.into()), Some(uid.into())).expect("root may");
    let groups = group.map_or_else(|| "--clear-groups".to_owned(), |group| format!("--groups {group}"));
    let become_user = format!("exec setpriv --reuid {uid} --regid {uid} {groups} --pdeathsig KILL");
    let hub = Daemon::start_by(runtime.path(), &format!(r#"{become_user} "$@""#), &[port]);
    (runtime, hub)
}

#[test]
fn whoever_the_switch_lets_in_may_join() {
    if !have_vde() || !have_namespaces() {
        return;
    }
    let place = folder();
    chown(place.path(), Some(NOBODY.into()), Some(NOBODY.into())).expect("root may");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("a folder of ours");
    let vde = place.path().join("vde");
    let mut command = Process::command("setpriv");
    let nobody = NOBODY.to_string();
    // The change of user cancels the death signal.
    command.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups", "--pdeathsig", "KILL"]);
    command.args(["vde_switch", "-s", utf8(&vde), "-m", "0660", "-g", "nogroup"]);
    let switch = Switch::spawn(&mut command, &vde);
    let port = format!("connect:vde:{}", utf8(&vde));
    let mut plug = Plug::start(&[utf8(&vde)]);
    for (uid, group) in [(0, None), (NOBODY, None), (MEMBER, Some(NOBODY))] {
        let (_runtime, hub) = hub_of(uid, group, &port);
        settle(&mut hub.connect(), &mut plug);
        hub.stop();
    }
    let (_runtime, hub) = hub_of(MEMBER, None, &port);
    let line = hub.line("Permission denied");
    assert!(line.contains("WARN") && line.contains(&port), "{line}");
    hub.stop();
    switch.stop();
}
