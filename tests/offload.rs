//! What `hub-protocol` makes of bundles and of missing checksums is what this kernel makes of them: frames go in by one
//! TAP, over a bridge of the kernel, and out by another.

mod common;

#[path = "../hub-protocol/src/sample.rs"]
mod sample;

use hub_protocol::gro::coalesce;
use hub_protocol::gso::{Gso, Protocol};
use hub_protocol::stream;
use hub_protocol::vnet::{VnetHeader, finish_checksum};

use common::net::Namespace;
use common::tap::{Tap, Vnet, have_taps};
use common::wait::{LIMIT, wait_for};
use sample::{ACK, CWR, FIN, Ip, PSH, Sample, octets, put};

/// Written by the test after what it asks for, to know when that is over.
const MARK: [u8; 60] = {
    let mut mark = [0; 60];
    (mark[0], mark[5]) = (2, 9);
    (mark[6], mark[11], mark[12], mark[13]) = (2, 8, 0x88, 0xb5);
    mark
};

/// Two TAPs on a bridge. It goes in by one that takes anything.
struct Kernel {
    _namespace: Namespace,
    entry: Tap,
    exit: Tap,
}

impl Kernel {
    fn new(entry: Vnet, exit: Vnet) -> Self {
        let namespace = Namespace::new();
        namespace.ip("link add name segment type bridge stp_state 0 forward_delay 0 mcast_snooping 0");
        let [entry, exit] = [("entry", entry), ("exit", exit)].map(|(name, vnet)| {
            let tap = namespace.within(|| Tap::create(name, vnet));
            namespace.ip(&format!("link set dev {name} mtu 9000 addrgenmode none master segment up"));
            tap
        });
        namespace.ip("link set dev segment addrgenmode none up");
        let kernel = Self { _namespace: namespace, entry, exit };
        wait_for("a frame to pass the bridge", LIMIT, || {
            kernel.entry.write([0; 10], &[&MARK]);
            kernel.exit.try_read().filter(|(_, frame)| *frame == MARK)
        });
        kernel
    }

    /// A bridge that has to cut and to sum whatever comes.
    fn finishing() -> Self {
        Self::new(Vnet::Header(10), Vnet::None)
    }

    /// What comes out, without what the host itself has to say.
    fn pass(&self, vnet: [u8; 10], pieces: &[&[u8]]) -> Vec<([u8; 10], Vec<u8>)> {
        while self.exit.try_read().is_some() {}
        self.entry.write(vnet, pieces);
        self.entry.write([0; 10], &[&MARK]);
        let mut came = Vec::new();
        loop {
            let next = wait_for("a frame behind the bridge", LIMIT, || self.exit.try_read());
            if next.1 == MARK {
                return came;
            }
            if next.1[6..12] == sample::SOURCE {
                came.push(next);
            }
        }
    }

    fn frames(&self, vnet: [u8; 10], pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        self.pass(vnet, pieces).into_iter().map(|(_, frame)| frame).collect()
    }
}

fn segments(gso: &Gso, bundle: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    gso.segment(bundle, &mut records);
    stream::frames(&records).map(<[u8]>::to_vec).collect()
}

