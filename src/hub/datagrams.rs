//! Datagram servers: each source that they hear becomes a port, up to a limit, and stays one until its
//! place is needed.

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
use crate::link::{Arrival, DatagramServer, Received, Source};
use crate::port::as_u64;

/// A peer of a server.
#[derive(Clone, Copy, Debug)]
struct Member {
    port: PortId,
    /// The receive in which it was given the server's socket: in a later one the server does not hear
    /// it any more.
    given: Option<u64>,
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
            receives: 0,
            ready: false,
            settled: None,
        }
    }

    /// Is `id` the port of a peer?
    fn has(&self, id: PortId) -> bool {
        self.peers.values().any(|member| member.port == id)
    }

    /// The port of a peer is gone.
    pub(super) fn forget(&mut self, id: PortId) {
        self.peers.retain(|_, member| member.port != id);
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
        let port = self.attach_as(name, Box::new(link), peer.peer(), options, now)?;
        if let Some((_, server)) = self.doors.server(index) {
            server.peers.insert(peer, Member { port, given: None });
        }
        Ok(())
    }

    /// Receives what a server has, and relays it as its peers' ports.
    pub(super) fn serve_datagrams(&mut self, index: usize, now: Instant) {
        let Some((door, server)) = self.doors.server(index).filter(|(_, server)| server.ready) else {
            return;
        };
        self.batch.clear(ARENA);
        self.deliveries = 0;
        let mut arrivals = std::mem::take(&mut self.arrivals);
        let received = server.socket.receive(&mut self.batch, &mut arrivals);
        server.receives += 1;
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

    /// May a server still have earlier datagrams of port `id` than its own socket? What the port
    /// holds is earlier still.
    pub(super) fn has_earlier(&self, id: PortId) -> bool {
        self.ports.slab.get(id).is_some_and(|port| port.held() == 0)
            && self.doors.servers().any(|server| server.ready && server.has(id))
    }

    /// The port of a source that was just heard, made when it is a new one.
    fn port_of(&mut self, index: usize, source: &Source, now: Instant) -> Option<PortId> {
        let (_, server) = self.doors.server(index)?;
        if let Some(&Member { port: id, given }) = server.peers.get(source) {
            if given.is_none_or(|given| given == server.receives) {
                if let Some(port) = self.ports.slab.get_mut(id) {
                    port.heard = now;
                }
                return Some(id);
            }
            // It had another socket to send to: this is its next life.
            self.dismiss(index, source, "it came again", now);
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
        let no_place = || io::Error::other("no place for another peer; raise max-peers=, or lower idle=");
        let silent = self.place(index, now).ok_or_else(no_place)?;
        let (door, server) = self.doors.server(index).ok_or(io::ErrorKind::NotFound)?;
        let link = server.socket.link_to(source, self.poll.registry(), door_token(index))?;
        let given = link.is_pair().then_some(server.receives);
        let (stem, options) = (door.stem(), door.options.clone());
        if let Some(silent) = silent {
            self.dismiss(index, &silent, "its place was needed", now);
        }
        let port = self.attach(&stem, Box::new(link), source.peer(), options, now)?;
        if let Some((_, server)) = self.doors.server(index) {
            server.peers.insert(source.clone(), Member { port, given });
        }
        Ok(port)
    }

    /// Is there a place for one more peer? Then says who has to give way for it, if somebody has to:
    /// the one that has been silent longest, and for long enough.
    fn place(&mut self, index: usize, now: Instant) -> Option<Option<Source>> {
        let (_, server) = self.doors.server(index)?;
        if server.peers.len() < server.limits.max {
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
