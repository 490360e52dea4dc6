//! Listening sockets: each connection that is accepted becomes a link.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::linux::net::SocketAddrExt;

use anyhow::{Context, Result, anyhow, bail};
use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Socket, Type};

use super::socket_file::SocketFile;
use super::{Peer, StreamSocket};
use crate::config::{HostPort, UnixName};

/// TCP connections that may wait to be accepted; the system may allow fewer.
const BACKLOG: i32 = 4096;

/// A socket that links come from.
#[derive(Debug)]
pub enum Listener {
    /// A unix socket.
    Unix {
        /// The socket.
        socket: UnixListener,
        /// Its file, when it has one.
        file: Option<SocketFile>,
        /// Are peers of any user admitted? A file's permissions decide on their own.
        any_user: bool,
    },
    /// TCP.
    Tcp(TcpListener),
}

impl Listener {
    /// Serves a unix socket; `mode` holds for a file, `any_user` for an abstract name.
    ///
    /// # Errors
    ///
    /// When the name is taken or can't be made; says what to do.
    pub fn unix(name: &UnixName, mode: u32, any_user: bool) -> Result<Self> {
        match name {
            UnixName::Path(path) => {
                let (socket, file) = SocketFile::listen(path, mode)?;
                Ok(Self::Unix { socket, file: Some(file), any_user: true })
            }
            UnixName::Abstract(name) => {
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                let socket = UnixListener::bind_addr(&address).map_err(|error| {
                    if error.kind() == io::ErrorKind::AddrInUse {
                        return anyhow!("a program is listening on @{name}; stop it or choose another name");
                    }
                    anyhow!(error).context(format!("listen on @{name}"))
                })?;
                Ok(Self::Unix { socket, file: None, any_user })
            }
        }
    }

    /// Serves TCP.
    ///
    /// # Errors
    ///
    /// When the host is unknown or not ours, or the port is taken; says what to do.
    pub fn tcp(address: &HostPort) -> Result<Self> {
        let resolved = resolve(address)?.remove(0);
        listen(resolved).map(Self::Tcp).map_err(|error| explain_bind(error, address, "TCP"))
    }

    /// The TCP address it serves.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Unix { .. } => None,
            Self::Tcp(listener) => listener.local_addr().ok(),
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Unix { socket, .. } => socket,
            Self::Tcp(listener) => listener,
        }
    }

    /// Adds the listener to the poll.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(self.source(), token, Interest::READABLE)
    }

    /// Accepts one connection.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is none, or the system's.
    pub fn accept(&self) -> io::Result<StreamSocket> {
        Ok(match self {
            Self::Unix { socket, .. } => StreamSocket::Unix(socket.accept()?.0),
            Self::Tcp(listener) => StreamSocket::Tcp(listener.accept()?.0),
        })
    }

    /// Is `peer` admitted? Where nothing else protects the socket, only our own user and root are.
    pub fn admits(&self, peer: &Peer) -> bool {
        match (self, peer) {
            (Self::Unix { any_user: false, .. }, Peer::Process { uid, .. }) => {
                *uid == 0 || *uid == nix::unistd::geteuid().as_raw()
            }
            (Self::Unix { any_user: false, .. }, _) => false,
            _ => true,
        }
    }
}

/// The standard library's listener has a backlog of 128, too short for many VMs that come back at
/// once: each that is left out waits for a second.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// What to do when `address` can't be bound to.
pub(super) fn explain_bind(error: io::Error, address: &HostPort, protocol: &str) -> anyhow::Error {
    let HostPort { host, port } = address;
    if error.kind() == io::ErrorKind::AddrInUse {
        return anyhow!("{protocol} port {port} is taken; stop the program that has it or choose another");
    }
    if error.kind() == io::ErrorKind::AddrNotAvailable {
        return anyhow!("{host} is no address of this host; see 'ip addr'");
    }
    if error.kind() == io::ErrorKind::PermissionDenied {
        return anyhow!("{protocol} port {port} is for root; choose one above 1023");
    }
    anyhow!(error).context(format!("serve {address}"))
}

/// The addresses of a host, at least one: asked for at start, never inside the loop.
pub(super) fn resolve(address: &HostPort) -> Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = (address.host.as_str(), address.port)
        .to_socket_addrs()
        .with_context(|| format!("find host '{}'; write its address", address.host))?
        .collect();
    if found.is_empty() {
        bail!("host '{}' has no address", address.host);
    }
    Ok(found)
}
