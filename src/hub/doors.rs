//! Doors: where ports come from. A listener makes one of each connection, a dialler keeps one up,
//! an inherited connection is one.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use log::{debug, info, warn};
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Token};
use socket2::{Domain, Socket, Type};

use super::ports::earlier;
use super::{Hub, QUIET};
use crate::bridge::{MAX_PORTS, PortId};
use crate::config::{PortKind, PortOptions, PortSpec};
use crate::link::{Dialer, Dialling, Listener, Peer, StreamLink, StreamSocket, sys};

/// Connections accepted from one listener in one turn.
const ACCEPTS: usize = 64;

/// How soon a listener tries again when the system has no descriptors or memory.
const STARVED: Duration = Duration::from_millis(100);

/// A way into the hub, as one port specification describes it.
#[derive(Debug)]
pub struct Door {
    shown: String,
    options: PortOptions,
    kind: Kind,
    warned: Option<Instant>,
}

#[derive(Debug)]
enum Kind {
    Listener {
        listener: Listener,
        ready: bool,
        /// The system had no descriptors left; when to try again.
        starved: Option<Instant>,
    },
    Dialer {
        dialer: Dialer,
        name: Option<String>,
        port: Option<PortId>,
    },
    Connection(Option<StreamSocket>),
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
        Ok(Self { shown, options: spec.options.clone(), kind, warned: None })
    }

    /// The TCP address that it serves, if it does.
    pub fn tcp_address(&self) -> Option<std::net::SocketAddr> {
        match &self.kind {
            Kind::Listener { listener, .. } => listener.tcp_address(),
            Kind::Dialer { .. } | Kind::Connection(_) => None,
        }
    }

    /// A listener's next connection; `None` when there is none now, an error when the system is
    /// out of something and the listener rests.
    fn accept(&mut self, now: Instant) -> Option<io::Result<(StreamSocket, Peer)>> {
        let Kind::Listener { listener, ready, starved } = &mut self.kind else { return None };
        if !*ready || starved.is_some_and(|until| now < until) {
            return None;
        }
        *starved = None;
        loop {
            let error = match listener.accept() {
                Ok(socket) => {
                    let peer = socket.peer();
                    return Some(Ok((socket, peer)));
                }
                Err(error) => error,
            };
            // A connection that ended before it was accepted is no reason to stop.
            if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) {
                continue;
            }
            if error.kind() == io::ErrorKind::WouldBlock {
                *ready = false;
                return None;
            }
            *starved = Some(now + STARVED);
            return Some(Err(error));
        }
    }

    fn admits(&self, peer: &Peer) -> bool {
        match &self.kind {
            Kind::Listener { listener, .. } => listener.admits(peer),
            Kind::Dialer { .. } | Kind::Connection(_) => true,
        }
    }

    /// What its ports are named after.
    fn stem(&self) -> String {
        let kind = self.shown.trim_start_matches("connect:");
        let kind = kind.split(':').next().unwrap_or(kind);
        self.options.name.clone().unwrap_or_else(|| kind.to_owned())
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        match &self.kind {
            Kind::Listener { ready, starved, .. } => ready.then(|| starved.unwrap_or(now)),
            Kind::Dialer { dialer, .. } => dialer.deadline(),
            Kind::Connection(_) => None,
        }
    }

    /// Warns, but not again and again.
    fn warn(&mut self, what: &str, now: Instant) {
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
                Ok(Self::Dialer { dialer: Dialer::new(remote, now)?, name: None, port: None })
            }
            PortKind::Fd(fd) => inherit(*fd),
        }
    }

    fn listener(listener: Listener) -> Self {
        Self::Listener { listener, ready: true, starved: None }
    }
}

