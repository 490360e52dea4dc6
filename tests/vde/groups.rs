//! Port groups: entrances of a switch that clients choose by name.

use std::path::Path;

use crate::common::daemon::Daemon;
use crate::common::hub::{folder, utf8};
use crate::common::vde::{Plug, have_vde, sockets};
use crate::common::wire::{BROADCAST, Station, frame, mac, settle};

#[test]
fn a_group_has_an_entrance_of_its_own() {
    if !have_vde() {
        return;
    }
    let runtime = folder();
    let vde = runtime.path().join("vde");
    let all = format!("vde:{}", utf8(&vde));
    let group = format!("vde:{},port-group=lan1,name=lan,max-frame=1514", utf8(&vde));
    let hub = Daemon::start(runtime.path(), &[&all, &group]);
    assert_eq!(sockets(&vde), ["ctl", "lan1"]);
    let plug = |of: &str| Plug::start(&[&format!("vde://{}{of}", utf8(&vde))]);
    let mut wire = hub.connect();
    let [mut outside, mut one, mut other] = ["", "[lan1]", "[lan1]"].map(|of| {
        let mut plug = plug(of);
        settle(&mut wire, &mut plug);
        plug
    });
    // What is set for the group holds for its clients only.
    for (length, reaches_all) in [(1514, true), (1515, false)] {
        let sent = frame(BROADCAST, mac(1), length, 1);
        wire.send(&sent);
        wire.send(&frame(BROADCAST, mac(1), 60, 2));
        assert!(outside.receive() == sent);
        outside.receive();
        for plug in [&mut one, &mut other] {
            assert_eq!(plug.receive() == sent, reaches_all);
            if reaches_all {
                plug.receive();
            }
        }
    }
    // They are ports as others are: all hear each other.
    let sent = frame(BROADCAST, mac(2), 60, 3);
    one.send(&sent);
    assert!(other.receive() == sent && outside.receive() == sent && wire.receive() == sent);
    let names: Vec<String> = hub.table().ports.into_iter().map(|row| row.name).collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("lan")).count(), 2, "{names:?}");
    // One that asks for a group that there is not is let in by the common entrance.
    settle(&mut wire, &mut plug("[lan2]"));
    hub.stop();
    assert!(!vde.exists(), "{:?}", sockets(&vde));
}

#[test]
fn a_group_may_be_the_only_entrance() {
    if !have_vde() {
        return;
    }
    let runtimes = [folder(), folder()];
    let vde = runtimes[0].path().join("vde");
    let vde = utf8(&vde);
    let hub = Daemon::start(runtimes[0].path(), &[&format!("vde:{vde},port-group=lan1")]);
    for other in ["", "[7]", "[lan2]"] {
        Plug::start(&[&format!("{vde}{other}")]).fails();
    }
    let mut plug = Plug::start(&[&format!("{vde}[lan1]")]);
    settle(&mut hub.connect(), &mut plug);
    // Another hub comes by it, too.
    let other = Daemon::start(runtimes[1].path(), &[&format!("connect:vde:{vde},port-group=lan1")]);
    settle(&mut other.connect(), &mut plug);
    other.stop();
    hub.stop();
    assert!(!Path::new(vde).exists());
}
