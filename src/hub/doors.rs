//! The doors of a hub, served: a listener makes a port of each connection, a dialler keeps one up,
//! an inherited connection is one.

use std::io;
use std::time::Instant;

use anyhow::{Context, Result};
use log::info;
use mio::Token;
use nix::libc::EMFILE;

use super::Hub;
use super::door::{Door, Kind};
use super::ports::earlier;
use crate::bridge::{MAX_PORTS, PortId};
use crate::link::{Peer, StreamLink, StreamSocket};

/// Connections accepted from one listener in one turn.
const ACCEPTS: usize = 64;

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
            Peer::Unknown => false,
        }
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
                *name = Some(match &door.options.name {
                    Some(name) => self.names.take(name),
                    None => self.names.number(&stem),
                });
            }
            Kind::Connection(socket) => {
                if let Some(socket) = socket.take() {
                    let own = door.options.name.clone().unwrap_or_else(|| door.shown.replace(':', ""));
                    let name = self.names.take(&own);
                    let (peer, link) = (socket.peer(), StreamLink::accepted(socket)?);
                    self.attach_as(name, Box::new(link), peer, door.options.clone(), now)
                        .with_context(|| format!("port {}", door.shown))?;
                }
            }
        }
        self.doors.doors.push(door);
        Ok(())
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
                    let is_short = error.raw_os_error() == Some(EMFILE);
                    let advice =
                        if is_short { "; raise 'ulimit -n' or close some ports" } else { "; trying again" };
                    door.warn(&format!("can't accept: {error}{advice}"), now);
                    return;
                }
            };
            if !door.admits(&peer) {
                door.warn(&format!("refused {peer}: another user; any-user=on admits everybody"), now);
                continue;
            }
            let (stem, options) = (door.stem(), door.options.clone());
            let attached = StreamLink::accepted(socket)
                .and_then(|link| self.attach(&stem, Box::new(link), peer.clone(), options, now));
            if let Err(error) = attached {
                self.doors.doors[index].warn(&format!("refused {peer}: {error}"), now);
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
                door.warned = None;
            }
            Err(error) => {
                dialer.rest(now);
                door.warn(&format!("can't connect: {error}; trying again"), now);
            }
        }
    }

    /// Makes a port of what a dialler connected.
    fn keep(&mut self, index: usize, socket: StreamSocket, now: Instant) -> io::Result<PortId> {
        let door = &self.doors.doors[index];
        let (name, options) = (door.port_name().to_owned(), door.options.clone());
        let (peer, link) = (socket.peer(), StreamLink::dialled(socket)?);
        self.attach_as(name, Box::new(link), peer, options, now)
    }
}

/// The poll's name for a door.
fn door_token(index: usize) -> Token {
    Token(MAX_PORTS + index)
}
