//! The raw relay: what two sockets can carry when nobody looks at the bytes. One thread, 256 KiB at a time.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::Socket;

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
    /// Poll both sockets and relay either way; without, only read the one and write the other.
    #[arg(long)]
    duplex: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (from, to) = (args.from.listen()?, args.to.listen()?);
    let (mut from, mut to) = (accept(&from)?, accept(&to)?);
    let mut buffer = vec![0; READ_SIZE];
    if args.duplex {
        loop {
            let ready = |socket| PollFd::new(socket, PollFlags::POLLIN);
            let mut fds = [ready(from.as_fd()), ready(to.as_fd())];
            poll(&mut fds, PollTimeout::NONE)?;
            let [forth, back] = fds.map(|fd| fd.any().unwrap_or(true));
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

/// Moves what one `read` finds; `false` at the end of the stream.
fn pump(from: &mut Socket, to: &mut Socket, buffer: &mut [u8]) -> io::Result<bool> {
    let got = from.read(buffer)?;
    to.write_all(&buffer[..got])?;
    Ok(got > 0)
}

fn accept(listener: &Socket) -> io::Result<Socket> {
    let (socket, _) = listener.accept()?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    Ok(socket)
}
