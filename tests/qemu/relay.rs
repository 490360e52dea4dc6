//! Every way in which a QEMU can be attached to a stream port carries every frame unchanged, both ways.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::process::{self, Stdio};

use crate::common::hub::{Hub, folder, free_tcp_port, utf8};
use crate::common::qemu::{Relay, Version, have_qemu, have_qemu_10};
use crate::common::wire::{BROADCAST, FRAME_MAX, Station, Wire, frame, mac, settle, socket_pair};

const LENGTHS: [usize; 17] =
    [14, 15, 42, 59, 60, 61, 64, 1513, 1514, 1518, 4096, 9014, 32_768, 65_535, 65_536, 69_631, FRAME_MAX];

fn carries_every_frame(mut relay: Relay, mut wire: Wire) {
    // This way first: QEMU 7.2 crashes on a frame to send when its `server=on` is not listening yet.
    settle(&mut wire, &mut relay);
    for (length, seed) in LENGTHS.into_iter().zip(1..) {
        // To nobody the hub knows, to everybody, and then to each other.
        for (to_wire, to_relay) in [(mac(9), mac(9)), (BROADCAST, BROADCAST), (mac(1), mac(2))] {
            let sent = frame(to_wire, mac(2), length, seed);
            relay.send(&sent);
            assert!(wire.receive() == sent, "{length} bytes from QEMU arrived changed");

            let sent = frame(to_relay, mac(1), length, seed ^ 0x55);
            wire.send(&sent);
            assert!(relay.receive() == sent, "{length} bytes to QEMU arrived changed");
        }
    }
    // As many as QEMU's datagram side takes without a pause, in one write.
    let burst: Vec<_> =
        (0..8).map(|seed| frame(mac(2), mac(1), LENGTHS[usize::from(seed) * 2], seed)).collect();
    wire.send_all(&burst);
    for sent in burst {
        assert!(relay.receive() == sent, "{} bytes of a burst arrived changed", sent.len());
    }
}

#[test]
fn legacy_socket_connects() {
    if !have_qemu() {
        return;
    }
    let runtime = folder();
    let port = free_tcp_port();
    let hub = Hub::start(&runtime, &[&format!("tcp:{port}")]);
    let netdev = format!("socket,id=s0,connect=127.0.0.1:{port}");
    carries_every_frame(Relay::start(Version::Installed, &netdev, Stdio::null()), hub.connect());
    hub.stop();
}

#[test]
fn legacy_socket_listens() {
    if !have_qemu() {
        return;
    }
    let runtime = folder();
    let port = free_tcp_port();
    let netdev = format!("socket,id=s0,listen=127.0.0.1:{port}");
    let relay = Relay::start(Version::Installed, &netdev, Stdio::null());
    let hub = Hub::start(&runtime, &[&format!("connect:tcp:127.0.0.1:{port}")]);
    carries_every_frame(relay, hub.connect());
    hub.stop();
}

#[test]
fn legacy_socket_inherits() {
    if !have_qemu() {
        return;
    }
    let runtime = folder();
    let (ours, qemus) = socket_pair();
    let hub = Hub::start_with_fd0(&runtime, &["fd:0"], ours);
    carries_every_frame(Relay::start(Version::Installed, "socket,id=s0,fd=0", qemus.into()), hub.connect());
    hub.stop();
}

#[test]
fn stream_connects_over_unix() {
    if !have_qemu() {
        return;
    }
    let runtime = folder();
    let path = runtime.path().join("lab");
    let path = utf8(&path);
    let hub = Hub::start(&runtime, &[&format!("unix:{path}")]);
    let netdev = format!("stream,id=s0,addr.type=unix,addr.path={path}");
    carries_every_frame(Relay::start(Version::Installed, &netdev, Stdio::null()), hub.connect());
    hub.stop();
}

#[test]
fn stream_connects_to_an_abstract_name() {
    if !have_qemu() {
        return;
    }
    let runtime = folder();
    let name = format!("qhub-test-{}", process::id());
    let hub = Hub::start(&runtime, &[&format!("unix:@{name}")]);
    let netdev = format!("stream,id=s0,addr.type=unix,addr.path={name},addr.abstract=on");
    carries_every_frame(Relay::start(Version::Installed, &netdev, Stdio::null()), hub.connect());
    hub.stop();
}

