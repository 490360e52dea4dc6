//! Datagram servers: each source that they hear becomes a port, up to a limit, and stays one until its
//! place is needed.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use hub_protocol::stream;
use log::info;

use super::Hub;
use super::doors::door_token;
use crate::batch::ARENA;
use crate::bridge::PortId;
use crate::config::PeerLimits;
use crate::discard::{DiscardReason, Drops};
use crate::link::{Arrival, DatagramServer, Received, Source};
use crate::port::as_u64;

/// A datagram server and its peers.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) socket: DatagramServer,
    limits: PeerLimits,
    peers: BTreeMap<Source, PortId>,
    /// What was lost of those that are no ports.
    pub(super) drops: Drops,
    /// Is there anything to receive, as far as the poll told?
    pub(super) ready: bool,
    /// Until then no peer has been silent for long enough to give way.
    settled: Option<Instant>,
}

impl Server {
    pub(super) fn new(socket: DatagramServer, limits: PeerLimits) -> Self {
        Self { socket, limits, peers: BTreeMap::new(), drops: Drops::default(), ready: false, settled: None }
    }

    /// The port of a peer is gone.
    pub(super) fn forget(&mut self, id: PortId) {
        self.peers.retain(|_, port| *port != id);
    }

    /// Would a frame come back, when this and `other` are in one hub?
    pub(super) fn leads_to(&self, other: &Self) -> bool {
        match (self.socket.only(), other.socket.local()) {
            (Some(Source::Udp(remote)), Some(Source::Udp(local))) => {
                let is_here =
                    local.ip() == remote.ip() || local.ip().is_unspecified() && remote.ip().is_loopback();
                is_here && local.port() == remote.port()
            }
            (remote, local) => remote.is_some() && remote == local.as_ref(),
        }
    }
}

impl Hub {
    /// Makes the port of a server that has one peer only.
    pub(super) fn add_only_peer(&mut self, index: usize, name: String, now: Instant) -> io::Result<()> {
        let Some((door, server)) = self.doors.server(index) else { return Ok(()) };
        let Some(peer) = server.socket.only().cloned() else { return Ok(()) };
        let link = server.socket.link_to(&peer, self.poll.registry(), door_token(index))?;
        let options = door.options.clone();
        let id = self.attach_as(name, Box::new(link), peer.peer(), options, now)?;
        if let Some((_, server)) = self.doors.server(index) {
            server.peers.insert(peer, id);
        }
        Ok(())
    }

    /// Receives what a server has, and relays it as its peers' ports.
    pub(super) fn serve_datagrams(&mut self, index: usize, now: Instant) {
        let Some((door, server)) = self.doors.server(index).filter(|(_, server)| server.ready) else {
            return;
        };
        self.batch.clear(ARENA);
        let mut arrivals = std::mem::take(&mut self.arrivals);
        let received = server.socket.receive(&mut self.batch, &mut arrivals);
        server.ready = matches!(received, Ok(Received::More));
        server.drops.merge(self.batch.lost());
        if let Err(error) = received {
            door.warn(&format!("can't receive: {error}"), now);
        }
        for Arrival { source, records } in arrivals.drain(..) {
            match self.port_of(index, &source, now) {
                Some(id) => self.relay(id, records, now),
                None => {
                    let frames = stream::count(&self.batch.records()[records]);
                    if let Some((_, server)) = self.doors.server(index) {
                        server.drops.add(DiscardReason::NoPlace, as_u64(frames));
                    }
                }
            }
        }
        self.arrivals = arrivals;
    }

    /// The port of a source that was just heard, made when it is a new one.
    fn port_of(&mut self, index: usize, source: &Source, now: Instant) -> Option<PortId> {
        let (_, server) = self.doors.server(index)?;
        if let Some(&id) = server.peers.get(source) {
            if let Some(port) = self.ports.slab.get_mut(id) {
                port.heard = now;
            }
            return Some(id);
        }
        let met = if self.make_place(index, now) {
            self.meet(index, source, now)
        } else {
            Err(io::Error::other("no place for another peer; raise max-peers=, or lower idle="))
        };
        let (door, server) = self.doors.server(index)?;
        match met {
            Ok(id) => {
                server.peers.insert(source.clone(), id);
                Some(id)
            }
            Err(error) => {
                door.warn(&format!("refused {}: {error}", source.peer()), now);
                None
            }
        }
    }

    /// Makes a port of a new peer.
    fn meet(&mut self, index: usize, source: &Source, now: Instant) -> io::Result<PortId> {
        let Some((door, server)) = self.doors.server(index) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let link = server.socket.link_to(source, self.poll.registry(), door_token(index))?;
        let (stem, options) = (door.stem(), door.options.clone());
        self.attach(&stem, Box::new(link), source.peer(), options, now)
    }

    /// Is there a place for one more peer? The one that has been silent longest, and for long
    /// enough, gives way.
    fn make_place(&mut self, index: usize, now: Instant) -> bool {
        let Some((_, server)) = self.doors.server(index) else { return false };
        if server.peers.len() < server.limits.max {
            return true;
        }
        if server.settled.is_some_and(|until| now < until) {
            return false;
        }
        let heard = |id: PortId| self.ports.slab.get(id).map_or(now, |port| port.heard);
        let silent = server.peers.iter().map(|(source, &id)| (heard(id), id, source.clone())).min();
        let Some((heard, id, source)) = silent else { return false };
        if now < heard + server.limits.idle {
            server.settled = Some(heard + server.limits.idle);
            return false;
        }
        server.peers.remove(&source);
        if let Some(port) = self.ports.slab.get_mut(id) {
            info!(port = port.name.as_str(), peer:% = port.peer; "silent for long, gives way to a new peer");
            port.end(io::Error::other("its place was needed"));
        }
        self.ports.settle(id);
        true
    }
}
