//! vde_plug, the client that all others share their library with.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{User, chown};

use crate::common::daemon::Daemon;
use crate::common::hub::{folder, utf8};
use crate::common::net::have_namespaces;
use crate::common::process::Process;
use crate::common::refusal::refusal;
use crate::common::vde::{PLUG_MAX, Plug, Switch, have_vde, serving, sockets};
use crate::common::wait::{LIMIT, wait_for};
use crate::common::wire::{BROADCAST, Station, frame, mac, settle};

const LENGTHS: [usize; 13] = [14, 15, 42, 59, 60, 61, 64, 1514, 1518, 1519, 4096, 9014, PLUG_MAX];

/// What one sends, to nobody known, to everybody and to the other, arrives unchanged at the other.
fn carries_every_frame(one: &mut impl Station, other: &mut impl Station) {
    settle(one, other);
    for (length, seed) in LENGTHS.into_iter().zip(1..) {
        for (to_other, to_one) in [(mac(9), mac(9)), (BROADCAST, BROADCAST), (mac(2), mac(1))] {
            let sent = frame(to_other, mac(1), length, seed);
            one.send(&sent);
            assert!(other.receive() == sent, "{length} octets arrived changed");
            let sent = frame(to_one, mac(2), length, seed ^ 0x55);
            other.send(&sent);
            assert!(one.receive() == sent, "{length} octets arrived changed");
        }
    }
}

#[test]
fn a_plug_and_a_stream_carry_every_frame() {
    if !have_vde() {
        return;
    }
    let runtime = folder();
    let (hub, vde) = serving(runtime.path(), "");
    let (mut wire, mut plug) = (hub.connect(), Plug::start(&[&vde]));
    hub.table_with("both to join", |table| (table.ports.len() == 2).then_some(()));
    carries_every_frame(&mut wire, &mut plug);
    let ports = hub.table().ports;
    assert!(ports.iter().all(|port| port.dropped == 0), "{ports:?}");
    hub.stop();
}

#[test]
fn two_plugs_carry_every_frame() {
    if !have_vde() {
        return;
    }
    let runtime = folder();
    let (hub, vde) = serving(runtime.path(), "");
    carries_every_frame(&mut Plug::start(&[&vde]), &mut Plug::start(&[&format!("vde://{vde}")]));
    hub.stop();
}

#[test]
fn a_plug_ends_with_its_hub_and_comes_to_the_next() {
    if !have_vde() {
        return;
    }
    let runtime = folder();
    for end in [Signal::SIGTERM, Signal::SIGKILL] {
        let (mut hub, vde) = serving(runtime.path(), "");
        let mut plugs = [Plug::start(&[&vde]), Plug::start(&[&vde])];
        let [one, other] = &mut plugs;
        settle(one, other);
        hub.signal(end);
        hub.exit();
        for plug in &mut plugs {
            assert!(plug.exit().success());
        }
    }
    let (hub, vde) = serving(runtime.path(), "");
    settle(&mut hub.connect(), &mut Plug::start(&[&vde]));
    hub.stop();
}

#[test]
fn a_plug_that_is_gone_is_no_port() {
    if !have_vde() {
        return;
    }
    let runtime = folder();
    let (hub, vde) = serving(runtime.path(), "");
    let mut wire = hub.connect();
    for end in [None, Some(Signal::SIGTERM), Some(Signal::SIGKILL)] {
        let mut plug = Plug::start(&[&vde]);
        settle(&mut wire, &mut plug);
        match end {
            None => plug.hang_up(),
            Some(signal) => plug.signal(signal),
        }
        plug.exit();
        wait_for("the plug's port to go", LIMIT, || (hub.table().ports.len() == 1).then_some(()));
    }
    hub.stop();
}

#[test]
fn each_way_to_name_a_port_works() {
    if !have_vde() {
        return;
    }
    let runtime = folder();
    let (hub, vde) = serving(runtime.path(), "");
    let mut wire = hub.connect();
    let short = format!("{vde}[7]");
    let forms = [
        &[short.as_str()][..],
        &[&format!("vde://{vde}[7]")],
        &[&format!("vde://{vde}/[7]")],
        &["--port", "7", &vde],
        &["-D", "a description", &short],
    ];
    for form in forms {
        let mut plug = Plug::start(form);
        settle(&mut wire, &mut plug);
        let all = sockets(Path::new(&vde));
        assert!(all.iter().any(|name| name.starts_with("007.")), "{form:?} makes {all:?}");
        drop(plug);
        hub.table_with("the port to go", |table| (table.ports.len() == 1).then_some(()));
        assert_eq!(sockets(Path::new(&vde)), ["ctl"]);
    }
    assert!(hub.log().contains("a description"), "{}", hub.log());
    hub.stop();
}

