//! The relay of datagrams: what a thread can carry that moves up to 64 at a time and looks at none. What comes in at
//! the first end goes out at all others, and the other way round.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use anyhow::{Context, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::MsgFlags;

use crate::datagram::{Inbox, Outbox};
use crate::socket::Address;
use crate::vde;

/// Where a client is going to be.
enum Door {
    Dgram(UnixDatagram),
    Vde(vde::Door),
}

impl Door {
    fn open(address: &Address) -> anyhow::Result<Self> {
        match address {
            Address::Dgram(path) => Ok(Self::Dgram(UnixDatagram::bind(path)?)),
            Address::Vde(folder) => vde::Door::open(folder).map(Self::Vde),
            Address::Unix(_) | Address::Tcp(_) | Address::Udp(_) | Address::Mcast(_) | Address::Tap(_) => {
                bail!("{address} carries no datagrams that are relayed")
            }
        }
    }

    /// Waits for the client. What two sockets hold that are connected to each other is bounded by their buffers
    /// only.
    fn meet(self) -> anyhow::Result<vde::Port> {
        match self {
            Self::Dgram(data) => {
                let (_, peer) = data.recv_from(&mut [])?;
                data.connect(peer.as_pathname().context("a client without a name")?)?;
                Ok(vde::Port { data, _control: None })
            }
            Self::Vde(door) => door.accept(),
        }
    }
}

pub(super) fn run(from: &Address, to: &[Address]) -> anyhow::Result<()> {
    // All have to be there before the first client comes.
    let from = Door::open(from)?;
    let to: Vec<Door> = to.iter().map(Door::open).collect::<Result<_, _>>()?;
    let from = from.meet()?;
    let to: Vec<vde::Port> = to.into_iter().map(Door::meet).collect::<Result<_, _>>()?;

    let from = [&from.data];
    let to: Vec<&UnixDatagram> = to.iter().map(|port| &port.data).collect();
    let watch = |socket| PollFd::new(AsFd::as_fd(socket), PollFlags::POLLIN);
    let mut fds: Vec<PollFd<'_>> = from.into_iter().chain(to.iter().copied()).map(watch).collect();
    let (mut inbox, mut outbox) = (Inbox::new(), Outbox::new());
    loop {
        poll(&mut fds, PollTimeout::NONE)?;
        let (forth, back) = fds.split_first().context("there are two ends at least")?;
        if forth.any().unwrap_or(true) {
            pump(from[0], &to, &mut inbox, &mut outbox)?;
        }
        for (socket, _) in to.iter().zip(back).filter(|(_, fd)| fd.any().unwrap_or(true)) {
            pump(socket, &from, &mut inbox, &mut outbox)?;
        }
    }
}

/// Moves frames until there are no more.
fn pump(from: &UnixDatagram, to: &[&UnixDatagram], inbox: &mut Inbox, outbox: &mut Outbox) -> io::Result<()> {
    loop {
        match inbox.receive(from, MsgFlags::MSG_DONTWAIT) {
            Ok(()) => to.iter().try_for_each(|to| outbox.send(to, inbox.frames()))?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