/// Finds out what an inherited descriptor is.
fn inherit(fd: i32) -> Result<Kind> {
    let fd = sys::take_inherited(fd).context("it is to be a socket that the parent process left open")?;
    let socket = Socket::from(fd);
    let kind = socket.r#type().context("it is no socket")?;
    if kind != Type::STREAM {
        bail!(
            "it is a {} socket; pass a stream socket",
            if kind == Type::DGRAM { "datagram" } else { "packet" }
        );
    }
    socket.set_nonblocking(true)?;
    let is_unix = match socket.domain()? {
        Domain::UNIX => true,
        Domain::IPV4 | Domain::IPV6 => false,
        _ => bail!("it is neither a unix nor a TCP socket"),
    };
    if socket.is_listener()? {
        let listener = if is_unix {
            Listener::Unix { socket: UnixListener::from_std(socket.into()), file: None, any_user: true }
        } else {
            Listener::Tcp(TcpListener::from_std(socket.into()))
        };
        return Ok(Kind::Listener { listener, ready: true, starved: None });
    }
    socket.peer_addr().context("it is not connected")?;
    let socket = if is_unix {
        StreamSocket::Unix(UnixStream::from_std(socket.into()))
    } else {
        StreamSocket::Tcp(TcpStream::from_std(socket.into()))
    };
    Ok(Kind::Connection(Some(socket)))
}

/// All doors of a hub.
#[derive(Debug, Default)]
pub(super) struct Doors {
    doors: Vec<Door>,
}

impl Doors {
    /// The poll tells of door `index`.
    pub(super) fn note(&mut self, index: usize) {
        match self.doors.get_mut(index).map(|door| &mut door.kind) {
            Some(Kind::Listener { ready, .. }) => *ready = true,
            Some(Kind::Dialer { dialer, .. }) => dialer.note(),
            Some(Kind::Connection(_)) | None => {}
        }
    }

    /// When the first of them wants to be looked at.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.doors.iter().fold(None, |wake, door| earlier(wake, door.deadline(now)))
    }

    /// Closes them all: nothing comes in any more, and our socket files are removed.
    pub(super) fn close(&mut self) {
        self.doors.clear();
    }
}

impl Hub {
    /// Adds a door.
    ///
    /// # Errors
    ///
    /// When it can't be polled, or its connection finds no room.
    pub fn add(&mut self, mut door: Door, now: Instant) -> Result<()> {
        let token = door_token(self.doors.doors.len());
        let stem = door.stem();
        match &mut door.kind {
            Kind::Listener { listener, .. } => {
                listener.register(self.poll.registry(), token)?;
                info!(door = door.shown.as_str(); "listening");
            }
            Kind::Dialer { name, .. } => {
                *name = Some(self.take_name(&door.options, &stem));
            }
            Kind::Connection(socket) => {
                if let Some(socket) = socket.take() {
                    let name = self.take_name(&door.options, &stem);
                    let (peer, link) = (socket.peer(), StreamLink::accepted(socket)?);
                    self.attach_as(name, Box::new(link), peer, door.options.clone(), now)?;
                }
            }
        }
        self.doors.doors.push(door);
        Ok(())
    }

    /// The name of a door's only port.
    fn take_name(&mut self, options: &PortOptions, stem: &str) -> String {
        match &options.name {
            Some(name) => self.names.take(name),
            None => self.names.number(stem),
        }
    }

    /// Accepts, dials and redials.
    pub(super) fn serve_doors(&mut self, now: Instant) {
        for index in 0..self.doors.doors.len() {
            match self.doors.doors[index].kind {
                Kind::Listener { .. } => self.serve_listener(index, now),
                Kind::Dialer { .. } => self.serve_dialer(index, now),
                Kind::Connection(_) => {}
            }
        }
    }

    /// A port is gone: its descriptor may let a starved listener go on.
    pub(super) fn retry_doors(&mut self, now: Instant) {
        for door in &mut self.doors.doors {
            if let Kind::Listener { starved: starved @ Some(_), .. } = &mut door.kind {
                *starved = Some(now);
            }
        }
    }

    /// Was `id` a dialler's port? Then it will come back, under its name.
    pub(super) fn redial(&mut self, id: PortId, now: Instant) -> bool {
        for door in &mut self.doors.doors {
            if let Kind::Dialer { dialer, port, .. } = &mut door.kind
                && *port == Some(id)
            {
                *port = None;
                dialer.rest(now);
                return true;
            }
        }
        false
    }

