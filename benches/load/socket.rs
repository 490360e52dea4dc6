//! The transports, and the names by which processes tell each other where to meet.

use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use anyhow::{Context, bail};
use clap::ValueEnum;
use socket2::{SockAddr, Socket, Type};

use crate::hosts::Tap;

/// How long a device may take until it listens.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How a multicast bus is kept on this machine, in qhub's words.
const BUS_INTERFACE: &str = ",iface=127.0.0.1";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Transport {
    Unix,
    Tcp,
    // Those of datagrams are no choice: their rows name the transports of both ends.
    #[value(skip)]
    Dgram,
    #[value(skip)]
    Udp,
    #[value(skip)]
    Mcast,
    #[value(skip)]
    Vde,
    #[value(skip)]
    Tap,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unix => "unix",
            Self::Tcp => "tcp",
            Self::Dgram => "dgram",
            Self::Udp => "udp",
            Self::Mcast => "mcast",
            Self::Vde => "vde",
            Self::Tap => "tap",
        })
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
    /// A unix datagram socket.
    Dgram(PathBuf),
    Udp(SocketAddr),
    /// A multicast group on the loopback interface.
    Mcast(SocketAddrV4),
    /// The folder of a VDE switch.
    Vde(PathBuf),
    /// The interface of a host. Stations are programs of that host.
    Tap(Tap),
}

impl Address {
    /// Connects a stream as QEMU does: the system's socket buffers, and no delay on TCP.
    pub(crate) fn connect(&self) -> anyhow::Result<Socket> {
        let at = self.stream()?;
        let connect = || {
            let socket = self.socket(&at)?;
            socket.connect(&at).map(|()| socket)
        };
        patiently(connect).with_context(|| format!("connect to {self}"))
    }

    pub(crate) fn listen(&self) -> anyhow::Result<Socket> {
        let at = self.stream()?;
        let socket = self.socket(&at)?;
        socket.bind(&at).with_context(|| format!("bind {self}"))?;
        socket.listen(1)?;
        Ok(socket)
    }

    pub(crate) fn is_datagram(&self) -> bool {
        match self {
            Self::Unix(_) | Self::Tcp(_) => false,
            Self::Dgram(_) | Self::Udp(_) | Self::Mcast(_) | Self::Vde(_) | Self::Tap(_) => true,
        }
    }

    pub(crate) fn tap(&self) -> Option<&Tap> {
        match self {
            Self::Tap(tap) => Some(tap),
            Self::Unix(_) | Self::Tcp(_) | Self::Dgram(_) | Self::Udp(_) | Self::Mcast(_) | Self::Vde(_) => {
                None
            }
        }
    }

    pub(crate) fn vde(&self) -> Option<&Path> {
        match self {
            Self::Vde(folder) => Some(folder),
            Self::Unix(_) | Self::Tcp(_) | Self::Dgram(_) | Self::Udp(_) | Self::Mcast(_) | Self::Tap(_) => {
                None
            }
        }
    }

    fn socket(&self, at: &SockAddr) -> io::Result<Socket> {
        let socket = Socket::new(at.domain(), Type::STREAM, None)?;
        if let Self::Tcp(_) = self {
            socket.set_tcp_nodelay(true)?;
        }
        Ok(socket)
    }

    fn stream(&self) -> anyhow::Result<SockAddr> {
        match self {
            Self::Unix(path) => Ok(SockAddr::unix(path)?),
            Self::Tcp(address) => Ok((*address).into()),
            Self::Dgram(_) | Self::Udp(_) | Self::Mcast(_) | Self::Vde(_) | Self::Tap(_) => {
                bail!("{self} is no stream")
            }
        }
    }
}

/// Tries until a device that has just been started is there.
pub(crate) fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let started = Instant::now();
    loop {
        match attempt() {
            Err(_) if started.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(2)),
            result => return result,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Dgram(path) => write!(f, "dgram:{}", path.display()),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Mcast(group) => write!(f, "mcast:{group}{BUS_INTERFACE}"),
            Self::Vde(folder) => write!(f, "vde:{}", folder.display()),
            Self::Tap(tap) => write!(f, "tap:{tap}"),
        }
    }
}

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text.split_once(':') {
            Some(("unix", path)) => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => Ok(Self::Tcp(address.parse()?)),
            Some(("dgram", path)) => Ok(Self::Dgram(path.into())),
            Some(("udp", address)) => Ok(Self::Udp(address.parse()?)),
            Some(("mcast", group)) => Ok(Self::Mcast(group.trim_end_matches(BUS_INTERFACE).parse()?)),
            Some(("vde", folder)) => Ok(Self::Vde(folder.into())),
            Some(("tap", tap)) => Ok(Self::Tap(tap.parse()?)),
            _ => bail!("{text}: no address"),
        }
    }
}
