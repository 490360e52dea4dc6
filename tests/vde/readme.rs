//! The README's commands for those who come from VDE: the old line and the new one do the same.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;

use crate::common::hub::{folder, utf8};
use crate::common::net::Namespace;
use crate::common::process::Process;
use crate::common::require::require;
use crate::common::stack::have_stacks;
use crate::common::tap::have_taps;
use crate::common::vde::{Background, Plug, Switch, have_vde, sockets};
use crate::common::wait::{LIMIT, wait_for};
use crate::common::wire::settle;

const README: &str = include_str!("../../README.md");

/// The commands in the table, old and new ones.
fn commands() -> Vec<&'static str> {
    let part = README.split("\n## ").find(|part| part.starts_with("Coming from VDE")).expect("that part");
    let rows = part.lines().filter(|line| line.starts_with("| `"));
    let quoted = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    quoted.filter(|quoted| quoted.contains(' ')).collect()
}

/// A machine with the program under test on its PATH, where the README's paths are in a folder of the test's.
struct Machine {
    place: TempDir,
    host: Namespace,
}

impl Machine {
    fn new() -> Self {
        let place = folder();
        let bin = place.path().join("bin");
        fs::create_dir(&bin).expect("a folder of ours");
        symlink(env!("CARGO_BIN_EXE_qhub"), bin.join("qhub")).expect("a folder of ours");
        // Neither another host nor another user is needed to know what would be run there.
        for (name, script) in [("ssh", "shift; exec \"$@\""), ("sudo", "exec \"$@\"")] {
            fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).expect("a folder of ours");
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).expect("it is ours");
        }
        Self { place, host: Namespace::quiet() }
    }

    fn path(&self, name: &str) -> String {
        utf8(&self.place.path().join(name)).to_owned()
    }

    fn start(&self, command: &str) -> Process {
        let command = command.replace("/tmp/", &self.path("")).replace("-g kvm", "-g nogroup");
        let command = command.replace("group=kvm", "group=nogroup");
        let path = format!("{}:{}", self.path("bin"), std::env::var("PATH").unwrap_or_default());
        let mut shell = Process::command("sh");
        shell.args(["-c", &format!("exec {command}")]).env("PATH", path).stdin(Stdio::piped());
        self.host.within(|| Process::spawn("a command", shell.env("XDG_RUNTIME_DIR", self.place.path())))
    }

    fn switch(&self, name: &str) -> Switch {
        Switch::start(&self.place.path().join(name), &[])
    }

    /// Two plugs at switches, of which one may not be there yet, hear each other.
    fn joins(&self, one: &str, other: &str) {
        let [one, other] = [one, other].map(|name| {
            let control = self.place.path().join(name).join("ctl");
            wait_for("a switch to serve", LIMIT, || control.exists().then_some(()));
            self.path(name)
        });
        settle(&mut Plug::start(&[&one]), &mut Plug::start(&[&other]));
    }
}

/// Runs a command and sees what it is for.
fn does_its_work(command: &str) {
    let machine = Machine::new();
    if command.contains("two.vde") {
        let _switches = ["one.vde", "two.vde"].map(|name| machine.switch(name));
        let _cable = machine.start(command);
        machine.joins("one.vde", "two.vde");
    } else if command.contains("vde:/") || command.contains("vde_switch") {
        let mut process = machine.start(command);
        let background =
            command.contains(" -d ").then(|| Background::of(Path::new(&machine.path("lab.pid"))));
        machine.joins("lab.vde", "lab.vde");
        assert_eq!(machine.host.has_link("tap0"), command.contains("tap0"), "{command}");
        match background {
            Some(background) => background.end(),
            None => assert_eq!(process.try_exit(), None, "{command}"),
        }
    } else {
        let _switch = machine.start("qhub vde_switch -s /tmp/lab.vde -M /tmp/lab.mgmt");
        machine.joins("lab.vde", "lab.vde");
        let clients = || sockets(&machine.place.path().join("lab.vde")).len() - 1;
        wait_for("the test's to go", LIMIT, || (clients() == 0).then_some(()));
        let process = machine.start(command);
        wait_for(command, LIMIT, || {
            let is_there = match command.split(' ').next() {
                Some("unixterm") => process.stdout().ends_with("\nvde$ "),
                Some("slirpvde") => clients() == 1,
                Some("vde_plug2tap") => clients() == 1 && machine.host.has_link("tap0"),
                _ => panic!("what is {command} for?"),
            };
            is_there.then_some(())
        });
    }
}

#[test]
fn old_and_new_commands_do_the_same() {
    let commands = commands();
    assert_eq!(commands.len(), 20, "{commands:#?}");
    if have_vde() && have_taps() && have_stacks() && require("vde", &["slirpvde"], &[]) {
        commands.into_iter().for_each(does_its_work);
    }
}
