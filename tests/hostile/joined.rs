//! Guests that send what must not be joined.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::host::{Lab, passes};
use crate::common::checked::sum;
use crate::common::hub::folder;
use crate::common::net::Namespace;
use crate::common::require::require;
use crate::common::sniffer::Sniffer;
use crate::common::wire::{Station, frame, mac};

/// Station 0x41 has the MAC of nobody on the segment, so it is behind every port.
pub(super) const FAR: [u8; 6] = mac(0x41);

/// A segment of TCP.
#[derive(Clone)]
struct Segment {
    ip: [u8; 20],
    ip_options: Vec<u8>,
    tcp: [u8; 20],
    tcp_options: Vec<u8>,
    payload: Vec<u8>,
    trailer: Vec<u8>,
    tag: Vec<u8>,
}

impl Segment {
    /// The `number`th of a bulk of `length` octets each.
    fn new(number: u16, length: u16) -> Self {
        let mut ip = *b"\x45\0\0\0\0\0\x40\0\x40\x06\0\0\x0a\0\0\x01\x0a\0\0\x02";
        ip[4..6].copy_from_slice(&(1000 + number).to_be_bytes());
        let mut tcp = *b"\x12\x34\0\x50\0\0\0\0\0\0\0\x09\x50\x10\xff\xff\0\0\0\0";
        tcp[4..8].copy_from_slice(&(u32::from(number) * u32::from(length)).to_be_bytes());
        let payload =
            (0..length).map(|at| u8::try_from((at * 3 + number) % 251).expect("an octet")).collect();
        Self { ip, ip_options: vec![], tcp, tcp_options: vec![], payload, trailer: vec![], tag: vec![] }
    }

    fn frame(mut self) -> Vec<u8> {
        self.ip[0] = 0x45 + u8::try_from(self.ip_options.len() / 4).expect("few");
        self.tcp[12] =
            0x50 + u8::try_from(self.tcp_options.len() / 4 * 16).expect("few") + (self.tcp[12] & 0x0f);
        let length = self.tcp.len() + self.tcp_options.len() + self.payload.len();
        let total = u16::try_from(20 + self.ip_options.len() + length).expect("it fits");
        self.ip[2..4].copy_from_slice(&total.to_be_bytes());
        let checksum = !sum(&[&self.ip[..], &self.ip_options].concat());
        self.ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        let length = u16::try_from(length).expect("it fits").to_be_bytes();
        let all = [&self.ip[12..], &[0, 6], &length, &self.tcp, &self.tcp_options, &self.payload].concat();
        let checksum = !sum(&all);
        self.tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        let Self { ip, ip_options, tcp, tcp_options, payload, trailer, tag } = &self;
        [&FAR[..], &mac(0x42), tag, &[8, 0], ip, ip_options, tcp, tcp_options, payload, trailer].concat()
    }
}

pub(super) fn segment(number: u16, length: u16) -> Vec<u8> {
    Segment::new(number, length).frame()
}

