//! Datagram ports of each kind: what comes in, and what goes out.

use std::net::{Ipv4Addr, UdpSocket};

use hub_protocol::l2tpv3::{HEADER_MAX, L2tpv3};
use hub_protocol::stream::{MAX_FRAME, PREFIX_LEN};
use qhub::batch::ARENA;
use qhub::bridge::Mode;

use crate::far::{Far, Folder, free_udp};
use crate::net::Net;
use crate::wire::{LENGTH, broadcast, bulk, frame, record, records, station};

/// The longest UDP payload.
const UDP_MAX: usize = 65_507;

/// Lets `far`, whose port is to be the first and `name`, and a stream send to each other. In front of
/// each frame stands a header.
pub(crate) fn exchange(mut net: Net, far: &Far, [ours, theirs]: [&[u8]; 2], name: &str) {
    let mut wire = net.unix();
    for round in 0..3 {
        let (there, back) = (frame(0, 1, round, LENGTH), frame(1, 0, round, LENGTH));
        far.send(&[theirs, &there].concat());
        net.until_copies(2 * as_u64(round) + 1);
        assert_eq!(wire.read(), record(&there));
        wire.send(&record(&back));
        net.until_copies(2 * as_u64(round) + 2);
        far.expect(&[[ours, &back].concat()]);
    }
    net.settle();
    assert_eq!((net.whereabouts(station(0)).as_deref(), net.dropped()), (Some(name), 0));
    assert_eq!((net.ports(), far.read()), (2, None));
}

pub(crate) fn as_u64(number: usize) -> u64 {
    u64::try_from(number).expect("few")
}

#[test]
fn unix_datagrams_go_both_ways() {
    for has_remote in [false, true] {
        let (mut net, folder) = (Net::new(Mode::Switch), Folder::new());
        let remote = format!(",remote={}", folder.path("vm").display());
        net.open(&folder.spec(if has_remote { &remote } else { "" }));
        exchange(net, &folder.far("vm"), [&[]; 2], "dgram1");
    }
}

#[test]
fn udp_goes_both_ways() {
    for has_remote in [false, true] {
        let (mut net, own) = (Net::new(Mode::Switch), free_udp());
        let hub = net.open_udp(&if has_remote { format!(",remote={own}") } else { String::new() });
        exchange(net, &Far::udp_at(own, hub), [&[]; 2], "udp1");
    }
    let (mut net, hub) = (Net::new(Mode::Switch), "[::1]:0");
    let hub = UdpSocket::bind(hub).expect("IPv6").local_addr().expect("an address");
    net.open(&format!("udp:{hub}"));
    exchange(net, &Far::udp_at("[::1]:0".parse().expect("an address"), hub), [&[]; 2], "udp1");
}

#[test]
fn l2tpv3_goes_both_ways() {
    let framing = L2tpv3 {
        tx_session: 7,
        rx_session: Some(8),
        tx_cookie: Some(1 << 40),
        rx_cookie: Some(2),
        has_long_cookies: true,
        has_counter: false,
    };
    let mirrored = L2tpv3 { tx_session: 8, tx_cookie: Some(2), ..framing };
    let [ours, theirs] = [framing, mirrored].map(|framing| {
        let mut header = [0; HEADER_MAX];
        framing.write(0, &mut header);
        header[..framing.header_len()].to_vec()
    });
    let (mut net, hub, own) = (Net::new(Mode::Switch), free_udp(), free_udp());
    let keys = "txsession=7,rxsession=8,txcookie=0x10000000000,rxcookie=2,cookie64=on";
    net.open(&format!("l2tpv3:{hub},remote={own},{keys}"));
    exchange(net, &Far::udp_at(own, hub), [&ours, &theirs], "l2tpv3-1");
}

#[test]
fn connected_sockets_go_both_ways() {
    let mut net = Net::new(Mode::Switch);
    let far = net.pair();
    exchange(net, &far, [&[]; 2], "wire1");
    let mut net = Net::new(Mode::Switch);
    let far = net.connected_udp();
    exchange(net, &far, [&[]; 2], "wire1");
}

