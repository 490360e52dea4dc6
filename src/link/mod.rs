//! Links: one transport per file, each a [`Link`] to one peer; and [`Listener`] and [`Dialer`],
//! which make links.
//!
//! A link never blocks, knows nothing of the bridge, and hands over whole frames only.

mod dialer;
mod listener;
mod socket_file;
mod stream;
pub(crate) mod sys;

use std::fmt;
use std::io;
use std::net::SocketAddr;

use mio::{Interest, Registry, Token};

pub use dialer::Dialer;
pub use listener::Listener;
pub use stream::{StreamLink, StreamSocket};

use crate::batch::{FrameBatch, Run, Taken};

/// One peer at the other end of a transport.
pub trait Link: fmt::Debug {
    /// Adds the link to the poll of `registry`.
    fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()>;

    /// Changes what the link is polled for.
    fn reregister(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()>;

    /// Takes the link out of the poll.
    fn deregister(&mut self, registry: &Registry) -> io::Result<()>;

    /// Receives frames into an empty `batch`, at most one arena of them. The batch counts, whatever
    /// is returned with it.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the peer is gone, `InvalidData` when it breaks the protocol, or the
    /// transport's own.
    fn receive(&mut self, batch: &mut FrameBatch) -> io::Result<Received>;

    /// Sends from the start of `run`, and returns what was taken: less than all when the transport
    /// is full, always whole records; what the transport cut, the link keeps.
    ///
    /// # Errors
    ///
    /// The transport's own; never `WouldBlock`.
    fn send(&mut self, run: Run<'_>) -> io::Result<Taken>;

    /// Goes on with the record that was cut.
    ///
    /// # Errors
    ///
    /// The transport's own; never `WouldBlock`.
    fn flush(&mut self) -> io::Result<()>;

    /// Is the rest of a record that the transport cut still to be sent?
    fn is_cut(&self) -> bool;

    /// Does the peer freeze while it is not read, because its own socket blocks?
    fn peer_blocks(&self) -> bool;

    /// Prepares the end: from now on the peer's sends fail, rather than wait and be cut in the
    /// middle. False where the transport cannot say so; such a peer is to be read until it stands
    /// [between two frames](Self::is_at_boundary).
    fn stop_receiving(&mut self) -> bool;

    /// Does the peer stand between two frames, as far as it was received?
    fn is_at_boundary(&self) -> bool;
}

/// What a receive left behind in the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// There may be more.
    More,
    /// All there was.
    Drained,
}

/// Who is at the other end, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process on this host.
    Process {
        /// Its user.
        uid: u32,
        /// Its process; 0 when it lives in a PID namespace that we do not see.
        pid: i32,
    },
    /// An address.
    Address(SocketAddr),
    /// Nothing that has a name.
    Unknown,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { uid, pid } => write!(f, "uid {uid} pid {pid}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Unknown => write!(f, "unknown"),
        }
    }
}
