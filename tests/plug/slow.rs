//! A stdout that nobody reads.

use std::io::Write;
use std::time::Duration;

use super::peer::{Framing, Listening, Plug, read_all};
use crate::common::daemon::record;
use crate::common::hub::folder;
use crate::common::wait::pause;
use crate::common::wire::{frame, mac};

#[test]
fn less_than_the_queue_holds_is_not_lost() {
    let runtime = folder();
    let listening = Listening::new(runtime.path());
    let (plug, mut far) = Plug::between(runtime.path(), Framing::Vde, &["-v", &listening.spec()]);
    let mut peer = listening.accept();
    // What a pipe holds, and what a queue keeps however long nobody reads.
    let sent: Vec<_> = (0..120).map(|number| frame(mac(2), mac(1), 1514, number)).collect();
    for frame in &sent {
        peer.write_all(&record(frame)).expect("the plug reads");
    }
    pause(Duration::from_millis(300));
    drop(peer);
    let got = read_all(&mut far.from);
    assert!(got == sent.iter().flat_map(|frame| Framing::Vde.record(frame)).collect::<Vec<_>>());
    let (_, log) = plug.exit();
    assert!(!log.contains("queue_full"), "{log}");
}

#[test]
fn the_other_side_goes_on_and_what_is_lost_is_told() {
    let runtime = folder();
    let listening = Listening::new(runtime.path());
    let (plug, mut far) = Plug::between(runtime.path(), Framing::Vde, &["-v", &listening.spec()]);
    let mut peer = listening.accept();
    let sent = frame(mac(2), mac(1), 1514, 7);
    // Its writes have a time-out.
    for _ in 0..4_000 {
        peer.write_all(&record(&sent)).expect("the plug reads on");
    }
    far.write(&Framing::Vde.record(&sent));
    let mut got = vec![0; 4 + 1514];
    std::io::Read::read_exact(&mut peer, &mut got).expect("the other way is free");
    assert!(got == record(&sent));
    plug.says("its peer does not keep up");
    drop(peer);
    let got = read_all(&mut far.from);
    assert!(got.len() % 1516 == 0 && got.chunks(1516).all(|record| record == Framing::Vde.record(&sent)));
    let written = got.len() / 1516;
    let (code, log) = plug.exit();
    assert!(code == Some(1) && (100..4_000).contains(&written), "{written} frames: {log}");
    let dropped = 4_000 - written;
    assert!(log.contains(&format!("dropped {dropped} (queue_full={dropped})")), "{written} written: {log}");
}
