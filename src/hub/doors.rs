//! The doors of a hub, served: a listener makes a port of each connection, a datagram server one of
//! each source, a dialler keeps one up, and a link that was ready is one.

use std::io;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use log::info;
use mio::Token;
use nix::libc::EMFILE;

use super::Hub;
use super::datagrams::Server;
use super::door::{Door, DoorFace, Kind};
use super::ports::earlier;
use crate::bridge::{MAX_PORTS, PortId};
use crate::discard::Drops;
use crate::link::{Peer, StreamLink, StreamSocket};

/// Connections accepted from one listener in one turn.
const ACCEPTS: usize = 64;

/// How often a datagram server receives when it closes: what it holds is not more.
const LAST_RECEIVES: usize = 16;

/// All doors of a hub.
#[derive(Debug, Default)]
pub(super) struct Doors {
    doors: Vec<Door>,
    /// What was lost at those that are closed.
    closed: Vec<(String, Drops)>,
}

impl Doors {
    /// The poll tells of door `index`.
    pub(super) fn note(&mut self, index: usize, is_closed: bool) {
        match self.doors.get_mut(index).map(|door| &mut door.kind) {
            Some(Kind::Listener { ready, .. }) => *ready = true,
            Some(Kind::Dialer { dialer, .. }) => dialer.note(),
            Some(Kind::Server(server)) => {
                server.is_shut |= is_closed;
                server.ready = !server.is_shut;
            }
            Some(Kind::Ready(_)) | None => {}
        }
    }

