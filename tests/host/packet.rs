//! `packet:`: the cable of an interface of the host, here one end of a veth.

use std::time::Duration;

use crate::common::checked::all_checked;
use crate::common::daemon::{Bystanders, Daemon};
use crate::common::hub::folder;
use crate::common::net::Namespace;
use crate::common::sniffer::{Collector, Sniffer};
use crate::common::stack::{have_stacks, naming, privately};
use crate::common::wait::{LIMIT, pause, wait_for};
use crate::common::wire::{BROADCAST, Station, frame, mac};

/// A host whose interface `v` has a cable to another's `w`, with 10.9.0.3 and 10.9.0.2.
fn cabled() -> [Namespace; 2] {
    let [home, far] = [(); 2].map(|()| Namespace::quiet());
    home.cable("v", &far, "w");
    home.ip("addr add 10.9.0.3/24 dev v");
    far.ip("addr add 10.9.0.2/24 dev w");
    // A cable is noticed late.
    home.pings("", "10.9.0.2");
    [home, far]
}

#[test]
fn frames_pass_once_whomever_they_are_for_and_none_comes_back() {
    if !have_stacks() {
        return;
    }
    let ([home, far], runtime) = (cabled(), folder());
    let hub = home.within(|| Daemon::start(runtime.path(), &["packet:v"]));
    // A real card would not hear what is for others.
    assert!(home.link("v").1.contains(" promiscuity 1 "));
    let (mut wire, mut there) = (hub.connect(), Sniffer::new(&far, "w"));
    for number in 1..=10 {
        let sent = frame(mac(9), mac(1), 59 + usize::from(number), number);
        wire.send(&sent);
        assert_eq!(there.receive_if("a frame from the hub", |frame| frame[6..12] == mac(1)), sent);
        let sent = frame(mac(8), mac(2), 1504 + usize::from(number), number);
        there.send(&sent);
        assert_eq!(wire.receive(), sent);
        let sent = frame(BROADCAST, mac(1), 60, number);
        wire.send(&sent);
        assert_eq!(there.receive_if("a frame from the hub", |frame| frame[6..12] == mac(1)), sent);
    }
    pause(Duration::from_millis(100));
    assert_eq!(wire.try_receive(Duration::from_millis(100)), None, "it came back");
    let port = hub.table().port("v").clone();
    assert_eq!((port.rx_frames, port.tx_frames, port.dropped), (10, 20, 0), "{port:?}");

    // The host's own frames, which are for others, are not the segment's.
    home.sh("ip neigh flush dev v; busybox ping -c 3 -i 0.02 -q 10.9.0.2");
    let heard = std::iter::from_fn(|| wire.try_receive(Duration::from_millis(100)));
    let own = home.link("v").0;
    for frame in heard {
        let source = frame[6..12].iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":");
        assert_ne!(source, own, "the host's own frame");
    }
    hub.stop();
    assert!(home.link("v").1.contains(" promiscuity 0 "), "it still hears what is for others");
}

#[test]
fn a_stack_behind_the_hub_reaches_one_at_the_other_end_of_the_cable() {
    if !have_stacks() {
        return;
    }
    let ([home, far], one, runtime) = (cabled(), Namespace::quiet(), folder());
    far.ip("addr add fd09::2/64 dev w");
    let script = privately(&naming(&[("one", &one)]));
    let args = ["--hub", "packet:v", "tap:a,netns=one,addr=10.9.0.1/24,addr=fd09::1/64"];
    let hub = home.within(|| Daemon::start_by(runtime.path(), &script, &args));
    let wire = Collector::start(hub.connect());
    one.pings("", "10.9.0.2");
    far.pings("", "10.9.0.1");
    assert!(!one.hears("10.9.0.3"), "the README says that the host itself is not reached");
    home.pings("", "10.9.0.2");

    one.serves_iperf3(&far, "-c 10.9.0.1 -n 20M");
    one.serves_iperf3(&far, "-c 10.9.0.1 -n 20M -R");
    far.serves_iperf3(&one, "-6 -c fd09::2 -n 4M");
    far.serves_iperf3(&one, "-6 -c fd09::2 -n 4M -R");
    far.serves_iperf3(&one, "-c 10.9.0.2 -u -b 50M -n 200K");
    far.serves_iperf3(&one, "-c 10.9.0.2 -u -b 50M -n 200K -R");
    for stack in [&one, &far] {
        assert_eq!((stack.counter("Tcp", "InCsumErrors"), stack.counter("Udp", "InCsumErrors")), (0, 0));
    }
    let [tcp, udp] = all_checked(&wire.stop());
    assert!(tcp > 1000 && udp > 200, "a third station saw {tcp} of TCP and {udp} of UDP");
    assert_eq!(hub.table().dropped_for("bad_offload"), 0);
    hub.stop();
}

