//! Where a datagram comes from.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::PathBuf;

use socket2::SockAddr;

use crate::link::Peer;

/// Where a datagram comes from: an address that it can be answered to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A UDP socket.
    Udp(SocketAddr),
    /// A unix socket, by its path.
    Path(PathBuf),
    /// A unix socket, by its abstract name.
    Abstract(Vec<u8>),
}

/// The same in the words of the system, which come with every datagram.
#[derive(Debug)]
pub(super) enum Sender {
    Udp(SocketAddr),
    /// Perhaps one without a name.
    Unix(UnixAddr),
}

impl Sender {
    /// Is it this one?
    pub(super) fn is(&self, source: &Source) -> bool {
        match (self, source) {
            (Self::Udp(address), Source::Udp(other)) => address == other,
            // By octets: to compare paths by their parts takes longer than to receive from them.
            (Self::Unix(address), Source::Path(path)) => {
                address.as_pathname().is_some_and(|own| own.as_os_str() == path.as_os_str())
            }
            (Self::Unix(address), Source::Abstract(name)) => address.as_abstract_name() == Some(name),
            _ => false,
        }
    }

    /// Its address; `None` for a unix socket without one.
    pub(super) fn source(&self) -> Option<Source> {
        match self {
            Self::Udp(address) => Some(Source::Udp(*address)),
            Self::Unix(address) => match address.as_pathname() {
                Some(path) => Some(Source::Path(path.to_owned())),
                None => address.as_abstract_name().map(|name| Source::Abstract(name.to_vec())),
            },
        }
    }
}

impl Source {
    pub(super) fn address(&self) -> io::Result<SockAddr> {
        match self {
            Self::Udp(address) => Ok((*address).into()),
            Self::Path(path) => SockAddr::unix(path),
            Self::Abstract(name) => SockAddr::unix(OsStr::from_bytes(&[&[0], name.as_slice()].concat())),
        }
    }

    /// The same for people.
    pub fn peer(&self) -> Peer {
        match self {
            Self::Udp(address) => Peer::Address(*address),
            Self::Path(path) => Peer::Socket(path.clone()),
            Self::Abstract(name) => {
                Peer::Socket(PathBuf::from(OsStr::from_bytes(&[b"@", name.as_slice()].concat())))
            }
        }
    }
}
