//! What all measurements share: the hub's program, and names for sockets that nobody has used before.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::{env, fs, process};

use anyhow::{Context, bail};

use crate::hosts::Tap;
use crate::socket::{Address, Transport};

/// Ports to listen on, below those that the system gives to outgoing connections: one that dials a port in
/// its own range again and again, until somebody listens there, ends up connected to itself.
const IP_PORTS: Range<u16> = 20_000..32_000;

/// A multicast group that does not leave this site.
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 113, 98);

/// Removes its folder when it is dropped.
pub(crate) struct Lab {
    hub: PathBuf,
    folder: PathBuf,
    next_port: Cell<u16>,
    next_file: Cell<u32>,
    next_host: Cell<u16>,
}

impl Lab {
    pub(crate) fn new(hub: PathBuf) -> anyhow::Result<Self> {
        let folder = env::temp_dir().join(format!("qhub-bench-{}", process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let next_port = Cell::new(IP_PORTS.start);
        Ok(Self { hub, folder, next_port, next_file: Cell::new(0), next_host: Cell::new(1) })
    }

    pub(crate) fn hub(&self) -> &Path {
        &self.hub
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file that is not there yet.
    pub(crate) fn file(&self) -> PathBuf {
        let number = self.next_file.replace(self.next_file.get() + 1);
        self.folder.join(number.to_string())
    }

    /// Somewhere to listen or to meet.
    pub(crate) fn address(&self, transport: Transport) -> anyhow::Result<Address> {
        match transport {
            Transport::Unix => Ok(Address::Unix(self.file())),
            Transport::Tcp => self.free_port().map(Address::Tcp),
            Transport::Dgram => Ok(Address::Dgram(self.file())),
            Transport::Udp => self.free_port().map(Address::Udp),
            Transport::Mcast => Ok(Address::Mcast(SocketAddrV4::new(GROUP, self.free_port()?.port()))),
            Transport::Vde => Ok(Address::Vde(self.file())),
            Transport::Tap => {
                let number = self.next_host.replace(self.next_host.get() + 1);
                Ok(Address::Tap(Tap::new(number)))
            }
        }
    }

    fn free_port(&self) -> anyhow::Result<SocketAddr> {
        for port in self.next_port.get()..IP_PORTS.end {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
                self.next_port.set(port + 1);
                return Ok(address);
            }
        }
        bail!("no free port")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A folder left behind in /tmp is no reason to fail.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
