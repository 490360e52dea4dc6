//! The ports, and what they share: the memory of their queues, the list of those that are ready,
//! and the list of those that are to die.

use std::io;
use std::time::Instant;

use mio::{Registry, Token};

use super::ready::{Class, Ready};
use super::slab::Slab;
use crate::batch::{ARENA, Bundle, Load, Run, SHORT};
use crate::bridge::{PortId, PortSet};
use crate::config::PortOptions;
use crate::link::{Link, Peer};
use crate::port::{Memory, Port};

/// What one search for the longest queue frees at the least, so that searches are rare.
const SHED: usize = 256 * 1024;

/// Short frames that one batch holds at the most.
const BATCH_FRAMES: usize = 2048;

/// All ports of a hub.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) slab: Slab,
    pub(super) memory: Memory,
    /// Ports that may have something to receive.
    pub(super) ready: Ready,
    /// Ports that have ended since the last reaping; some may be named twice.
    pub(super) doomed: Vec<PortId>,
    pub(super) registry: Registry,
}

impl Ports {
    pub(super) fn new(limit: usize, memory: usize, registry: Registry) -> Self {
        Self {
            slab: Slab::new(limit),
            memory: Memory::new(memory),
            ready: Ready::default(),
            doomed: Vec::new(),
            registry,
        }
    }

    /// Makes a port in the place `id`, which is vacant.
    pub(super) fn insert(
        &mut self,
        id: PortId,
        name: String,
        link: Box<dyn Link>,
        peer: Peer,
        options: PortOptions,
        now: Instant,
    ) -> io::Result<()> {
        let port = Port::new(name, link, peer, options, &self.registry, token(id), now)?;
        self.slab.insert(id, port);
        Ok(())
    }

    /// Sends `load` out of `egress`, or queues what does not go at once. Bundles are cut up in `segments`,
    /// unless that has been done before.
    pub(super) fn deliver(&mut self, egress: PortId, load: Load<'_>, segments: &mut Vec<u8>, now: Instant) {
        match load {
            Load::Run(run) => self.deliver_run(egress, run, now),
            Load::Bundle(bundle) if self.deliver_bundle(egress, &bundle, now) => {}
            Load::Bundle(bundle) => {
                if segments.is_empty() {
                    bundle.segment(segments);
                }
                let run = Run { records: segments, frames: bundle.extent().frames };
                self.deliver_run(egress, run, now);
            }
        }
    }

    /// Sends a bundle as it is; false where that is not possible.
    fn deliver_bundle(&mut self, egress: PortId, bundle: &Bundle<'_>, now: Instant) -> bool {
        self.slab.get_mut(egress).is_some_and(|port| port.send_bundle(bundle, now))
    }

    fn deliver_run(&mut self, egress: PortId, run: Run<'_>, now: Instant) {
        let Some(port) = self.slab.get_mut(egress) else {
            return;
        };
        let mut edited = Vec::new();
        let run = port.admit(run, &mut edited);
        let rest = port.send(run, now);
        if rest.frames > 0 {
            let fitting = port.fit(rest, now);
            let cost = port.queue_cost(fitting);
            self.make_room(cost, now);
            if let Some(port) = self.slab.get_mut(egress) {
                port.enqueue(fitting, now, &mut self.memory);
            }
        }
        self.settle(egress);
    }

    /// Keeps the rest of a batch for its port's next turn, an arena of it at the most. Returns how
    /// many frames were too many, and dropped.
    pub(super) fn hold(&mut self, id: PortId, records: &[u8], now: Instant) -> usize {
        if records.is_empty() {
            return 0;
        }
        let Some(port) = self.slab.get_mut(id) else { return 0 };
        // What will not be kept needs no room.
        let room = ARENA.saturating_sub(port.held());
        self.make_room(records.len().min(room), now);
        let Some(port) = self.slab.get_mut(id) else { return 0 };
        let lost = port.hold(records, &mut self.memory);
        self.settle(id);
        lost
    }