/// Bulks with something amiss in the middle of each.
fn hostile_bulks() -> Vec<Vec<Vec<u8>>> {
    type Change = fn(&mut Segment);
    type Damage = fn(&mut Vec<u8>);
    let changes: [Change; 30] = [
        |_| {},
        |it| it.tcp[13] = 0x18,
        |it| it.tcp[13] = 0x11,
        |it| it.tcp[13] = 0x02,
        |it| it.tcp[13] = 0x14,
        |it| it.tcp[13] = 0x30,
        |it| it.tcp[13] = 0x50,
        |it| it.tcp[13] = 0x90,
        |it| it.tcp[13] = 0x00,
        |it| it.tcp[12] = 0x51,
        |it| it.tcp[19] = 1,
        |it| it.tcp[7] = it.tcp[7].wrapping_add(1),
        |it| it.tcp[7] = it.tcp[7].wrapping_sub(1),
        |it| it.tcp[4] = 0xff,
        |it| it.tcp[11] = 8,
        |it| it.tcp[14] = 1,
        |it| it.tcp[0] = 0x13,
        |it| it.tcp_options = b"\x01\x01\x08\x0a\0\0\0\x01\0\0\0\x02".to_vec(),
        |it| it.ip_options = b"\x94\x04\0\0".to_vec(),
        |it| it.ip[1] = 3,
        |it| it.ip[1] = 0x10,
        |it| it.ip[5] = 0,
        |it| it.ip[6] = 0,
        |it| it.ip[6] = 0x20,
        |it| it.ip[7] = 5,
        |it| it.ip[8] = 63,
        |it| it.ip[15] = 9,
        |it| it.payload.truncate(it.payload.len() - 1),
        |it| it.trailer = vec![0; 6],
        |it| it.tag = b"\x81\0\x60\x05".to_vec(),
    ];
    let damages: [Damage; 7] = [
        // Checksums of TCP and IP, a payload, lengths of IP, TCP and the frame.
        |frame| frame[51] ^= 1,
        |frame| frame[25] ^= 1,
        |frame| frame[100] ^= 0x80,
        |frame| frame[17] ^= 4,
        |frame| frame[46] = 0x40,
        |frame| frame[46] = 0xf0,
        |frame| frame.truncate(frame.len() - 4),
    ];
    let mut all = Vec::new();
    for (case, length) in (0..u16::try_from(changes.len() + damages.len()).expect("few"))
        .zip([700, 1000, 1448].into_iter().cycle())
    {
        // The odd one is the first, the second, one in the middle, the last, or all of them are.
        for odd in [0, 1, 4, 7, 99] {
            let mut bulk = Vec::new();
            for number in 0..8 {
                let mut segment = Segment::new(number, length);
                segment.tcp[2] = u8::try_from(case).expect("few");
                segment.tcp[3] = u8::try_from(odd).expect("few");
                let is_odd = number == odd || odd == 99;
                if let Some(change) = changes.get(usize::from(case)).filter(|_| is_odd) {
                    change(&mut segment);
                }
                let mut frame = segment.frame();
                if let Some(damage) = usize::from(case).checked_sub(changes.len()).filter(|_| is_odd) {
                    damages[damage](&mut frame);
                }
                bulk.push(frame);
            }
            // Known by what it carries; no bulk reaches the next.
            let seed = u8::try_from(all.len()).expect("few");
            bulk.push(frame(FAR, mac(0x42), 64, seed));
            all.push(bulk);
        }
    }
    all
}

/// What of `bulks` arrives behind a TAP and a kernel bridge that cuts up what is joined, bulk by bulk, and how many
/// frames were joined.
fn cut_by_a_bridge(offload: &str, bulks: &[Vec<Vec<u8>>]) -> (Vec<Vec<Vec<u8>>>, usize) {
    let lab = Lab { runtime: folder(), net: Namespace::new() };
    lab.cable("va", "vb");
    lab.net.within(|| {
        // Then it leaves neither checksums nor segments to the other end.
        let status = Command::new("ethtool").args(["-K", "va", "tx", "off"]).stdout(Stdio::null()).status();
        assert!(status.expect("run ethtool").success());
    });
    for it in ["link add br0 type bridge", "link set br0 addrgenmode none up", "link set va master br0"] {
        lab.net.ip(it);
    }
    let daemon = lab.start(&[&format!("tap:t0,bridge=br0,offload={offload}")]);
    let mut guest = daemon.connect();
    let (mut below, mut tap) = (Sniffer::new(&lab.net, "vb"), Sniffer::new(&lab.net, "t0"));
    passes(&mut guest, &mut below, 1);
    let (mut all, mut joined) = (Vec::new(), 0);
    for bulk in bulks {
        let last = bulk.last().expect("there are some");
        guest.send_all(bulk);
        let mut got = Vec::new();
        while got.last() != Some(last) {
            got.push(below.receive_if("the last frame of a bulk", |frame| frame[..6] == FAR));
        }
        all.push(got);
        while let Some(seen) = tap.try_receive(Duration::from_millis(1)) {
            joined += usize::from(seen.len() > 1514);
        }
    }
    daemon.stop();
    (all, joined)
}

/// The kernel cuts what was joined: what it makes of it is what it would have got one by one, in order.
#[test]
fn what_is_joined_for_a_tap_is_cut_into_the_same_frames_by_the_kernel() {
    if Lab::new().is_none() || !require("root", &["ethtool"], &[]) {
        return;
    }
    let bulks = hostile_bulks();
    let (alone, none) = cut_by_a_bridge("off", &bulks);
    let (joined, some) = cut_by_a_bridge("on", &bulks);
    assert!(none == 0 && some > bulks.len(), "{none} and {some} were joined");
    for (number, (alone, joined)) in alone.iter().zip(&joined).enumerate() {
        // See the next test.
        if number == CONSTANT {
            continue;
        }
        assert!(
            alone == joined,
            "case {}, odd one {}: {} frames alone, {} joined; the first that differs:\n{:x?}",
            number / 5,
            number % 5,
            alone.len(),
            joined.len(),
            alone.iter().zip(joined).find(|(one, other)| one != other)
        );
    }
}

/// The bulk whose frames all have one identification.
const CONSTANT: usize = 21 * 5 + 4;
