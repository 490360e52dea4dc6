//! `macvtap:`: a second card on an interface of the host, here one end of a veth.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::daemon::{Bystanders, Daemon};
use crate::common::hub::folder;
use crate::common::net::Namespace;
use crate::common::refusal::refusal;
use crate::common::sniffer::{Collector, Sniffer};
use crate::common::stack::{have_stacks, naming, privately};
use crate::common::wait::{LIMIT, pause, wait_for};
use crate::common::wire::{BROADCAST, Station, Wire, frame, mac};

fn cabled() -> [Namespace; 2] {
    let [home, far] = [(); 2].map(|()| Namespace::quiet());
    home.cable("v", &far, "w");
    home.ip("addr add 10.9.0.3/24 dev v");
    far.ip("addr add 10.9.0.2/24 dev w");
    home.pings("", "10.9.0.2");
    [home, far]
}

/// Each sends what the other receives; the one behind the hub has the address `own`.
fn frames_pass(wire: &mut Wire, own: [u8; 6], there: &mut Sniffer) {
    let sent = frame(BROADCAST, own, 60, 1);
    wire.send(&sent);
    there.receive_if("a frame from the hub", |frame| *frame == sent);
    // For a group that only the guest has joined, too.
    for (to, length) in [(own, 60), (own, 1514), ([0x33, 0x33, 0xff, 1, 2, 3], 86)] {
        let sent = frame(to, mac(2), length, 2);
        there.send(&sent);
        assert_eq!(wire.receive_if("a frame from the cable", |frame| frame[6..12] == mac(2)), sent);
    }
}

fn octets(mac: &str) -> [u8; 6] {
    let octets: Vec<u8> =
        mac.split(':').map(|octet| u8::from_str_radix(octet, 16).expect("an octet")).collect();
    octets.try_into().expect("six octets")
}

/// The address that the hub told for its macvtap.
fn told_mac(hub: &Daemon) -> [u8; 6] {
    let line = hub.line("macvtap with mac=");
    octets(&line.split("mac=").nth(1).expect("it is there")[..17])
}

/// The macvtap that the hub has open.
fn device(hub: &Daemon) -> PathBuf {
    let files = fs::read_dir(format!("/proc/{}/fd", hub.pid())).expect("the hub lives");
    let mut open = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    open.find(|path| path.starts_with("/dev") && path.to_string_lossy().starts_with("/dev/tap"))
        .expect("a macvtap")
}

#[test]
fn one_of_our_own_has_an_address_and_leaves_nothing_behind() {
    if !have_stacks() {
        return;
    }
    let ([home, far], runtime) = (cabled(), folder());
    let before = home.sh("ip -o link");
    let mut there = Sniffer::new(&far, "w");
    let mut told = None;
    for end in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut hub = home.within(|| Daemon::start(runtime.path(), &["macvtap:v"]));
        let device = device(&hub);
        assert!(device.exists());
        assert_eq!(home.sh("ip -o link"), before, "it shows");
        frames_pass(&mut hub.connect(), told_mac(&hub), &mut there);
        let mac = told_mac(&hub);
        assert_eq!(*told.get_or_insert(mac), mac, "it is another one at every start");
        home.pings("", "10.9.0.2");
        hub.signal(end);
        hub.exit();
        wait_for("the macvtap to go", LIMIT, || (!device.exists()).then_some(()));
        assert_eq!(home.sh("ip -o link"), before);
    }
}

/// Its address is a guest's, who alone speaks for it.
#[test]
fn one_of_our_own_says_nothing_by_itself() {
    if !have_stacks() {
        return;
    }
    let ([home, far], runtime) = (cabled(), folder());
    let there = Collector::start(Sniffer::new(&far, "w"));
    let hub = home.within(|| Daemon::start(runtime.path(), &["macvtap:v"]));
    let own = told_mac(&hub);
    // A new interface solicits its neighbours within a second.
    pause(Duration::from_millis(1500));
    let said = there.stop().into_iter().find(|frame| frame[6..12] == own);
    assert_eq!(said, None);
    hub.stop();
}