#[test]
fn plugs_get_the_lowest_free_ports() {
    if !have_vde() {
        return;
    }
    let runtime = folder();
    let (hub, vde) = serving(runtime.path(), "");
    let mut wire = hub.connect();
    let mut plug = |url: &str, number: &str| {
        let mut plug = Plug::start(&[url]);
        settle(&mut wire, &mut plug);
        let all = sockets(Path::new(&vde));
        assert!(all.iter().any(|name| name.starts_with(number)), "{url} makes {all:?}");
        plug
    };
    let first = plug(&vde, "001.");
    let _second = plug(&format!("{vde}[2]"), "002.");
    let _third = plug(&vde, "003.");
    drop(first);
    hub.table_with("the port to go", |table| (table.ports.len() == 3).then_some(()));
    let _again = plug(&vde, "001.");
    let _zero = plug(&format!("{vde}[0]"), "000.");
    hub.stop();
}

/// A frame to `mac(2)` reaches `to`, and not the bystander.
fn passes_by(bystander: &mut Plug, from: &mut Plug, to: &mut Plug, seed: u8) {
    let (unicast, broadcast) = (frame(mac(2), mac(9), 60, seed), frame(BROADCAST, mac(9), 60, seed));
    from.send(&unicast);
    from.send(&broadcast);
    assert!(to.receive() == unicast && to.receive() == broadcast);
    assert!(bystander.receive() == broadcast, "it heard what was for another one");
}

/// vde_switch forgets all of them, and follows one that moves after seconds.
#[test]
fn stations_stay_where_they_are_and_are_found_where_they_go() {
    if !have_vde() {
        return;
    }
    let runtime = folder();
    let (hub, vde) = serving(runtime.path(), "");
    let mut plugs = [(); 3].map(|()| Plug::start(&[&vde]));
    let [one, other, bystander] = &mut plugs;
    settle(one, other);
    settle(one, bystander);
    other.send(&frame(BROADCAST, mac(2), 60, 1));
    for plug in [&mut *one, &mut *bystander] {
        plug.receive_if("a broadcast", |frame| frame[6..12] == mac(2));
    }
    passes_by(bystander, one, other, 2);
    let mut visitor = Plug::start(&[&vde]);
    hub.table_with("a visitor", |table| (table.ports.len() == 4).then_some(()));
    passes_by(bystander, one, other, 3);
    visitor.hang_up();
    visitor.exit();
    hub.table_with("the visitor to go", |table| (table.ports.len() == 3).then_some(()));
    passes_by(bystander, one, other, 4);
    // It speaks from elsewhere, and is there at once.
    one.send(&frame(BROADCAST, mac(2), 60, 5));
    for plug in [&mut *other, &mut *bystander] {
        plug.receive();
    }
    passes_by(bystander, other, one, 6);
    hub.stop();
}

#[test]
fn tags_pass() {
    if !have_vde() {
        return;
    }
    let runtime = folder();
    let (hub, vde) = serving(runtime.path(), "");
    let [mut one, mut other] = [(); 2].map(|()| Plug::start(&[&vde]));
    settle(&mut one, &mut other);
    // A VLAN, a priority without one, both with all bits of it, a service tag in front of another.
    let tags: [&[u8]; 5] = [
        &[0x81, 0, 0, 5],
        &[0x81, 0, 0xe0, 0],
        &[0x81, 0, 0xff, 0xfe],
        &[0x88, 0xa8, 0, 5, 0x81, 0, 0xb0, 6],
        &[0x91, 0, 0, 7],
    ];
    for (tag, seed) in tags.iter().zip(1..) {
        for (to, from) in [(BROADCAST, mac(1)), (mac(2), mac(1))] {
            let mut sent = frame(to, from, 1514, seed);
            sent.splice(12..12, tag.iter().copied());
            one.send(&sent);
            assert!(other.receive() == sent, "{tag:x?} arrived changed");
            let mut back = frame(from, mac(2), 60, seed);
            back.splice(12..12, tag.iter().copied());
            other.send(&back);
            assert!(one.receive() == back, "{tag:x?} arrived changed");
        }
    }
    hub.stop();
}

