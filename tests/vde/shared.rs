//! One port with several endpoints.

use std::process::Stdio;
use std::time::Duration;

use crate::common::hub::folder;
use crate::common::qemu::{Relay, Version, have_qemu};
use crate::common::vde::{Plug, have_vde, serving};
use crate::common::wire::{BROADCAST, Station, frame, mac, settle};

/// Long enough for a frame that comes.
const A_WHILE: Duration = Duration::from_millis(200);

#[test]
fn all_at_a_port_hear_what_is_for_it_and_nobody_hears_the_others() {
    if !have_vde() || !have_qemu() {
        return;
    }
    let runtime = folder();
    let (hub, vde) = serving(runtime.path(), "");
    let mut wire = hub.connect();
    let mut qemu = Relay::start(Version::Installed, &format!("vde,id=s0,sock={vde},port=5"), Stdio::null());
    let mut plugs = [Plug::start(&[&format!("{vde}[5]")]), Plug::start(&[&format!("vde://{vde}[5]")])];
    settle(&mut wire, &mut qemu);
    plugs.iter_mut().for_each(|plug| settle(&mut wire, plug));
    while qemu.try_receive(A_WHILE).is_some() {}
    let rows = hub.table().ports;
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["unix1", "vde5", "vde5-1", "vde5-2"]);

    for (to, seed) in [(mac(9), 1), (BROADCAST, 2)] {
        let sent = frame(to, mac(1), 1514, seed);
        wire.send(&sent);
        assert!(qemu.receive() == sent);
        for plug in &mut plugs {
            assert!(plug.receive() == sent);
        }
        // What one of them sends leaves by the other ports only.
        let sent = frame(to, mac(2), 1514, seed);
        qemu.send(&sent);
        assert!(wire.receive() == sent);
        let sent = frame(to, mac(3), 1514, seed);
        plugs[0].send(&sent);
        assert!(wire.receive() == sent);
    }
    // What is for one of them is for the port.
    let sent = frame(mac(3), mac(1), 60, 3);
    wire.send(&sent);
    assert!(qemu.receive() == sent);
    for plug in &mut plugs {
        assert!(plug.receive() == sent);
    }
    // And to the other it has no way out.
    plugs[1].send(&frame(mac(3), mac(4), 60, 4));
    for station in &mut plugs {
        assert_eq!(station.try_receive(A_WHILE), None);
    }
    assert_eq!(qemu.try_receive(A_WHILE), None);
    assert_eq!(wire.try_receive(A_WHILE), None);

    // The port is theirs to the last.
    drop(qemu);
    let [one, mut other] = plugs;
    drop(one);
    hub.table_with("two to go", |table| (table.ports.len() == 2).then_some(()));
    let sent = frame(mac(2), mac(1), 60, 5);
    wire.send(&sent);
    assert!(other.receive() == sent);
    hub.stop();
}
