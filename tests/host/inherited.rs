//! `fd:N` of a TAP that somebody else opened, with a header in front of each frame or without.

use std::time::Duration;

use crate::common::checked::all_checked;
use crate::common::daemon::Daemon;
use crate::common::hub::folder;
use crate::common::net::Namespace;
use crate::common::sniffer::{Collector, Sniffer};
use crate::common::stack::{have_stacks, naming, privately};
use crate::common::tap::{Tap, Vnet, have_taps};
use crate::common::wire::{BROADCAST, Station, frame, mac};

#[test]
fn frames_pass_an_inherited_tap_without_a_header_too_many() {
    if !have_taps() || !have_stacks() {
        return;
    }
    for vnet in [Vnet::None, Vnet::Header(10), Vnet::Header(12)] {
        let (home, one, runtime) = (Namespace::quiet(), Namespace::quiet(), folder());
        let tap = home.within(|| Tap::create("lab", vnet));
        home.ip("link set lab up");
        home.ip("addr add 10.9.0.1/24 dev lab");
        home.ip("addr add fd09::1/64 dev lab");
        let script = privately(&naming(&[("one", &one)]));
        let args = ["--no-tcp", "--hub", "fd:0", "tap:far,netns=one,addr=10.9.0.2/24,addr=fd09::2/64"];
        let hub =
            home.within(|| Daemon::launch(runtime.path(), &script, &args, tap.into_fd().into())).served();
        assert_eq!(hub.table().port("fd0").peer, "interface lab");

        let (mut wire, mut there) = (hub.connect(), Sniffer::new(&home, "lab"));
        for length in [14, 60, 1514] {
            let sent = frame(BROADCAST, mac(1), length, 1);
            wire.send(&sent);
            assert_eq!(
                there.receive_if("a frame from the hub", |frame| frame[6..12] == mac(1)),
                sent,
                "{vnet:?}"
            );
            let sent = frame(mac(1), mac(2), length, 2);
            there.send(&sent);
            assert_eq!(
                wire.receive_if("a frame from the TAP", |frame| frame[6..12] == mac(2)),
                sent,
                "{vnet:?}"
            );
        }
        assert_eq!(there.try_receive(Duration::from_millis(10)).filter(|frame| frame[6..12] == mac(1)), None);

        let wire = Collector::start(wire);
        one.serves_iperf3(&home, "-c 10.9.0.2 -n 4M --bidir");
        one.serves_iperf3(&home, "-6 -c fd09::2 -n 1M --bidir");
        let [tcp, _] = all_checked(&wire.stop());
        assert!(tcp > 1000, "{vnet:?}: a third station saw {tcp} of TCP");
        for stack in [&home, &one] {
            assert_eq!(stack.counter("Tcp", "InCsumErrors"), 0);
        }
        assert_eq!(hub.table().dropped_for("bad_offload"), 0);
        hub.stop();
        assert!(!home.has_link("lab"), "somebody still has it");
    }
}
