//! What somebody at a console asks a switch with numbered ports, and changes.

use std::io;
use std::ops::{AddAssign, Sub};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hub_protocol::mac::Mac;
use nix::errno::Errno;

use super::plan::{Applicant, PlannedPort, PortPlan};
use super::{Door, Hub};
use crate::bridge::{FdbRow, MAX_PORTS, Mode, PortId};
use crate::link::Peer;
use crate::port::Counters;

/// Frames and their octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames.
    pub frames: u64,
    /// Their octets.
    pub octets: u64,
}

/// What went through a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortTraffic {
    /// What came in.
    pub received: Traffic,
    /// What went out.
    pub sent: Traffic,
    /// Frames of its clients, and copies for them, that were dropped.
    pub dropped: u64,
}

/// A switch at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchState {
    /// How it forwards.
    pub mode: Mode,
    /// How long a silent station is remembered.
    pub ageing: Duration,
    /// The most stations that are remembered.
    pub fdb_max: usize,
    /// The highest number of a port.
    pub limit: u16,
    /// Its ports, by their numbers.
    pub ports: Vec<NumberedPort>,
}

/// A numbered port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberedPort {
    /// Its number.
    pub number: u16,
    /// May who asks for no number get it?
    pub is_allocatable: bool,
    /// Is somebody plugged in?
    pub is_active: bool,
    /// Who else than root may join it, if not everybody.
    pub user: Option<u32>,
    /// The users of which group may.
    pub group: Option<u32>,
    /// What went through it since its counters were reset.
    pub traffic: PortTraffic,
    /// Who is plugged in.
    pub endpoints: Vec<Endpoint>,
}

/// Somebody at a numbered port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its number among all of the switch, used again when it is gone.
    pub id: usize,
    /// Who it is.
    pub peer: Peer,
}

/// A station that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Station {
    /// VID of the outer tag; 0 for untagged.
    pub vid: u16,
    /// Its address.
    pub mac: Mac,
    /// The number of its port.
    pub port: u16,
    /// How long ago it was heard.
    pub age: Duration,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.octets += other.octets;
    }
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            frames: self.frames.saturating_sub(other.frames),
            octets: self.octets.saturating_sub(other.octets),
        }
    }
}

impl AddAssign for PortTraffic {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.sent += other.sent;
        self.dropped += other.dropped;
    }
}

impl Sub for PortTraffic {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            received: self.received - other.received,
            sent: self.sent - other.sent,
            dropped: self.dropped.saturating_sub(other.dropped),
        }
    }
}

impl From<&Counters> for PortTraffic {
    fn from(counters: &Counters) -> Self {
        Self {
            received: Traffic { frames: counters.rx_frames, octets: counters.rx_bytes },
            sent: Traffic { frames: counters.tx_frames, octets: counters.tx_bytes },
            dropped: counters.drops.total(),
        }
    }
}

impl Hub {
    /// Adds a door whose link is there from the start, as a numbered port of the VDE switch that was added
    /// before.
    ///
    /// # Errors
    ///
    /// As for [`Self::add`], and when no number is free.
    pub fn add_numbered(&mut self, door: Door, now: Instant) -> Result<()> {
        let shown = door.face.shown.clone();
        let Some(id) = self.add(door, now)? else {
            bail!("port {shown}: it is no port yet, so it has no number");
        };
        let plan = self.plan().with_context(|| format!("port {shown}: there is no VDE switch"))?;
        let number = plan.choose(None, &Applicant::default()).with_context(|| format!("port {shown}"))?;
        plan.enter(number, id);
        Ok(())
    }

    /// The state of its VDE switch at `now`; `None` when there is none.
    pub fn state(&self, now: Instant) -> Option<SwitchState> {
        let plan = &self.doors.switch()?.plan;
        let (ageing, fdb_max) = self.bridge.memory();
        let ports = plan.ports().map(|(number, port)| NumberedPort {
            number,
            is_allocatable: port.is_allocatable,
            is_active: port.is_active(),
            user: port.user,
            group: port.group,
            traffic: self.traffic(port, now) - port.reset,
            endpoints: port.members.iter().filter_map(|&id| self.endpoint(id)).collect(),
        });
        Some(SwitchState {
            mode: self.bridge.mode(),
            ageing,
            fdb_max,
            limit: plan.limit(),
            ports: ports.collect(),
        })
    }

