//! TAPs that are taken down, deleted or renamed while the hub runs.

use std::time::Duration;

use crate::common::daemon::{Bystanders, Daemon};
use crate::common::hub::folder;
use crate::common::net::Namespace;
use crate::common::sniffer::Sniffer;
use crate::common::stack::have_stacks;
use crate::common::wait::{LIMIT, pause, wait_for};
use crate::common::wire::{BROADCAST, Station, frame, mac};

#[test]
fn a_tap_that_goes_down_is_told_once_and_comes_back() {
    if !have_stacks() {
        return;
    }
    for spec in ["tap:lab", "tap:lab,offload=off"] {
        let (home, runtime) = (Namespace::quiet(), folder());
        let hub = home.within(|| Daemon::start(runtime.path(), &[spec]));
        let (mut bystanders, mut there) = (Bystanders::join(&hub), Sniffer::new(&home, "lab"));
        let sent = frame(BROADCAST, mac(1), 60, 1);
        home.ip("link set lab down");
        for _ in 0..5 {
            bystanders.one.send(&sent);
            bystanders.talk();
            pause(Duration::from_millis(120));
        }
        let line = hub.line("can't send: ");
        assert!(
            line.contains("WARN") && line.contains("the interface is down") && line.contains("port=lab "),
            "{line}"
        );
        assert!(hub.idles(), "it spins");
        assert_eq!((hub.count("WARN"), hub.count("port down")), (1, 0), "{}", hub.log());
        assert!(hub.table().port("lab").dropped_for("down") >= 5);

        home.ip("link set lab up");
        wait_for("frames to leave again", LIMIT, || {
            bystanders.one.send(&sent);
            let frame = there.try_receive(Duration::from_millis(50));
            bystanders.talk();
            frame.filter(|frame| *frame == sent)
        });
        hub.line("can be sent to again");
        bystanders.drain();
        let answer = frame(BROADCAST, mac(2), 61, 2);
        there.send(&answer);
        assert_eq!(bystanders.one.receive_if("a frame", |frame| frame[6..12] == mac(2)), answer);
        hub.stop();
    }
}

#[test]
fn taps_that_are_deleted_are_removed_and_others_untouched() {
    if !have_stacks() {
        return;
    }
    let (home, runtime) = (Namespace::quiet(), folder());
    let args = ["tap:laba", "tap:labb,offload=off", "tap:labc,persist=on", "tap:labd"];
    let hub = home.within(|| Daemon::start(runtime.path(), &args));
    let mut bystanders = Bystanders::join(&hub);
    let files = hub.files();
    home.ip("link set labc down");
    for name in ["laba", "labb", "labc"] {
        home.ip(&format!("link del {name}"));
        let line = hub.line(&format!("peer=interface {name} reason="));
        assert!(line.contains("port down") && line.ends_with("the interface was deleted"), "{line}");
        bystanders.talk();
    }
    hub.files_return_to(files - 3);
    assert!(hub.idles(), "it spins");
    let mut there = Sniffer::new(&home, "labd");
    let sent = frame(BROADCAST, mac(1), 60, 1);
    bystanders.one.send(&sent);
    assert_eq!(there.receive_if("a frame", |frame| frame[6..12] == mac(1)), sent);
    assert_eq!(hub.table().ports.len(), 3);
    hub.stop();
}

/// An interface may go elsewhere, under another name: the file stays attached to it.
#[test]
fn a_tap_that_moves_or_is_renamed_goes_on() {
    if !have_stacks() {
        return;
    }
    let ([home, other], runtime) = ([(); 2].map(|()| Namespace::quiet()), folder());
    let hub = home.within(|| Daemon::start(runtime.path(), &["tap:lab"]));
    let mut wire = hub.connect();
    home.ip("link set lab down");
    home.ip(&format!("link set lab name moved netns {}", other.path()));
    other.ip("link set moved up");
    let mut there = Sniffer::new(&other, "moved");
    let sent = frame(BROADCAST, mac(1), 60, 1);
    wait_for("frames to leave again", LIMIT, || {
        wire.send(&sent);
        there.try_receive(Duration::from_millis(50)).filter(|frame| *frame == sent)
    });
    let answer = frame(BROADCAST, mac(2), 61, 2);
    there.send(&answer);
    assert_eq!(wire.receive(), answer);
    hub.stop();
}