/// Of each kind one, with sizes of their segments.
fn samples() -> Vec<(Sample, u16)> {
    let timestamps = || vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let tcp = |ip, len| Sample::tcp(ip, octets(len, 5));
    vec![
        (tcp(Ip::V4, 3000), 1460),
        (tcp(Ip::V6, 3000), 1440),
        (Sample { options: timestamps(), ..tcp(Ip::V4, 65_000) }, 1448),
        (Sample { options: timestamps(), ..tcp(Ip::V6, 65_000) }, 1428),
        (Sample { options: vec![1; 40], identification: 0xfffe, ..tcp(Ip::V4, 1001) }, 99),
        (Sample { fragment: 0, sequence: 0xffff_ff00, ..tcp(Ip::V4, 2920) }, 1460),
        (Sample { flags: ACK | PSH | FIN, ..tcp(Ip::V4, 2921) }, 1460),
        (Sample { flags: ACK | PSH | FIN, ..tcp(Ip::V6, 2881) }, 1440),
        (Sample { flags: ACK | PSH, ..tcp(Ip::V4, 2921) }, 1460),
        (Sample { flags: ACK | PSH, ..tcp(Ip::V6, 2880) }, 1440),
        (Sample { flags: ACK | CWR | 0x40, ..tcp(Ip::V4, 4000) }, 1001),
        (Sample { flags: ACK | CWR | PSH, ..tcp(Ip::V6, 4000) }, 1001),
        (Sample { flags: ACK | 0x20, ..tcp(Ip::V4, 300) }, 100),
        (Sample { tags: vec![7], options: timestamps(), ..tcp(Ip::V4, 5000) }, 1448),
        (Sample { tags: vec![0xe007], ..tcp(Ip::V6, 5000) }, 1440),
        (Sample { tags: vec![7, 8], ..tcp(Ip::V4, 5000) }, 1460),
        (Sample { ip_options: vec![1; 8], ..tcp(Ip::V4, 5000) }, 1452),
        (Sample { extensions: vec![0, 60], ..tcp(Ip::V6, 5000) }, 1424),
        (Sample { extensions: vec![43], ..tcp(Ip::V6, 5000) }, 1432),
        (tcp(Ip::V4, 500), 1),
        (tcp(Ip::V4, 500), 499),
        (tcp(Ip::V4, 500), 500),
        (tcp(Ip::V4, 500), 501),
        (Sample::udp(Ip::V4, octets(6000, 6)), 1472),
        (Sample::udp(Ip::V6, octets(6001, 7)), 1452),
        (Sample { tags: vec![9], ..Sample::udp(Ip::V4, octets(3000, 6)) }, 999),
        (second_of_zero(tcp(Ip::V4, 300)), 100),
        (second_of_zero(Sample::udp(Ip::V4, octets(300, 6))), 100),
        (second_of_zero(Sample::udp(Ip::V6, octets(300, 6))), 100),
    ]
}

/// Lets the checksum of the second segment of 100 octets become 0.
fn second_of_zero(mut sample: Sample) -> Sample {
    put(&mut sample.payload, 100, 0);
    let second = &sample.cut(100)[1][sample.checksum_at()..];
    let checksum = u16::from_be_bytes([second[0], second[1]]);
    put(&mut sample.payload, 100, checksum);
    let written = if sample.is_udp { [0xff; 2] } else { [0; 2] };
    assert_eq!(sample.cut(100)[1][sample.checksum_at()..][..2], written);
    sample
}

#[test]
fn the_kernel_makes_the_same_segments() {
    if !have_taps() {
        return;
    }
    let kernel = Kernel::finishing();
    for (sample, size) in samples() {
        let (bundle, vnet) = (sample.partial(), sample.vnet(size));
        let gso = Gso::parse(&bundle, &VnetHeader::parse(&vnet)).expect("it is a bundle");
        let ours = segments(&gso, &bundle);
        let theirs = kernel.frames(vnet, &[&bundle]);
        assert_eq!(theirs.len(), sample.payload.len().div_ceil(size.into()));
        assert!(ours == theirs, "segments of {size} octets of {:?} differ", headers(&sample));
    }
}

/// The sample without its payload, to be read.
fn headers(sample: &Sample) -> Sample {
    Sample { payload: vec![], ..sample.clone() }
}

#[test]
fn the_kernel_makes_the_same_checksums() {
    if !have_taps() {
        return;
    }
    let kernel = Kernel::finishing();
    let mut zeros: Vec<_> = [Ip::V4, Ip::V6]
        .iter()
        .flat_map(|&ip| [Sample::udp(ip, vec![0; 20]), Sample::tcp(ip, vec![0; 20])])
        .collect();
    for zero in &mut zeros {
        let at = zero.checksum_at();
        let checksum = u16::from_be_bytes([zero.frame()[at], zero.frame()[at + 1]]);
        put(&mut zero.payload, 0, checksum);
        assert_eq!(zero.frame()[at..at + 2], [0, 0]);
    }
    for sample in samples().into_iter().map(|(sample, _)| sample).chain(zeros) {
        let sample = Sample { payload: sample.payload[..sample.payload.len().min(1400)].to_vec(), ..sample };
        let (mut frame, vnet) = (sample.partial(), sample.vnet(0));
        let theirs = kernel.frames(vnet, &[&frame]);
        finish_checksum(&mut frame, &VnetHeader::parse(&vnet)).expect("its place is within");
        assert!(theirs == [frame], "checksums of {:?} differ", headers(&sample));
    }
}

