//! A datagram socket that anybody sends to: here new peers are met. Each gets a link with a socket of
//! its own, connected to it.
//!
//! * UDP: that socket has our address as well, and the system gives it what comes from its peer.
//! * A unix peer goes on sending here; its own socket only sends. One that has connected its socket to
//!   ours (libkrun, vfkit) hears nobody else, so it gets this very socket, and a new one takes its
//!   place under the same path.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail};
use hub_protocol::l2tpv3::L2tpv3;
use mio::event::Source as _;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::libc;
use socket2::{Domain, Socket, Type};

use super::link::DatagramLink;
use super::socket::{DatagramSocket, Framing, Reception};
use super::source::Source;
use crate::batch::FrameBatch;
use crate::config::HostPort;
use crate::discard::DiscardReason;
use crate::link::Received;
use crate::link::listener::{explain_bind, resolve};
use crate::link::socket_file::SocketFile;

/// Batches that are kept of what waits in a socket that is given away.
const BACKLOG: usize = 16;

/// Consecutive datagrams of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Where they came from.
    pub source: Source,
    /// Their records in the batch; empty when none of them had a frame.
    pub records: Range<usize>,
}

/// What the server's socket is bound to.
#[derive(Debug)]
enum Place {
    Udp {
        local: SocketAddr,
        framing: Framing,
    },
    Unix {
        file: SocketFile,
        mode: u32,
    },
    /// An inherited unix socket: wherever it is, there can't be another.
    Inherited,
}

/// A datagram socket that meets peers.
#[derive(Debug)]
pub struct DatagramServer {
    socket: DatagramSocket,
    place: Place,
    /// The only peer, if there may be no other.
    only: Option<Source>,
    /// What sends to it on a unix socket: it has our name, which the peer may look at.
    sender: Option<Socket>,
    /// What was waiting in a socket that was given away, and whose it is.
    backlog: VecDeque<(FrameBatch, Vec<Arrival>)>,
}

impl DatagramServer {
    /// Serves UDP, for `remote` only if there is one.
    ///
    /// # Errors
    ///
    /// When a host is unknown, or the address is taken or not ours; says what to do.
    pub fn udp(local: &HostPort, remote: Option<&HostPort>) -> Result<Self> {
        Self::over_udp(local, remote, Framing::Bare)
    }

    /// Serves L2TPv3 over UDP.
    ///
    /// # Errors
    ///
    /// As for [`Self::udp`].
    pub fn l2tpv3(local: &HostPort, remote: &HostPort, framing: L2tpv3) -> Result<Self> {
        Self::over_udp(local, Some(remote), Framing::L2tpv3(framing))
    }

    fn over_udp(local: &HostPort, remote: Option<&HostPort>, framing: Framing) -> Result<Self> {
        let ours = resolve(local)?;
        let (address, only) = match remote {
            None => (ours[0], None),
            Some(remote) => {
                let theirs = resolve(remote)?;
                let same =
                    |ours: &SocketAddr| theirs.iter().find(|theirs| theirs.is_ipv4() == ours.is_ipv4());
                let pair = ours.iter().find_map(|ours| Some((*ours, *same(ours)?)));
                let (ours, theirs) = pair.with_context(|| {
                    format!(
                        "{local} and {remote} are not of one family; write two IPv4 or two IPv6 addresses"
                    )
                })?;
                (ours, Some(Source::Udp(theirs)))
            }
        };
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        socket.bind(&address.into()).map_err(|error| explain_bind(error, local, "UDP"))?;
        // Only now: two hubs that ask for one port are to hear of it.
        socket.set_reuse_port(true)?;
        let socket = DatagramSocket::udp(socket, framing)?;
        Ok(Self {
            socket,
            place: Place::Udp { local: address, framing },
            only,
            sender: None,
            backlog: VecDeque::new(),
        })
    }

    /// Serves a unix socket at `path`, for the socket at `remote` only if there is one.
    ///
    /// # Errors
    ///
    /// When the path is taken or can't be made; says what to do.
    pub fn unix(path: &Path, mode: u32, remote: Option<&Path>) -> Result<Self> {
        let (mut socket, mut file) = SocketFile::bind_datagram(path, mode)?;
        let mut sender = None;
        if remote.is_some() {
            // It keeps the name when the next one takes its place.
            sender = Some(socket);
            drop(file);
            (socket, file) = SocketFile::bind_datagram(path, mode)?;
        }
        let socket = DatagramSocket::unix(socket)?;
        Ok(Self {
            socket,
            place: Place::Unix { file, mode },
            only: remote.map(|remote| Source::Path(remote.to_owned())),
            sender,
            backlog: VecDeque::new(),
        })
    }

    /// Serves an inherited socket.
    ///
    /// # Errors
    ///
    /// When it has no address, or its family is none that frames come by.
    pub fn inherited(socket: Socket) -> Result<Self> {
        let address = socket.local_addr()?;
        let (socket, place) = match address.as_socket() {
            Some(local) if local.port() != 0 => {
                socket.set_reuse_port(true)?;
                let framing = Framing::Bare;
                (DatagramSocket::udp(socket, framing)?, Place::Udp { local, framing })
            }
            None if address.is_unix() && !address.is_unnamed() => {
                (DatagramSocket::unix(socket)?, Place::Inherited)
            }
            _ => bail!("it is neither bound nor connected"),
        };
        Ok(Self { socket, place, only: None, sender: None, backlog: VecDeque::new() })
    }

