//! Datagrams from addresses that are not wanted, or too many.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use socket2::SockAddr;

use super::peer::{Peer, address};
use crate::common::daemon::{Bystanders, Daemon};
use crate::common::hub::{folder, utf8};
use crate::common::net::free_udp_port;
use crate::common::wait::{Deadline, LIMIT, pause, wait_for};
use crate::common::wire::{BROADCAST, Station, frame, mac, settle};

#[test]
fn a_thousand_strangers_get_nowhere() {
    let runtime = folder();
    let (port, remote) = (free_udp_port(), free_udp_port());
    let daemon = Daemon::start(runtime.path(), &[&format!("udp:{port},remote=127.0.0.1:{remote}")]);
    let mut bystanders = Bystanders::join(&daemon);
    let mut peer = Peer::udp_at(remote, port);
    settle(&mut peer, &mut bystanders.one);
    bystanders.drain();
    let (files, memory) = (daemon.files(), daemon.memory());
    for _ in 0..100 {
        for _ in 0..10 {
            Peer::udp(port).send(&frame(BROADCAST, mac(4), 60, 1));
        }
        bystanders.talk();
    }
    // One that knows the peer's host but not its port, and the hub's own peer that still talks.
    let sent = frame(BROADCAST, mac(3), 60, 1);
    peer.send(&sent);
    assert_eq!(bystanders.one.receive(), sent, "no stranger was heard");
    let lost =
        daemon.table_with("all strangers", |table| Some(table.lost_for("stranger")).filter(|&n| n >= 1000));
    assert_eq!(lost, 1000);
    let table = daemon.table();
    assert_eq!((table.ports.len(), table.dropped_for("stranger")), (3, 1000), "{table:?}");
    assert_eq!(daemon.files(), files);
    let grown = daemon.memory().saturating_sub(memory);
    assert!(grown < 4 << 10, "{grown} KiB more than before");
    assert!(daemon.log().lines().count() < 30, "{}", daemon.log());
    bystanders.talk();
    daemon.stop();
}

#[test]
fn a_unix_peer_is_known_by_whatever_name_it_has() {
    let runtime = folder();
    let hub = runtime.path().join("hub");
    let daemon = Daemon::start(runtime.path(), &[&format!("dgram:{}", utf8(&hub))]);
    let mut bystanders = Bystanders::join(&daemon);
    // Nothing can be sent to a socket without a name.
    let nameless = Peer::nameless(&hub);
    for _ in 0..3 {
        nameless.try_send(&frame(BROADCAST, mac(3), 60, 1)).expect("the hub's socket takes it");
    }
    daemon.table_with("strangers", |table| (table.lost_for("stranger") == 3).then_some(()));
    assert_eq!(daemon.table().ports.len(), 2);

    // The system gives the first two an abstract name each; others choose what they like.
    let mut names = vec![SockAddr::unix("").expect("no path"); 2];
    let folder = utf8(runtime.path());
    for name in [format!("\0{folder}"), format!("\0{folder}\n\u{1b}[2J\0"), format!("\0{folder:n<107}")] {
        names.push(address(Path::new(&name)));
    }
    let mut peers: Vec<Peer> = names.iter().map(|_| Peer::nameless(&hub)).collect();
    for (peer, name) in peers.iter().zip(&names) {
        peer.socket().bind(name).expect("a name that is free");
    }
    for peer in &mut peers {
        settle(peer, &mut bystanders.one);
    }
    let table = daemon.table();
    assert_eq!(table.ports.len(), 7, "{table:?}");
    assert!(!daemon.log().contains('\u{1b}'), "{}", daemon.log());
    assert_eq!(daemon.count("port up"), 7, "{}", daemon.log());
    bystanders.drain();
    bystanders.talk();
    daemon.stop();
}

#[test]
fn there_are_no_more_peers_than_were_asked_for() {
    for (most, asked) in [(1, ",max-peers=1"), (2, ",max-peers=2"), (64, "")] {
        for is_unix in [false, true] {
            let runtime = folder();
            let (hub, port) = (runtime.path().join("hub"), free_udp_port());
            let place = if is_unix { format!("dgram:{}", utf8(&hub)) } else { format!("udp:{port}") };
            let daemon = Daemon::start(runtime.path(), &[&format!("{place}{asked}")]);
            let mut bystanders = Bystanders::join(&daemon);
            let join = |number: usize| match is_unix {
                true => Peer::unix(&runtime.path().join(number.to_string()), &hub),
                false => Peer::udp(port),
            };
            let mut peers: Vec<Peer> = (0..most).map(join).collect();
            for peer in &mut peers {
                settle(peer, &mut bystanders.one);
            }
            bystanders.drain();
            let files = daemon.files();
            for number in most..most + 3 {
                let mut late = join(number);
                for _ in 0..2 {
                    late.send(&frame(BROADCAST, mac(4), 60, 1));
                }
                bystanders.talk();
            }
            daemon.table_with("newcomers", |table| (table.lost_for("no_place") == 6).then_some(()));
            let table = daemon.table();
            assert_eq!((table.ports.len(), daemon.files()), (2 + most, files), "{table:?}");
            assert_eq!(table.dropped_for("no_place"), 6, "{table:?}");
            assert_eq!(daemon.count("no place for another peer"), 1, "{}", daemon.log());
            // Those that are there stay.
            let sent = frame(BROADCAST, mac(0xe1), 60, 9);
            bystanders.one.send(&sent);
            for peer in &mut peers {
                peer.receive_if("a broadcast", |frame| frame == sent);
                settle(peer, &mut bystanders.other);
            }
            daemon.stop();
        }
    }
}

