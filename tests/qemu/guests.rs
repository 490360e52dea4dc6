//! Linux guests on one segment.

use crate::common::guest::{self, Guest};
use crate::common::hub::{Hub, folder};
use crate::common::qemu::Version;
use crate::common::wait::{LIMIT, wait_for};
use crate::common::wire::{Flood, frame, mac};

/// What ping's last line says about the longest round trip, in milliseconds.
fn longest_round_trip(ping: &str) -> f64 {
    let numbers = ping.lines().last().and_then(|line| line.strip_prefix("round-trip min/avg/max = "));
    let longest = numbers.and_then(|numbers| numbers.trim_end_matches(" ms").split('/').next_back());
    longest.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("ping said {ping}"))
}

/// A line that the hub printed, for one more guest.
fn with_mac(line: &[String], mac: &str) -> Vec<String> {
    let word =
        |word: &String| word.split_once("mac=").map_or(word.clone(), |(card, _)| format!("{card}mac={mac}"));
    line.iter().map(word).collect()
}

#[test]
fn two_guests_with_the_pasted_lines_ping_and_run_iperf3() {
    let Some(_turn) = guest::turn() else { return };
    let runtime = folder();
    let hub = Hub::start(&runtime, &["--no-tcp"]);
    let lines = hub.paste_lines();
    let mut one = Guest::start(Version::Installed, &lines[0], "10.0.0.1/24", 1500);
    let mut other = Guest::start(Version::Installed, &lines[1], "10.0.0.2/24", 1500);
    one.booted();
    other.booted();

    let ping = one.run("ping -c 20 -i 0.05 -q 10.0.0.2");
    assert!(ping.contains(" 0% packet loss"), "{ping}");
    other.run("iperf3 -s -D && sleep 0.2");
    one.run("iperf3 -c 10.0.0.2 -n 4M");
    one.run("iperf3 -c 10.0.0.2 -n 4M -R");

    for guest in [&mut one, &mut other] {
        guest.run("ip link set eth0 mtu 9000");
    }
    // 8 of ICMP, 20 of IP: 9014 bytes on the wire.
    one.run("ping -c 5 -i 0.05 -q -s 8972 10.0.0.2");
    one.run("iperf3 -c 10.0.0.2 -n 8M");
    let log = hub.stop();
    let totals: Vec<_> = log.lines().filter(|line| line.contains("] unix")).collect();
    assert_eq!(totals.len(), 2, "{log}");
    assert!(totals.iter().all(|total| total.contains("dropped 0 ")), "bulk flows lost frames: {log}");
}

/// A stopped guest whose port is flooded costs the sender of the flood a moment, and others nothing.
#[test]
fn a_stopped_guest_holds_nobody_up() {
    let Some(_turn) = guest::turn() else { return };
    let runtime = folder();
    let hub = Hub::start(&runtime, &["--no-tcp"]);
    let mut guests = [1, 2, 3].map(|number| {
        let net = with_mac(&hub.paste_lines()[0], &format!("52:54:00:00:00:0{number}"));
        Guest::start(Version::Installed, &net, &format!("10.0.0.{number}/24"), 1500)
    });
    guests.iter_mut().for_each(Guest::booted);
    let [one, other, stopped] = &mut guests;
    one.run("ping -c 2 -i 0.05 -q 10.0.0.3");
    one.run("ping -c 2 -i 0.05 -q 10.0.0.2");

    stopped.qemu().execute("stop", "{}");
    let flood = Flood::start(hub.connect(), vec![frame([0x52, 0x54, 0, 0, 0, 3], mac(1), 1514, 7); 32]);
    let ping = one.run("ping -c 60 -i 0.05 -q 10.0.0.2");
    assert!(ping.contains(" 0% packet loss"), "{ping}");
    assert!(longest_round_trip(&ping) < 500.0, "{ping}");
    let before = flood.rounds();
    wait_for("the flood to go on", LIMIT, || (flood.rounds() > before + 100).then_some(()));
    flood.stop();

    stopped.qemu().execute("cont", "{}");
    one.run("ping -c 5 -i 0.2 -q 10.0.0.3");
    other.run("ping -c 5 -i 0.2 -q 10.0.0.3");
    hub.stop();
}