#[test]
fn a_stack_with_its_address_runs_tcp() {
    if !have_stacks() {
        return;
    }
    let ([home, far], one, runtime) = (cabled(), Namespace::quiet(), folder());
    let script = privately(&naming(&[("one", &one)]));
    let args = ["macvtap:v", "tap:a,netns=one,addr=10.9.0.1/24"];
    let hub = home.within(|| Daemon::start_by(runtime.path(), &script, &args));
    let line = hub.line("macvtap with mac=");
    let own = &line.split("mac=").nth(1).expect("it is there")[..17];
    one.ip(&format!("link set dev a address {own}"));
    one.pings("", "10.9.0.2");
    far.pings("", "10.9.0.1");
    far.serves_iperf3(&one, "-c 10.9.0.2 -n 20M");
    far.serves_iperf3(&one, "-c 10.9.0.2 -n 20M -R");
    for stack in [&one, &far] {
        assert_eq!(stack.counter("Tcp", "InCsumErrors"), 0);
    }
    hub.stop();
}

#[test]
fn passthru_has_the_interface_for_itself_until_it_ends() {
    if !have_stacks() {
        return;
    }
    let ([home, far], runtime) = (cabled(), folder());
    let mut there = Sniffer::new(&far, "w");
    let port = "macvtap:v,mode=passthru";
    let mut hub = home.within(|| Daemon::start(runtime.path(), &[port]));
    assert_eq!(told_mac(&hub), octets(&home.link("v").0), "it has the address of the interface");
    // Whomever they are for.
    frames_pass(&mut hub.connect(), mac(1), &mut there);
    for other in ["macvtap:v", port] {
        let line = home.within(|| refusal(folder().path(), &[other]));
        assert!(line.contains("make a macvtap on v: ") && line.contains("has it for itself"), "{line}");
    }
    hub.signal(Signal::SIGKILL);
    hub.exit();
    let device = Path::new("/proc").join(hub.pid().to_string());
    wait_for("the hub to be gone", LIMIT, || (!device.exists()).then_some(()));
    // Its namespace goes a moment later.
    let again = wait_for("the interface to be free again", LIMIT, || {
        let free =
            home.try_sh("ip link add link v name probe type macvtap mode passthru && ip link del probe");
        free.status.success().then(|| home.within(|| Daemon::start(folder().path(), &[port])))
    });
    drop(again);
}

#[test]
fn one_that_is_there_is_opened_and_stays() {
    if !have_stacks() {
        return;
    }
    let ([home, far], runtime) = (cabled(), folder());
    // Its file is called by its number, and all namespaces share the folder.
    let number = 1_000_000 + process::id();
    home.ip(&format!("link add link v name mt0 index {number} type macvtap mode bridge"));
    home.ip("link set mt0 up");
    let port = format!("macvtap:/dev/tap{number}");
    let hub = home.within(|| Daemon::start(runtime.path(), &[&port]));
    assert_eq!(hub.table().port("mt0").peer, "interface mt0");
    let mut there = Sniffer::new(&far, "w");
    frames_pass(&mut hub.connect(), octets(&home.link("mt0").0), &mut there);
    hub.stop();
    assert!(home.has_link("mt0"));
}

#[test]
fn macvtaps_that_are_deleted_are_removed() {
    if !have_stacks() {
        return;
    }
    let number = 2_000_000 + process::id();
    let there = format!("macvtap:/dev/tap{number}");
    // The second goes with the interface that it is on.
    for (port, deleted) in [(there.as_str(), "mt0"), ("macvtap:v", "v")] {
        let ([home, _far], runtime) = (cabled(), folder());
        home.ip(&format!("link add link v name mt0 index {number} type macvtap mode bridge"));
        home.ip("link set mt0 up");
        let hub = home.within(|| Daemon::start(runtime.path(), &[port]));
        let mut bystanders = Bystanders::join(&hub);
        home.ip(&format!("link del {deleted}"));
        wait_for("the port to go", LIMIT, || {
            bystanders.one.send(&frame(BROADCAST, mac(1), 60, 1));
            bystanders.talk();
            (hub.count("port down") == 1).then_some(())
        });
        assert!(hub.line("port down").ends_with("the interface was deleted"), "{}", hub.log());
        assert!(hub.idles(), "it spins");
        hub.stop();
    }
}
