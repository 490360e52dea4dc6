//! How a plug ends, what it says, and what still arrives.

use std::io::{Write, pipe};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::peer::{Far, Framing, Listening, Plug, read_all};
use crate::common::daemon::{Table, record};
use crate::common::hub::folder;
use crate::common::wait::{LIMIT, wait_for};
use crate::common::wire::{frame, mac};

fn numbered(count: u8) -> Vec<Vec<u8>> {
    (0..count).map(|number| frame(mac(2), mac(1), 1514, number)).collect()
}

/// A plug that is connected to whoever the test is.
fn plugged(framing: Framing, args: &[&str]) -> (tempfile::TempDir, Plug, Far, socket2::Socket) {
    let runtime = folder();
    let listening = Listening::new(runtime.path());
    let (plug, far) = Plug::between(runtime.path(), framing, &[args, &[&listening.spec()]].concat());
    let peer = listening.accept();
    (runtime, plug, far, peer)
}

#[test]
fn at_the_end_of_stdin_what_came_is_sent_on() {
    let (_runtime, plug, mut far, peer) = plugged(Framing::Vde, &["-v"]);
    // The peer does not read yet, and its socket holds only so much.
    let mut sent = Vec::new();
    let is_full = |table: &Table| table.port("segment1").queued_frames > 0;
    while !is_full(&plug.table()) {
        for number in 0..10 {
            let frame = frame(mac(2), mac(1), 1514, number);
            far.write(&Framing::Vde.record(&frame));
            sent.push(frame);
        }
        let count = u64::try_from(sent.len()).expect("few");
        wait_for("the plug to take them", LIMIT, || {
            (plug.table().port("pipe1").rx_frames == count).then_some(())
        });
    }
    drop(far.close_stdin());
    plug.says("port down: rx ");
    let got = read_all(&peer);
    assert!(got == sent.iter().flat_map(|frame| record(frame)).collect::<Vec<_>>());
    let (code, log) = plug.exit();
    assert!(code == Some(0) && log.contains(&format!("tx {} frames", sent.len())), "{log}");
}

#[test]
fn when_the_segment_goes_what_came_is_written_and_the_plug_fails() {
    let (_runtime, plug, mut far, mut peer) = plugged(Framing::Vde, &[]);
    let sent = numbered(80);
    for frame in &sent {
        peer.write_all(&record(frame)).expect("the plug reads");
    }
    drop(peer);
    let got = read_all(&mut far.from);
    assert!(got == sent.iter().flat_map(|frame| Framing::Vde.record(frame)).collect::<Vec<_>>());
    let (code, log) = plug.exit();
    assert_eq!(code, Some(1));
    assert!(log.starts_with("qhub: connect:unix:") && log.ends_with(": closed by its peer\n"), "{log}");
}

#[test]
fn when_stdout_is_no_longer_read_the_plug_fails() {
    let (_runtime, mut plug, far, mut peer) = plugged(Framing::Vde, &[]);
    let Far { to, from, .. } = far;
    drop(from);
    wait_for("the plug to exit", LIMIT, || {
        // Not the first one, if another test has just forked. The last may find nobody.
        let _ = peer.write_all(&record(&frame(mac(2), mac(1), 60, 1)));
        plug.try_exit()
    });
    assert_eq!(plug.exit(), (Some(1), "qhub: stdout is no longer read\n".to_owned()));
    drop(to);
}

#[test]
fn a_full_stdout_whose_reader_goes_is_noticed() {
    let runtime = folder();
    let listening = Listening::new(runtime.path());
    let ((input, to), (from, output)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
    let shared = output.try_clone().expect("a descriptor");
    let plug = Plug::start(runtime.path(), &["-v", &listening.spec()], input, output);
    let mut peer = listening.accept();
    for frame in numbered(100) {
        peer.write_all(&record(&frame)).expect("the plug reads");
    }
    wait_for("the pipe to be full", LIMIT, || {
        let mut fds = [PollFd::new(shared.as_fd(), PollFlags::POLLOUT)];
        (poll(&mut fds, PollTimeout::ZERO).expect("a pipe can be polled") == 0).then_some(())
    });
    drop(from);
    let (code, log) = plug.exit();
    assert!(code == Some(1) && log.ends_with("qhub: stdout is no longer read\n"), "{log}");
    drop(to);
}

#[test]
fn what_is_no_frame_ends_the_plug() {
    for (framing, bytes, said) in [
        (
            Framing::Vde,
            &[0x24, 0x13, 1, 2][..],
            "frame length 9235 exceeds 9234; is the framing of both ends the same?",
        ),
        (Framing::Vde, &[0, 60, 1], "its end came in the middle of a frame"),
        (Framing::Vde, &[0], "its end came in the middle of a frame"),
        (
            Framing::Qemu,
            &[0, 1, 0x10, 1, 1],
            "frame length 69633 exceeds 69632; is the framing of both ends the same?",
        ),
        (Framing::Qemu, &[0, 0, 0], "its end came in the middle of a frame"),
    ] {
        let (_runtime, plug, mut far, peer) = plugged(framing, &[]);
        let sent = frame(mac(2), mac(1), 60, 1);
        far.write(&[&framing.record(&sent), bytes].concat());
        drop(far.close_stdin());
        assert!(read_all(&peer) == record(&sent), "what came before arrives");
        let (code, log) = plug.exit();
        assert_eq!(code, Some(1), "{log}");
        assert!(log.ends_with(&format!("qhub: stdin: {said}\n")), "{log}");
    }
}

#[test]
fn the_longest_frame_is_none_that_ends_it() {
    let (_runtime, plug, mut far, peer) = plugged(Framing::Vde, &[]);
    let sent = frame(mac(2), mac(1), 9_234, 1);
    far.write(&Framing::Vde.record(&sent));
    drop(far.close_stdin());
    assert!(read_all(&peer) == record(&sent));
    assert_eq!(plug.exit(), (Some(0), String::new()));
}

#[test]
fn a_signal_ends_it_in_order() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (_runtime, plug, mut far, peer) = plugged(Framing::Vde, &["-v"]);
        let sent = numbered(20);
        for frame in &sent {
            far.write(&Framing::Vde.record(frame));
        }
        plug.signal(signal);
        let got = read_all(&peer);
        assert!(got == sent.iter().flat_map(|frame| record(frame)).collect::<Vec<_>>(), "{signal}");
        let (code, log) = plug.exit();
        assert!(code == Some(0) && log.contains("stopping") && log.contains("rx 20 frames"), "{log}");
    }
}

/// As Ctrl-C does: whoever reads the plug is gone, too, while there is still something to write.
#[test]
fn a_signal_to_a_whole_pipeline_is_no_failure() {
    for is_first in [true, false] {
        let (_runtime, plug, far, mut peer) = plugged(Framing::Vde, &[]);
        let burst: Vec<u8> = numbered(200).iter().flat_map(|frame| record(frame)).collect();
        peer.write_all(&burst).expect("the plug reads");
        wait_for("the pipe to be full", LIMIT, || {
            (plug.table().port("pipe1").queued_frames > 0).then_some(())
        });
        if is_first {
            plug.signal(Signal::SIGINT);
            drop(far.from);
        } else {
            // Both are there when the plug runs again.
            plug.signal(Signal::SIGSTOP);
            drop(far.from);
            plug.signal(Signal::SIGINT);
            plug.signal(Signal::SIGCONT);
        }
        let (code, log) = plug.exit();
        assert_eq!((code, log.contains("no longer read")), (Some(0), false), "{log}");
    }
}
