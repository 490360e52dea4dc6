//! Datagram sockets that the parent left open, and still has.

use std::net::Shutdown;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use super::peer::{Peer, inherit, local};
use crate::common::daemon::Bystanders;
use crate::common::hub::folder;
use crate::common::wire::settle;

#[test]
fn an_inherited_socket_that_its_owner_shuts_down_stops_nobody() {
    for how in [Shutdown::Read, Shutdown::Both] {
        for (ours, _theirs) in [unix_pair(), udp_pair()] {
            let runtime = folder();
            let owner = ours.try_clone().expect("a copy");
            let daemon = inherit(&runtime, ours);
            let mut bystanders = Bystanders::join(&daemon);
            owner.shutdown(how).expect("it is connected");
            bystanders.talk();
            assert!(daemon.idles(), "{how:?}: it spins");
            bystanders.talk();
            daemon.stop();
        }
    }
}

#[test]
fn an_inherited_socket_may_have_options_of_its_owner() {
    let runtime = folder();
    let (ours, theirs) = udp_pair();
    setsockopt(&ours, sockopt::ReceiveTimestamp, &true).expect("a socket option");
    let daemon = inherit(&runtime, ours);
    let mut bystanders = Bystanders::join(&daemon);
    let mut peer = Peer::over(theirs);
    settle(&mut peer, &mut bystanders.one);
    bystanders.talk();
    daemon.stop();
}

fn unix_pair() -> (Socket, Socket) {
    Socket::pair(Domain::UNIX, Type::DGRAM, None).expect("a pair")
}

fn udp_pair() -> (Socket, Socket) {
    let [one, other] = [(); 2].map(|()| {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
        socket.bind(&local(0)).expect("a free port");
        socket
    });
    one.connect(&other.local_addr().expect("its address")).expect("it is on this host");
    other.connect(&one.local_addr().expect("its address")).expect("it is on this host");
    (one, other)
}
