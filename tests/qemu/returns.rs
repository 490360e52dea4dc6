//! A datagram port outlives its peer, and the peer the hub: whoever comes back is heard again, and nobody else has to do
//! anything for it.

use std::path::Path;

use nix::sys::signal::Signal;

use crate::common::daemon::{Daemon, Row};
use crate::common::hub::{folder, utf8};
use crate::common::qemu::{Relay, Version, have_qemu};
use crate::common::wire::{BROADCAST, Station, Wire, frame, mac, settle};

use super::forms::{Form, dgram_inet, legacy_inet};

/// Ends the hub under QEMUs of every form, and starts it again.
fn returns_to_its_qemus(end: impl FnOnce(Daemon, &[&Path])) {
    if !have_qemu() {
        return;
    }
    let runtime = folder();
    let forms = [
        Form::udp(legacy_inet),
        Form::udp_alone(dgram_inet),
        Form::unix(&runtime),
        Form::unix_alone(&runtime),
        Form::legacy_multicast(),
        Form::multicast(),
        Form::l2tpv3_with_long_cookies_and_counter(Version::Installed),
    ];
    let ports: Vec<&str> = forms.iter().map(|form| form.port.as_str()).collect();
    let files = [runtime.path().join("any"), runtime.path().join("one")];
    let hub = Form::hub(&runtime, &ports, None);
    let mut relays: Vec<Relay> = forms.iter().map(|form| form.relay(Version::Installed, None)).collect();
    let mut wire = hub.connect();
    for (relay, number) in relays.iter_mut().zip(1..) {
        hears(relay, &mut wire, number, 1);
    }

    end(hub, &files.each_ref().map(AsRef::as_ref));
    for (relay, number) in relays.iter_mut().zip(1..) {
        relay.send(&frame(BROADCAST, mac(number), 60, 2));
    }

    let hub = Form::hub(&runtime, &ports, None);
    let mut wire = hub.connect();
    // Those whose address the hub is told are reached at once; the others when they have sent.
    let told = frame(BROADCAST, mac(99), 60, 3);
    wire.send(&told);
    for (relay, _) in relays.iter_mut().zip(&forms).filter(|(_, form)| !form.is_met) {
        relay.receive_if("the first frame of the new hub", |frame| *frame == told);
    }
    for (relay, number) in relays.iter_mut().zip(1..) {
        hears(relay, &mut wire, number, 4);
        let back = frame(mac(number), mac(99), 1514, 5);
        wire.send(&back);
        relay.receive_if("an answer", |frame| *frame == back);
    }
    hub.stop();
}

/// `wire` hears what `relay` sends.
fn hears(relay: &mut Relay, wire: &mut Wire, number: u8, seed: u8) {
    let sent = frame(BROADCAST, mac(number), 60, seed);
    relay.send(&sent);
    wire.receive_if("a frame from QEMU", |frame| *frame == sent);
}

#[test]
fn a_hub_that_was_killed_returns_to_its_qemus() {
    returns_to_its_qemus(|mut hub, files| {
        hub.signal(Signal::SIGKILL);
        hub.exit();
        assert!(files.iter().all(|file| file.exists()), "the next hub has nothing to replace");
    });
}

#[test]
fn a_hub_that_was_stopped_returns_to_its_qemus() {
    returns_to_its_qemus(|hub, files| {
        hub.stop();
        assert!(files.iter().all(|file| !file.exists()), "a socket file was left behind");
    });
}

/// Sends to whoever is at the port `name`, and gives its row when that has changed.
fn send_to(hub: &Daemon, wire: &mut Wire, name: &str, seed: u8) -> Row {
    let before = hub.table().port(name).clone();
    wire.send(&frame(BROADCAST, mac(1), 60, seed));
    hub.table_with("a frame to be counted", |table| {
        let row = table.port(name);
        (row.accounted() > before.accounted()).then(|| row.clone())
    })
}

#[test]
fn a_qemu_that_comes_late_and_again_is_down_in_between() {
    if !have_qemu() {
        return;
    }
    let runtime = folder();
    let form = Form::unix_alone(&runtime);
    let hub = Form::hub(&runtime, &[&form.port], None);
    let mut wire = hub.connect();
    for missed in 1..=3 {
        let row = send_to(&hub, &mut wire, "dgram1", 1);
        assert_eq!((row.dropped_for("down"), row.dropped, row.tx_frames), (missed, missed, 0));
    }
    assert_eq!(hub.count("WARN"), 1, "one warning is enough");
    for life in 1..=3 {
        let mut relay = form.relay(Version::Installed, None);
        // The hub speaks first: QEMU is not to have to.
        settle(&mut wire, &mut relay);
        let row = hub.table().port("dgram1").clone();
        assert!(row.tx_frames >= life, "{row:?}");
        hub.line("can be sent to again");
        drop(relay);
        let gone = send_to(&hub, &mut wire, "dgram1", 2);
        assert_eq!(gone.dropped_for("down"), row.dropped_for("down") + 1, "{gone:?}");
    }
    let remote = runtime.path().join("one.qemu");
    assert!(hub.log().contains(&format!("peer={}", utf8(&remote))), "{}", hub.log());
    hub.stop();
}

#[test]
fn a_qemu_that_comes_again_is_the_port_that_it_was() {
    if !have_qemu() {
        return;
    }
    let runtime = folder();
    let form = Form::unix(&runtime);
    let hub = Form::hub(&runtime, &[&form.port], None);
    let mut wire = hub.connect();
    for life in 0..3 {
        let mut relay = form.relay(Version::Installed, None);
        if life == 0 {
            settle(&mut relay, &mut wire);
        } else {
            settle(&mut wire, &mut relay);
        }
        let table = hub.table();
        let ports: Vec<&str> = table.ports.iter().map(|port| port.name.as_str()).collect();
        assert_eq!(ports, ["unix1", "dgram1"]);
        drop(relay);
        let gone = send_to(&hub, &mut wire, "dgram1", 3);
        assert_eq!(gone.dropped_for("down"), table.port("dgram1").dropped_for("down") + 1, "{gone:?}");
    }
    hub.stop();
}
