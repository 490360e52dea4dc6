//! The pure core: a frame and the time come in, a [`Verdict`] goes out.
//!
//! Transparent bridging as in IEEE 802.1Q clause 8, for a segment that keeps VLAN tags as they are:
//! learn where each source is, forward to where the destination was heard, flood the rest, and
//! never send a frame back out of the port it came from. Reserved group addresses cross like any
//! other group, because the segment stands for a wire, except PAUSE in switch mode.

mod fdb;
mod guard;
mod mates;
mod ports;

use std::time::{Duration, Instant};

use hub_protocol::ethernet::{ETHERTYPE_RARP, Header, PAUSE_ADDRESS};
use hub_protocol::mac::Mac;

pub use fdb::{Conflict, FdbCounters, FdbRow};
pub use guard::LoopFound;
pub use ports::{MAX_PORTS, PortId, PortSet};

use crate::discard::DiscardReason;
use fdb::Fdb;
use guard::LoopGuard;
use mates::{Group, Mates};

/// How frames are forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every frame goes to every other port.
    Hub,
    /// A frame goes where its destination was last heard.
    Switch,
}

/// What a bridge is made with.
#[derive(Clone, Copy, Debug)]
pub struct BridgeConfig {
    /// Hub or switch.
    pub mode: Mode,
    /// How long a silent station is remembered.
    pub ageing: Duration,
    /// The most stations that are remembered.
    pub fdb_max: usize,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It leaves by this port.
    Forward(PortId),
    /// It leaves by all of these.
    Flood(Flood),
    /// It goes no further.
    Discard(DiscardReason),
}

impl Verdict {
    /// The ports that the frame leaves by.
    pub fn ports(&self) -> PortSet {
        match self {
            Self::Forward(port) => PortSet::from_iter([*port]),
            Self::Flood(flood) => flood.ports,
            Self::Discard(_) => PortSet::default(),
        }
    }
}

/// Where a flooded frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood {
    /// Its egress ports: at least one.
    pub ports: PortSet,
    /// The one among them that its sender has to wait for: where a hub last heard the
    /// destination, or the only one. The others get best-effort copies.
    pub awaited: Option<PortId>,
}

/// The bridge: its ports and what it has learned.
#[derive(Debug)]
pub struct Bridge {
    mode: Mode,
    ports: PortSet,
    fdb: Fdb,
    guard: LoopGuard,
    mates: Mates,
}

impl Bridge {
    /// A bridge without ports.
    pub fn new(config: BridgeConfig) -> Self {
        Self {
            mode: config.mode,
            ports: PortSet::default(),
            fdb: Fdb::new(config.ageing, config.fdb_max),
            guard: LoopGuard::default(),
            mates: Mates::default(),
        }
    }

    /// Adds a port; nothing that was learned changes.
    pub fn attach(&mut self, port: PortId) {
        self.guard.attach(port, false);
        self.ports.insert(port);
    }

    /// Adds a port to a bus, which others than this hub may forward to and from.
    pub fn attach_bus(&mut self, port: PortId) {
        self.guard.attach(port, true);
        self.ports.insert(port);
    }

    /// Makes a port stand for the same as another: stations that are heard on one of them are sent to on
    /// each.
    pub fn share(&mut self, port: PortId, other: PortId) {
        self.mates.join(port, other);
    }

    /// Takes a port away, and the stations that were heard on it, unless others stand for the same.
    pub fn detach(&mut self, port: PortId) {
        self.guard.detach(port);
        self.ports.remove(port);
        match self.mates.leave(port) {
            Some(next) => self.fdb.hand_over(port, next),
            None => self.fdb.flush(port),
        }
    }

    /// Changes how frames are forwarded from now on.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// How frames are forwarded.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Changes how long a silent station is remembered, and how many stations are.
    pub fn set_memory(&mut self, ageing: Duration, fdb_max: usize) {
        self.fdb.set_limits(ageing, fdb_max);
    }

    /// How long a silent station is remembered, and how many stations are.
    pub fn memory(&self) -> (Duration, usize) {
        self.fdb.limits()
    }

    /// Is there a bus, so that it matters what a frame looks like when it comes back?
    pub fn is_guarded(&self) -> bool {
        self.guard.is_needed()
    }

    /// Learns from `frame`, which came in on `ingress`, and decides where it goes.
    pub fn relay(&mut self, ingress: PortId, frame: &[u8], now: Instant) -> Verdict {
        let Some(header) = Header::parse(frame) else {
            let reason = if frame.is_empty() { DiscardReason::Empty } else { DiscardReason::Runt };
            return Verdict::Discard(reason);
        };
        if self.guard.is_needed() {
            if self.guards(ingress, &header, frame, now) {
                return Verdict::Discard(DiscardReason::Loop);
            }
            let verdict = self.forward(ingress, &header, now);
            self.guard.note_sent(ingress, frame, &verdict.ports(), now);
            return verdict;
        }
        self.forward(ingress, &header, now)
    }