#[test]
fn a_multicast_bus_goes_both_ways_without_an_echo() {
    let (mut net, address) = (Net::new(Mode::Switch), free_udp());
    let group = Ipv4Addr::new(239, 78, 0, 1);
    net.open(&format!("mcast:{group}:{},iface=127.0.0.1", address.port()));
    let bus = (group, address.port()).into();
    let far = Far::udp(bus);
    far.socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).expect("a loopback interface");
    let member = Far::member(group, address.port());
    let mut wire = net.unix();
    wire.send(&record(&broadcast(1)));
    net.until_copies(1);
    member.expect(&[broadcast(1)]);
    far.send(&frame(0, 1, 1, LENGTH));
    net.until_copies(2);
    assert_eq!(wire.read(), record(&frame(0, 1, 1, LENGTH)));
    net.settle();
    assert_eq!((net.names(), net.dropped()), (vec!["mcast1".to_owned(), "wire1".to_owned()], 0));
    assert_eq!(net.counters(0).rx_frames, 1, "not what it sent itself");
}

#[test]
fn what_no_udp_datagram_holds_is_dropped_and_the_rest_of_the_batch_goes_on() {
    let (own, lengths) = (free_udp(), [60, MAX_FRAME, UDP_MAX, 14, UDP_MAX + 1, 61]);
    for (kind, more, header) in [("udp", "", 0), ("l2tpv3", ",txsession=1", 8)] {
        let (mut net, hub) = (Net::new(Mode::Switch), free_udp());
        let far = Far::udp_at(own, hub);
        net.open(&format!("{kind}:{hub},remote={own}{more}"));
        let mut wire = net.unix();
        let frames = lengths.map(|length| frame(1, 0, 0, length - if length == 14 { 0 } else { header }));
        wire.send(&records(&frames));
        net.settle();
        let got = far.read_all();
        let fitting = [0, 2, 3, 5].map(|number| &frames[number][..]);
        assert_eq!(got.iter().map(|datagram| &datagram[header..]).collect::<Vec<_>>(), fitting);
        let name = net.names()[0].clone();
        assert_eq!((net.lost(&name).as_str(), net.dropped()), ("too_big=2", 2));
    }
}

/// The system does not hold back whoever sends UDP: what is not read in time it drops.
#[test]
fn nobody_stops_datagrams_for_a_port_that_does_not_keep_up() {
    for is_udp in [false, true] {
        let (mut net, folder) = (Net::new(Mode::Switch), Folder::new());
        let mut stuck = net.unix();
        stuck.send(&record(&broadcast(1)));
        let far = if is_udp {
            Far::udp(net.open_udp(""))
        } else {
            net.open(&folder.spec(""));
            folder.far("vm")
        };
        net.settle();
        let mut sent = 0;
        while sent < 3000 {
            for _ in 0..10 {
                far.send(&frame(0, 1, sent, LENGTH));
                sent += 1;
            }
            net.until_copies(1 + as_u64(sent));
        }
        net.settle();
        let queue = 1 << 20;
        let snapshot = net.snapshot();
        assert!((queue - LENGTH - PREFIX_LEN..=queue).contains(&snapshot.ports[0].queued), "{snapshot}");
        assert_eq!(snapshot.ports[1].counters.rx_frames, 3000);
        let got = stuck.read();
        let whole = got.len() / (LENGTH + PREFIX_LEN) * (LENGTH + PREFIX_LEN);
        assert!(bulk(0, 1, 1 << 20).starts_with(&got[..whole]));
    }
}

/// A pair of sockets that are connected to each other loses nothing: who sends, waits.
#[test]
fn a_pair_waits_like_a_stream() {
    let mut net = Net::new(Mode::Switch);
    let (from, to) = (net.pair(), net.pair());
    to.send(&broadcast(1));
    net.settle();
    from.read_all();
    let (mut sent, mut got, mut has_waited) = (0, 0, false);
    while got < 5000 {
        while sent < 5000 && from.try_send(&frame(0, 1, sent, LENGTH)).is_ok() {
            sent += 1;
        }
        net.settle();
        let queued = net.snapshot().ports[1].queued;
        assert!(queued < 128 * 1024 + ARENA, "{queued}");
        if sent < 5000 {
            let goes = from.try_send(&frame(0, 1, sent, LENGTH)).is_ok();
            sent += usize::from(goes);
            has_waited |= !goes;
        }
        for _ in 0..7 {
            if let Some(datagram) = to.read() {
                assert_eq!(datagram, frame(0, 1, got, LENGTH));
                got += 1;
            }
        }
    }
    assert!(has_waited);
    net.settle();
    assert_eq!((to.read(), net.dropped(), net.snapshot().memory), (None, 0, 0));
}