#[test]
fn the_kernel_cuts_what_was_joined_into_the_same() {
    if !have_taps() {
        return;
    }
    let kernel = Kernel::new(Vnet::Header(12), Vnet::None);
    let mut joined_kinds = 0;
    for (sample, size) in samples() {
        let frames = sample.cut(size);
        let mut records = Vec::new();
        assert!(frames.iter().all(|frame| stream::append(&mut records, frame)));
        let Some(joined) = coalesce(&records) else { continue };
        joined_kinds += 1;
        let pieces: Vec<_> = [joined.header()].into_iter().chain(joined.payloads(&records)).collect();
        let theirs = kernel.frames(joined.vnet().write(), &pieces);
        assert!(theirs == frames[..joined.frames()], "frames of {:?} differ", headers(&sample));
    }
    assert!(joined_kinds >= 10, "{joined_kinds} kinds were joined");
}

/// What a host with one identification for all would see of it if somebody else had to cut.
#[test]
fn the_kernel_counts_identifications_up() {
    if !have_taps() {
        return;
    }
    let kernel = Kernel::finishing();
    let sample = Sample { identification: 0, ..Sample::tcp(Ip::V4, octets(3000, 1)) };
    let mut records = Vec::new();
    for frame in sample.cut(1000) {
        let mut constant = frame.clone();
        put(&mut constant, 18, 0);
        sample::repair(&sample, &mut constant);
        assert!(stream::append(&mut records, &constant));
    }
    let joined = coalesce(&records).expect("they may all have the same");
    assert_eq!(joined.frames(), 3);
    let pieces: Vec<_> = [joined.header()].into_iter().chain(joined.payloads(&records)).collect();
    assert!(kernel.frames(joined.vnet().write(), &pieces) == sample.cut(1000));
    let mut ours = Vec::new();
    joined.gso().segment(&pieces.concat(), &mut ours);
    assert!(ours == records);
}

#[test]
fn what_the_kernel_leaves_to_others_is_understood() {
    if !have_taps() {
        return;
    }
    for len in [10, 12] {
        let kernel = Kernel::new(Vnet::Header(10), Vnet::Header(len));
        for (sample, size) in samples() {
            let (bundle, vnet) = (sample.partial(), sample.vnet(size));
            let whole = kernel.pass(vnet, &[&bundle]);
            let header = VnetHeader::parse(&vnet);
            let gso = Gso::parse(&bundle, &header).expect("it is a bundle");
            if gso.protocol() == Protocol::Udp {
                // It was not asked to leave these.
                assert_eq!(whole.len(), gso.segments(&bundle));
                continue;
            }
            let [(vnet, frame)] = &whole[..] else { panic!("{} frames of one bundle", whole.len()) };
            assert!(*frame == bundle);
            let mut expected = gso.header();
            if gso.segments(&bundle) == 1 {
                // What fits is no bundle.
                (expected.gso, expected.gso_size, expected.hdr_len) = (None, 0, 0);
            }
            let given = VnetHeader::parse(vnet);
            assert_eq!(
                (given.checksum, given.gso, given.gso_size),
                (expected.checksum, expected.gso, expected.gso_size)
            );
            assert_eq!((given.csum_start, given.csum_offset), (expected.csum_start, expected.csum_offset));
            if given.gso.is_some() {
                assert!(
                    segments(&Gso::parse(frame, &given).expect("it is a bundle"), frame) == sample.cut(size)
                );
            }
        }
    }
}
