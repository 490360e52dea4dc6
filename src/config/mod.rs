//! What the user asked for: text in, values out, valid once built. No I/O.
//!
//! A port is written `KIND:ADDRESS[,key=value...]`, as QEMU users write things; a comma inside a
//! value is doubled.

mod cidr;
mod host;
mod spec;
mod text;
mod vde;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hub_protocol::l2tpv3::L2tpv3;
use hub_protocol::stream;

use crate::batch::ARENA;
pub use cidr::Cidr;
pub use host::{HelperBridge, InterfaceName, Macvtap, MacvtapMode, MacvtapPlace, Owner, Tap};
pub use spec::SpecError;
pub use text::parse_name;
pub use vde::{Vde, VdePlace};

/// Queued octets above which a port is congested, and which it keeps when nobody waits for it.
pub const HIGH_MARK: usize = 128 * 1024;

/// The same in frames: to send them takes time however short they are.
pub const HIGH_MARK_FRAMES: usize = 512;

/// The smallest `queue=`: whoever waits for a port under the mark has one batch on its way.
pub const QUEUE_MIN: usize = HIGH_MARK + ARENA;
/// The largest `queue=`.
pub const QUEUE_MAX: usize = 64 << 20;

/// Octets of a socket path or an abstract name, which has a zero octet in front; a path one behind.
pub const UNIX_NAME_MAX: usize = 107;

/// A port as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// Where its peers come from.
    pub kind: PortKind,
    /// What holds for each port made by it.
    pub options: PortOptions,
}

/// The kinds of port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// `unix:PATH`, `unix:@NAME`: serve a unix socket; each connection is a port.
    Unix {
        /// Its name.
        name: UnixName,
        /// Permissions of the socket file.
        mode: u32,
        /// Admit other users to an abstract name?
        any_user: bool,
    },
    /// `tcp:[HOST:]PORT`: serve TCP; each connection is a port.
    Tcp(HostPort),
    /// `connect:unix:PATH`, `connect:tcp:HOST:PORT`: dial a QEMU, again when it goes; `connect:vde:DIR`:
    /// join a VDE switch.
    Connect(Remote),
    /// `fd:N`: an inherited socket: connected, listening, or bound for datagrams; or a TAP.
    Fd(i32),
    /// `udp:[HOST:]PORT`: frames in UDP datagrams.
    Udp {
        /// Our address.
        local: HostPort,
        /// Who its peers are.
        peers: Peers<HostPort>,
    },
    /// `dgram:PATH`: frames in unix datagrams.
    Dgram {
        /// Our socket file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Who its peers are.
        peers: Peers<PathBuf>,
    },
    /// `l2tpv3:[HOST:]PORT,remote=HOST:PORT`: frames in L2TPv3 over UDP.
    L2tpv3 {
        /// Our address.
        local: HostPort,
        /// The peer's.
        remote: HostPort,
        /// The header of its datagrams.
        framing: L2tpv3,
    },
    /// `mcast:GROUP:PORT`: the bus that QEMUs make of a multicast group.
    Mcast(Group),
    /// `vde:DIR`: be a VDE switch; each client is a port.
    Vde(Vde),
    /// `tap:[NAME]`: a TAP, made or opened.
    Tap(Tap),
    /// `bridge:BRIDGE`: a TAP that QEMU's helper makes on a bridge.
    Bridge(HelperBridge),
    /// `macvtap:LOWER`: a second card on the cable of an interface.
    Macvtap(Macvtap),
    /// `packet:INTERFACE`: an interface itself, which keeps its addresses.
    Packet(InterfaceName),
}

impl PortKind {
    /// The bridge, or the interface, of this host whose network it joins, where there are others; and the
    /// network namespace that this is in.
    pub fn joined(&self) -> Option<(&InterfaceName, Option<&str>)> {
        let name = match self {
            Self::Tap(tap) => return tap.bridge.as_ref().map(|bridge| (bridge, tap.netns.as_deref())),
            Self::Bridge(helper) => Some(&helper.bridge),
            Self::Macvtap(Macvtap { place: MacvtapPlace::Lower(name, _), .. }) | Self::Packet(name) => {
                Some(name)
            }
            Self::Macvtap(Macvtap { place: MacvtapPlace::Device(_), .. })
            | Self::Unix { .. }
            | Self::Tcp(_)
            | Self::Connect(_)
            | Self::Fd(_)
            | Self::Udp { .. }
            | Self::Dgram { .. }
            | Self::L2tpv3 { .. }
            | Self::Mcast(_)
            | Self::Vde(_) => None,
        };
        name.map(|name| (name, None))
    }
}