    /// The stations that its VDE switch remembers at `now`, by VID and address; `None` when there is none.
    pub fn stations(&self, now: Instant) -> Option<Vec<Station>> {
        let plan = &self.doors.switch()?.plan;
        let mut numbers = [None; MAX_PORTS];
        for (number, port) in plan.ports() {
            port.members.iter().for_each(|id| numbers[id.index()] = Some(number));
        }
        let station = |row: FdbRow| {
            let port = numbers[row.port.index()]?;
            Some(Station { vid: row.vid, mac: row.mac, port, age: row.age })
        };
        Some(self.bridge.fdb_rows(now).into_iter().filter_map(station).collect())
    }

    /// One of these stations.
    pub fn station(&self, vid: u16, mac: Mac, now: Instant) -> Option<Station> {
        let FdbRow { port, age, .. } = self.bridge.fdb_row(vid, mac, now)?;
        let port = self.doors.switch()?.plan.number_of(port)?;
        Some(Station { vid, mac, port, age })
    }

    /// How often a station came, moved or went: while this stays the same, so do they. One that has aged out goes with
    /// the next sweep.
    pub fn station_changes(&self) -> u64 {
        self.bridge.fdb_changes()
    }

    /// The numbered ports of its VDE switch; `None` when there is none.
    pub fn plan(&mut self) -> Option<&mut PortPlan> {
        self.doors.switch_mut().map(|server| &mut server.plan)
    }

    /// Changes how frames are forwarded.
    pub fn set_mode(&mut self, mode: Mode) {
        self.bridge.set_mode(mode);
    }

    /// Changes how long a silent station is remembered, and how many stations are.
    pub fn set_memory(&mut self, ageing: Duration, fdb_max: usize) {
        self.bridge.set_memory(ageing, fdb_max);
    }

    /// Closes an endpoint of the port `number`.
    ///
    /// # Errors
    ///
    /// `ENXIO` when there is none.
    pub fn close_endpoint(&mut self, number: u16, id: usize) -> Result<(), Errno> {
        let port = self.plan().ok_or(Errno::ENXIO)?.port_mut(number)?;
        let id = PortId::new(id).filter(|id| port.members.contains(id)).ok_or(Errno::ENXIO)?;
        if let Some(port) = self.ports.slab.get_mut(id) {
            port.end(io::Error::other("closed at the console"));
        }
        self.ports.settle(id);
        Ok(())
    }

    /// Lets a port count from here on, or all of them.
    ///
    /// # Errors
    ///
    /// `ENXIO` when there is none.
    pub fn reset_counters(&mut self, number: Option<u16>, now: Instant) -> Result<(), Errno> {
        let plan = &self.doors.switch().ok_or(Errno::ENXIO)?.plan;
        let done: Vec<_> = plan
            .ports()
            .filter(|&(other, _)| number.is_none_or(|number| number == other))
            .map(|(number, port)| (number, self.traffic(port, now)))
            .collect();
        if number.is_some() && done.is_empty() {
            return Err(Errno::ENXIO);
        }
        for (number, traffic) in done {
            if let Some(plan) = self.plan() {
                plan.port_mut(number)?.reset = traffic;
            }
        }
        Ok(())
    }

    /// All that went through a port.
    fn traffic(&self, port: &PlannedPort, now: Instant) -> PortTraffic {
        let mut traffic = port.earlier;
        for port in port.members.iter().filter_map(|&id| self.ports.slab.get(id)) {
            traffic += (&port.counters(now)).into();
        }
        traffic
    }

    fn endpoint(&self, id: PortId) -> Option<Endpoint> {
        let port = self.ports.slab.get(id)?;
        Some(Endpoint { id: id.index(), peer: port.peer.clone() })
    }
}
