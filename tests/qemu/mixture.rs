//! Linux guests that are attached each in another way.

use crate::common::guest::{self, Guest};
use crate::common::hub::{folder, utf8};
use crate::common::qemu::Version;

use super::forms::{Form, dgram_inet};

#[test]
fn guests_on_a_bus_a_stream_udp_and_unix_datagrams_ping_each_other() {
    let Some(_turn) = guest::turn() else { return };
    let runtime = folder();
    let stream = runtime.path().join("qhub/default/qhub.sock");
    let forms =
        [Form::legacy_multicast(), Form::udp(dgram_inet), Form::unix(&runtime), Form::stream(utf8(&stream))];
    let ports: Vec<&str> = forms[..3].iter().map(|form| form.port.as_str()).collect();
    let hub = Form::hub(&runtime, &ports, None);
    let mut guests: Vec<Guest> = forms.iter().zip(1..).map(|(form, number)| boot(form, number)).collect();
    guests.iter_mut().for_each(Guest::booted);

    for (from, guest) in guests.iter_mut().enumerate() {
        for to in (0..forms.len()).filter(|&to| to != from) {
            let ping = guest.run(&format!("ping -c 3 -i 0.05 -q 10.0.0.{}", to + 1));
            assert!(ping.contains(" 0% packet loss"), "{} to {}: {ping}", forms[from].port, forms[to].port);
        }
    }
    for guest in &mut guests {
        guest.run("ip link set eth0 mtu 9000");
    }
    for (from, guest) in guests.iter_mut().enumerate() {
        for to in from + 1..forms.len() {
            // 8 of ICMP, 20 of IP: 9014 bytes on the wire.
            let ping = guest.run(&format!("ping -c 3 -i 0.05 -q -s 8972 10.0.0.{}", to + 1));
            assert!(ping.contains(" 0% packet loss"), "{} to {}: {ping}", forms[from].port, forms[to].port);
        }
    }
    let table = hub.table();
    assert_eq!(table.ports.len(), forms.len(), "{table:?}");
    assert!(table.ports.iter().all(|port| port.dropped == 0), "{table:?}");
    assert_eq!(hub.count("WARN"), 0, "{}", hub.log());
    hub.stop();
}

fn boot(form: &Form, number: u8) -> Guest {
    let card = format!("virtio-net-pci,netdev=s0,romfile=,mac=52:54:00:00:00:{number:02x}");
    let net = ["-netdev", &form.netdev, "-device", &card].map(str::to_owned);
    Guest::start(Version::Installed, &net, &format!("10.0.0.{number}/24"), 1500)
}
