//! `qhub` as `vde_switch`: what those that start one expect. It is asked of VDE's own, too, so that nothing is expected
//! that nobody has.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::common::hub::{folder, utf8};
use crate::common::net::Namespace;
use crate::common::process::Process;
use crate::common::stack::have_stacks;
use crate::common::tap::have_taps;
use crate::common::vde::{Background, Plug, Switch, have_vde, vdecmd};
use crate::common::wait::{LIMIT, wait_for};
use crate::common::wire::settle;

/// VDE's own, and the program under test by the same name.
fn both(place: &Path) -> [PathBuf; 2] {
    let ours = place.join("vde_switch");
    symlink(env!("CARGO_BIN_EXE_qhub"), &ours).expect("a folder of ours");
    ["vde_switch".into(), ours]
}

/// As the test driver of NixOS does: asks on stdin, and takes the switch to be there when it answers.
#[test]
fn hosts_reach_each_other_by_vde_plug2tap() {
    if !have_vde() || !have_taps() || !have_stacks() {
        return;
    }
    let place = folder();
    for (program, number) in both(place.path()).iter().zip(0..) {
        let vde = place.path().join(format!("vde{number}.ctl"));
        let mut command = Process::command(program);
        let mut switch =
            Switch::spawn(command.args(["--sock", utf8(&vde), "--dirmode", "0700", "--hub"]), &vde);
        assert_eq!(fs::metadata(&vde).expect("its folder").permissions().mode() & 0o777, 0o700);
        let [one, other] = [1, 2].map(|number| {
            let host = Namespace::quiet();
            let tap = host.within(|| {
                let mut plug = Process::command("vde_plug2tap");
                Process::spawn("vde_plug2tap", plug.args(["-s", utf8(&vde), "tap0"]).stdin(Stdio::null()))
            });
            wait_for("a TAP", LIMIT, || host.has_link("tap0").then_some(()));
            host.ip(&format!("addr add 10.9.0.{number}/24 dev tap0"));
            host.ip("link set tap0 up");
            (host, tap)
        });
        one.0.pings("-s 1472", "10.9.0.2");
        other.0.pings("", "10.9.0.1");
        switch.process().close_stdin();
        switch.stop();
        assert!(!vde.join("ctl").exists());
    }
}

#[test]
fn it_goes_into_the_background() {
    if !have_vde() {
        return;
    }
    let place = folder();
    for (program, number) in both(place.path()).iter().zip(0..) {
        let file = |name: &str| place.path().join(format!("{name}{number}"));
        let [vde, console, pidfile, rc] = ["vde", "console", "pid", "rc"].map(file);
        fs::write(&rc, "port/create 9\n").expect("a folder of ours");
        let options = [
            ["-sock", utf8(&vde)],
            ["-mgmt", utf8(&console)],
            ["-pidfile", utf8(&pidfile)],
            ["-rcfile", utf8(&rc)],
            ["-mod", "660"],
            ["--mgmtmode", "0600"],
        ];
        let mut command = Process::command(program);
        let mut start = Process::spawn(
            "a switch",
            command.args(options.as_flattened()).arg("-daemon").stdin(Stdio::null()),
        );
        assert!(start.exit(LIMIT).success());
        let background = Background::of(&pidfile);
        wait_for("a switch to serve", LIMIT, || console.exists().then_some(()));
        let mode = |path: &Path| fs::metadata(path).expect("it was made").permissions().mode() & 0o777;
        assert_eq!((mode(&vde.join("ctl")), mode(&console)), (0o660, 0o600));
        let mut plugs = [Plug::start(&[utf8(&vde)]), Plug::start(&[utf8(&vde)])];
        let [one, other] = &mut plugs;
        settle(one, other);
        drop(plugs);
        let said = vdecmd(utf8(&console), "port/allprint 9");
        assert!(said.contains("Port 0009"), "nobody has read the file of commands: {said}");

        background.end();
        for path in [&console, &pidfile, &vde.join("ctl")] {
            assert!(!path.exists(), "{} is left", path.display());
        }
    }
}

#[test]
fn the_uplink_is_a_tap() {
    if !have_vde() || !have_taps() || !have_stacks() {
        return;
    }
    let place = folder();
    for (program, number) in both(place.path()).iter().zip(0..) {
        let vde = place.path().join(format!("vde{number}"));
        let (host, guest) = (Namespace::quiet(), Namespace::quiet());
        let switch = host.within(|| {
            let mut command = Process::command(program);
            Switch::spawn(command.args(["-tap", "tap0", "-sock", utf8(&vde)]), &vde)
        });
        host.ip("addr add 10.9.0.1/24 dev tap0");
        host.ip("link set tap0 up");
        let _plug = guest.within(|| {
            let mut plug = Process::command("vde_plug2tap");
            Process::spawn("vde_plug2tap", plug.args(["-s", utf8(&vde), "tap0"]).stdin(Stdio::null()))
        });
        wait_for("a TAP", LIMIT, || guest.has_link("tap0").then_some(()));
        guest.ip("addr add 10.9.0.2/24 dev tap0");
        guest.ip("link set tap0 up");
        guest.pings("", "10.9.0.1");
        switch.stop();
    }
}

/// Its end of input is its end.
#[test]
fn it_ends_with_its_terminal() {
    if !have_vde() {
        return;
    }
    let place = folder();
    for (program, number) in both(place.path()).iter().zip(0..) {
        let vde = place.path().join(format!("vde{number}"));
        let mut command = Process::command(program);
        let mut switch = Switch::spawn(command.args(["-s", utf8(&vde)]), &vde);
        let mut plug = Plug::start(&[utf8(&vde)]);
        settle(&mut plug, &mut Plug::start(&[utf8(&vde)]));
        switch.process().close_stdin();
        switch.process().exit(LIMIT);
        plug.exit();
        assert!(!vde.join("ctl").exists());
    }
}
