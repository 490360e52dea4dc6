//! Datagram servers: each source that they hear becomes a port, up to a limit, and stays one until its
//! place is needed; or there is one port from the start, and no other.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use hub_protocol::stream;

use super::Hub;
use super::doors::door_token;
use crate::batch::ARENA;
use crate::bridge::PortId;
use crate::config::PeerLimits;
use crate::discard::{DiscardReason, Drops};
use crate::link::{Arrival, DatagramServer, Received, Source, is_own_address};
use crate::port::as_u64;

/// New sources that one receive may find no port for, before all others of it are refused unseen: to
/// look at one may take long.
const REFUSALS: usize = 4;

/// Receives after which a server has nothing left that came before a peer was met.
const EARLIER: u64 = 8;

/// A peer of a server.
#[derive(Clone, Copy, Debug)]
struct Member {
    port: PortId,
    /// The receive in which it was met.
    met: u64,
    /// Was it given the server's socket? In a later receive the server does not hear it any more.
    is_given: bool,
}

/// A datagram server and its peers.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) socket: DatagramServer,
    limits: PeerLimits,
    peers: BTreeMap<Source, Member>,
    /// What was lost of those that are no ports.
    pub(super) drops: Drops,
    /// Receives so far.
    receives: u64,
    /// Is there anything to receive, as far as the poll told?
    pub(super) ready: bool,
    /// Was its socket shut down by whoever else has it? Then there is nothing to receive for ever.
    pub(super) is_shut: bool,
    /// Until then no peer has been silent for long enough to give way.
    settled: Option<Instant>,
}

impl Server {
    pub(super) fn new(socket: DatagramServer, limits: PeerLimits) -> Self {
        Self {
            socket,
            limits,
            peers: BTreeMap::new(),
            drops: Drops::default(),
            receives: EARLIER,
            ready: false,
            is_shut: false,
            settled: None,
        }
    }

    /// May this server have earlier datagrams of port `id` than the port's own socket? It has only
    /// what came before they met.
    fn has_earlier(&self, id: PortId) -> bool {
        let is_new = |member: &Member| member.port == id && self.receives - member.met < EARLIER;
        self.ready && self.peers.values().any(is_new)
    }

    /// The port of a peer is gone.
    pub(super) fn forget(&mut self, id: PortId) {
        self.peers.retain(|_, member| member.port != id);
    }

    /// Is `source` this server's own address?
    pub(super) fn is_at(&self, source: &Source) -> bool {
        match (self.socket.local(), source) {
            (Some(Source::Udp(local)), Source::Udp(source)) => {
                local.port() == source.port()
                    && (local.ip() == source.ip()
                        || local.ip().is_unspecified() && is_own_address(source.ip()))
            }
            (local, source) => local.as_ref() == Some(source),
        }
    }

    /// Does this one send to `other` for sure?
    pub(super) fn leads_to(&self, other: &Self) -> bool {
        self.socket.only().is_some_and(|only| other.is_at(only))
    }
}

impl Hub {
    /// Makes the port of a server that has one peer only.
    pub(super) fn add_only_peer(&mut self, index: usize, name: String, now: Instant) -> io::Result<()> {
        let Some((door, server)) = self.doors.server(index) else { return Ok(()) };
        let Some(peer) = server.socket.only().cloned() else { return Ok(()) };
        let link = server.socket.link_to(&peer, self.poll.registry(), door_token(index))?;
        let options = door.options.clone();
        let port = self.attach_as(name, Box::new(link), peer.peer(), options, now)?;
        if let Some((_, server)) = self.doors.server(index) {
            server.peers.insert(peer, Member { port, met: 0, is_given: false });
        }
        Ok(())
    }

    /// Receives what a server has, and relays it as its peers' ports.
    pub(super) fn serve_datagrams(&mut self, index: usize, now: Instant) {
        let Some((door, server)) = self.doors.server(index).filter(|(_, server)| server.ready) else {
            return;
        };
        if !server.socket.has_backlog() {
            server.receives += 1;
        }
        self.batch.clear(ARENA);
        self.deliveries = 0;
        let mut arrivals = std::mem::take(&mut self.arrivals);
        let received = server.socket.receive(&mut self.batch, &mut arrivals);
        server.ready = matches!(received, Ok(Received::More));
        server.drops.merge(self.batch.lost());
        if let Err(error) = received {
            door.warn(&format!("can't receive: {error}"), now);
        }
        let mut refusals = 0;
        for Arrival { source, records } in arrivals.drain(..) {
            if let Some(id) = self.port_of(index, &source, refusals < REFUSALS, now) {
                self.relay(id, records, now);
                continue;
            }
            refusals += 1;
            let frames = stream::count(&self.batch.records()[records]);
            if let Some((_, server)) = self.doors.server(index) {
                server.drops.add(DiscardReason::NoPlace, as_u64(frames));
            }
        }
        self.arrivals = arrivals;
        if let Some((_, server)) = self.doors.server(index) {
            server.ready |= server.socket.has_backlog();
        }
    }