#[test]
fn an_interface_that_goes_down_comes_back() {
    if !have_stacks() {
        return;
    }
    let ([home, far], runtime) = (cabled(), folder());
    let hub = home.within(|| Daemon::start(runtime.path(), &["packet:v"]));
    let (mut bystanders, mut there) = (Bystanders::join(&hub), Sniffer::new(&far, "w"));
    let sent = frame(BROADCAST, mac(1), 60, 1);
    for round in 1..=2 {
        home.ip("link set v down");
        for _ in 0..3 {
            bystanders.one.send(&sent);
            bystanders.talk();
            pause(Duration::from_millis(150));
        }
        assert!(hub.idles(), "it spins");
        if round == 1 {
            let line = hub.line("can't send: ");
            assert!(
                line.contains("WARN") && line.contains("the interface is down") && line.contains("port=v "),
                "{line}"
            );
        }
        assert_eq!(hub.count("WARN"), 1, "{}", hub.log());
        home.ip("link set v up");
        bystanders.drain();
        wait_for("frames to leave again", LIMIT, || {
            bystanders.one.send(&sent);
            there.try_receive(Duration::from_millis(50)).filter(|frame| *frame == sent)
        });
        bystanders.drain();
        let answer = frame(BROADCAST, mac(2), 61, 2);
        there.send(&answer);
        assert_eq!(bystanders.one.receive_if("a frame", |frame| frame[6..12] == mac(2)), answer);
        bystanders.talk();
    }
    assert_eq!(hub.count("port down"), 0, "{}", hub.log());
    assert!(hub.count("can be sent to again") >= 1, "{}", hub.log());
    hub.stop();
}

#[test]
fn interfaces_that_are_deleted_are_removed_and_others_untouched() {
    if !have_stacks() {
        return;
    }
    let ([home, _far], runtime) = (cabled(), folder());
    for number in 1..=6 {
        home.ip(&format!("link add x{number} type veth peer name y{number}"));
        home.ip(&format!("link set x{number} up"));
    }
    let mut args = vec!["packet:v".to_owned()];
    args.extend((1..=6).map(|number| format!("packet:x{number}")));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let hub = home.within(|| Daemon::start(runtime.path(), &args));
    let mut bystanders = Bystanders::join(&hub);
    // Nobody sends anything that would show it.
    for number in 1..=6 {
        home.ip(&format!("link del x{number}"));
        let line = hub.line(&format!("peer=interface x{number} reason="));
        assert!(line.contains("port down") && line.ends_with("the interface was deleted"), "{line}");
    }
    bystanders.talk();
    assert!(hub.idles(), "it spins");
    home.pings("", "10.9.0.2");
    assert_eq!((hub.table().ports.len(), hub.count("port down")), (3, 6), "{}", hub.log());
    hub.stop();
}

#[test]
fn a_deleted_interface_that_was_down_is_removed() {
    if !have_stacks() {
        return;
    }
    let ([home, _far], runtime) = (cabled(), folder());
    home.ip("link set v down");
    let hub = home.within(|| Daemon::start(runtime.path(), &["packet:v"]));
    let mut bystanders = Bystanders::join(&hub);
    home.ip("link del v");
    wait_for("the port to go", LIMIT, || {
        bystanders.one.send(&frame(BROADCAST, mac(1), 60, 1));
        (hub.count("port down") == 1).then_some(())
    });
    assert!(hub.line("port down").ends_with("the interface was deleted"), "{}", hub.log());
    bystanders.talk();
    assert!(hub.idles(), "it spins");
    hub.stop();
}
