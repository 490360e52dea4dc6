//! Bulk TCP and UDP between real stacks whose TAPs leave segments and checksums to the hub, or do not: whoever does it
//! itself never sees anything unfinished.

use crate::common::checked::all_checked;
use crate::common::daemon::Daemon;
use crate::common::hub::folder;
use crate::common::net::Namespace;
use crate::common::sniffer::{Collector, Sniffer};
use crate::common::stack::{have_stacks, naming, privately};

#[test]
fn nobody_without_offload_sees_anything_unfinished() {
    if !have_stacks() {
        return;
    }
    for switches in [["on", "on"], ["on", "off"], ["off", "on"], ["off", "off"]] {
        let ([home, one, two], runtime) = ([(); 3].map(|()| Namespace::quiet()), folder());
        let stacks = [("one", &one), ("two", &two)];
        let script = privately(&naming(&stacks));
        let ports: Vec<String> = (1..)
            .zip(stacks)
            .zip(switches)
            .map(|((number, (name, _)), switch)| {
                format!("tap:lab{number},netns={name},addr=10.9.0.{number}/24,addr=fd09::{number}/64,offload={switch}")
            })
            .collect();
        // A third station hears everything.
        let hub = home.within(|| Daemon::start_by(runtime.path(), &script, &["--hub", &ports[0], &ports[1]]));
        let mut collectors = vec![Collector::start(hub.connect())];
        for ((stack, interface), switch) in [(&one, "lab1"), (&two, "lab2")].into_iter().zip(switches) {
            if switch == "off" {
                collectors.push(Collector::start(Sniffer::new(stack, interface)));
            }
        }
        one.pings("", "10.9.0.2");
        two.serves_iperf3(&one, "-c 10.9.0.2 -n 10M --bidir");
        two.serves_iperf3(&one, "-6 -c fd09::2 -n 4M --bidir");
        two.serves_iperf3(&one, "-c 10.9.0.2 -u -b 50M -n 200K --bidir");
        two.serves_iperf3(&one, "-6 -c fd09::2 -u -b 50M -n 200K --bidir");
        for stack in [&one, &two] {
            assert_eq!((stack.counter("Tcp", "InCsumErrors"), stack.counter("Udp", "InCsumErrors")), (0, 0));
            assert_eq!(stack.counter("Ip", "InHdrErrors"), 0);
        }
        for collector in collectors {
            let [tcp, udp] = all_checked(&collector.stop());
            assert!(tcp > 1000 && udp > 400, "{switches:?}: {tcp} of TCP and {udp} of UDP");
        }
        let table = hub.table();
        for port in ["lab1", "lab2"] {
            assert_eq!(table.port(port).dropped, 0, "{switches:?}: {table:?}");
        }
        hub.stop();
    }
}

/// A persistent TAP remembers what the one who had it before did itself.
#[test]
fn offload_is_off_for_whoever_opens_a_tap_without() {
    if !have_stacks() {
        return;
    }
    let ([home, two], runtime) = ([(); 2].map(|()| Namespace::quiet()), folder());
    let hub = home.within(|| Daemon::start(runtime.path(), &["tap:keep,persist=on,addr=10.9.0.1/24"]));
    hub.stop();
    let script = privately(&naming(&[("two", &two)]));
    let args = ["--hub", "tap:keep,offload=off", "tap:lab2,netns=two,addr=10.9.0.2/24"];
    let hub = home.within(|| Daemon::start_by(runtime.path(), &script, &args));
    let collectors = [Collector::start(hub.connect()), Collector::start(Sniffer::new(&home, "keep"))];
    two.serves_iperf3(&home, "-c 10.9.0.2 -n 4M --bidir");
    for collector in collectors {
        let [tcp, _] = all_checked(&collector.stop());
        assert!(tcp > 1000, "{tcp} of TCP");
    }
    hub.stop();
}