/// Who may send to a datagram socket, and is sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers<A> {
    /// The one at this address.
    One(A),
    /// Each new source is one.
    Any(PeerLimits),
}

/// How many peers a datagram socket may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLimits {
    /// The most at a time.
    pub max: usize,
    /// How long one must have been silent to give way to a new one.
    pub idle: Duration,
}

impl<A> Peers<A> {
    /// The only one, if there may be no other.
    pub fn only(&self) -> Option<&A> {
        match self {
            Self::One(address) => Some(address),
            Self::Any(_) => None,
        }
    }

    /// How many there may be.
    pub fn limits(&self) -> PeerLimits {
        match self {
            Self::One(_) => PeerLimits { max: 1, ..PeerLimits::default() },
            Self::Any(limits) => *limits,
        }
    }
}

impl<A> From<Option<A>> for Peers<A> {
    fn from(remote: Option<A>) -> Self {
        remote.map_or_else(|| Self::Any(PeerLimits::default()), Self::One)
    }
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self { max: 64, idle: Duration::from_secs(300) }
    }
}

/// A multicast group, and where to join it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its address and UDP port.
    pub address: SocketAddr,
    /// The interface; without one, the route to the group decides.
    pub interface: Option<Interface>,
    /// How many routers what we send may pass, and one more.
    pub ttl: u8,
}

impl Group {
    /// May this and `other` be one bus? Without an interface, that is for the route to say.
    pub fn is_same_bus(&self, other: &Self) -> bool {
        let may_be_one = self.interface.is_none() || other.interface.is_none();
        self.address == other.address && (may_be_one || self.interface == other.interface)
    }
}

/// A network interface, as users name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// By an address that it has.
    Address(IpAddr),
    /// By its name.
    Name(String),
}

/// What to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// A unix socket.
    Unix(UnixName),
    /// TCP.
    Tcp(HostPort),
    /// A VDE switch.
    Vde(VdePlace),
}

/// How frames are told apart on a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A length of 16 bits in front of each, as `vde_plug` writes and reads.
    Vde,
    /// A length of 32 bits in front of each, as QEMU's stream sockets have it.
    Qemu,
}

/// The name of a unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnixName {
    /// A file.
    Path(PathBuf),
    /// A name in Linux's abstract namespace, written with an `@` in front.
    Abstract(String),
}

/// A TCP or UDP address before its name is resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A host name or an address, without brackets.
    pub host: String,
    /// The port; 0 lets the system choose one to listen on for TCP.
    pub port: u16,
}

/// What every kind of port takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortOptions {
    /// Its name; where there may be several, they are numbered.
    pub name: Option<String>,
    /// Octets that may wait for its peer.
    pub queue: usize,
    /// How long others may wait for it, at a stretch and per second.
    pub pause: Duration,
    /// The longest frame, in octets, that may pass it either way.
    pub max_frame: usize,
    /// Frames that leave by it are padded with zeros to this length, in octets.
    pub pad: usize,
}

impl Default for PortOptions {
    fn default() -> Self {
        Self {
            name: None,
            queue: 1 << 20,
            pause: Duration::from_millis(50),
            max_frame: stream::MAX_FRAME,
            pad: 0,
        }
    }
}

impl fmt::Display for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for PortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { name, .. } => write!(f, "unix:{name}"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Connect(Remote::Unix(name)) => write!(f, "connect:unix:{name}"),
            Self::Connect(Remote::Tcp(address)) => write!(f, "connect:tcp:{address}"),
            Self::Connect(Remote::Vde(place)) => write!(f, "connect:vde:{place}"),
            Self::Vde(Vde { folder, port_group: None, .. }) => write!(f, "vde:{}", folder.display()),
            Self::Vde(Vde { folder, port_group: Some(group), .. }) => {
                write!(f, "vde:{},port-group={group}", folder.display())
            }
            Self::Fd(fd) => write!(f, "fd:{fd}"),
            Self::Udp { local, .. } => write!(f, "udp:{local}"),
            Self::Dgram { path, .. } => write!(f, "dgram:{}", path.display()),
            Self::L2tpv3 { local, .. } => write!(f, "l2tpv3:{local}"),
            Self::Mcast(group) => write!(f, "mcast:{}", group.address),
            Self::Tap(tap) => write!(f, "tap:{}", tap.name),
            Self::Bridge(bridge) => write!(f, "bridge:{}", bridge.bridge),
            Self::Macvtap(macvtap) => write!(f, "macvtap:{}", macvtap.place),
            Self::Packet(interface) => write!(f, "packet:{interface}"),
        }
    }
}