#[test]
fn thousands_of_sources_leave_no_trace() {
    let runtime = folder();
    let port = free_udp_port();
    let daemon = Daemon::start(runtime.path(), &[&format!("udp:{port}")]);
    let mut bystanders = Bystanders::join(&daemon);
    let mut peers: Vec<Peer> = (0..64).map(|_| Peer::udp(port)).collect();
    for peer in &mut peers {
        settle(peer, &mut bystanders.one);
    }
    bystanders.drain();
    let (files, memory, lines) = (daemon.files(), daemon.memory(), daemon.log().lines().count());
    for _ in 0..100 {
        // Held until all have sent, so that no two have one address.
        let sources: Vec<Peer> = (0..40).map(|_| Peer::udp(port)).collect();
        for source in &sources {
            source.try_send(&frame(BROADCAST, mac(4), 60, 1)).expect("the hub's socket takes it");
        }
        bystanders.talk();
    }
    daemon.table_with("all newcomers", |table| (table.lost_for("no_place") == 4000).then_some(()));
    assert_eq!(daemon.files(), files);
    let grown = daemon.memory().saturating_sub(memory);
    assert!(grown < 4 << 10, "{grown} KiB more than before");
    let told = daemon.count("refused 127.0.0.1:");
    assert_eq!(told, 1, "in {lines} lines and then {}", daemon.log());
    assert!(daemon.idles(), "it spins");
    for peer in &mut peers {
        settle(peer, &mut bystanders.one);
    }
    bystanders.talk();
    daemon.stop();
}

#[test]
fn datagram_peers_are_no_more_than_max_ports() {
    let runtime = folder();
    let (hub, port) = (runtime.path().join("hub"), free_udp_port());
    let args = ["--max-ports", "4", &format!("udp:{port}"), &format!("dgram:{}", utf8(&hub))];
    let daemon = Daemon::start(runtime.path(), &args);
    let mut bystanders = Bystanders::join(&daemon);
    let mut peers = [Peer::udp(port), Peer::unix(&runtime.path().join("peer"), &hub)];
    for peer in &mut peers {
        settle(peer, &mut bystanders.one);
    }
    bystanders.drain();
    let files = daemon.files();
    for number in 0..100 {
        Peer::udp(port).send(&frame(BROADCAST, mac(4), 60, 1));
        let path = runtime.path().join(format!("late{number}"));
        Peer::unix(&path, &hub).send(&frame(BROADCAST, mac(4), 60, 1));
        // This one gets a socket of its own for nothing.
        let late = Peer::unix(&runtime.path().join(format!("connected{number}")), &hub).connect(&hub);
        late.try_send(&frame(BROADCAST, mac(4), 60, 1)).expect("the hub's socket takes it");
        bystanders.talk();
    }
    daemon.table_with("the refused", |table| (table.lost_for("no_place") >= 200).then_some(()));
    let table = daemon.table();
    assert_eq!((table.ports.len(), table.lost_for("no_place"), daemon.files()), (4, 300, files), "{table:?}");
    // One that has died at once has no socket any more.
    let told = ["all 4 ports are in use", "refused"].map(|what| daemon.count(what));
    assert!(told[1] <= 2, "{}", daemon.log());
    for peer in &mut peers {
        settle(peer, &mut bystanders.one);
    }
    drop(bystanders.other);
    daemon.table_with("a place", |table| (table.ports.len() == 3).then_some(()));
    settle(&mut Peer::udp(port), &mut bystanders.one);
    daemon.stop();
}

