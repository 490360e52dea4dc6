//! The loop: the only place where ports, bridge and doors meet, and the only reader of the clock.
//!
//! A turn takes what the poll told, flushes what can be written again, serves the ready ports one
//! batch each, and reaps the dead. Nothing below calls back up.

mod control;
mod datagrams;
mod door;
mod doors;
mod drain;
mod entrance;
mod names;
mod plan;
mod ports;
mod ready;
mod relay;
mod slab;
mod snapshot;
mod vde;

use std::io;
use std::time::{Duration, Instant};

use log::{Level, info, log, warn};
use mio::{Events, Poll, Registry, Token};

pub use control::{Endpoint, NumberedPort, PortTraffic, Station, SwitchState, Traffic};
pub use door::Door;
pub use plan::{PlannedPort, PortPlan};
pub use snapshot::{PortRow, Snapshot};

use crate::batch::FrameBatch;
use crate::bridge::{Bridge, BridgeConfig, MAX_PORTS, PortId, PortSet};
use crate::config::PortOptions;
use crate::link::{Arrival, Link, Peer};
use crate::port::{Counters, QUIET, YOUNG};
use doors::Doors;
use drain::Drain;
use names::Names;
use ports::{Gate, Ports, earlier};
use ready::Class;

/// How often aged stations are swept out of memory.
const SWEEP: Duration = Duration::from_secs(30);

/// Events taken from the poll at once.
const EVENTS: usize = 256;

/// The poll's tokens for sources that are not the hub's own: from here on.
pub const OUTSIDE: usize = usize::MAX / 2;

/// The time. The loop asks once a turn and hands the answer down.
#[expect(clippy::disallowed_methods, reason = "the one place that may")]
pub fn now() -> Instant {
    Instant::now()
}

/// What a hub is made with.
#[derive(Clone, Copy, Debug)]
pub struct HubConfig {
    /// How it forwards.
    pub bridge: BridgeConfig,
    /// The most ports, up to [`MAX_PORTS`].
    pub max_ports: usize,
    /// Octets of memory that all egress queues may hold together.
    pub memory: usize,
}

/// What became possible on a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// There may be something to receive.
    pub readable: bool,
    /// There may be room to send.
    pub writable: bool,
    /// The peer sends no more.
    pub read_closed: bool,
}

/// Which port went, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// The port.
    pub port: PortId,
    /// The kind of its reason: `UnexpectedEof` when its peer closed it.
    pub kind: io::ErrorKind,
    /// The reason, for people.
    pub reason: String,
}

/// A running hub.
#[derive(Debug)]
pub struct Hub {
    poll: Poll,
    events: Events,
    bridge: Bridge,
    batch: FrameBatch,
    ports: Ports,
    doors: Doors,
    names: Names,
    /// Ports that the poll called writable.
    writable: Vec<PortId>,
    /// Ports that somebody waits for since the last turn.
    waited_for: PortSet,
    /// Ports that may not be read in this turn, in their order.
    kept: Vec<PortId>,
    /// What a datagram server received, by its source; empty between servers.
    arrivals: Vec<Arrival>,
    /// The frames of the bundle that is being relayed, cut up; empty until somebody needs them.
    segments: Vec<u8>,
    /// Sends that whoever is being served has caused in this turn.
    deliveries: usize,
    wake: Option<Instant>,
    sweep: Option<Instant>,
    drain: Option<Drain>,
    /// The sum of all ports that are gone.
    departed: Counters,
    first_departure: Option<Departure>,
    conflict_warned: Option<Instant>,
    loop_warned: Option<Instant>,
    /// Frames received, times the ports that each was to leave by; one that was to leave by none
    /// counts once.
    copies: u64,
}

