//! Links: one transport per file, each a [`Link`] to one peer; and [`Listener`], [`Dialer`] and
//! [`DatagramServer`], which make links.
//!
//! A link never blocks, knows nothing of the bridge, and hands over whole frames only.

mod datagram;
mod dialer;
mod host;
mod interface;
mod listener;
mod pipe;
mod socket_file;
mod stream;
pub(crate) mod sys;
mod vde;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mio::{Interest, Registry, Token};

pub use datagram::{Arrival, DatagramLink, DatagramServer, MulticastLink, Source};
pub use dialer::{Dialer, Dialled};
pub use host::{PacketLink, TapLink};
pub use interface::{interface_address, is_one_interface, is_own_address};
pub use listener::Listener;
pub use pipe::PipeLink;
pub use stream::{StreamLink, StreamSocket};
pub(crate) use vde::find_group;
pub use vde::{Greeting, Joining, VdeLink, VdeSwitch};

use crate::batch::{Bundle, FrameBatch, Run, Taken};

/// One peer at the other end of a transport. What is given here holds for one that takes and gives
/// frames whole.
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
    /// When the first frame of `run` can't be sent; what that means for the rest is said with it.
    fn send(&mut self, run: Run<'_>) -> Result<Taken, SendError>;

    /// Sends a bundle as it is; false where the transport can't now or never, and its frames are to be
    /// [sent](Self::send) instead.
    fn send_bundle(&mut self, _bundle: &Bundle<'_>) -> bool {
        false
    }

    /// Goes on with the record that was cut.
    ///
    /// # Errors
    ///
    /// The transport's own; never `WouldBlock`.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Is the rest of a record that the transport cut still to be sent?
    fn is_cut(&self) -> bool {
        false
    }

    /// The longest frame that the transport carries, in octets.
    fn max_frame(&self) -> usize;

    /// How long the peer may be left unread, when there is a reason not to: it freezes while it is
    /// not read because its own socket blocks, or the system drops what is not read.
    fn patience(&self) -> Option<Duration>;

    /// Is the end of what the peer sends met by reading, behind all that it sent? Datagrams have no
    /// end: where there can't be any more, the link is of no use.
    fn has_end(&self) -> bool {
        true
    }

    /// Can its peer be left in the middle of a frame, by an end that comes while it sends?
    fn may_be_cut(&self) -> bool {
        self.has_end()
    }

    /// Do others than this hub forward to and from what is at the other end? Then there may be a
    /// second way to it.
    fn is_bus(&self) -> bool {
        false
    }

    /// Prepares the end: from now on the peer's sends fail, rather than wait and be cut in the
    /// middle. False where the transport cannot say so; such a peer is to be read until it stands
    /// [between two frames](Self::is_at_boundary).
    fn stop_receiving(&mut self) -> bool {
        false
    }

    /// Does the peer stand between two frames, as far as it was received?
    fn is_at_boundary(&self) -> bool {
        true
    }
}

/// What a receive left behind in the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// There may be more.
    More,
    /// All there was.
    Drained,
    /// There was nothing.
    Nothing,
}

/// Why a link did not send.
#[derive(Debug)]
pub enum SendError {
    /// The link is at its end.
    Broken(io::Error),
    /// The peer is not there now, and may come back.
    Down(io::Error),
    /// The system refuses this frame, and may take the next.
    Refused(io::Error),
}

impl From<io::Error> for SendError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
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
    /// A process on this host, and what it says of itself.
    Client {
        /// Its user.
        uid: u32,
        /// Its process; 0 as above.
        pid: i32,
        /// Its own words, without control characters.
        description: String,
    },
    /// An address.
    Address(SocketAddr),
    /// A unix datagram socket.
    Socket(PathBuf),
    /// An interface of this host.
    Interface {
        /// Its name.
        name: String,
        /// What else there is to know of it.
        note: Option<String>,
    },
    /// Nothing that has a name.
    Unknown,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { uid, pid } => write!(f, "uid {uid} pid {pid}"),
            Self::Client { uid, pid, description } if description.is_empty() => {
                write!(f, "uid {uid} pid {pid}")
            }
            Self::Client { uid, pid, description } => write!(f, "uid {uid} pid {pid}: {description}"),
            Self::Address(address) => write!(f, "{address}"),
            // The peer chose it, and may have put line ends into it.
            Self::Socket(path) => write!(f, "{}", path.display().to_string().escape_debug()),
            Self::Interface { name, note: None } => write!(f, "interface {name}"),
            Self::Interface { name, note: Some(note) } => write!(f, "interface {name}, {note}"),
            Self::Unknown => write!(f, "unknown"),
        }
    }
}
