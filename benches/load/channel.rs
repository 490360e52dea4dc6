//! A station's connection to a device, whatever carries the frames.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, setsockopt, sockopt};
use socket2::{Domain, SockRef, Socket, Type};

use crate::datagram::{Inbox, Outbox};
use crate::frame::{Deframer, split};
use crate::hosts::Tap;
use crate::socket::{Address, patiently};
use crate::{netns, raw, vde};

/// The interface of the multicast bus.
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// What waits for a station of a host, in the memory that it takes: a frame of 64 bytes needs 768.
const INTERFACE_BUFFER: usize = 64 * 1024 * 1024;

/// Where one station sends and receives frames.
pub(crate) struct Channel {
    socket: Socket,
    carrier: Carrier,
}

enum Carrier {
    Stream(Deframer),
    Datagrams {
        inbox: Inbox,
        outbox: Outbox,
        /// A bus is sent to by a socket of its own: connected, it sends without looking for the way each time.
        sender: Option<Socket>,
        /// What a VDE switch wants to see open.
        _control: Option<Socket>,
    },
}

impl Channel {
    pub(crate) fn open(address: &Address) -> anyhow::Result<Self> {
        Ok(match address {
            Address::Unix(_) | Address::Tcp(_) => {
                Self { socket: address.connect()?, carrier: Carrier::Stream(Deframer::new()) }
            }
            Address::Dgram(path) => Self::datagrams(unix(path)?, None),
            Address::Udp(to) => Self::datagrams(udp(*to)?, None),
            Address::Mcast(group) => Self::datagrams(member(*group)?, Some(bus(*group)?)),
            Address::Tap(tap) => Self::datagrams(interface(tap)?, None),
            Address::Vde(folder) => Self::vde(folder)?,
        })
    }

    fn datagrams(socket: Socket, sender: Option<Socket>) -> Self {
        let carrier =
            Carrier::Datagrams { inbox: Inbox::new(), outbox: Outbox::new(), sender, _control: None };
        Self { socket, carrier }
    }

    /// Sends as QEMU does, which stands still while its switch does not read.
    fn vde(folder: &Path) -> anyhow::Result<Self> {
        let (control, socket) = vde::join(folder)?;
        let (inbox, outbox) = (Inbox::new(), Outbox::blocking());
        let carrier = Carrier::Datagrams { inbox, outbox, sender: None, _control: Some(control) };
        Ok(Self { socket, carrier })
    }

    /// Where frames arrive.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// How long [`Channel::receive`] waits.
    pub(crate) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(patience))
    }

    /// Sends frames that stand behind their lengths: in one call, if they are taken.
    pub(crate) fn send(&mut self, wire: &[u8]) -> io::Result<()> {
        match &mut self.carrier {
            Carrier::Stream(_) => self.socket.write_all(wire),
            Carrier::Datagrams { outbox, sender, .. } => {
                outbox.send(sender.as_ref().unwrap_or(&self.socket), split(wire))
            }
        }
    }

    /// Waits for frames and hands out those that one call finds.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        match &mut self.carrier {
            Carrier::Stream(stream) => {
                if stream.fill(&self.socket)? == 0 {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the device closed the connection",
                    ));
                }
                stream.drain(each)
            }
            Carrier::Datagrams { inbox, .. } => {
                inbox.receive(&self.socket, MsgFlags::MSG_WAITFORONE)?;
                inbox.frames().for_each(&mut each);
                Ok(())
            }
        }
    }

    /// Hears a bus no more. Its own frames would only fill the buffer of a station that does not read.
    pub(crate) fn leave_bus(&self, address: &Address) -> io::Result<()> {
        match address {
            Address::Mcast(group) => self.socket.leave_multicast_v4(group.ip(), &LOOPBACK),
            Address::Unix(_)
            | Address::Tcp(_)
            | Address::Dgram(_)
            | Address::Udp(_)
            | Address::Vde(_)
            | Address::Tap(_) => Ok(()),
        }
    }
}

/// Binds a name of our own, so that the other side can connect to us: only then does it take more than
/// `net.unix.max_dgram_qlen` frames at a time.
fn unix(path: &Path) -> anyhow::Result<Socket> {
    let socket = UnixDatagram::bind(format!("{}.{}", path.display(), process::id()))?;
    patiently(|| socket.connect(path))?;
    Ok(OwnedFd::from(socket).into())
}

fn udp(to: SocketAddr) -> io::Result<Socket> {
    let socket = UdpSocket::bind((LOOPBACK, 0))?;
    socket.connect(to)?;
    Ok(OwnedFd::from(socket).into())
}

/// Enters the host and looks at its frames as they are.
fn interface(tap: &Tap) -> anyhow::Result<Socket> {
    netns::enter(&tap.netns)?;
    let socket = raw::packet_socket(&tap.name)?;
    // What is measured is the device, which never hears that this buffer is full.
    setsockopt(&socket, sockopt::RcvBufForce, &INTERFACE_BUFFER)?;
    Ok(socket)
}

/// Where a member of the bus hears it, bound as QEMU's are.
fn member(group: SocketAddrV4) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&group.into())?;
    // Else it hears the group for as long as anybody does.
    socket.set_multicast_all_v4(false)?;
    socket.join_multicast_v4(group.ip(), &LOOPBACK)?;
    Ok(socket)
}

fn bus(group: SocketAddrV4) -> io::Result<Socket> {
    let socket = UdpSocket::bind((LOOPBACK, 0))?;
    SockRef::from(&socket).set_multicast_if_v4(&LOOPBACK)?;
    socket.connect(group)?;
    Ok(OwnedFd::from(socket).into())
}