/// It can't know what it has cut.
#[test]
fn what_a_plug_would_cut_does_not_reach_it_where_the_port_is_told_so() {
    if !have_vde() {
        return;
    }
    for (options, is_cut) in [("", true), (",max-frame=9234", false)] {
        let runtime = folder();
        let (hub, vde) = serving(runtime.path(), options);
        let (mut wire, mut plug) = (hub.connect(), Plug::start(&[&vde]));
        settle(&mut wire, &mut plug);
        let [longest, longer] = [PLUG_MAX, PLUG_MAX + 1].map(|length| frame(mac(9), mac(1), length, 1));
        wire.send(&longer);
        wire.send(&longest);
        let heard = plug.receive();
        assert!(heard == longest, "both begin alike");
        if is_cut {
            assert!(plug.receive() == longest);
        }
        let dropped = hub.table().port("vde1").dropped_for("too_big");
        assert_eq!(dropped, u64::from(!is_cut));
        assert_eq!(plug.try_receive(Duration::from_millis(100)), None);
        hub.stop();
    }
}

/// vde_switch leaves them waiting for ever.
#[test]
fn a_plug_that_is_refused_ends_at_once() {
    if !have_vde() {
        return;
    }
    let runtime = folder();
    let (hub, vde) = serving(runtime.path(), "");
    let mut wire = hub.connect();
    let mut plug = Plug::start(&[&vde]);
    settle(&mut wire, &mut plug);
    let files = hub.files();
    for number in ["1025", "99999", "16777215"] {
        let line = Plug::start(&[&format!("{vde}[{number}]")]).fails();
        assert!(line.starts_with("vde_open "), "{line}");
    }
    // A warning is not repeated at once.
    let line = hub.line("there is no port 1025");
    assert!(line.contains("WARN") && line.contains("vdeplug: user="), "{line}");
    let mut last = Plug::start(&[&format!("{vde}[1024]")]);
    settle(&mut wire, &mut last);
    drop(last);
    hub.files_return_to(files);
    hub.stop();

    let hub = Daemon::start(runtime.path(), &["--max-ports", "1", &format!("vde:{vde}")]);
    let mut plug = Plug::start(&[&vde]);
    hub.table_with("the port", |table| (table.ports.len() == 1).then_some(()));
    Plug::start(&[&vde]).fails();
    assert_eq!(plug.try_exit(), None);
    plug.hang_up();
    hub.stop();
}

#[test]
fn dead_sockets_are_cleaned_and_others_left_alone() {
    if !have_vde() {
        return;
    }
    let runtime = folder();
    let (mut hub, vde) = serving(runtime.path(), "");
    let path = Path::new(&vde);
    let mut plugs = [Plug::start(&[&vde]), Plug::start(&[&format!("{vde}[7]")])];
    let [one, other] = &mut plugs;
    settle(one, other);
    // One that is killed while it waits for its answer leaves its socket, too.
    hub.signal(Signal::SIGSTOP);
    let mut waiting = Plug::start(&[&vde]);
    let theirs =
        wait_for("a plug to ask", LIMIT, || sockets(path).into_iter().find(|name| name.starts_with('.')));
    waiting.signal(Signal::SIGKILL);
    waiting.exit();
    hub.signal(Signal::SIGKILL);
    hub.exit();
    for plug in &mut plugs {
        plug.exit();
    }
    let left = sockets(path);
    assert!(left.len() == 4 && left.contains(&theirs), "{left:?}");
    fs::write(path.join("005.5"), "a file").expect("a folder of ours");
    fs::write(path.join("notes"), "a file").expect("a folder of ours");
    let _alive = UnixListener::bind(path.join("006.6")).expect("a folder of ours");

    let (hub, _) = serving(runtime.path(), "");
    assert_eq!(sockets(path), ["006.6", "ctl"]);
    settle(&mut hub.connect(), &mut Plug::start(&[&vde]));
    hub.stop();
    assert_eq!(sockets(path), ["006.6"]);
    for name in ["005.5", "notes"] {
        assert!(path.join(name).exists(), "{name} is gone");
    }
}

