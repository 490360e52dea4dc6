//! The doors of a hub, served: a listener makes a port of each connection, a VDE switch one of each client,
//! a datagram server one of each source, a dialler keeps one up, and a link that was ready is one.

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
use super::vde::VdeServer;
use crate::bridge::{MAX_PORTS, PortId};
use crate::discard::Drops;
use crate::link::{Dialled, Peer, StreamLink};
use crate::port::Counters;

/// Connections accepted from one listener in one turn.
const ACCEPTS: usize = 64;

/// In the poll's names, the doors' own come up to here; those of the guests at doors follow.
pub(super) const GUESTS: usize = 1 << 16;

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
    /// The poll tells of a door, or a guest at one.
    pub(super) fn note(&mut self, place: usize, is_closed: bool) {
        match self.doors.get_mut(place % GUESTS).map(|door| &mut door.kind) {
            Some(Kind::Listener(entrance)) => entrance.note(),
            Some(Kind::Vde(server)) => match (place / GUESTS).checked_sub(1) {
                None => server.entrance.note(),
                Some(guest) => server.note(guest),
            },
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

    /// Does this connection lead to one of our own doors? A frame would then circulate for ever.
    fn serve(&self, dialled: &Dialled) -> bool {
        match &dialled.peer {
            &Peer::Process { pid, .. } => u32::try_from(pid) == Ok(std::process::id()),
            Peer::Address(peer) => {
                let served = self.doors.iter().filter_map(Door::tcp_address);
                served.filter(|served| served.port() == peer.port()).any(|served| {
                    served.ip() == peer.ip() || served.ip().is_unspecified() && dialled.is_local
                })
            }
            Peer::Client { .. } | Peer::Socket(_) | Peer::Interface { .. } | Peer::Unknown => false,
        }
    }

    /// The first door that is a VDE switch.
    pub(super) fn switch(&self) -> Option<&VdeServer> {
        self.doors.iter().find_map(|door| match &door.kind {
            Kind::Vde(server) => Some(&**server),
            Kind::Listener(_) | Kind::Dialer { .. } | Kind::Server(_) | Kind::Ready(_) => None,
        })
    }

    /// The same, to be changed.
    pub(super) fn switch_mut(&mut self) -> Option<&mut VdeServer> {
        let is_switch = |door: &Door| matches!(door.kind, Kind::Vde(_));
        let index = self.doors.iter().position(is_switch)?;
        self.vde(index).map(|(_, server)| server)
    }

    /// The door `index`, if it is a datagram server.
    pub(super) fn server(&mut self, index: usize) -> Option<(&mut DoorFace, &mut Server)> {
        match self.doors.get_mut(index)? {
            Door { face, kind: Kind::Server(server) } => Some((face, server)),
            Door { .. } => None,
        }
    }

    /// Does another door join the VDE switch of this connection? What comes in by one would go out by the
    /// other for ever.
    fn join(&self, dialled: &Dialled) -> bool {
        dialled.folder.is_some()
            && self
                .doors
                .iter()
                .any(|door| matches!(&door.kind, Kind::Dialer { folder, .. } if *folder == dialled.folder))
    }

    /// The door `index`, if it is a VDE switch.
    pub(super) fn vde(&mut self, index: usize) -> Option<(&mut DoorFace, &mut VdeServer)> {
        match self.doors.get_mut(index)? {
            Door { face, kind: Kind::Vde(server) } => Some((face, server)),
            Door { .. } => None,
        }
    }

    /// Those that are datagram servers.
    pub(super) fn servers(&self) -> impl Iterator<Item = (&DoorFace, &Server)> {
        self.doors.iter().filter_map(|door| match &door.kind {
            Kind::Server(server) => Some((&door.face, &**server)),
            Kind::Listener(_) | Kind::Vde(_) | Kind::Dialer { .. } | Kind::Ready(_) => None,
        })
    }

    /// What was lost of nobody's, by door.
    pub(super) fn drops(&self) -> Vec<(String, Drops)> {
        let open = self.servers().map(|(face, server)| (face.shown.clone(), server.drops));
        open.chain(self.closed.iter().cloned()).collect()
    }

    /// Port `id` is gone, having counted this. True when its door keeps its name for it: a dialler's will
    /// come back.
    pub(super) fn forget(&mut self, id: PortId, counters: &Counters, now: Instant) -> bool {
        for door in &mut self.doors {
            match &mut door.kind {
                Kind::Dialer { dialer, port, folder, .. } if *port == Some(id) => {
                    (*port, *folder) = (None, None);
                    dialer.rest(now);
                    return true;
                }
                Kind::Server(server) => server.forget(id),
                Kind::Vde(server) => server.plan.leave(id, counters.into()),
                Kind::Listener(_) | Kind::Dialer { .. } | Kind::Ready(_) => {}
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
    /// Adds a door. Returns the port of one that was ready.
    ///
    /// # Errors
    ///
    /// When it can't be polled, or its connection finds no room.
    pub fn add(&mut self, mut door: Door, now: Instant) -> Result<Option<PortId>> {
        let index = self.doors.doors.len();
        let stem = door.face.stem();
        let own_name = door.face.options.name.clone();
        let mut name = || match &own_name {
            Some(name) => self.names.take(name),
            None => self.names.number(&stem),
        };
        let (mut only_peer, mut ready) = (None, None);
        match &mut door.kind {
            Kind::Listener(entrance) => {
                entrance.listener.register(self.poll.registry(), door_token(index))?;
                info!(door = door.face.shown.as_str(); "listening");
            }
            Kind::Vde(server) => {
                server.entrance.listener.register(self.poll.registry(), door_token(index))?;
                info!(door = door.face.shown.as_str(); "a VDE switch");
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
                    let id = self
                        .attach_as(name, link, peer, door.face.options.clone(), now)
                        .with_context(|| format!("port {}", door.face.shown))?;
                    ready = Some(id);
                }
            }
        }
        let shown = door.face.shown.clone();
        self.doors.doors.push(door);
        if let Some(name) = only_peer {
            self.add_only_peer(index, name, now).with_context(|| format!("port {shown}"))?;
        }
        Ok(ready)
    }

    /// Accepts, dials and redials, and meets new peers.
    pub(super) fn serve_doors(&mut self, now: Instant) {
        for index in 0..self.doors.doors.len() {
            match self.doors.doors[index].kind {
                Kind::Listener(_) => self.serve_listener(index, now),
                Kind::Vde(_) => self.serve_vde(index, now),
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
            match &mut door.kind {
                Kind::Listener(entrance) => entrance.retry(now),
                Kind::Vde(server) => server.entrance.retry(now),
                Kind::Dialer { .. } | Kind::Server(_) | Kind::Ready(_) => {}
            }
        }
    }

    fn serve_listener(&mut self, index: usize, now: Instant) {
        for _ in 0..ACCEPTS {
            let door = &mut self.doors.doors[index];
            let Kind::Listener(entrance) = &mut door.kind else { return };
            let Some(accepted) = entrance.accept(now) else { return };
            let socket = match accepted {
                Ok(socket) => socket,
                Err(error) => {
                    door.face.warn(&explain_accept(&error), now);
                    return;
                }
            };
            let peer = socket.peer();
            if !door.admits(&peer) {
                door.face.refuse(&peer, &"another user; any-user=on admits everybody", now);
                continue;
            }
            let (stem, options) = (door.face.stem(), door.face.options.clone());
            let attached = StreamLink::accepted(socket)
                .and_then(|link| self.attach(&stem, Box::new(link), peer.clone(), options, now));
            if let Err(error) = attached {
                self.doors.doors[index].face.refuse(&peer, &error, now);
            }
        }
    }

    fn serve_dialer(&mut self, index: usize, now: Instant) {
        let Kind::Dialer { dialer, .. } = &mut self.doors.doors[index].kind else { return };
        let connected = match dialer.advance(self.poll.registry(), door_token(index), now) {
            Ok(None) => return,
            Ok(Some(dialled)) if self.doors.serve(&dialled) => {
                Err(io::Error::other("this hub itself serves that address; dial a QEMU that listens"))
            }
            Ok(Some(dialled)) if self.doors.join(&dialled) => Err(io::Error::other(
                "another port joins the same switch, which makes a loop; leave out one of the two",
            )),
            Ok(Some(dialled)) => self.keep(index, dialled, now),
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
    fn keep(&mut self, index: usize, dialled: Dialled, now: Instant) -> io::Result<PortId> {
        let door = &self.doors.doors[index];
        let (name, options) = (door.port_name().to_owned(), door.face.options.clone());
        let id = self.attach_as(name, dialled.link, dialled.peer, options, now)?;
        if let Kind::Dialer { folder, .. } = &mut self.doors.doors[index].kind {
            *folder = dialled.folder;
        }
        Ok(id)
    }
}

/// What to say of a connection that could not be accepted.
pub(super) fn explain_accept(error: &io::Error) -> String {
    let is_short = error.raw_os_error() == Some(EMFILE);
    let advice = if is_short { "raise 'ulimit -n' or close some ports" } else { "trying again" };
    format!("can't accept: {error}; {advice}")
}

/// The poll's name for a door.
pub(super) fn door_token(index: usize) -> Token {
    Token(MAX_PORTS + index)
}
