//! A door: a way into the hub, as one port specification describes it.

use std::cmp::Ordering;
use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use log::{debug, warn};
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use socket2::{Domain, Socket, Type};

use super::datagrams::Server;
use super::entrance::Entrance;
use super::vde::VdeServer;
use crate::bridge::PortId;
use crate::config::{PeerLimits, Peers, PortKind, PortOptions, PortSpec, Vde};
use crate::link::{
    DatagramLink, DatagramServer, Dialer, Link, Listener, MulticastLink, PacketLink, Peer, StreamLink,
    StreamSocket, TapLink, VdeSwitch, sys,
};
use crate::port::QUIET;

/// Refusals that are told in a while.
const REFUSALS_TOLD: u32 = 8;

/// A way into the hub, as one port specification describes it.
#[derive(Debug)]
pub struct Door {
    pub(super) face: DoorFace,
    pub(super) kind: Kind,
}

/// What people see of a door, and its ports take after.
#[derive(Debug)]
pub(super) struct DoorFace {
    pub(super) shown: String,
    pub(super) options: PortOptions,
    pub(super) warned: Option<Instant>,
    /// Since when refusals are told, and how many were.
    refused: (Option<Instant>, u32),
}

/// The kinds of door.
#[derive(Debug)]
pub(super) enum Kind {
    /// Each connection becomes a port.
    Listener(Entrance),
    /// Each client that is plugged in becomes a port.
    Vde(Box<VdeServer>),
    /// One connection is kept up.
    Dialer {
        dialer: Dialer,
        name: Option<String>,
        port: Option<PortId>,
        /// The folder of the VDE switch that the port joins.
        folder: Option<(u64, u64)>,
    },
    /// Each source becomes a port, or only one may.
    Server(Box<Server>),
    /// A link that is there from the start, until it is made a port.
    Ready(Option<(Box<dyn Link>, Peer)>),
}

impl Door {
    /// Opens what `spec` says. Inherited descriptors are to be opened before anything else.
    ///
    /// # Errors
    ///
    /// Whatever the system refuses; says what to do.
    pub fn open(spec: &PortSpec, now: Instant) -> Result<Self> {
        let shown = spec.kind.to_string();
        let kind = Kind::open(&spec.kind, now).with_context(|| format!("port {shown}"))?;
        let face = DoorFace { shown, options: spec.options.clone(), warned: None, refused: (None, 0) };
        let mut door = Self { face, kind };
        if let (PortKind::Fd(fd), Kind::Ready(_)) = (&spec.kind, &door.kind) {
            door.face.options.name.get_or_insert(format!("fd{fd}"));
        }
        if let PortKind::Vde(Vde { port_group: Some(group), .. }) = &spec.kind {
            door.face.options.name.get_or_insert(group.clone());
        }
        if let Kind::Ready(Some((_, Peer::Interface { name, .. }))) = &door.kind {
            door.face.options.name.get_or_insert(name.clone());
        }
        if let (PortKind::Tcp(_), Some(address)) = (&spec.kind, door.tcp_address()) {
            // The system may have chosen the port.
            door.face.shown = format!("tcp:{address}");
        }
        Ok(door)
    }

    /// The TCP address that it serves, if it does.
    pub fn tcp_address(&self) -> Option<std::net::SocketAddr> {
        match &self.kind {
            Kind::Listener(entrance) => entrance.listener.tcp_address(),
            Kind::Vde(_) | Kind::Dialer { .. } | Kind::Server(_) | Kind::Ready(_) => None,
        }
    }

    /// Is `peer` admitted?
    pub(super) fn admits(&self, peer: &Peer) -> bool {
        match &self.kind {
            Kind::Listener(entrance) => entrance.listener.admits(peer),
            Kind::Vde(_) | Kind::Dialer { .. } | Kind::Server(_) | Kind::Ready(_) => true,
        }
    }

    /// The name of the port that a dialler keeps.
    pub(super) fn port_name(&self) -> &str {
        match &self.kind {
            Kind::Dialer { name: Some(name), .. } => name,
            Kind::Dialer { .. } | Kind::Listener(_) | Kind::Vde(_) | Kind::Server(_) | Kind::Ready(_) => {
                &self.face.shown
            }
        }
    }

    /// When it wants to be looked at.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        match &self.kind {
            Kind::Listener(entrance) => entrance.deadline(now),
            Kind::Vde(server) => server.deadline(now),
            Kind::Dialer { dialer, .. } => dialer.deadline(),
            Kind::Server(server) => server.ready.then_some(now),
            Kind::Ready(_) => None,
        }
    }
}

impl DoorFace {
    /// What its ports are named after.
    pub(super) fn stem(&self) -> String {
        let kind = self.shown.strip_prefix("connect:").unwrap_or(&self.shown);
        let kind = match kind.split(':').next().unwrap_or(kind) {
            // The numbers behind this are those of the ports of a switch that we are.
            "vde" if kind != self.shown => "plug",
            kind => kind,
        };
        self.options.name.clone().unwrap_or_else(|| kind.to_owned())
    }