    /// Looks whether a frame has gone round. True when its port is muted.
    fn guards(&mut self, ingress: PortId, header: &Header, frame: &[u8], now: Instant) -> bool {
        while let Some(port) = self.guard.unmute(now) {
            self.ports.insert(port);
        }
        if self.guard.is_muted(ingress) {
            return true;
        }
        let known = self.fdb.lookup(header.vid, header.source, now);
        if known.is_some_and(|port| port != self.mates.lead(ingress))
            && let Some(port) = self.guard.suspect(ingress, frame, now)
        {
            self.ports.remove(port);
            if self.mates.of(port).is_none() {
                self.fdb.flush(port);
            }
        }
        self.guard.is_muted(ingress)
    }

    fn forward(&mut self, ingress: PortId, header: &Header, now: Instant) -> Verdict {
        let lead = self.mates.note_heard(ingress);
        self.learn(lead, header, now);
        let heard = match header.destination {
            PAUSE_ADDRESS if self.mode == Mode::Switch => return Verdict::Discard(DiscardReason::Pause),
            group if group.is_group() => None,
            station => self.fdb.lookup(header.vid, station, now),
        };
        match (self.mode, heard) {
            (Mode::Switch, Some(port)) if port == lead => Verdict::Discard(DiscardReason::SamePort),
            (Mode::Switch, Some(port)) => match self.mates.of(port) {
                Some(group) => self.spread(ingress, &group),
                None if self.ports.contains(port) => Verdict::Forward(port),
                // It is muted.
                None => self.flood(ingress, None),
            },
            (Mode::Switch | Mode::Hub, _) => self.flood(ingress, heard),
        }
    }

    /// To each of several ports that stand for one, but for those that are muted.
    fn spread(&self, ingress: PortId, group: &Group) -> Verdict {
        let ports: PortSet = group.ports.iter().filter(|&port| self.ports.contains(port)).collect();
        if ports.is_empty() {
            return self.flood(ingress, None);
        }
        let awaited = Some(group.heard).filter(|&port| ports.contains(port)).or(ports.iter().next());
        Verdict::Flood(Flood { ports, awaited })
    }

    fn learn(&mut self, ingress: PortId, header: &Header, now: Instant) {
        if !header.source.is_station() {
            return;
        }
        self.fdb.learn(header.vid, header.source, ingress, now);
        if header.ethertype == ETHERTYPE_RARP {
            self.fdb.announce(header.source, ingress, now);
        }
    }

    fn flood(&self, ingress: PortId, heard: Option<PortId>) -> Verdict {
        let mut ports = self.ports;
        match self.mates.of(ingress) {
            None => ports.remove(ingress),
            Some(mates) => mates.ports.iter().for_each(|mate| ports.remove(mate)),
        }
        if ports.is_empty() {
            return Verdict::Discard(DiscardReason::NoPort);
        }
        let awaited = ports.only().or(heard.filter(|&port| ports.contains(port)));
        Verdict::Flood(Flood { ports, awaited })
    }

    /// Frees what has aged out.
    pub fn sweep(&mut self, now: Instant) {
        self.fdb.sweep(now);
    }

    /// Does the bridge remember any station, so that a sweep may find something?
    pub fn has_stations(&self) -> bool {
        !self.fdb.is_empty()
    }

    /// A loop that has been found and not been told yet.
    pub fn take_loop(&mut self) -> Option<LoopFound> {
        self.guard.take_found()
    }

    /// A fight of two ports over one station that has not been told yet.
    pub fn take_conflict(&mut self) -> Option<Conflict> {
        self.fdb.take_conflict()
    }

    /// What happened to the filtering database so far.
    pub fn fdb_counters(&self) -> FdbCounters {
        self.fdb.counters()
    }

    /// The stations remembered, by VID and address.
    pub fn fdb_rows(&self, now: Instant) -> Vec<FdbRow> {
        self.fdb.rows(now)
    }

    /// What is remembered of one station.
    pub fn fdb_row(&self, vid: u16, mac: Mac, now: Instant) -> Option<FdbRow> {
        self.fdb.row(vid, mac, now)
    }