#[test]
fn stream_connects_over_tcp() {
    if !have_qemu() {
        return;
    }
    let runtime = folder();
    let port = free_tcp_port();
    let hub = Hub::start(&runtime, &[&format!("tcp:{port}")]);
    let netdev = format!("stream,id=s0,addr.type=inet,addr.host=127.0.0.1,addr.port={port}");
    let relay = Relay::start(Version::Installed, &netdev, Stdio::null());
    carries_every_frame(relay, Wire::tcp(SocketAddr::from(([127, 0, 0, 1], port))));
    hub.stop();
}

#[test]
fn stream_connects_over_tcp6() {
    if !have_qemu() {
        return;
    }
    let runtime = folder();
    let port =
        TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("IPv6 on loopback").local_addr().unwrap().port();
    let hub = Hub::start(&runtime, &[&format!("tcp:[::1]:{port}")]);
    let netdev = format!("stream,id=s0,addr.type=inet,addr.host=::1,addr.port={port}");
    let relay = Relay::start(Version::Installed, &netdev, Stdio::null());
    carries_every_frame(relay, Wire::tcp(SocketAddr::from((Ipv6Addr::LOCALHOST, port))));
    hub.stop();
}

#[test]
fn stream_serves_over_unix() {
    if !have_qemu() {
        return;
    }
    let runtime = folder();
    let path = runtime.path().join("qemu");
    let path = utf8(&path);
    let netdev = format!("stream,id=s0,server=on,addr.type=unix,addr.path={path}");
    let relay = Relay::start(Version::Installed, &netdev, Stdio::null());
    let hub = Hub::start(&runtime, &[&format!("connect:unix:{path}")]);
    carries_every_frame(relay, hub.connect());
    hub.stop();
}

#[test]
fn stream_serves_over_tcp_and_comes_later_than_the_hub() {
    if !have_qemu() {
        return;
    }
    let runtime = folder();
    let port = free_tcp_port();
    let hub = Hub::start(&runtime, &[&format!("connect:tcp:127.0.0.1:{port}")]);
    let netdev = format!("stream,id=s0,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port={port}");
    carries_every_frame(Relay::start(Version::Installed, &netdev, Stdio::null()), hub.connect());
    hub.stop();
}

#[test]
fn stream_inherits() {
    if !have_qemu() {
        return;
    }
    let runtime = folder();
    let (ours, qemus) = socket_pair();
    let hub = Hub::start_with_fd0(&runtime, &["fd:0"], ours);
    let relay = Relay::start(Version::Installed, "stream,id=s0,addr.type=fd,addr.str=0", qemus.into());
    carries_every_frame(relay, hub.connect());
    hub.stop();
}

#[test]
fn stream_connects_to_an_inherited_listener() {
    if !have_qemu() {
        return;
    }
    let runtime = folder();
    let path = runtime.path().join("inherited");
    let listener = UnixListener::bind(&path).unwrap();
    let hub = Hub::start_with_fd0(&runtime, &["fd:0"], listener.into());
    let netdev = format!("stream,id=s0,addr.type=unix,addr.path={}", utf8(&path));
    carries_every_frame(Relay::start(Version::Installed, &netdev, Stdio::null()), hub.connect());
    hub.stop();
}

/// The newest QEMU, with what its users are told to paste, and started before the hub.
#[test]
fn stream_of_qemu_10_comes_earlier_than_the_hub() {
    if !have_qemu_10() {
        return;
    }
    let runtime = folder();
    let path = runtime.path().join("lab");
    let path = utf8(&path);
    let netdev = format!("stream,id=s0,addr.type=unix,addr.path={path},reconnect-ms=100");
    let relay = Relay::start(Version::Ten, &netdev, Stdio::null());
    let hub = Hub::start(&runtime, &[&format!("unix:{path}")]);
    carries_every_frame(relay, hub.connect());
    hub.stop();
}