    /// Tells that `peer` was refused, and why: of many that come at once, of the first ones.
    pub(super) fn refuse(&mut self, peer: &Peer, reason: &impl fmt::Display, now: Instant) {
        let door = self.shown.as_str();
        if self.refused.0.is_none_or(|since| now.saturating_duration_since(since) >= QUIET) {
            self.refused = (Some(now), 0);
        }
        self.refused.1 = self.refused.1.saturating_add(1);
        match self.refused.1.cmp(&REFUSALS_TOLD) {
            Ordering::Less => warn!(door; "refused {peer}: {reason}"),
            Ordering::Equal => warn!(door; "refused {peer}: {reason}; of further ones -v tells"),
            Ordering::Greater => debug!(door; "refused {peer}: {reason}"),
        }
    }

    /// Warns, but not again and again.
    pub(super) fn warn(&mut self, what: &str, now: Instant) {
        let door = self.shown.as_str();
        if self.warned.is_none_or(|warned| now.saturating_duration_since(warned) >= QUIET) {
            self.warned = Some(now);
            warn!(door; "{what}");
        } else {
            debug!(door; "{what}");
        }
    }
}

impl Kind {
    fn open(kind: &PortKind, now: Instant) -> Result<Self> {
        match kind {
            PortKind::Unix { name, mode, any_user } => {
                Listener::unix(name, *mode, *any_user).map(Self::listener)
            }
            PortKind::Tcp(address) => Listener::tcp(address).map(Self::listener),
            PortKind::Connect(remote) => {
                Ok(Self::Dialer { dialer: Dialer::new(remote, now)?, name: None, port: None, folder: None })
            }
            PortKind::Fd(fd) => inherit(*fd),
            PortKind::Udp { local, peers } => {
                Ok(Self::server(DatagramServer::udp(local, peers.only())?, peers.limits()))
            }
            PortKind::Dgram { path, mode, peers } => {
                let socket = DatagramServer::unix(path, *mode, peers.only().map(PathBuf::as_path))?;
                Ok(Self::server(socket, peers.limits()))
            }
            PortKind::L2tpv3 { local, remote, framing } => {
                let socket = DatagramServer::l2tpv3(local, remote, *framing)?;
                Ok(Self::server(socket, Peers::One(remote).limits()))
            }
            PortKind::Mcast(group) => {
                let link = MulticastLink::join(group)?;
                Ok(Self::ready((link, Peer::Address(group.address))))
            }
            PortKind::Vde(vde) => {
                let (switch, listener) = VdeSwitch::open(vde)?;
                Ok(Self::Vde(Box::new(VdeServer::new(switch, listener, vde.ports))))
            }
            PortKind::Tap(tap) => TapLink::open(tap).map(Self::ready),
            PortKind::Bridge(bridge) => TapLink::by_helper(bridge).map(Self::ready),
            PortKind::Macvtap(macvtap) => TapLink::macvtap(macvtap).map(Self::ready),
            PortKind::Packet(name) => PacketLink::open(name).map(Self::ready),
        }
    }

    fn server(socket: DatagramServer, limits: PeerLimits) -> Self {
        Self::Server(Box::new(Server::new(socket, limits)))
    }

    fn ready((link, peer): (impl Link + 'static, Peer)) -> Self {
        Self::Ready(Some((Box::new(link), peer)))
    }

    fn listener(listener: Listener) -> Self {
        Self::Listener(Entrance::new(listener))
    }
}

/// Finds out what an inherited descriptor is.
fn inherit(fd: i32) -> Result<Kind> {
    let fd =
        sys::take_inherited(fd).context("it is to be a socket or a TAP that the parent process left open")?;
    if let Some(tap) = TapLink::inherited(&fd)? {
        return Ok(Kind::ready(tap));
    }
    let socket = Socket::from(fd);
    let kind = socket.r#type().context("it is neither a socket nor a TAP")?;
    socket.set_nonblocking(true)?;
    let is_unix = match socket.domain()? {
        Domain::UNIX => true,
        Domain::IPV4 | Domain::IPV6 => false,
        _ => bail!("it is neither a unix nor an Internet socket"),
    };
    match kind {
        Type::STREAM => inherit_stream(socket, is_unix),
        Type::DGRAM => inherit_datagram(socket, is_unix),
        _ => bail!("it is a socket of packets; pass one of a stream or of datagrams"),
    }
}

fn inherit_stream(socket: Socket, is_unix: bool) -> Result<Kind> {
    if socket.is_listener()? {
        let listener = if is_unix {
            Listener::Unix { socket: UnixListener::from_std(socket.into()), file: None, any_user: true }
        } else {
            Listener::Tcp(TcpListener::from_std(socket.into()))
        };
        return Ok(Kind::listener(listener));
    }
    socket.peer_addr().context("it is not connected")?;
    let socket = if is_unix {
        StreamSocket::Unix(UnixStream::from_std(socket.into()))
    } else {
        StreamSocket::Tcp(TcpStream::from_std(socket.into()))
    };
    let peer = socket.peer();
    Ok(Kind::ready((StreamLink::accepted(socket)?, peer)))
}

fn inherit_datagram(socket: Socket, is_unix: bool) -> Result<Kind> {
    let Ok(peer) = socket.peer_addr() else {
        let server = DatagramServer::inherited(socket)?;
        return Ok(Kind::server(server, PeerLimits::default()));
    };
    let peer = peer.as_socket().map_or(Peer::Unknown, Peer::Address);
    let link = if is_unix { DatagramLink::pair(socket)? } else { DatagramLink::connected(socket)? };
    Ok(Kind::ready((link, peer)))
}