    /// How often a station came, moved or went: while this stays the same, so do they. One that has aged out goes with
    /// the next sweep.
    pub fn fdb_changes(&self) -> u64 {
        self.fdb.changes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(index: usize) -> PortId {
        PortId::new(index).unwrap()
    }

    fn bridge(mode: Mode, ports: usize) -> (Bridge, Instant) {
        let config = BridgeConfig { mode, ageing: Duration::from_secs(300), fdb_max: 64 };
        let mut bridge = Bridge::new(config);
        for index in 0..ports {
            bridge.attach(port(index));
        }
        #[expect(clippy::disallowed_methods, reason = "an arbitrary start of virtual time")]
        (bridge, Instant::now())
    }

    fn frame(destination: u8, source: u8) -> Vec<u8> {
        let mut frame = vec![0x52, 0, 0, 0, 0, destination, 0x52, 0, 0, 0, 0, source];
        frame.extend_from_slice(&[0x08, 0x00, 1, 2, 3, 4]);
        frame
    }

    fn to_group(last: u8) -> Vec<u8> {
        let mut frame = frame(0, 1);
        frame[..6].copy_from_slice(&[0x01, 0x80, 0xc2, 0, 0, last]);
        frame
    }

    fn flood(ports: &[usize], awaited: Option<usize>) -> Verdict {
        let ports = ports.iter().map(|&index| port(index)).collect();
        Verdict::Flood(Flood { ports, awaited: awaited.map(port) })
    }

    #[test]
    fn a_switch_floods_learns_and_forwards() {
        let (mut bridge, now) = bridge(Mode::Switch, 3);
        assert_eq!(bridge.relay(port(0), &frame(2, 1), now), flood(&[1, 2], None));
        assert_eq!(bridge.relay(port(1), &frame(1, 2), now), Verdict::Forward(port(0)));
        assert_eq!(bridge.relay(port(0), &frame(2, 1), now), Verdict::Forward(port(1)));
        assert_eq!(bridge.relay(port(1), &frame(2, 9), now), Verdict::Discard(DiscardReason::SamePort));
        bridge.detach(port(1));
        assert_eq!(bridge.relay(port(0), &frame(2, 1), now), flood(&[2], Some(2)));
        bridge.detach(port(2));
        assert_eq!(bridge.relay(port(0), &frame(2, 1), now), Verdict::Discard(DiscardReason::NoPort));
    }

    #[test]
    fn a_hub_repeats_everything_and_waits_for_the_destination() {
        let (mut bridge, now) = bridge(Mode::Hub, 3);
        assert_eq!(bridge.relay(port(0), &frame(2, 1), now), flood(&[1, 2], None));
        assert_eq!(bridge.relay(port(1), &frame(1, 2), now), flood(&[0, 2], Some(0)));
        assert_eq!(bridge.relay(port(0), &to_group(1), now), flood(&[1, 2], None), "PAUSE too");
        assert_eq!(bridge.relay(port(1), &frame(2, 9), now), flood(&[0, 2], None), "a wire filters nothing");
    }

    /// A frame goes round a bus (port 1) and a line (port 2) for two minutes.
    #[test]
    fn a_loop_costs_one_port_for_a_minute_at_a_time() {
        let (mut bridge, start) = bridge(Mode::Switch, 1);
        bridge.attach_bus(port(1));
        bridge.attach(port(2));
        let (mut muted, mut told) = (Vec::new(), 0);
        for step in 0..130_000 {
            let now = start + Duration::from_millis(step);
            let frame = frame(0xff, 1);
            bridge.relay(port(0), &frame, now);
            let back = bridge.relay(port(2), &frame, now);
            let is_muted = muted.last().is_some_and(|&at| now < at + Duration::from_secs(60));
            if is_muted {
                assert_eq!(back, Verdict::Discard(DiscardReason::Loop));
                assert_eq!(
                    bridge.relay(port(0), &frame, now),
                    flood(&[1], Some(1)),
                    "it leaves by no muted port"
                );
            }
            if let Some(found) = bridge.take_loop() {
                told += 1;
                muted.extend(found.muted.map(|_| now));
            }
        }
        assert_eq!(muted.len(), 3);
        assert!(told < 40, "{told}");
    }

    #[test]
    fn ports_that_stand_for_one_hear_the_same_and_not_each_other() {
        for mode in [Mode::Switch, Mode::Hub] {
            let (mut bridge, now) = bridge(mode, 4);
            bridge.share(port(2), port(1));
            assert_eq!(bridge.relay(port(2), &frame(9, 2), now), flood(&[0, 3], None));
            let all = if mode == Mode::Switch { flood(&[1, 2], Some(2)) } else { flood(&[1, 2, 3], Some(1)) };
            assert_eq!(bridge.relay(port(0), &frame(2, 3), now), all, "{mode:?}");
            if mode == Mode::Switch {
                let to_itself = bridge.relay(port(1), &frame(2, 4), now);
                assert_eq!(to_itself, Verdict::Discard(DiscardReason::SamePort));
                assert_eq!(bridge.relay(port(0), &frame(2, 3), now), flood(&[1, 2], Some(1)), "heard last");
            }
            bridge.detach(port(1));
            assert_eq!(
                bridge.fdb_rows(now).iter().filter(|row| row.port == port(2)).count(),
                if mode == Mode::Switch { 2 } else { 1 }
            );
            bridge.detach(port(2));
            assert!(
                bridge.fdb_rows(now).iter().all(|row| row.port == port(0)),
                "the last one takes them along"
            );
        }
    }

    #[test]
    fn what_is_muted_hears_nothing_of_what_it_stands_for() {
        let (mut bridge, mut now) = bridge(Mode::Switch, 4);
        bridge.attach_bus(port(0));
        bridge.share(port(2), port(1));
        bridge.relay(port(1), &frame(9, 5), now);
        // What port 3 sends to the bus comes back by port 2.
        let looping = to_group(0x42);
        while bridge.take_loop().is_none_or(|found| found.muted.is_none()) {
            now += Duration::from_millis(1);
            bridge.relay(port(3), &looping, now);
            bridge.relay(port(2), &looping, now);
        }
        assert!(bridge.guard.is_muted(port(2)));
        assert_eq!(bridge.relay(port(3), &frame(5, 6), now), flood(&[1], Some(1)));
        bridge.detach(port(1));
        assert_eq!(bridge.relay(port(3), &frame(5, 6), now), flood(&[0], Some(0)));
    }

    #[test]
    fn limits_that_shrink_forget_the_oldest() {
        let (mut bridge, now) = bridge(Mode::Switch, 2);
        for (source, age) in [(1, 0), (2, 1), (3, 2)] {
            bridge.relay(port(0), &frame(9, source), now + Duration::from_secs(age));
        }
        bridge.set_memory(Duration::from_secs(7), 2);
        assert_eq!(bridge.memory(), (Duration::from_secs(7), 2));
        let rows = |bridge: &Bridge, at| bridge.fdb_rows(now + Duration::from_secs(at)).len();
        assert_eq!((rows(&bridge, 2), rows(&bridge, 8), rows(&bridge, 9), rows(&bridge, 10)), (2, 2, 1, 0));
        bridge.set_mode(Mode::Hub);
        assert_eq!(bridge.mode(), Mode::Hub);
        assert_eq!(bridge.relay(port(1), &frame(3, 8), now), flood(&[0], Some(0)));
    }

    #[test]
    fn reserved_groups_cross_except_pause() {
        let (mut bridge, now) = bridge(Mode::Switch, 3);
        for last in (0..=0x10).filter(|&last| last != 1) {
            assert_eq!(bridge.relay(port(0), &to_group(last), now), flood(&[1, 2], None), "{last:#x}");
        }
        assert_eq!(bridge.relay(port(0), &to_group(1), now), Verdict::Discard(DiscardReason::Pause));
    }

    #[test]
    fn runts_are_named() {
        let (mut bridge, now) = bridge(Mode::Switch, 2);
        assert_eq!(bridge.relay(port(0), &[], now), Verdict::Discard(DiscardReason::Empty));
        assert_eq!(bridge.relay(port(0), &[0; 13], now), Verdict::Discard(DiscardReason::Runt));
        assert_eq!(bridge.relay(port(0), &frame(2, 1)[..14], now), flood(&[1], Some(1)));
    }

    #[test]
    fn group_and_zero_sources_are_never_learned() {
        let (mut bridge, now) = bridge(Mode::Switch, 3);
        let mut from_group = frame(1, 2);
        from_group[6] |= 1;
        let mut from_zero = frame(1, 0);
        from_zero[6] = 0;
        for frame in [from_group, from_zero] {
            assert_eq!(bridge.relay(port(0), &frame, now), flood(&[1, 2], None));
        }
        assert!(!bridge.has_stations());
    }

    #[test]
    fn an_announcement_moves_the_station_in_every_vlan() {
        let (mut bridge, now) = bridge(Mode::Switch, 3);
        let mut tagged = frame(9, 1);
        tagged[12..16].copy_from_slice(&[0x81, 0x00, 0x60, 0x07]);
        bridge.relay(port(0), &tagged, now);
        let mut announcement = frame(0, 1);
        announcement[..6].fill(0xff);
        announcement[12..14].copy_from_slice(&ETHERTYPE_RARP.to_be_bytes());
        bridge.relay(port(1), &announcement, now);
        let mut answer = frame(1, 9);
        answer[12..16].copy_from_slice(&[0x81, 0x00, 0x00, 0x07]);
        assert_eq!(bridge.relay(port(2), &answer, now), Verdict::Forward(port(1)));
    }
}
