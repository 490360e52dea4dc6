//! What others share with a plug, and keep: whether it blocks.

use std::io::pipe;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use socket2::{Domain, Socket, Type};

use super::peer::{Listening, Plug};
use crate::common::hub::folder;

fn blocks(fd: impl AsFd) -> bool {
    !OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).expect("open")).contains(OFlag::O_NONBLOCK)
}

fn run(runtime: &Path, input: &OwnedFd, output: &OwnedFd, signal: Signal, during: impl FnOnce()) {
    let listening = Listening::new(runtime);
    let shared = |fd: &OwnedFd| fd.try_clone().expect("a descriptor");
    let plug = Plug::start(runtime, &["-v", &listening.spec()], shared(input), shared(output));
    let peer = listening.accept();
    plug.says("port=segment1");
    during();
    plug.signal(signal);
    plug.exit();
    drop(peer);
}

#[test]
fn a_pipe_blocks_all_the_time() {
    let ((input, _to), (_from, output)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
    let [input, output] = [OwnedFd::from(input), OwnedFd::from(output)];
    // Even the end that nobody can prepare for leaves it as it was.
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let runtime = folder();
        run(runtime.path(), &input, &output, signal, || assert!(blocks(&input) && blocks(&output)));
        assert!(blocks(&input) && blocks(&output), "{signal}");
    }
}

#[test]
fn a_socket_blocks_again_afterwards() {
    let (ours, _theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None).expect("a socket pair");
    let input = OwnedFd::from(ours);
    // Both are one, as sshd has it.
    let output = input.try_clone().expect("a descriptor");
    let runtime = folder();
    run(runtime.path(), &input, &output, Signal::SIGTERM, || assert!(!blocks(&input)));
    assert!(blocks(&input));
}

#[test]
fn what_did_not_block_before_does_not_afterwards() {
    let (ours, _theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None).expect("a socket pair");
    ours.set_nonblocking(true).expect("a socket");
    let input = OwnedFd::from(ours);
    let runtime = folder();
    run(runtime.path(), &input, &input, Signal::SIGTERM, || ());
    assert!(!blocks(&input));
}

#[test]
fn a_fifo_whose_writer_has_gone_is_at_its_end() {
    let runtime = folder();
    let path = runtime.path().join("fifo");
    mkfifo(&path, Mode::S_IRWXU).expect("a FIFO in a new folder");
    let both = std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("open the FIFO");
    let input = std::fs::File::open(&path).expect("open the FIFO");
    drop(both);
    let (_from, output) = pipe().expect("a pipe");
    let listening = Listening::new(runtime.path());
    let plug = Plug::start(runtime.path(), &[&listening.spec()], input.try_clone().expect("a file"), output);
    assert_eq!(plug.exit(), (Some(0), String::new()));
    assert!(blocks(&input));
}
