//! Twenty thousand frames of odd sizes in chunks of any size: what desynchronises vde_plug.

use std::io::Write;
use std::thread;

use super::peer::{FRAMINGS, Framing, Listening, Plug, Random, read_all, read_up_to};
use crate::common::daemon::{Daemon, record};
use crate::common::hub::folder;
use crate::common::wire::{BROADCAST, Station, frame, mac, settle};

const COUNT: usize = 20_000;

/// Frames that tell their number.
fn frames() -> Vec<Vec<u8>> {
    let mut random = Random(88_172_645_463_325_252);
    let numbered = |number: usize| {
        let mut frame = frame(BROADCAST, mac(1), (22 + random.below(1_000)) | 1, 3);
        frame[14..22].copy_from_slice(&number.to_be_bytes());
        frame
    };
    (0..COUNT).map(numbered).collect()
}

/// Nobody is given up while this test waits for the CPU.
const PATIENT: &str = ",pause=1000ms,queue=64M";

#[test]
fn every_frame_arrives_whatever_the_chunks() {
    for framing in FRAMINGS {
        let runtime = folder();
        let listening = Listening::new(runtime.path());
        let (plug, mut far) = Plug::between(runtime.path(), framing, &[&(listening.spec() + PATIENT)]);
        let peer = listening.accept();
        let frames = frames();
        let expected: Vec<u8> = frames.iter().flat_map(|frame| record(frame)).collect();
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| framing.record(frame)).collect();
        let writer = thread::spawn(move || {
            let (mut random, mut rest) = (Random(4_101_842_887_655_102_017), &bytes[..]);
            while !rest.is_empty() {
                // Many chunks of few octets, and few of many.
                let limit = [2, 50, 5_000, 70_000][random.below(4)];
                let (chunk, behind) = rest.split_at(rest.len().min(1 + random.below(limit)));
                far.write(chunk);
                rest = behind;
            }
            far.close_stdin()
        });
        assert!(read_all(&peer) == expected, "{framing:?}");
        drop(writer.join().expect("the plug took all of it"));
        assert_eq!(plug.exit(), (Some(0), String::new()));
    }
}

#[test]
fn every_frame_leaves_whatever_is_read_at_a_time() {
    for framing in FRAMINGS {
        let runtime = folder();
        let listening = Listening::new(runtime.path());
        let (plug, mut far) = Plug::between(runtime.path(), framing, &[&(listening.spec() + PATIENT)]);
        let mut peer = listening.accept();
        let frames = frames();
        let expected: Vec<u8> = frames.iter().flat_map(|frame| framing.record(frame)).collect();
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| record(frame)).collect();
        let writer = thread::spawn(move || {
            peer.write_all(&bytes).expect("the plug reads");
            peer
        });
        let mut random = Random(4_101_842_887_655_102_017);
        let got = read_up_to(&mut far.from, expected.len(), || 1 + random.below(60_000));
        assert!(got == expected, "{framing:?}");
        drop(writer.join().expect("the plug read all of it"));
        assert!(read_all(&mut far.from).is_empty() && plug.exit().0 == Some(1));
    }
}

#[test]
fn a_header_may_come_octet_by_octet() {
    for framing in FRAMINGS {
        let runtime = folder();
        let hub = Daemon::start(runtime.path(), &[]);
        let (_plug, mut far) = Plug::between(runtime.path(), framing, &[]);
        let mut wire = hub.connect();
        settle(&mut wire, &mut far);
        for number in 0..4 {
            let sent = frame(mac(9), mac(1), 300, number);
            for octet in framing.record(&sent) {
                // Each in a read of its own, or nearly so: the plug is waiting for it.
                far.write(&[octet]);
                thread::yield_now();
            }
            assert!(wire.receive() == sent, "{framing:?}");
        }
        far.write(&Framing::Vde.prefix(0).repeat(2));
        let sent = frame(mac(9), mac(1), 60, 1);
        far.send(&sent);
        assert!(wire.receive() == sent, "a record without octets means nothing");
    }
}
