//! The raw relay: what two sockets can carry when nobody looks at the bytes. One thread; of a stream 256 KiB at
//! a time. That of datagrams is in `repeat.rs`, that of TAPs in `pump.rs`.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::Socket;

use super::{pump, repeat};
use crate::frame::READ_SIZE;
use crate::socket::Address;

/// What the hub asks for on its stream sockets. It matters as much as the forwarding itself, so both have the
/// same.
const SEND_BUFFER: usize = 212_992;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    from: Address,
    /// Where it goes; datagrams may go to several.
    #[arg(long, required = true)]
    to: Vec<Address>,
    /// Poll both sockets and relay either way, as is always done for datagrams; without, only read the one and
    /// write the other.
    #[arg(long)]
    duplex: bool,
    /// Pass whole TCP segments and unfinished checksums from one TAP to the other.
    #[arg(long)]
    offload: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let [to] = &args.to[..] else {
        return repeat::run(&args.from, &args.to);
    };
    if args.from.tap().or(to.tap()).is_some() {
        return pump::run(&args.from, to, args.offload);
    }
    if args.from.is_datagram() {
        return repeat::run(&args.from, &args.to);
    }
    let (from, to) = (args.from.listen()?, to.listen()?);
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