/// No plug of a client that was killed is left, whenever that was.
#[test]
fn a_plug_that_is_killed_while_it_asks_leaves_nothing() {
    if !have_vde() {
        return;
    }
    let runtime = folder();
    let (hub, vde) = serving(runtime.path(), "");
    let path = Path::new(&vde);
    let files = hub.files();
    hub.signal(Signal::SIGSTOP);
    let mut plugs = [(); 5].map(|()| Plug::start(&[&vde]));
    wait_for("plugs to ask", LIMIT, || (sockets(path).len() == 1 + plugs.len()).then_some(()));
    for plug in &mut plugs {
        plug.signal(Signal::SIGKILL);
        plug.exit();
    }
    hub.signal(Signal::SIGCONT);
    settle(&mut hub.connect(), &mut Plug::start(&[&vde]));
    hub.table_with("ports to go", |table| table.ports.is_empty().then_some(()));
    wait_for("their sockets to go", LIMIT, || (sockets(path) == ["ctl"]).then_some(()));
    hub.files_return_to(files);
    hub.stop();
    assert!(!path.exists(), "the folder is left");
}

#[test]
fn a_folder_has_one_switch() {
    if !have_vde() {
        return;
    }
    let runtime = folder();
    let vde = runtime.path().join("vde");
    let switch = Switch::start(&vde, &[]);
    let spec = format!("vde:{}", utf8(&vde));
    let line = refusal(runtime.path(), &[&spec]);
    assert!(line.contains(&spec), "{line}");
    settle(&mut Plug::start(&[utf8(&vde)]), &mut Plug::start(&[utf8(&vde)]));
    // What a dead one has left is no obstacle.
    let mut plug = Plug::start(&[utf8(&vde)]);
    settle(&mut plug, &mut Plug::start(&[utf8(&vde)]));
    switch.crash();
    plug.exit();
    assert!(sockets(&vde).len() > 1, "{:?}", sockets(&vde));
    let hub = Daemon::start(runtime.path(), &[&spec]);
    assert_eq!(sockets(&vde), ["ctl"]);
    settle(&mut hub.connect(), &mut Plug::start(&[utf8(&vde)]));
    let mut refused = Process::spawn("vde_switch", Process::command("vde_switch").args(["-s", utf8(&vde)]));
    assert!(!refused.exit(LIMIT).success());
    settle(&mut hub.connect(), &mut Plug::start(&[utf8(&vde)]));
    hub.stop();
}

/// Users that are neither root nor each other: one without other groups than its own, and one of that group.
const USERS: [[&str; 3]; 4] = [
    ["0", "0", "--keep-groups"],
    ["65534", "65534", "--clear-groups"],
    ["65533", "65533", "--groups=65534"],
    ["65533", "65533", "--clear-groups"],
];

/// Sees who of [`USERS`] may join a hub.
fn lets_in(user: &str, options: &str, is_admitted: [bool; 4]) {
    let runtime = folder();
    let (uid, mode) = (User::from_name(user).expect("a look-up"), fs::Permissions::from_mode(0o755));
    chown(runtime.path(), uid.map(|user| user.uid), None).expect("root may");
    // What lies in it is found, and nothing else.
    fs::set_permissions(runtime.path(), mode).expect("root may");
    let vde = utf8(&runtime.path().join("vde")).to_owned();
    let hub = Daemon::start(runtime.path(), &["--user", user, &format!("vde:{vde}{options}")]);
    let mut wire = hub.connect();
    for ([uid, gid, groups], is_admitted) in USERS.into_iter().zip(is_admitted) {
        let mut command = Process::command("setpriv");
        // The change of user cancels the death signal.
        command.args(["--reuid", uid, "--regid", gid, groups, "--pdeathsig", "KILL", "vde_plug", &vde]);
        let mut plug = Plug::spawn(&mut command);
        if is_admitted {
            settle(&mut wire, &mut plug);
        } else {
            let line = plug.fails();
            assert!(line.contains("Permission denied"), "{user}{options}: {uid} {groups}: {line}");
        }
    }
    let rows = hub.table().ports;
    let is_left = hub.count("WARN");
    hub.stop();
    assert_eq!(is_left, 0, "{rows:?}");
    assert!(!Path::new(&vde).exists());
}

#[test]
fn the_folders_mode_and_group_say_who_may_join() {
    if !have_vde() || !have_namespaces() {
        return;
    }
    for (user, is_owner) in [("root", false), ("nobody", true)] {
        lets_in(user, "", [true, is_owner, false, false]);
        lets_in(user, ",mode=0770,group=nogroup", [true, true, true, false]);
        lets_in(user, ",mode=0777", [true; 4]);
    }
}
