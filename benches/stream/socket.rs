//! Stream sockets over both transports, and the names by which processes tell each other where to meet.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::ValueEnum;
use socket2::{Domain, SockAddr, Socket, Type};

/// How long a device may take until it listens.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Transport {
    Unix,
    Tcp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unix => "unix",
            Self::Tcp => "tcp",
        })
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl Address {
    /// Connects as QEMU does: the system's socket buffers, and no delay on TCP.
    pub(crate) fn connect(&self) -> anyhow::Result<Socket> {
        let started = Instant::now();
        loop {
            let socket = self.socket()?;
            match socket.connect(&self.resolve()?) {
                Ok(()) => return Ok(socket),
                Err(error) if started.elapsed() > PATIENCE => {
                    return Err(error).with_context(|| format!("connect to {self}"));
                }
                Err(_) => thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    pub(crate) fn listen(&self) -> anyhow::Result<Socket> {
        let socket = self.socket()?;
        socket.bind(&self.resolve()?).with_context(|| format!("bind {self}"))?;
        socket.listen(1)?;
        Ok(socket)
    }

    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    fn socket(&self) -> anyhow::Result<Socket> {
        let socket = Socket::new(self.domain(), Type::STREAM, None)?;
        if self.is_tcp() {
            socket.set_tcp_nodelay(true)?;
        }
        Ok(socket)
    }

    fn domain(&self) -> Domain {
        match self {
            Self::Unix(_) => Domain::UNIX,
            Self::Tcp(address) => Domain::for_address(*address),
        }
    }

    fn resolve(&self) -> anyhow::Result<SockAddr> {
        Ok(match self {
            Self::Unix(path) => SockAddr::unix(path)?,
            Self::Tcp(address) => (*address).into(),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text.split_once(':') {
            Some(("unix", path)) => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => Ok(Self::Tcp(address.parse()?)),
            _ => bail!("{text}: neither unix:PATH nor tcp:ADDRESS:PORT"),
        }
    }
}
