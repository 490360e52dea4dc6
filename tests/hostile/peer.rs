//! Peers on datagram sockets: one datagram is one frame.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{SockaddrIn, recvfrom};
use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;

use crate::common::daemon::Daemon;
use crate::common::hub::utf8;
use crate::common::net::{free_group, free_udp_port};
use crate::common::wait::{Deadline, LIMIT};
use crate::common::wire::Station;

/// The ways by which a peer joins with datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Udp,
    UdpRemote,
    Dgram,
    DgramRemote,
    /// A unix socket that has connected to the hub's.
    Connected,
    Fd,
    Mcast,
}

impl Kind {
    pub(super) const ALL: [Self; 7] =
        [Self::Udp, Self::UdpRemote, Self::Dgram, Self::DgramRemote, Self::Connected, Self::Fd, Self::Mcast];

    /// Tries all of them at once.
    pub(super) fn each(attack: fn(Self)) {
        thread::scope(|scope| Self::ALL.iter().for_each(|&kind| drop(scope.spawn(move || attack(kind)))));
    }

    /// The longest frame.
    pub(super) fn limit(self) -> usize {
        match self {
            Self::Udp | Self::UdpRemote | Self::Mcast => 65_507,
            Self::Dgram | Self::DgramRemote | Self::Connected | Self::Fd => 69_632,
        }
    }

    /// A hub that serves this kind only, and a peer that it has not heard yet.
    pub(super) fn start(self, runtime: &TempDir) -> (Daemon, Peer) {
        let [hub, path] = ["hub", "peer"].map(|name| runtime.path().join(name));
        let start = |spec: &str| Daemon::start(runtime.path(), &[spec]);
        match self {
            Self::Udp => {
                let port = free_udp_port();
                (start(&format!("udp:{port}")), Peer::udp(port))
            }
            Self::UdpRemote => {
                let (port, remote) = (free_udp_port(), free_udp_port());
                (start(&format!("udp:{port},remote=127.0.0.1:{remote}")), Peer::udp_at(remote, port))
            }
            Self::Dgram => (start(&format!("dgram:{}", utf8(&hub))), Peer::unix(&path, &hub)),
            Self::DgramRemote => {
                let daemon = start(&format!("dgram:{},remote={}", utf8(&hub), utf8(&path)));
                (daemon, Peer::unix(&path, &hub))
            }
            Self::Connected => {
                let daemon = start(&format!("dgram:{}", utf8(&hub)));
                (daemon, Peer::unix(&path, &hub).connect(&hub))
            }
            Self::Fd => {
                let (ours, theirs) = Socket::pair(Domain::UNIX, Type::DGRAM, None).expect("a pair");
                (inherit(runtime, ours), Peer::over(theirs))
            }
            Self::Mcast => {
                let (group, port) = free_group();
                let daemon = start(&format!("mcast:{group}:{port},iface=127.0.0.1"));
                (daemon, Peer::group(group, port))
            }
        }
    }
}

