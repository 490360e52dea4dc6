//! The raw relay: what two sockets can carry when nobody looks at the bytes. One thread; of a stream 256 KiB at
//! a time, of datagrams 64.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::MsgFlags;
use socket2::Socket;

use super::pump;
use crate::datagram::{Inbox, Outbox};
use crate::frame::READ_SIZE;
use crate::socket::Address;

/// What the hub asks for on its stream sockets. It matters as much as the forwarding itself, so both have the
/// same.
const SEND_BUFFER: usize = 212_992;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    from: Address,
    #[arg(long)]
    to: Address,
    /// Poll both sockets and relay either way, as is always done for datagrams; without, only read the one and
    /// write the other.
    #[arg(long)]
    duplex: bool,
    /// Pass whole TCP segments and unfinished checksums from one TAP to the other.
    #[arg(long)]
    offload: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.from.tap().or(args.to.tap()).is_some() {
        return pump::run(&args.from, &args.to, args.offload);
    }
    if let (Address::Dgram(from), Address::Dgram(to)) = (&args.from, &args.to) {
        return run_datagrams(from, to);
    }
    let (from, to) = (args.from.listen()?, args.to.listen()?);
    let (mut from, mut to) = (accept(&from)?, accept(&to)?);
    let mut buffer = vec![0; READ_SIZE];
    if args.duplex {
        loop {
            let [forth, back] = wait_for(&from, &to)?;
            if forth && !pump(&mut from, &mut to, &mut buffer)?
                || back && !pump(&mut to, &mut from, &mut buffer)?
            {
                return Ok(());
            }
        }
    }
    while pump(&mut from, &mut to, &mut buffer)? {}
    Ok(())
}

/// Which of two sockets have something to be read.
pub(super) fn wait_for(one: impl AsFd, other: impl AsFd) -> io::Result<[bool; 2]> {
    let mut fds = [one.as_fd(), other.as_fd()].map(|socket| PollFd::new(socket, PollFlags::POLLIN));
    poll(&mut fds, PollTimeout::NONE)?;
    Ok(fds.map(|fd| fd.any().unwrap_or(true)))
}

/// Moves what one `read` finds; `false` at the end of the stream.
fn pump(from: &mut Socket, to: &mut Socket, buffer: &mut [u8]) -> io::Result<bool> {
    let got = from.read(buffer)?;
    to.write_all(&buffer[..got])?;
    Ok(got > 0)
}

pub(super) fn accept(listener: &Socket) -> io::Result<Socket> {
    let (socket, _) = listener.accept()?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    Ok(socket)
}

fn run_datagrams(from: &Path, to: &Path) -> anyhow::Result<()> {
    let (from, to) = (UnixDatagram::bind(from)?, UnixDatagram::bind(to)?);
    meet(&from)?;
    meet(&to)?;
    let (mut inbox, mut outbox) = (Inbox::new(), Outbox::new());
    loop {
        let [forth, back] = wait_for(&from, &to)?;
        if forth {
            pump_datagrams(&from, &to, &mut inbox, &mut outbox)?;
        }
        if back {
            pump_datagrams(&to, &from, &mut inbox, &mut outbox)?;
        }
    }
}

/// Connects to whom the first frame comes from: what two sockets that are connected to each other hold is
/// bounded by their buffers only.
fn meet(socket: &UnixDatagram) -> anyhow::Result<()> {
    let (_, peer) = socket.recv_from(&mut [])?;
    Ok(socket.connect(peer.as_pathname().context("a client without a name")?)?)
}

/// Moves frames until there are no more.
fn pump_datagrams(
    from: &UnixDatagram,
    to: &UnixDatagram,
    inbox: &mut Inbox,
    outbox: &mut Outbox,
) -> io::Result<()> {
    loop {
        match inbox.receive(from, MsgFlags::MSG_DONTWAIT) {
            Ok(()) => outbox.send(to, inbox.frames())?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