    /// Sends what waits at `id`.
    pub(super) fn flush(&mut self, id: PortId, now: Instant) {
        if let Some(port) = self.slab.get_mut(id) {
            port.flush(now, &mut self.memory);
            self.settle(id);
        }
    }

    /// Draws the consequences of what a port went through: what it is polled for, and on which
    /// list it stands.
    pub(super) fn settle(&mut self, id: PortId) {
        let Some(port) = self.slab.get_mut(id) else { return };
        port.update_poll(&self.registry, token(id));
        if port.ended().is_some() {
            self.doomed.push(id);
        } else if port.is_readable() && !port.is_listed {
            port.is_listed = true;
            let class = if port.patience().is_some() { Class::Urgent } else { Class::Patient };
            self.ready.push(class, id);
        }
    }

    /// Takes a dead port out, and out of what others wait for.
    pub(super) fn remove(&mut self, id: PortId, now: Instant) -> Option<Port> {
        let mut port = self.slab.remove(id)?;
        port.close(&self.registry, now, &mut self.memory);
        if port.is_listed {
            self.ready.remove(id);
        }
        for (_, other) in self.slab.iter_mut() {
            other.awaited.remove(id);
        }
        Some(port)
    }

    /// When the memory of all queues is spent, the longest one drops.
    fn make_room(&mut self, cost: usize, now: Instant) {
        while self.memory.excess(cost) > 0 {
            let longest = self.slab.iter_mut().max_by_key(|(_, port)| port.allocated());
            let Some((id, port)) = longest.filter(|(_, port)| port.allocated() > 0) else { return };
            port.shed(SHED, now, &mut self.memory);
            self.settle(id);
        }
    }

    /// How many octets are to be read from `ingress` at once: few when it may wait for others that
    /// have a backlog, and no more short frames than a receiver takes in a few milliseconds.
    pub(super) fn batch_limit(&self, ingress: PortId) -> usize {
        let Some(port) = self.slab.get(ingress) else { return ARENA };
        let has_backlog = |id| self.slab.get(id).is_some_and(|port| port.queued() > 0);
        if port.awaited.iter().any(has_backlog) {
            return SHORT;
        }
        (BATCH_FRAMES * port.usual_record).clamp(SHORT, ARENA)
    }

    /// May `ingress` be read now? While everything that it was last unicast to is congested, it
    /// waits: its peer then stops sending, and nothing is lost. Nobody waits for an overloaded port,
    /// and its presence among the others does not cost these their frames.
    pub(super) fn may_receive(&mut self, ingress: PortId, now: Instant) -> Gate {
        let Some(port) = self.slab.get_mut(ingress) else {
            return Gate::Open;
        };
        let awaited = port.awaited;
        let mut until: Option<Instant> = None;
        let mut waits_for = PortSet::default();
        for id in awaited.iter() {
            let Some(egress) = self.slab.get_mut(id) else { continue };
            if egress.is_overloaded(now) {
                continue;
            }
            if !egress.is_congested() {
                return Gate::Open;
            }
            until = earlier(until, egress.pause_deadline(now));
            waits_for.insert(id);
        }
        let Some(port) = self.slab.get_mut(ingress).filter(|_| !waits_for.is_empty()) else {
            return Gate::Open;
        };
        let since = *port.waiting.get_or_insert(now);
        if let Some(patience) = port.patience() {
            let limit = since + patience;
            if now >= limit {
                return Gate::Open;
            }
            until = earlier(until, Some(limit));
        }
        Gate::Shut { waits_for, until }
    }
}

/// The answer of [`Ports::may_receive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// It may be read.
    Open,
    /// It waits.
    Shut {
        /// For these.
        waits_for: PortSet,
        /// At the latest until then.
        until: Option<Instant>,
    },
}

/// The earlier of two moments that may not come.
pub(super) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    a.into_iter().chain(b).min()
}

/// The poll's name for a port.
pub(super) fn token(id: PortId) -> Token {
    Token(id.index())
}
