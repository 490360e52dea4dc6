//! The bus that QEMUs make of a multicast group (QEMU `net/socket.c`, `mcast=`): whatever anybody
//! sends to the group, everybody hears, also who sent it.
//!
//! A second socket sends, with a source port of its own, so that what comes from there is known to be
//! our echo. All QEMUs of a host send from one address; it tells nobody apart.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use mio::event::Source as _;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::libc;
use socket2::{Domain, InterfaceIndexOrAddress, Socket, Type};

use super::socket::{DatagramSocket, Framing, Reception};
use super::source::Sender;
use crate::batch::{FrameBatch, Run, Taken};
use crate::config::{Group, Interface};
use crate::link::{Link, Received, SendError, interface};

/// A multicast group.
#[derive(Debug)]
pub struct MulticastLink {
    receiver: DatagramSocket,
    sender: DatagramSocket,
    /// Where our own datagrams come from.
    own: SocketAddr,
    is_sender_polled: bool,
}

impl MulticastLink {
    /// Joins `group`.
    ///
    /// # Errors
    ///
    /// When there is no such interface, or no route to the group; says what to do.
    pub fn join(group: &Group) -> Result<Self> {
        let place = Place::find(group)?;
        let sockets = place.receiver(group.address).and_then(|receiver| Ok((receiver, place.sender(group)?)));
        let (receiver, sender) = sockets.map_err(|error| explain(error, group))?;
        let own = sender.local_addr()?.as_socket().context("the socket has no address")?;
        Ok(Self {
            receiver: DatagramSocket::udp(receiver, Framing::Bare)?,
            sender: DatagramSocket::udp(sender, Framing::Bare)?,
            own,
            is_sender_polled: false,
        })
    }
}

/// The interface of a group, in the words of the system; zeros leave it to the route.
#[derive(Clone, Copy, Debug)]
enum Place {
    V4(Ipv4Addr),
    V6(u32),
}

impl Place {
    fn find(group: &Group) -> Result<Self> {
        let is_ipv4 = group.address.is_ipv4();
        Ok(match &group.interface {
            None if is_ipv4 => Self::V4(Ipv4Addr::UNSPECIFIED),
            None => Self::V6(0),
            Some(Interface::Address(address)) => {
                let name = interface::owner(*address)?;
                match address {
                    IpAddr::V4(address) => Self::V4(*address),
                    IpAddr::V6(_) => Self::V6(interface::index(&name)?),
                }
            }
            Some(Interface::Name(name)) => {
                let index = interface::index(name)?;
                if !is_ipv4 {
                    return Ok(Self::V6(index));
                }
                Self::V4(interface::interface_address(name).with_context(|| {
                    format!("the interface {name} has no IPv4 address; give it one ('ip addr add'), or use another")
                })?)
            }
        })
    }

    fn receiver(self, group: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(group), Type::DGRAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&self.scoped(group).into())?;
        match (self, group.ip()) {
            (Self::V4(address), IpAddr::V4(group)) => {
                socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Address(address))?;
                // Only what was joined here, not whatever another program on this host has joined.
                socket.set_multicast_all_v4(false)?;
            }
            (Self::V6(index), IpAddr::V6(group)) => {
                socket.join_multicast_v6(&group, index)?;
                socket.set_multicast_all_v6(false)?;
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
        Ok(socket)
    }

    fn sender(self, group: &Group) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(group.address), Type::DGRAM, None)?;
        match self {
            Self::V4(address) => {
                if !address.is_unspecified() {
                    socket.set_multicast_if_v4(&address)?;
                }
                socket.set_multicast_ttl_v4(u32::from(group.ttl))?;
            }
            Self::V6(index) => {
                if index != 0 {
                    socket.set_multicast_if_v6(index)?;
                }
                socket.set_multicast_hops_v6(u32::from(group.ttl))?;
            }
        }
        socket.connect(&self.scoped(group.address).into())?;
        Ok(socket)
    }

    fn scoped(self, group: SocketAddr) -> SocketAddr {
        match (self, group) {
            (Self::V6(index), SocketAddr::V6(group)) => {
                SocketAddrV6::new(*group.ip(), group.port(), 0, index).into()
            }
            _ => group,
        }
    }
}

fn explain(error: io::Error, group: &Group) -> anyhow::Error {
    let (ip, port) = (group.address.ip(), group.address.port());
    if error.kind() == io::ErrorKind::AddrInUse {
        return anyhow!("UDP port {port} is taken; stop the program that has it or choose another");
    }
    if !matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EADDRNOTAVAIL | libc::ENETUNREACH)) {
        return anyhow!(error).context(format!("join {}", group.address));
    }
    let example = if ip.is_ipv4() { "iface=127.0.0.1 for this host only" } else { "iface=eth0" };
    match &group.interface {
        None => anyhow!("there is no route to {ip}; name the interface with iface=, as in {example}"),
        Some(named) if interface::is_down(named) => {
            anyhow!("iface={named} is down; bring the interface up ('ip link set ... up'), or use another")
        }
        Some(named) => anyhow!(
            "iface={named} has no route to {ip}; add one ('ip route add {ip} dev ...'), or use another"
        ),
    }
}

impl Link for MulticastLink {
    fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        SourceFd(&self.receiver.fd()).register(registry, token, interest)
    }

    /// There is nothing to receive by the sender, and nothing to wait for at the receiver.
    fn reregister(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        if interest.is_writable() == self.is_sender_polled {
            return Ok(());
        }
        let fd = self.sender.fd();
        if interest.is_writable() {
            SourceFd(&fd).register(registry, token, Interest::WRITABLE)?;
        } else {
            SourceFd(&fd).deregister(registry)?;
        }
        self.is_sender_polled = interest.is_writable();
        Ok(())
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.reregister(registry, Token(0), Interest::READABLE)?;
        SourceFd(&self.receiver.fd()).deregister(registry)
    }

    fn receive(&mut self, batch: &mut FrameBatch) -> io::Result<Received> {
        let Self { receiver, own, .. } = self;
        receiver.receive(batch, |sender, _| match sender {
            // The scope of an IPv6 address is not always said.
            Sender::Udp(from) if from.port() == own.port() && from.ip() == own.ip() => Reception::Ignored,
            Sender::Udp(_) | Sender::Unix(_) => Reception::Taken,
        })
    }

    fn send(&mut self, run: Run<'_>) -> Result<Taken, SendError> {
        self.sender.send(run).map_err(SendError::Refused)
    }

    fn max_frame(&self) -> usize {
        self.sender.max_frame()
    }

    fn patience(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    fn is_bus(&self) -> bool {
        true
    }

    fn has_end(&self) -> bool {
        false
    }
}
