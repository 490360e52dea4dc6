//! VDE switches: each client that has said what it wants becomes a port, or shares one.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::Instant;

use hub_protocol::vde::Request;
use log::debug;
use mio::Token;
use nix::libc::EMFILE;

use super::door::DoorFace;
use super::doors::{GUESTS, door_token, explain_accept};
use super::entrance::Entrance;
use super::plan::{Applicant, PortPlan};
use super::ports::earlier;
use super::{Hub, OUTSIDE};
use crate::link::{Greeting, Listener, StreamSocket, VdeSwitch};

/// Clients that may be about to say what they want; for one more, the one that has waited longest goes.
const WAITING: usize = 1024;

/// Clients that are received in one turn: each takes a good many system calls.
const WELCOMES: usize = 16;

/// Numbers of guests, after which they begin again: as many as the poll has names for.
const NUMBERS: usize = OUTSIDE / GUESTS - 2;

/// A VDE switch.
#[derive(Debug)]
pub(super) struct VdeServer {
    pub(super) entrance: Entrance,
    switch: VdeSwitch,
    pub(super) plan: PortPlan,
    /// Clients that have come and not yet said what they want, in the order of their coming.
    guests: BTreeMap<usize, Greeting>,
    /// How many came before the next one.
    came: usize,
    /// Those that the poll told of.
    told: Vec<usize>,
}

impl VdeServer {
    pub(super) fn new(switch: VdeSwitch, listener: Listener, ports: u16) -> Self {
        Self {
            entrance: Entrance::new(listener),
            switch,
            plan: PortPlan::new(ports),
            guests: BTreeMap::new(),
            came: 0,
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
        let first = self.guests.first_key_value().map(|(_, guest)| guest.deadline());
        earlier(earlier(self.entrance.deadline(now), told), first)
    }

    /// Sends away the guest that has waited longest, if there is one.
    fn dismiss_oldest(&mut self, door: &mut DoorFace, now: Instant) -> bool {
        let Some((_, guest)) = self.guests.pop_first() else { return false };
        door.refuse(&guest.peer(""), &"too many others came and said nothing", now);
        true
    }

    /// Those that the poll told of, and those that have taken too long.
    fn due(&mut self, now: Instant) -> Vec<usize> {
        let late = self.guests.iter().take_while(|(_, guest)| guest.deadline() <= now);
        self.told.drain(..).chain(late.map(|(&number, _)| number)).collect()
    }
}

impl Hub {
    /// Accepts clients, and listens to those that have come.
    pub(super) fn serve_vde(&mut self, index: usize, now: Instant) {
        for _ in 0..WELCOMES {
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
        for number in due {
            self.hear_guest(index, number, now);
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
        // A number is hardly ever given twice, so that what the poll tells late is about nobody.
        let number = server.came;
        server.came = (number + 1) % NUMBERS;
        let received = Greeting::new(socket, now).and_then(|mut guest| {
            guest.register(registry, guest_token(index, number))?;
            Ok(guest)
        });
        match received {
            Ok(guest) => {
                server.guests.insert(number, guest);
                self.hear_guest(index, number, now);
            }
            Err(error) => door.refuse(&peer, &error, now),
        }
    }

    fn hear_guest(&mut self, index: usize, number: usize, now: Instant) {
        let Some((_, server)) = self.doors.vde(index) else { return };
        let Some(guest) = server.guests.get_mut(&number) else { return };
        let heard = match guest.hear() {
            Ok(None) if now < guest.deadline() => return,
            Ok(None) => Err(io::Error::new(io::ErrorKind::TimedOut, "it did not say in time what it wants")),
            Ok(Some(request)) => Ok(request),
            Err(error) => Err(error),
        };
        let Some(mut guest) = server.guests.remove(&number) else { return };
        // What can't be taken out of the poll leaves it with its descriptor.
        let _ = guest.deregister(self.poll.registry());
        let mut peer = guest.peer("");
        let plugged = heard.and_then(|request| {
            peer = guest.peer(&request.description);
            self.plug(index, guest, &request, now)
        });
        let Err(error) = plugged else { return };
        let Some((door, _)) = self.doors.vde(index) else { return };
        if is_departure(&error) {
            debug!(door = door.shown.as_str(), peer:% = peer; "it came and went: {error}");
        } else {
            door.refuse(&peer, &error, now);
        }
    }

    /// Makes a port of a client.
    fn plug(&mut self, index: usize, guest: Greeting, request: &Request, now: Instant) -> io::Result<()> {
        if self.ports.slab.vacancy().is_none() {
            return Err(self.ports.slab.full());
        }
        let (door, server) = self.doors.vde(index).ok_or(io::ErrorKind::NotFound)?;
        let groups = if server.plan.has_groups() { guest.groups()? } else { Vec::new() };
        let applicant = Applicant { uid: guest.uid(), groups };
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
}

/// Is this the end of a client that did not wait for its answer?
fn is_departure(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// Are there not two descriptors left, as a client takes?
fn is_short_of_descriptors() -> bool {
    UnixDatagram::pair().is_err_and(|error| error.raw_os_error() == Some(EMFILE))
}

/// The poll's name for the guest of this number at a door.
fn guest_token(index: usize, number: usize) -> Token {
    Token(door_token(index).0 + (number + 1) * GUESTS)
}