    /// When the first of them wants to be looked at.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.doors.iter().fold(None, |wake, door| earlier(wake, door.deadline(now)))
    }

    /// Does `socket` lead to one of our own doors? A frame would then circulate for ever.
    fn serve(&self, socket: &StreamSocket) -> bool {
        match socket.peer() {
            Peer::Process { pid, .. } => u32::try_from(pid) == Ok(std::process::id()),
            Peer::Address(peer) => {
                let served = self.doors.iter().filter_map(Door::tcp_address);
                served.filter(|served| served.port() == peer.port()).any(|served| {
                    served.ip() == peer.ip() || served.ip().is_unspecified() && socket.is_local()
                })
            }
            Peer::Socket(_) | Peer::Interface { .. } | Peer::Unknown => false,
        }
    }

    /// The door `index`, if it is a datagram server.
    pub(super) fn server(&mut self, index: usize) -> Option<(&mut DoorFace, &mut Server)> {
        match self.doors.get_mut(index)? {
            Door { face, kind: Kind::Server(server) } => Some((face, server)),
            Door { .. } => None,
        }
    }

    /// Those that are datagram servers.
    pub(super) fn servers(&self) -> impl Iterator<Item = (&DoorFace, &Server)> {
        self.doors.iter().filter_map(|door| match &door.kind {
            Kind::Server(server) => Some((&door.face, &**server)),
            Kind::Listener { .. } | Kind::Dialer { .. } | Kind::Ready(_) => None,
        })
    }

    /// What was lost of nobody's, by door.
    pub(super) fn drops(&self) -> Vec<(String, Drops)> {
        let open = self.servers().map(|(face, server)| (face.shown.clone(), server.drops));
        open.chain(self.closed.iter().cloned()).collect()
    }

    /// Port `id` is gone. True when its door keeps its name for it: a dialler's will come back.
    pub(super) fn forget(&mut self, id: PortId, now: Instant) -> bool {
        for door in &mut self.doors {
            match &mut door.kind {
                Kind::Dialer { dialer, port, .. } if *port == Some(id) => {
                    *port = None;
                    dialer.rest(now);
                    return true;
                }
                Kind::Server(server) => server.forget(id),
                Kind::Listener { .. } | Kind::Dialer { .. } | Kind::Ready(_) => {}
            }
        }
        false
    }

    /// Would `server` and another one send frames to each other for ever?
    fn make_loop(&self, server: &Server) -> bool {
        self.servers().any(|(_, other)| server.leads_to(other) || other.leads_to(server))
    }

    /// Closes them all: nothing comes in any more, and our socket files are removed.
    pub(super) fn close(&mut self) {
        self.closed = self.drops();
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
        let index = self.doors.doors.len();
        let stem = door.face.stem();
        let own_name = door.face.options.name.clone();
        let mut name = || match &own_name {
            Some(name) => self.names.take(name),
            None => self.names.number(&stem),
        };
        let mut only_peer = None;
        match &mut door.kind {
            Kind::Listener { listener, .. } => {
                listener.register(self.poll.registry(), door_token(index))?;
                info!(door = door.face.shown.as_str(); "listening");
            }
            Kind::Dialer { name: kept, .. } => *kept = Some(name()),
            Kind::Server(server) => {
                if server.leads_to(server) {
                    let shown = &door.face.shown;
                    bail!(
                        "port {shown}: remote= is this port itself; write the address that the peer sends from"
                    );
                }
                if self.doors.make_loop(server) {
                    bail!(
                        "port {}: its remote= is another port of this hub, which makes a loop; leave out one of the two",
                        door.face.shown
                    );
                }
                server.socket.register(self.poll.registry(), door_token(index))?;
                only_peer = server.socket.only().map(|_| name());
                info!(door = door.face.shown.as_str(); "receiving");
            }
            Kind::Ready(link) => {
                if let Some((link, peer)) = link.take() {
                    let name = name();
                    self.attach_as(name, link, peer, door.face.options.clone(), now)
                        .with_context(|| format!("port {}", door.face.shown))?;
                }
            }
        }
        let shown = door.face.shown.clone();
        self.doors.doors.push(door);
        if let Some(name) = only_peer {
            self.add_only_peer(index, name, now).with_context(|| format!("port {shown}"))?;
        }
        Ok(())
    }

    /// Accepts, dials and redials, and meets new peers.
    pub(super) fn serve_doors(&mut self, now: Instant) {
        for index in 0..self.doors.doors.len() {
            match self.doors.doors[index].kind {
                Kind::Listener { .. } => self.serve_listener(index, now),
                Kind::Dialer { .. } => self.serve_dialer(index, now),
                Kind::Server(_) => self.serve_datagrams(index, now),
                Kind::Ready(_) => {}
            }
        }
    }

    /// Takes what datagram peers have sent before the doors close.
    pub(super) fn serve_doors_last(&mut self, now: Instant) {
        for index in 0..self.doors.doors.len() {
            self.doors.note(index, false);
            for _ in 0..LAST_RECEIVES {
                self.serve_datagrams(index, now);
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

    fn serve_listener(&mut self, index: usize, now: Instant) {
        for _ in 0..ACCEPTS {
            let door = &mut self.doors.doors[index];
            let Some(accepted) = door.accept(now) else { return };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    let is_short = error.raw_os_error() == Some(EMFILE);
                    let advice =
                        if is_short { "; raise 'ulimit -n' or close some ports" } else { "; trying again" };
                    door.face.warn(&format!("can't accept: {error}{advice}"), now);
                    return;
                }
            };
            if !door.admits(&peer) {
                door.face.warn(&format!("refused {peer}: another user; any-user=on admits everybody"), now);
                continue;
            }
            let (stem, options) = (door.face.stem(), door.face.options.clone());
            let attached = StreamLink::accepted(socket)
                .and_then(|link| self.attach(&stem, Box::new(link), peer.clone(), options, now));
            if let Err(error) = attached {
                self.doors.doors[index].face.warn(&format!("refused {peer}: {error}"), now);
            }
        }
    }

    fn serve_dialer(&mut self, index: usize, now: Instant) {
        let Kind::Dialer { dialer, .. } = &mut self.doors.doors[index].kind else { return };
        let connected = match dialer.advance(self.poll.registry(), door_token(index), now) {
            Ok(None) => return,
            Ok(Some(socket)) if self.doors.serve(&socket) => {
                Err(io::Error::other("this hub itself serves that address; dial a QEMU that listens"))
            }
            Ok(Some(socket)) => self.keep(index, socket, now),
            Err(error) => Err(error),
        };
        let door = &mut self.doors.doors[index];
        let Kind::Dialer { dialer, port, .. } = &mut door.kind else { return };
        match connected {
            Ok(id) => {
                dialer.succeeded(now);
                *port = Some(id);
                door.face.warned = None;
            }
            Err(error) => {
                dialer.rest(now);
                door.face.warn(&format!("can't connect: {error}; trying again"), now);
            }
        }
    }

    /// Makes a port of what a dialler connected.
    fn keep(&mut self, index: usize, socket: StreamSocket, now: Instant) -> io::Result<PortId> {
        let door = &self.doors.doors[index];
        let (name, options) = (door.port_name().to_owned(), door.face.options.clone());
        let (peer, link) = (socket.peer(), StreamLink::dialled(socket)?);
        self.attach_as(name, Box::new(link), peer, options, now)
    }
}

/// The poll's name for a door.
pub(super) fn door_token(index: usize) -> Token {
    Token(MAX_PORTS + index)
}
