//! One peer, through a datagram socket that is connected to it: so the poll tells when there is
//! room in the peer's queue.

use std::io;
use std::time::Duration;

use mio::event::Source as _;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::libc;
use socket2::{SockAddr, Socket};

use super::socket::{DatagramSocket, Framing, HELLO, Reception, is_departure};
use super::source::Source;
use crate::batch::{FrameBatch, Run, Taken};
use crate::discard::DiscardReason;
use crate::link::{Link, Received, SendError};

/// How the peer is tied to the socket.
#[derive(Debug)]
enum Tie {
    /// Both are connected to each other: when the peer is gone, so is the link. It is waited for
    /// like the peer of a stream.
    Pair,
    /// It has a UDP address, and is never known to be gone.
    Udp,
    /// It has a unix socket that our own one is connected to, and may be replaced by its next life.
    /// What it sends goes to the socket of the server.
    Unix {
        address: SockAddr,
        /// Does the link stay when the peer hears only another socket?
        is_kept: bool,
        is_connected: bool,
    },
}

/// A peer on a datagram socket.
#[derive(Debug)]
pub struct DatagramLink {
    socket: DatagramSocket,
    /// Whose datagrams count, where others may have come before the socket was connected.
    source: Option<Source>,
    tie: Tie,
}

impl DatagramLink {
    /// One of a pair of sockets that are connected to each other.
    ///
    /// # Errors
    ///
    /// When the system refuses an option.
    pub fn pair(socket: Socket) -> io::Result<Self> {
        Ok(Self::new(DatagramSocket::unix(socket)?, None, Tie::Pair))
    }

    /// A UDP socket that is connected.
    ///
    /// # Errors
    ///
    /// When the system refuses an option.
    pub fn connected(socket: Socket) -> io::Result<Self> {
        Ok(Self::new(DatagramSocket::udp(socket, Framing::Bare)?, None, Tie::Udp))
    }

    /// A socket of ours that became one of a pair when its peer `source` had sent to it.
    pub(super) fn taken_over(socket: DatagramSocket, source: Source) -> Self {
        Self::new(socket, Some(source), Tie::Pair)
    }

    /// A UDP socket that is connected to `source`.
    pub(super) fn udp(socket: DatagramSocket, source: Source) -> Self {
        Self::new(socket, Some(source), Tie::Udp)
    }

    /// A peer at `address`, whether it is there or not, that `socket` is to send to; `is_kept`
    /// whatever it does.
    pub(super) fn unix(socket: DatagramSocket, address: SockAddr, is_kept: bool) -> Self {
        Self::new(socket, None, Tie::Unix { address, is_kept, is_connected: false })
    }

    fn new(socket: DatagramSocket, source: Option<Source>, tie: Tie) -> Self {
        Self { socket, source, tie }
    }

    /// Are both ends connected to each other?
    pub fn is_pair(&self) -> bool {
        matches!(self.tie, Tie::Pair)
    }

    /// Connects to a unix peer.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` also when the peer is connected to another socket.
    pub(super) fn connect(&mut self) -> io::Result<()> {
        if let Tie::Unix { address, is_connected, .. } = &mut self.tie {
            self.socket.connect(address)?;
            *is_connected = true;
        }
        Ok(())
    }

    /// Sends to a unix peer, to its next life if it has one.
    fn send_unix(&mut self, run: Run<'_>) -> Result<Taken, SendError> {
        if let Tie::Unix { is_connected: is_connected @ true, .. } = &mut self.tie {
            match self.socket.send(run) {
                Err(error) if is_departure(&error) => *is_connected = false,
                sent => return sent.map_err(SendError::Refused),
            }
        }
        match (self.connect(), &self.tie) {
            (Ok(()), _) => self.socket.send(run).map_err(SendError::Refused),
            // When it sends again, it is met as a new one.
            (Err(error), Tie::Unix { is_kept: false, .. }) if is_refusal(&error) => {
                Err(SendError::Broken(error))
            }
            (Err(error), _) if is_refusal(&error) => Err(SendError::Down(io::Error::other(
                "it hears only the socket that it has connected to; leave out remote=",
            ))),
            (Err(error), _) => Err(SendError::Down(error)),
        }
    }
}

/// Does `error` say that a unix peer is connected to another socket?
fn is_refusal(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EPERM)
}

impl Link for DatagramLink {
    fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        SourceFd(&self.socket.fd()).register(registry, token, interest)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        SourceFd(&self.socket.fd()).reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.socket.fd()).deregister(registry)
    }

    fn receive(&mut self, batch: &mut FrameBatch) -> io::Result<Received> {
        let Self { socket, source, tie } = self;
        let is_pair = matches!(tie, Tie::Pair);
        let Some(peer) = source else {
            return socket.receive_many(batch, |datagram| datagram == HELLO);
        };
        let received = socket.receive(batch, |sender, _| {
            if sender.is(peer) { Reception::Taken } else { Reception::Lost(DiscardReason::Stranger) }
        })?;
        if is_pair && received != Received::More {
            // Those who came before are gone, and nobody else can come.
            *source = None;
        }
        Ok(received)
    }

    fn send(&mut self, run: Run<'_>) -> Result<Taken, SendError> {
        match &self.tie {
            Tie::Udp => self.socket.send(run).map_err(SendError::Refused),
            Tie::Pair => self.socket.send_to_pair(run),
            Tie::Unix { .. } => self.send_unix(run),
        }
    }

    fn max_frame(&self) -> usize {
        self.socket.max_frame()
    }

    fn patience(&self) -> Option<Duration> {
        match self.tie {
            Tie::Pair => None,
            Tie::Udp | Tie::Unix { .. } => Some(Duration::ZERO),
        }
    }

    fn has_end(&self) -> bool {
        false
    }
}