    /// The address that it serves.
    pub fn local(&self) -> Option<Source> {
        match &self.place {
            Place::Udp { local, .. } => Some(Source::Udp(*local)),
            Place::Unix { file, .. } => Some(Source::Path(file.path().to_owned())),
            Place::Inherited => None,
        }
    }

    /// The only peer, if there may be no other.
    pub fn only(&self) -> Option<&Source> {
        self.only.as_ref()
    }

    /// Adds the server to the poll.
    pub fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        SourceFd(&self.socket.fd()).register(registry, token, Interest::READABLE)
    }

    /// Receives into an empty `batch`, and says in `arrivals` which frame is whose.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn receive(&mut self, batch: &mut FrameBatch, arrivals: &mut Vec<Arrival>) -> io::Result<Received> {
        if let Some((waiting, whose)) = self.backlog.pop_front() {
            batch.copy(&waiting);
            *arrivals = whose;
            return Ok(Received::More);
        }
        gather(&mut self.socket, self.only.as_ref(), batch, arrivals)
    }

    /// Does the next receive give what came before the last one?
    pub fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Makes a link to `peer`. The server is registered as `token`, and stays so.
    ///
    /// # Errors
    ///
    /// When the peer can't be reached, or is gone already.
    pub fn link_to(&mut self, peer: &Source, registry: &Registry, token: Token) -> io::Result<DatagramLink> {
        let address = peer.address()?;
        if let Place::Udp { local, framing } = self.place {
            return udp_link(local, peer, framing);
        }
        if let Some(sender) = self.sender.take() {
            return Ok(DatagramLink::unix(DatagramSocket::unix(sender)?, address, true));
        }
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        let mut link = DatagramLink::unix(DatagramSocket::unix(socket)?, address, false);
        match link.connect() {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                self.give_socket_to(peer, registry, token)
            }
            Err(error) => Err(explain_connect(error)),
            Ok(()) => Ok(link),
        }
    }

    /// Gives our socket to a peer that hears only this one, and goes on with another.
    fn give_socket_to(
        &mut self,
        peer: &Source,
        registry: &Registry,
        token: Token,
    ) -> io::Result<DatagramLink> {
        let Place::Unix { file, mode } = &mut self.place else {
            return Err(io::Error::other("it has connected its socket to an inherited one; use dgram:PATH"));
        };
        let address = peer.address()?;
        let successor = file.successor(*mode, || self.socket.connect(&address).map_err(explain_connect))?;
        let successor = DatagramSocket::unix(successor)?;
        SourceFd(&successor.fd()).register(registry, token, Interest::READABLE)?;
        let mut given = std::mem::replace(&mut self.socket, successor);
        SourceFd(&given.fd()).deregister(registry)?;
        for _ in 0..BACKLOG {
            let (mut waiting, mut whose) = (FrameBatch::default(), Vec::new());
            let gathered = gather(&mut given, None, &mut waiting, &mut whose)?;
            self.backlog.push_back((waiting, whose));
            if gathered != Received::More {
                break;
            }
        }
        Ok(DatagramLink::taken_over(given, peer.clone()))
    }
}

fn explain_connect(error: io::Error) -> io::Error {
    let advice = match error.raw_os_error() {
        Some(libc::EPERM) => "it connected to a socket that another peer was given; let it connect again",
        Some(libc::EACCES) => "its socket is not ours to use; run both as one user, or open its mode",
        Some(libc::ENOENT | libc::ECONNREFUSED) => {
            "its socket has to be bound to an absolute path that stays"
        }
        _ => return error,
    };
    io::Error::other(format!("{error}; {advice}"))
}

/// Receives from `socket`, and says which frame is whose; with `only`, of nobody else.
fn gather(
    socket: &mut DatagramSocket,
    only: Option<&Source>,
    batch: &mut FrameBatch,
    arrivals: &mut Vec<Arrival>,
) -> io::Result<Received> {
    let received = socket.receive(batch, |sender, at| {
        if only.is_some_and(|only| !sender.is(only)) {
            return Reception::Lost(DiscardReason::Stranger);
        }
        if let Some(Arrival { source, records }) = arrivals.last_mut() {
            if sender.is(source) {
                return Reception::Taken;
            }
            records.end = at;
        }
        let Some(source) = sender.source() else { return Reception::Lost(DiscardReason::Stranger) };
        arrivals.push(Arrival { source, records: at..at });
        Reception::Taken
    });
    if let Some(Arrival { records, .. }) = arrivals.last_mut() {
        records.end = batch.records().len();
    }
    received
}

fn udp_link(local: SocketAddr, peer: &Source, framing: Framing) -> io::Result<DatagramLink> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&local.into())?;
    socket.connect(&peer.address()?).map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENETUNREACH | libc::EADDRNOTAVAIL) => io::Error::other(format!(
            "{} can't be reached from {}; write our own address on its network in front of the port (0.0.0.0: whichever leads there)",
            peer.peer(),
            local.ip()
        )),
        _ => error,
    })?;
    Ok(DatagramLink::udp(DatagramSocket::udp(socket, framing)?, peer.clone()))
}
