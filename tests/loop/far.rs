//! The peers' ends of datagram ports.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hub_protocol::stream::MAX_FRAME;
use qhub::config::UNIX_NAME_MAX;
use qhub::hub::Door;
use qhub::link::DatagramLink;
use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;

use crate::net::Net;

/// A datagram socket, and where it sends to.
pub(crate) struct Far {
    pub(crate) socket: Socket,
    /// `None` when it is connected.
    hub: Option<SockAddr>,
}

impl Far {
    /// A UDP socket on a port of its own.
    pub(crate) fn udp(hub: SocketAddr) -> Self {
        Self::udp_at((Ipv4Addr::LOCALHOST, 0).into(), hub)
    }

    pub(crate) fn udp_at(own: SocketAddr, hub: SocketAddr) -> Self {
        Self::new(UdpSocket::bind(own).expect("a free port").into(), Some(hub.into()))
    }

    /// A member of a multicast group on this host only.
    pub(crate) fn member(group: Ipv4Addr, port: u16) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("descriptors");
        socket.set_reuse_address(true).expect("an open socket");
        let bus = SockAddr::from(SocketAddr::from((group, port)));
        socket.bind(&bus).expect("a free port");
        socket.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST).expect("a loopback interface");
        Self::new(socket, Some(bus))
    }

    /// One of a pair.
    pub(crate) fn paired(socket: Socket) -> Self {
        Self::new(socket, None)
    }

    fn new(socket: Socket, hub: Option<SockAddr>) -> Self {
        socket.set_nonblocking(true).expect("an open socket");
        Self { socket, hub }
    }

    pub(crate) fn try_send(&self, datagram: &[u8]) -> io::Result<()> {
        let sent = match &self.hub {
            Some(hub) => self.socket.send_to(datagram, hub),
            None => self.socket.send(datagram),
        };
        sent.map(|octets| assert_eq!(octets, datagram.len()))
    }

    pub(crate) fn send(&self, datagram: &[u8]) {
        self.try_send(datagram).expect("room");
    }

    /// The next datagram, if there is one now.
    pub(crate) fn read(&self) -> Option<Vec<u8>> {
        let mut room = vec![0; MAX_FRAME + 1];
        match (&self.socket).read(&mut room) {
            Ok(octets) => {
                room.truncate(octets);
                Some(room)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("receive: {error}"),
        }
    }

    /// All that can be read now.
    pub(crate) fn read_all(&self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.read()).collect()
    }

    /// Reads just `frames`, and waits for them.
    pub(crate) fn expect(&self, frames: &[Vec<u8>]) {
        self.socket.set_nonblocking(false).expect("an open socket");
        self.socket.set_read_timeout(Some(Duration::from_secs(10))).expect("an open socket");
        for (number, frame) in frames.iter().enumerate() {
            let got = self.read().unwrap_or_else(|| panic!("frame {number} of {}", frames.len()));
            assert!(got == *frame, "frame {number} of {}: {:?}", frames.len(), &got[..got.len().min(20)]);
        }
        self.socket.set_nonblocking(true).expect("an open socket");
    }
}

/// A folder with sockets, one of which is to be the hub's.
pub(crate) struct Folder {
    folder: TempDir,
    hub: PathBuf,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let hub = folder.path().join("hub");
        Self { folder, hub }
    }

    /// The path of the hub is as long as one may be.
    pub(crate) fn longest() -> Self {
        let it = Self::new();
        let rest = UNIX_NAME_MAX - it.path("").as_os_str().len();
        Self { hub: it.path(&"p".repeat(rest)), ..it }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `dgram:` and the hub's own path, with `options`.
    pub(crate) fn spec(&self, options: &str) -> String {
        format!("dgram:{}{options}", self.hub.display())
    }

    /// A socket named `name` that sends to the hub's path.
    pub(crate) fn far(&self, name: &str) -> Far {
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None).expect("descriptors");
        let path = self.path(name);
        // A former life may have left it.
        let _ = fs::remove_file(&path);
        socket.bind(&address(&path)).expect("a free path");
        Far::new(socket, Some(address(&self.hub)))
    }

    /// One that has a name, but no path.
    pub(crate) fn hidden(&self) -> Far {
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None).expect("descriptors");
        let name = format!("\0{}", self.path("hidden").display());
        socket.bind(&address(Path::new(&name))).expect("a free name");
        Far::new(socket, Some(address(&self.hub)))
    }

    /// The same, connected to the hub: it hears nobody else.
    pub(crate) fn connected(&self, name: &str) -> Far {
        let Far { socket, .. } = self.far(name);
        socket.connect(&address(&self.hub)).expect("a server");
        Far::new(socket, None)
    }
}

fn address(path: &Path) -> SockAddr {
    SockAddr::unix(path).expect("a short path")
}

/// An address that nobody had a moment ago.
pub(crate) fn free_udp() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.local_addr().expect("an address")
}

impl Net {
    pub(crate) fn open(&mut self, spec: &str) {
        let spec = spec.parse().unwrap_or_else(|error| panic!("{spec}: {error}"));
        let door = Door::open(&spec, self.now).expect("what is free");
        self.hub.add(door, self.now).expect("room");
    }

    /// Opens `udp:` and some free port, with `options`; returns its address.
    pub(crate) fn open_udp(&mut self, options: &str) -> SocketAddr {
        let address = free_udp();
        self.open(&format!("udp:{address}{options}"));
        address
    }

    /// One of a pair of unix datagram sockets.
    pub(crate) fn pair(&mut self) -> Far {
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::DGRAM, None).expect("descriptors");
        self.attach(Box::new(DatagramLink::pair(ours).expect("an open socket")));
        Far::paired(theirs)
    }

    /// A UDP socket that was connected before.
    pub(crate) fn connected_udp(&mut self) -> Far {
        let (ours, theirs) = (free_udp(), free_udp());
        let far = Far::udp_at(theirs, ours);
        let socket = UdpSocket::bind(ours).expect("a free port");
        socket.connect(theirs).expect("a route");
        self.attach(Box::new(DatagramLink::connected(socket.into()).expect("an open socket")));
        far
    }

    pub(crate) fn names(&mut self) -> Vec<String> {
        self.snapshot().ports.into_iter().map(|port| port.name).collect()
    }

    /// The port that `station` is behind, if it is known.
    pub(crate) fn whereabouts(&mut self, station: [u8; 6]) -> Option<String> {
        let rows = self.snapshot().fdb.into_iter();
        rows.filter(|(row, _)| row.mac.0 == station).map(|(_, port)| port).next()
    }

    /// What was lost at the first door.
    pub(crate) fn lost_at_door(&mut self) -> String {
        self.snapshot().doors[0].1.to_string()
    }

    /// What was dropped at a port.
    pub(crate) fn lost(&mut self, port: &str) -> String {
        let snapshot = self.snapshot();
        let found = snapshot.ports.iter().find(|row| row.name == port);
        found.unwrap_or_else(|| panic!("no {port}: {snapshot}")).counters.drops.to_string()
    }

    /// Turns until so many frames came in for each port that they were to leave by.
    pub(crate) fn until_copies(&mut self, copies: u64) {
        self.until(|snapshot| snapshot.copies >= copies);
        assert_eq!(self.snapshot().copies, copies);
    }
}
