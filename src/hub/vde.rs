//! VDE switches: each client that has said what it wants becomes a port, or shares one.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::Instant;

use hub_protocol::vde::Request;
use mio::Token;
use nix::libc::EMFILE;

use super::Hub;
use super::door::DoorFace;
use super::doors::{ACCEPTS, GUESTS, door_token, explain_accept};
use super::entrance::Entrance;
use super::plan::{Applicant, PortPlan};
use super::ports::earlier;
use crate::bridge::PortId;
use crate::link::{Greeting, Listener, StreamSocket, VdeSwitch};

/// Clients that may be about to say what they want; for one more, the one that has waited longest goes.
const WAITING: usize = 1024;

/// A VDE switch.
#[derive(Debug)]
pub(super) struct VdeServer {
    pub(super) entrance: Entrance,
    switch: VdeSwitch,
    pub(super) plan: PortPlan,
    /// Clients that have come and not yet said what they want, by their places.
    guests: BTreeMap<usize, Greeting>,
    /// Those of them that the poll told of.
    told: Vec<usize>,
}

impl VdeServer {
    pub(super) fn new(switch: VdeSwitch, listener: Listener, ports: u16) -> Self {
        Self {
            entrance: Entrance::new(listener),
            switch,
            plan: PortPlan::new(ports),
            guests: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    /// The poll tells of a guest.
    pub(super) fn note(&mut self, guest: usize) {
        self.told.push(guest);
    }

    /// When it wants to be looked at.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let told = (!self.told.is_empty()).then_some(now);
        let impatient = self.guests.values().map(Greeting::deadline).min();
        earlier(earlier(self.entrance.deadline(now), told), impatient)
    }

    /// Sends away the guest that has waited longest, if there is one.
    fn dismiss_oldest(&mut self, door: &mut DoorFace, now: Instant) -> bool {
        let oldest = self.guests.iter().min_by_key(|(_, guest)| guest.deadline()).map(|(&place, _)| place);
        let Some(guest) = oldest.and_then(|place| self.guests.remove(&place)) else { return false };
        door.warn(&format!("refused {}: too many others came and said nothing", guest.peer("")), now);
        true
    }

    /// Those that the poll told of, and those that have taken too long.
    fn due(&mut self, now: Instant) -> Vec<usize> {
        let late = self.guests.iter().filter(|(_, guest)| guest.deadline() <= now).map(|(&place, _)| place);
        let late: Vec<usize> = late.collect();
        self.told.drain(..).chain(late).collect()
    }
}

impl Hub {
    /// Accepts clients, and listens to those that have come.
    pub(super) fn serve_vde(&mut self, index: usize, now: Instant) {
        for _ in 0..ACCEPTS {
            let Some((door, server)) = self.doors.vde(index) else { return };
            let Some(accepted) = server.entrance.accept(now) else { break };
            match accepted {
                Ok(socket) => self.receive_guest(index, socket, now),
                // Who comes now is more likely to say something than who has not for long.
                Err(error) if error.raw_os_error() == Some(EMFILE) && server.dismiss_oldest(door, now) => {
                    server.entrance.retry(now);
                }
                Err(error) => {
                    door.warn(&explain_accept(&error), now);
                    break;
                }
            }
        }
        let due = self.doors.vde(index).map(|(_, server)| server.due(now)).unwrap_or_default();
        for place in due {
            self.hear_guest(index, place, now);
        }
    }

    /// Receives a client, which has most often said already what it wants.
    fn receive_guest(&mut self, index: usize, socket: StreamSocket, now: Instant) {
        let StreamSocket::Unix(socket) = socket else { return };
        let peer = StreamSocket::peer_of(&socket);
        let registry = self.poll.registry();
        let Some((door, server)) = self.doors.vde(index) else { return };
        if server.guests.len() >= WAITING {
            server.dismiss_oldest(door, now);
        }
        let place = (0..).find(|place| !server.guests.contains_key(place)).unwrap_or_default();
        let received = Greeting::new(socket, now).and_then(|mut guest| {
            guest.register(registry, guest_token(index, place))?;
            Ok(guest)
        });
        match received {
            Ok(guest) => {
                server.guests.insert(place, guest);
                self.hear_guest(index, place, now);
            }
            Err(error) => door.warn(&format!("refused {peer}: {error}"), now),
        }
    }

    fn hear_guest(&mut self, index: usize, place: usize, now: Instant) {
        let Some((_, server)) = self.doors.vde(index) else { return };
        let Some(guest) = server.guests.get_mut(&place) else { return };
        let heard = match guest.hear() {
            Ok(None) if now < guest.deadline() => return,
            Ok(None) => Err(io::Error::new(io::ErrorKind::TimedOut, "it did not say in time what it wants")),
            Ok(Some(request)) => Ok(request),
            Err(error) => Err(error),
        };
        let Some(mut guest) = server.guests.remove(&place) else { return };
        // What can't be taken out of the poll leaves it with its descriptor.
        let _ = guest.deregister(self.poll.registry());
        let mut peer = guest.peer("");
        let plugged = heard.and_then(|request| {
            peer = guest.peer(&request.description);
            self.plug(index, guest, &request, now)
        });
        let Err(error) = plugged else { return };
        let Some((door, _)) = self.doors.vde(index) else { return };
        if error.kind() == io::ErrorKind::UnexpectedEof {
            log::debug!(door = door.shown.as_str(), peer:% = peer; "it came and went");
        } else {
            door.warn(&format!("refused {peer}: {error}"), now);
        }
    }

    /// Makes a port of a client.
    fn plug(&mut self, index: usize, guest: Greeting, request: &Request, now: Instant) -> io::Result<()> {
        if self.ports.slab.vacancy().is_none() {
            return Err(self.ports.slab.full());
        }
        let (door, server) = self.doors.vde(index).ok_or(io::ErrorKind::NotFound)?;
        let applicant = Applicant { uid: guest.uid(), groups: guest.groups()? };
        let number = server.plan.choose(request.port, &applicant).map_err(io::Error::other)?;
        let peer = guest.peer(&request.description);
        while is_short_of_descriptors() && server.dismiss_oldest(door, now) {}
        let link = server.switch.plug(guest, request, number)?;
        let (stem, options) = (door.stem(), door.options.clone());
        let name = self.names.numbered(&stem, number);
        let id = self.attach_as(name.clone(), Box::new(link), peer, options, now).inspect_err(|_| {
            self.names.release(&name);
        })?;
        let first = self.doors.vde(index).and_then(|(_, server)| server.plan.enter(number, id));
        if let Some(first) = first {
            self.bridge.share(id, first);
        }
        Ok(())
    }

    /// Closes the port `id` of a client.
    pub(super) fn close(&mut self, id: PortId, reason: &'static str) {
        if let Some(port) = self.ports.slab.get_mut(id) {
            port.end(io::Error::other(reason));
        }
        self.ports.settle(id);
    }
}

/// Are there not two descriptors left, as a client takes?
fn is_short_of_descriptors() -> bool {
    UnixDatagram::pair().is_err_and(|error| error.raw_os_error() == Some(EMFILE))
}

/// The poll's name for a client that has come to a door.
fn guest_token(index: usize, place: usize) -> Token {
    Token(door_token(index).0 + (place + 1) * GUESTS)
}