#[test]
fn the_longest_silent_gives_way_and_no_other() {
    for is_unix in [false, true] {
        let runtime = folder();
        let (hub, port) = (runtime.path().join("hub"), free_udp_port());
        let place = if is_unix { format!("dgram:{}", utf8(&hub)) } else { format!("udp:{port}") };
        let daemon = Daemon::start(runtime.path(), &[&format!("{place},max-peers=2,idle=1s")]);
        let mut bystanders = Bystanders::join(&daemon);
        let join = |name: &str| match is_unix {
            true => Peer::unix(&runtime.path().join(name), &hub),
            false => Peer::udp(port),
        };
        let (mut silent, mut busy, mut late) = (join("silent"), join("busy"), join("late"));
        settle(&mut silent, &mut bystanders.one);
        settle(&mut busy, &mut bystanders.one);
        late.send(&frame(BROADCAST, mac(4), 60, 1));
        daemon.table_with("the refused", |table| (table.lost_for("no_place") == 1).then_some(()));
        let until = Deadline::after(Duration::from_millis(1100));
        while until.left().is_some() {
            settle(&mut busy, &mut bystanders.one);
            pause(Duration::from_millis(20));
        }
        settle(&mut late, &mut bystanders.one);
        let line = daemon.line("reason=its place was needed");
        let gone = if is_unix { "dgram1" } else { "udp1" };
        assert!(line.contains(&format!("port={gone} ")), "{line}");
        settle(&mut busy, &mut bystanders.one);
        daemon.table_with("its port to go", |table| (table.ports.len() == 4).then_some(()));
        // Its place is taken, by one that talks as well.
        silent.send(&frame(BROADCAST, mac(4), 60, 1));
        daemon.table_with("the refused", |table| (table.lost_for("no_place") >= 2).then_some(()));
        assert_eq!(
            (daemon.table().ports.len(), daemon.count("its place was needed")),
            (4, 1),
            "{}",
            daemon.log()
        );
        bystanders.drain();
        bystanders.talk();
        daemon.stop();
    }
}

#[test]
fn two_peers_with_one_address_are_told_of() {
    let runtime = folder();
    let (hub, port) = (runtime.path().join("hub"), free_udp_port());
    let daemon = Daemon::start(runtime.path(), &[&format!("udp:{port}"), &format!("dgram:{}", utf8(&hub))]);
    let mut bystanders = Bystanders::join(&daemon);
    let mut peers = [Peer::udp(port), Peer::unix(&runtime.path().join("peer"), &hub)];
    for round in 0..4 {
        for peer in &mut peers {
            let claim = frame(BROADCAST, mac(9), 60, round);
            peer.send(&claim);
            bystanders.one.receive_if("a claim", |frame| frame == claim);
        }
    }
    let line = daemon.line("two ports use one MAC");
    for part in ["02:71:68:00:00:09", "udp1 (127.0.0.1:", "dgram1 (/"] {
        assert!(line.contains(part), "{line} has no {part}");
    }
    assert_eq!(daemon.count("two ports use one MAC"), 1);
    bystanders.drain();
    bystanders.talk();
    daemon.stop();
}

#[test]
fn two_ports_of_one_hub_that_lead_to_each_other_are_refused() {
    let runtime = folder();
    let (one, other) = (free_udp_port(), free_udp_port());
    for (first, second) in [
        (format!("udp:{one},remote=127.0.0.1:{other}"), format!("udp:{other},remote=127.0.0.1:{one}")),
        (format!("udp:{one},remote=127.0.0.1:{other}"), format!("udp:{other}")),
        (format!("udp:{one},remote=127.0.0.1:{other}"), format!("udp:0.0.0.0:{other}")),
        (format!("udp:127.0.0.2:{one},remote=127.0.0.1:{other}"), format!("udp:{other}")),
        (
            format!("dgram:{}/a,remote={0}/b", utf8(runtime.path())),
            format!("dgram:{}/b", utf8(runtime.path())),
        ),
    ] {
        for ports in [[&first, &second], [&second, &first]] {
            let args = [&["--no-tcp"], &ports.map(String::as_str)[..]].concat();
            let mut daemon = Daemon::launch(runtime.path(), r#"exec "$@""#, &args, Stdio::null());
            daemon.line("which makes a loop");
            assert!(!daemon.exit().success());
        }
    }
    let own = format!("udp:{one},remote=localhost:{one}");
    let mut daemon = Daemon::launch(runtime.path(), r#"exec "$@""#, &["--no-tcp", &own], Stdio::null());
    daemon.line("is this port itself");
    assert!(!daemon.exit().success());
}

#[test]
fn a_loop_through_any_address_of_the_host_is_refused() {
    let runtime = folder();
    let (one, other) = (free_udp_port(), free_udp_port());
    for interface in getifaddrs().expect("the host has interfaces") {
        let address = interface.address.as_ref().and_then(|address| address.as_sockaddr_in());
        let Some(address) = address.map(|address| address.ip()) else { continue };
        let first = format!("udp:{address}:{one},remote={address}:{other}");
        let args = ["--no-tcp", &first, &format!("udp:0.0.0.0:{other}")];
        let mut daemon = Daemon::launch(runtime.path(), r#"exec "$@""#, &args, Stdio::null());
        let status = wait_for("it to end, or to serve", LIMIT, || {
            daemon.try_exit().map(Some).or_else(|| daemon.stdout().ends_with("stops.\n").then_some(None))
        });
        assert!(status.is_some_and(|status| !status.success()), "it started with {first}");
        daemon.line("which makes a loop");
    }
}
