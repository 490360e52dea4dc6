//! Cables of VDE's between two segments, of which one at least is a hub's.

use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;

use crate::common::daemon::Daemon;
use crate::common::hub::{folder, utf8};
use crate::common::process::Process;
use crate::common::require::require;
use crate::common::vde::{PLUG_MAX, Plug, SWITCH_MAX, Switch, dpipe, have_vde, serving};
use crate::common::wait::{LIMIT, wait_for};
use crate::common::wire::{BROADCAST, Station, Wire, frame, mac, settle};

/// A hub with its control folder, and a station of the test's on it.
struct Segment {
    hub: Daemon,
    vde: String,
    wire: Wire,
    _runtime: TempDir,
}

impl Segment {
    fn new() -> Self {
        let runtime = folder();
        let (hub, vde) = serving(runtime.path(), "");
        Self { wire: hub.connect(), hub, vde, _runtime: runtime }
    }
}

/// What one sends the other hears, once and unchanged.
fn are_joined(one: &mut impl Station, other: &mut impl Station, longest: usize) {
    settle(one, other);
    for (length, seed) in [60, 1514, longest].into_iter().zip(1..) {
        let there = frame(BROADCAST, mac(1), length, seed);
        one.send(&there);
        assert!(other.receive() == there, "{length} octets arrived changed");
        let back = frame(mac(1), mac(2), length, seed);
        other.send(&back);
        assert!(one.receive() == back, "{length} octets arrived changed");
    }
}

/// Joins two hubs by what `cable` makes of their folders, and gives it and the other hub when the one has ended.
fn joins_two_hubs(longest: usize, cable: impl FnOnce(&str, &str) -> Process) -> Option<(Process, Segment)> {
    if !have_vde() {
        return None;
    }
    let [mut one, mut other] = [(); 2].map(|()| Segment::new());
    let cable = cable(&one.vde, &other.vde);
    are_joined(&mut one.wire, &mut other.wire, longest);
    one.hub.stop();
    Some((cable, other))
}

/// The same, with a cable that ends with either hub.
fn joins_two_hubs_and_ends(cable: impl FnOnce(&str, &str) -> Process) {
    if let Some((mut cable, other)) = joins_two_hubs(PLUG_MAX, cable) {
        cable.exit(LIMIT);
        is_alone(other);
    }
}

/// Waits until nobody but the test is at a hub.
fn is_alone(segment: Segment) {
    segment.hub.table_with("the cable to go", |table| (table.ports.len() == 1).then_some(()));
    segment.hub.stop();
}

#[test]
fn dpipe_joins_two_hubs() {
    joins_two_hubs_and_ends(|one, other| dpipe(&["vde_plug", one], &["vde_plug", other]));
}

#[test]
fn one_vde_plug_joins_two_hubs() {
    joins_two_hubs_and_ends(|one, other| {
        Process::spawn("vde_plug", Process::command("vde_plug").args([one, other]).stdin(Stdio::null()))
    });
}

#[test]
fn a_vde_plug_joins_two_hubs_by_a_command_of_its_own() {
    joins_two_hubs_and_ends(|one, other| {
        let mut command = Process::command("vde_plug");
        Process::spawn("vde_plug", command.args([one, "=", "vde_plug", other]).stdin(Stdio::null()))
    });
}

#[test]
fn a_vde_plug_and_a_plug_of_the_hub_join_two_hubs() {
    let qhub = env!("CARGO_BIN_EXE_qhub");
    joins_two_hubs_and_ends(|one, other| {
        dpipe(&["vde_plug", one], &[qhub, "plug", &format!("connect:vde:{other}")])
    });
    joins_two_hubs_and_ends(|one, other| {
        dpipe(&[qhub, "plug", &format!("connect:vde:{one}")], &["vde_plug", other])
    });
}

/// Which notices nobody's end.
#[test]
fn wirefilter_joins_two_hubs() {
    let cable = joins_two_hubs(SWITCH_MAX, |one, other| {
        let mut command = Process::command("wirefilter");
        Process::spawn("wirefilter", command.args(["-v", &format!("{one}:{other}")]).stdin(Stdio::piped()))
    });
    if let Some((cable, other)) = cable {
        drop(cable);
        is_alone(other);
    }
}

#[test]
fn dpipe_joins_a_hub_and_a_switch() {
    if !have_vde() {
        return;
    }
    let (mut hub, place) = (Segment::new(), folder());
    let vde = place.path().join("switch");
    let switch = Switch::start(&vde, &[]);
    let mut cable = dpipe(&["vde_plug", &hub.vde], &["vde_plug", utf8(&vde)]);
    are_joined(&mut hub.wire, &mut Plug::start(&[utf8(&vde)]), SWITCH_MAX);
    switch.stop();
    cable.exit(LIMIT);
    is_alone(hub);
}

/// What DHCP and the way out came from.
#[test]
fn slirpvde_answers() {
    if !have_vde() || !require("vde", &["slirpvde"], &[]) {
        return;
    }
    let mut segment = Segment::new();
    let mut command = Process::command("slirpvde");
    let slirp = Process::spawn("slirpvde", command.args(["-D", "-s", &segment.vde]).stdin(Stdio::null()));
    let mut question = [&BROADCAST[..], &mac(1), &[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    question.extend([&mac(1)[..], &[10, 0, 2, 15], &[0; 6], &[10, 0, 2, 2]].concat());
    wait_for("slirpvde to say where it is", LIMIT, || {
        segment.wire.send(&question);
        let answer = segment.wire.try_receive(Duration::from_millis(100))?;
        (answer[12..14] == [0x08, 0x06] && answer[28..32] == [10, 0, 2, 2]).then_some(())
    });
    drop(slirp);
    is_alone(segment);
}