    fn serve_listener(&mut self, index: usize, now: Instant) {
        for _ in 0..ACCEPTS {
            let door = &mut self.doors.doors[index];
            let Some(accepted) = door.accept(now) else { return };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    door.warn(&format!("can't accept: {error}; raise 'ulimit -n' or close some ports"), now);
                    return;
                }
            };
            if !door.admits(&peer) {
                door.warn(&format!("refused {peer}: another user; any-user=on admits everybody"), now);
                continue;
            }
            if self.ports.slab.vacancy().is_none() {
                let limit = self.ports.slab.limit();
                door.warn(&format!("refused {peer}: all {limit} ports are in use; raise --max-ports"), now);
                continue;
            }
            let (stem, options) = (door.stem(), door.options.clone());
            let attached = StreamLink::accepted(socket)
                .and_then(|link| self.attach(&stem, Box::new(link), peer.clone(), options, now));
            if let Err(error) = attached {
                self.doors.doors[index].warn(&format!("lost {peer}: {error}"), now);
            }
        }
    }

    fn serve_dialer(&mut self, index: usize, now: Instant) {
        let connected = match self.dial(index, now) {
            Ok(None) => return,
            Ok(Some(socket)) => self.keep(index, socket, now),
            Err(error) => Err(error),
        };
        if let Err(error) = connected {
            let door = &mut self.doors.doors[index];
            if let Kind::Dialer { dialer, .. } = &mut door.kind {
                dialer.rest(now);
            }
            door.warn(&format!("can't connect: {error}; trying again"), now);
        }
    }

    /// Makes a port of what a dialler connected.
    fn keep(&mut self, index: usize, socket: StreamSocket, now: Instant) -> io::Result<()> {
        let door = &self.doors.doors[index];
        let Kind::Dialer { name: Some(name), .. } = &door.kind else {
            return Ok(());
        };
        let (name, options) = (name.clone(), door.options.clone());
        let (peer, link) = (socket.peer(), StreamLink::dialled(socket)?);
        let id = self.attach_as(name, Box::new(link), peer, options, now)?;
        let door = &mut self.doors.doors[index];
        door.warned = None;
        if let Kind::Dialer { dialer, port, .. } = &mut door.kind {
            dialer.state = Dialling::Connected { since: now };
            *port = Some(id);
        }
        Ok(())
    }

    /// Goes one step on; returns the socket once it is connected.
    fn dial(&mut self, index: usize, now: Instant) -> io::Result<Option<StreamSocket>> {
        let Kind::Dialer { dialer, .. } = &mut self.doors.doors[index].kind else {
            return Ok(None);
        };
        let registry = self.poll.registry();
        let (mut socket, until, is_registered) =
            match std::mem::replace(&mut dialer.state, Dialling::Idle { until: now }) {
                Dialling::Idle { until } if now >= until => {
                    let (socket, until) = dialer.connect(now)?;
                    (socket, until, false)
                }
                Dialling::Connecting { socket, until, told } if told || now >= until => (socket, until, true),
                state
                @ (Dialling::Idle { .. } | Dialling::Connecting { .. } | Dialling::Connected { .. }) => {
                    dialer.state = state;
                    return Ok(None);
                }
            };
        let outcome = match socket.take_error()? {
            Some(error) => Err(error),
            None if socket.is_connected_to_itself() => {
                Err(io::Error::other("nothing but ourselves answers there"))
            }
            None if socket.is_connected() => Ok(true),
            None if now >= until => Err(io::ErrorKind::TimedOut.into()),
            None => Ok(false),
        };
        match outcome {
            Ok(false) => {
                if !is_registered {
                    socket.register(registry, door_token(index), Interest::WRITABLE)?;
                }
                dialer.state = Dialling::Connecting { socket, until, told: false };
                Ok(None)
            }
            finished => {
                if is_registered {
                    socket.deregister(registry)?;
                }
                finished.map(|_| Some(socket))
            }
        }
    }
}

/// The poll's name for a door.
fn door_token(index: usize) -> Token {
    Token(MAX_PORTS + index)
}