/// A hub with `socket` as its `fd:0`.
pub(super) fn inherit(runtime: &TempDir, socket: Socket) -> Daemon {
    let stdin = Stdio::from(OwnedFd::from(socket));
    Daemon::launch(runtime.path(), r#"exec "$@""#, &["--no-tcp", "fd:0"], stdin).served()
}

pub(super) struct Peer {
    socket: Socket,
    /// Where it sends; `None` when its socket is connected there.
    hub: Option<SockAddr>,
    file: Option<PathBuf>,
    /// Where its own frames come back from.
    echo: Option<SocketAddrV4>,
}

impl Peer {
    /// A UDP socket on some port of this host, for the hub on `port`.
    pub(super) fn udp(port: u16) -> Self {
        Self::udp_at(0, port)
    }

    pub(super) fn udp_at(own: u16, port: u16) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
        socket.bind(&local(own)).unwrap_or_else(|error| panic!("bind to port {own}: {error}"));
        Self { hub: Some(local(port)), ..Self::over(socket) }
    }

    /// A socket at `path`, for the hub at `hub`.
    pub(super) fn unix(path: &Path, hub: &Path) -> Self {
        let peer = Self { file: Some(path.to_owned()), ..Self::nameless(hub) };
        peer.socket.bind(&address(path)).unwrap_or_else(|error| panic!("bind to {path:?}: {error}"));
        peer
    }

    /// A unix socket without a name.
    pub(super) fn nameless(hub: &Path) -> Self {
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None).expect("a socket");
        Self { hub: Some(address(hub)), ..Self::over(socket) }
    }

    /// A member of a multicast group on this host.
    fn group(group: Ipv4Addr, port: u16) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
        let hub = SockAddr::from(SocketAddr::from((group, port)));
        socket.set_reuse_address(true).expect("a socket option");
        socket.bind(&hub).expect("the group can be shared");
        socket.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST).expect("to join");
        socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).expect("a socket option");
        let echo = Some(local_address(port));
        Self { hub: Some(hub), echo, ..Self::over(socket) }
    }

    /// What is connected already.
    pub(super) fn over(socket: Socket) -> Self {
        socket.set_write_timeout(Some(LIMIT)).expect("a time-out can be set");
        Self { socket, hub: None, file: None, echo: None }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Connects the socket to the hub's: it hears nobody else.
    pub(super) fn connect(mut self, hub: &Path) -> Self {
        self.socket.connect(&address(hub)).expect("the hub's socket is there");
        self.hub = None;
        self
    }

    pub(super) fn try_send(&self, octets: &[u8]) -> io::Result<usize> {
        match &self.hub {
            Some(hub) => self.socket.send_to(octets, hub),
            None => self.socket.send(octets),
        }
    }

    /// Its life ends, and its file with it.
    pub(super) fn die(self) {
        if let Some(file) = &self.file {
            // Somebody may have put something else there.
            let _ = fs::remove_file(file);
        }
    }
}

impl Station for Peer {
    fn send(&mut self, frame: &[u8]) {
        self.try_send(frame).expect("the hub takes what is sent");
    }

    fn try_receive(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let mut frame = vec![0; 1 << 17];
        let deadline = Deadline::after(limit);
        loop {
            self.socket.set_read_timeout(Some(deadline.left()?)).expect("a time-out can be set");
            match recvfrom::<SockaddrIn>(self.socket.as_raw_fd(), &mut frame) {
                Ok((_, Some(sender))) if Some(sender.into()) == self.echo => {}
                Ok((length, _)) => {
                    assert!(length > 0, "the hub sent a datagram of no octets");
                    frame.truncate(length);
                    return Some(frame);
                }
                Err(Errno::EAGAIN) => return None,
                // An earlier datagram of ours met a port where nobody was.
                Err(Errno::ECONNREFUSED) => {}
                Err(error) => panic!("receive from the hub: {error}"),
            }
        }
    }
}

fn local_address(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

pub(super) fn local(port: u16) -> SockAddr {
    local_address(port).into()
}

pub(super) fn address(path: &Path) -> SockAddr {
    SockAddr::unix(path).expect("a path that fits")
}

/// Sends the same as fast as it can, until it is stopped.
pub(super) struct Noise {
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Noise {
    pub(super) fn start(peers: Vec<Peer>, octets: &[u8]) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let threads = peers.into_iter().map(|peer| {
            let (until, octets) = (Arc::clone(&done), octets.to_vec());
            peer.socket.set_write_timeout(Some(Duration::from_millis(100))).expect("a time-out can be set");
            thread::spawn(move || {
                while !until.load(Ordering::Relaxed) {
                    // A hub that is too slow, or gone.
                    let _ = peer.try_send(&octets);
                }
            })
        });
        Self { threads: threads.collect(), done }
    }

    pub(super) fn stop(self) {
        self.done.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("it only sends");
        }
    }
}