impl Hub {
    /// A hub without ports.
    ///
    /// # Errors
    ///
    /// When the system gives no poll.
    pub fn new(config: HubConfig) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            bridge: Bridge::new(config.bridge),
            batch: FrameBatch::default(),
            ports: Ports::new(config.max_ports, config.memory, registry),
            doors: Doors::default(),
            names: Names::default(),
            writable: Vec::new(),
            waited_for: PortSet::default(),
            kept: Vec::new(),
            arrivals: Vec::new(),
            segments: Vec::new(),
            deliveries: 0,
            wake: None,
            sweep: None,
            drain: None,
            departed: Counters::default(),
            first_departure: None,
            conflict_warned: None,
            loop_warned: None,
            copies: 0,
        })
    }

    /// The poll, for sources from outside; their tokens start at [`OUTSIDE`].
    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Adds a port for `link`. Its name is `stem` and the first free number.
    ///
    /// # Errors
    ///
    /// When there is no room, or the link can't be polled.
    pub fn attach(
        &mut self,
        stem: &str,
        link: Box<dyn Link>,
        peer: Peer,
        options: PortOptions,
        now: Instant,
    ) -> io::Result<PortId> {
        let name = self.names.number(stem);
        let attached = self.attach_as(name.clone(), link, peer, options, now);
        if attached.is_err() {
            self.names.release(&name);
        }
        attached
    }

    /// Adds a port under a name that was taken for it.
    fn attach_as(
        &mut self,
        name: String,
        link: Box<dyn Link>,
        peer: Peer,
        options: PortOptions,
        now: Instant,
    ) -> io::Result<PortId> {
        let id = self.ports.slab.vacancy().ok_or_else(|| self.ports.slab.full())?;
        let is_bus = link.is_bus();
        self.ports.insert(id, name.clone(), link, peer.clone(), options, now)?;
        if is_bus {
            self.bridge.attach_bus(id);
        } else {
            self.bridge.attach(id);
        }
        info!(port = name.as_str(), peer:% = peer; "port up");
        Ok(id)
    }

    /// Waits until the poll tells of something, for `timeout` at the most, and takes note of it;
    /// returns the tokens from outside that were among it.
    ///
    /// # Errors
    ///
    /// When the poll itself fails.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Vec<Token>> {
        let mut outside = Vec::new();
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(outside),
            other => other?,
        }
        for event in &self.events {
            let token = event.token();
            if token.0 >= OUTSIDE {
                outside.push(token);
            } else if let Some(id) = PortId::new(token.0) {
                let readiness = Readiness {
                    readable: event.is_readable() || event.is_read_closed() || event.is_error(),
                    // A pipe that is full when its reader goes is not writable ever after.
                    writable: event.is_writable() || event.is_write_closed(),
                    read_closed: event.is_read_closed(),
                };
                note(&mut self.ports, &mut self.writable, id, readiness);
            } else {
                self.doors.note(token.0 - MAX_PORTS, event.is_read_closed());
            }
        }
        Ok(outside)
    }

    /// Takes note of what a link says of itself that no poll watches.
    pub fn note(&mut self, id: PortId, readiness: Readiness) {
        note(&mut self.ports, &mut self.writable, id, readiness);
    }

    /// The first port that went.
    pub fn first_departure(&self) -> Option<&Departure> {
        self.first_departure.as_ref()
    }

    /// When the next turn is due, whatever the poll says: at once, at some time, or never.
    pub fn wake(&self) -> Option<Instant> {
        self.wake
    }

    /// One turn: everything in it happens at `now`.
    pub fn turn(&mut self, now: Instant) {
        self.charge_waiting(now);
        self.serve_doors(now);
        while let Some(id) = self.writable.pop() {
            self.ports.flush(id, now);
        }
        self.serve_ready(now);
        self.sweep(now);
        self.reap(now);
        self.wake = self.next_wake(now);
    }

    /// Time in which somebody waited for a port is that port's to pay.
    fn charge_waiting(&mut self, now: Instant) {
        for egress in self.waited_for.iter() {
            let Some(port) = self.ports.slab.get_mut(egress) else { continue };
            let is_news = port.warned.is_none_or(|warned| now.saturating_duration_since(warned) >= QUIET);
            if port.charge_pause(now) && is_news {
                port.warned = Some(now);
                warn!(
                    port = port.name.as_str(), peer:% = port.peer;
                    "its peer does not keep up; others no longer wait for it, and what its queue can't hold is dropped"
                );
            }
        }
    }

    /// One batch from each port that may be read: who was served goes behind those that wait.
    fn serve_ready(&mut self, now: Instant) {
        self.serve_class(Class::Urgent, now);
        self.serve_class(Class::Patient, now);
    }

    fn serve_class(&mut self, class: Class, now: Instant) {
        for _ in 0..self.ports.ready.len(class) {
            let Some(id) = self.ports.ready.pop(class) else { break };
            let is_shut = self.drain.is_none() && self.ports.may_receive(id, now) != Gate::Open;
            if is_shut || self.has_earlier(id) {
                self.kept.push(id);
                continue;
            }
            self.deliveries = 0;
            self.batch.clear(self.ports.batch_limit(id));
            if let Some(port) = self.ports.slab.get_mut(id) {
                port.is_listed = false;
                port.waiting = None;
                port.receive(&mut self.batch, now, &mut self.ports.memory);
                self.copies += port.count_lost(self.batch.lost());
            }
            self.relay(id, 0..self.batch.records().len(), now);
            while self.batch.refill() {
                self.relay(id, 0..self.batch.records().len(), now);
            }
            self.ports.settle(id);
        }
        while let Some(id) = self.kept.pop() {
            self.ports.ready.put_back(class, id);
        }
    }

    fn sweep(&mut self, now: Instant) {
        if self.sweep.is_some_and(|due| now >= due) {
            self.bridge.sweep(now);
            self.sweep = None;
        }
        if self.sweep.is_none() && self.bridge.has_stations() {
            self.sweep = Some(now + SWEEP);
        }
    }

    /// The only place where ports die.
    fn reap(&mut self, now: Instant) {
        while let Some(id) = self.ports.doomed.pop() {
            let Some(port) = self.ports.remove(id, now) else {
                continue;
            };
            self.bridge.detach(id);
            self.waited_for.remove(id);
            let counters = port.counters(now);
            self.departed.add(&counters);
            let kind = port.ended().map_or(io::ErrorKind::Other, io::Error::kind);
            let reason = port.ended().map_or_else(String::new, describe_end);
            let level = if kind == io::ErrorKind::InvalidData { Level::Warn } else { Level::Info };
            log!(level, port = port.name.as_str(), peer:% = port.peer, reason = reason.as_str(); "port down: {counters}");
            self.first_departure.get_or_insert(Departure { port: id, kind, reason });
            if !self.doors.forget(id, &counters, now) {
                self.names.release(&port.name);
            }
            self.retry_doors(now);
        }
    }

    fn next_wake(&mut self, now: Instant) -> Option<Instant> {
        let mut wake = earlier(self.sweep, self.doors.deadline(now));
        wake = earlier(wake, self.drain.as_ref().map(|drain| drain.deadline(&self.ports, now)));
        self.waited_for = PortSet::default();
        // Its room is used again.
        let mut ready = std::mem::take(&mut self.kept);
        ready.extend(self.ports.ready.iter());
        for id in ready.drain(..) {
            let gate = if self.drain.is_some() { Gate::Open } else { self.ports.may_receive(id, now) };
            match gate {
                Gate::Open => wake = Some(now),
                Gate::Shut { waits_for, until } => {
                    waits_for.iter().for_each(|egress| self.waited_for.insert(egress));
                    wake = earlier(wake, earlier(until, Some(now + YOUNG)));
                }
            }
        }
        self.kept = ready;
        wake
    }
}

fn note(ports: &mut Ports, writable: &mut Vec<PortId>, id: PortId, readiness: Readiness) {
    if readiness.writable {
        writable.push(id);
    }
    if readiness.readable
        && let Some(port) = ports.slab.get_mut(id)
    {
        port.note_readable(readiness.read_closed);
        ports.settle(id);
    }
}

fn describe_end(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "closed by its peer".to_owned();
    }
    error.to_string()
}