    /// May a server still have earlier datagrams of port `id` than its own socket? What the port
    /// holds is earlier still.
    pub(super) fn has_earlier(&self, id: PortId) -> bool {
        self.ports.slab.get(id).is_some_and(|port| port.held() == 0)
            && self.doors.servers().any(|(_, server)| server.has_earlier(id))
    }

    /// The port of a source that was just heard, made when it is a new one and `may_be_new`.
    fn port_of(&mut self, index: usize, source: &Source, may_be_new: bool, now: Instant) -> Option<PortId> {
        let (_, server) = self.doors.server(index)?;
        if let Some(&Member { port: id, met, is_given }) = server.peers.get(source) {
            if !is_given || met == server.receives {
                if let Some(port) = self.ports.slab.get_mut(id) {
                    port.note_heard(now);
                }
                return Some(id);
            }
            // It had another socket to send to: this is its next life.
            self.dismiss(index, source, "it came again", now);
        }
        if !may_be_new {
            return None;
        }
        match self.meet(index, source, now) {
            Ok(id) => Some(id),
            Err(error) => {
                let (door, _) = self.doors.server(index)?;
                door.warn(&format!("refused {}: {error}", source.peer()), now);
                None
            }
        }
    }

    /// Makes a port of a new peer, in the place of one that has been silent for long, if there is no
    /// other.
    fn meet(&mut self, index: usize, source: &Source, now: Instant) -> io::Result<PortId> {
        if self.doors.servers().any(|(_, server)| server.is_at(source)) {
            return Err(io::Error::other(
                "it is a port of this hub, which makes a loop; leave out one of the two",
            ));
        }
        let no_place =
            || io::Error::other("no place for another peer; raise max-peers= or --max-ports, or lower idle=");
        let silent = self.place(index, now).ok_or_else(no_place)?;
        let (door, server) = self.doors.server(index).ok_or(io::ErrorKind::NotFound)?;
        let link = server.socket.link_to(source, self.poll.registry(), door_token(index))?;
        let (met, is_given) = (server.receives, link.is_pair());
        let (stem, options) = (door.stem(), door.options.clone());
        if let Some(silent) = silent {
            self.dismiss(index, &silent, "its place was needed", now);
        }
        let port = self.attach(&stem, Box::new(link), source.peer(), options, now)?;
        if let Some((_, server)) = self.doors.server(index) {
            server.peers.insert(source.clone(), Member { port, met, is_given });
        }
        Ok(port)
    }

    /// Is there a place for one more peer? Then says who has to give way for it, if somebody has to:
    /// the one that has been silent longest, and for long enough.
    fn place(&mut self, index: usize, now: Instant) -> Option<Option<Source>> {
        let (_, server) = self.doors.server(index)?;
        if server.peers.len() < server.limits.max && self.ports.slab.vacancy().is_some() {
            return Some(None);
        }
        if server.settled.is_some_and(|until| now < until) {
            return None;
        }
        // Who is listed has something to say in this turn.
        let heard = |id: PortId| {
            let port = self.ports.slab.get(id).filter(|port| !port.is_listed);
            port.map_or(now, |port| port.heard)
        };
        let silent = server.peers.iter().map(|(source, member)| (heard(member.port), source)).min();
        let (heard, source) = silent.map(|(heard, source)| (heard, source.clone()))?;
        server.settled = Some(heard + server.limits.idle).filter(|&until| now < until);
        server.settled.is_none().then_some(Some(source))
    }

    /// Ends the port of a peer, so that there is room for another at once.
    fn dismiss(&mut self, index: usize, source: &Source, reason: &'static str, now: Instant) {
        let Some((_, server)) = self.doors.server(index) else { return };
        let Some(Member { port: id, .. }) = server.peers.remove(source) else { return };
        if let Some(port) = self.ports.slab.get_mut(id) {
            port.end(io::Error::other(reason));
        }
        self.ports.settle(id);
        self.reap(now);
    }
}
