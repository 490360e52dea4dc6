//! VLAN tags across `packet:`: the system takes the outermost out, and it is put back.

use std::time::Duration;

use hub_protocol::vnet::{ChecksumState, GsoKind, VnetHeader};

use crate::common::checked::{all_checked, sum};
use crate::common::daemon::Daemon;
use crate::common::hub::folder;
use crate::common::net::Namespace;
use crate::common::require::require;
use crate::common::sniffer::Sniffer;
use crate::common::stack::have_stacks;
use crate::common::tap::{Tap, Vnet, have_taps};
use crate::common::wait::{LIMIT, wait_for};
use crate::common::wire::{BROADCAST, Station, mac, settle};

/// A frame with tags, each a TPID and a TCI.
fn tagged(tags: &[u16], length: usize) -> Vec<u8> {
    let mut frame = [&BROADCAST[..], &mac(1)].concat();
    frame.extend(tags.iter().flat_map(|word| word.to_be_bytes()));
    frame.extend([0x88, 0xb5]);
    frame.resize(length, 0x5a);
    frame
}

#[test]
fn tags_of_every_sort_arrive_as_they_were_sent() {
    if !have_stacks() {
        return;
    }
    let ([home, far], runtime) = ([(); 2].map(|()| Namespace::quiet()), folder());
    home.cable("v", &far, "w");
    let hub = home.within(|| Daemon::start(runtime.path(), &["packet:v"]));
    let (mut wire, mut there) = (hub.connect(), Sniffer::new(&far, "w"));
    settle(&mut there, &mut wire);
    for tags in [
        &[][..],
        &[0x8100, 0x0007],
        &[0x8100, 0xa000],
        &[0x8100, 0xffff],
        &[0x8100, 0x1000],
        &[0x88a8, 0x0064],
        &[0x88a8, 0x0064, 0x8100, 0x0007],
        &[0x8100, 0x0064, 0x8100, 0x0007],
        &[0x8100, 1, 0x8100, 2, 0x8100, 3],
        &[0x9100, 0x0007],
    ] {
        for length in [60, 1514] {
            let sent = tagged(tags, length);
            there.send(&sent);
            assert_eq!(wire.receive(), sent, "{tags:x?}");
        }
    }
    assert_eq!(hub.table().port("v").dropped, 0);
    hub.stop();
}

/// A frame of TCP or UDP in a VLAN whose checksum is still to be made, for `payload`.
fn unfinished(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = tagged(&[0x8100, 0xe007], 18);
    frame[16..].copy_from_slice(&[0x08, 0x00]);
    let transport_len = if protocol == TCP { 20 } else { 8 };
    let body = transport_len + payload.len();
    let [high, low] = u16::try_from(20 + body).expect("it fits").to_be_bytes();
    let mut ip = [0x45, 0, high, low, 0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 7, 0, 1, 10, 7, 0, 2];
    let complement = !sum(&ip);
    ip[10..12].copy_from_slice(&complement.to_be_bytes());
    let mut transport = [0; 20];
    transport[..4].copy_from_slice(&[0x10, 0, 0x20, 0]);
    let pseudo = [&ip[12..20], &[0, protocol], &u16::try_from(body).expect("it fits").to_be_bytes()].concat();
    let at = checksum_at(protocol);
    if protocol == TCP {
        // Sequence 1, acknowledgement 2, 20 octets of header, PSH and ACK.
        transport[4..16].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0x20, 0]);
    } else {
        transport[4..6].copy_from_slice(&u16::try_from(body).expect("it fits").to_be_bytes());
    }
    transport[at..at + 2].copy_from_slice(&sum(&pseudo).to_be_bytes());
    [&frame, &ip[..], &transport[..transport_len], payload].concat()
}

fn checksum_at(protocol: u8) -> usize {
    if protocol == TCP { 16 } else { 6 }
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Octets of all headers of TCP in a VLAN.
const HEADERS: usize = 18 + 20 + 20;

/// The cable's other end inserts the tag itself, or its host does: either way the system takes it out before the hub
/// sees the frame.
#[test]
fn what_is_unfinished_in_a_vlan_is_finished() {
    if !have_taps() || !have_stacks() || !require("root", &["ethtool"], &[]) {
        return;
    }
    let ([home, far], runtime) = ([(); 2].map(|()| Namespace::quiet()), folder());
    home.cable("v", &far, "w");
    let tap = far.within(|| Tap::create("sender", Vnet::Header(10)));
    far.sh("set -e
        ip link add br0 type bridge mcast_snooping 0
        for link in br0 w sender; do ip link set $link up; done
        for link in w sender; do ip link set $link master br0; done");
    let hub = home.within(|| Daemon::start(runtime.path(), &["packet:v"]));
    let mut wire = hub.connect();
    let probe = tagged(&[0x8100, 7], 60);
    wait_for("a frame to pass", LIMIT, || {
        tap.write([0; 10], &[&probe]);
        wire.try_receive(Duration::from_millis(100)).filter(|frame| *frame == probe)
    });
    while wire.try_receive(Duration::from_millis(200)).is_some() {}

    let payload: Vec<u8> =
        (0..6000_u16).map(|number| number.to_le_bytes()[0] ^ number.to_be_bytes()[0]).collect();
    for card in ["on", "off"] {
        far.sh(&format!("ethtool -K w tx-vlan-hw-insert {card} >/dev/null"));
        let mut header = VnetHeader {
            checksum: ChecksumState::Needed,
            gso: Some(GsoKind::TcpV4 { ecn: false }),
            hdr_len: u16::try_from(HEADERS).expect("it fits"),
            gso_size: 1400,
            csum_start: 18 + 20,
            csum_offset: 16,
        };
        tap.write(header.write(), &[&unfinished(TCP, &payload)]);
        let frames: Vec<Vec<u8>> = (0..5).map(|_| wire.receive()).collect();
        assert!(frames.iter().all(|frame| frame[12..16] == [0x81, 0, 0xe0, 7]), "{frames:02x?}");
        assert_eq!(all_checked(&frames), [5, 0]);
        assert!(frames.iter().flat_map(|frame| &frame[HEADERS..]).eq(&payload), "{frames:02x?}");

        header.gso = None;
        for (protocol, kinds) in [(TCP, [1, 0]), (UDP, [0, 1])] {
            header.csum_offset = u16::try_from(checksum_at(protocol)).expect("it fits");
            let unfinished = unfinished(protocol, &payload[..1001]);
            tap.write(header.write(), &[&unfinished]);
            let frame = wire.receive();
            assert_eq!(frame.len(), unfinished.len());
            assert_eq!(frame[..38], unfinished[..38]);
            assert_eq!(all_checked([&frame]), kinds);
        }
    }
    assert_eq!(hub.table().port("v").dropped, 0);
    hub.stop();
}
