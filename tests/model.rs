//! The bridge against a model of it: a list of stations, searched from end to end.
//!
//! Random ports come and go, some stand for one with others, frames arrive and time passes. After each step both must agree on where
//! the frame goes or why it does not, whom its sender waits for, what is remembered, and what was
//! counted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use hub_protocol::mac::Mac;
use proptest::prelude::*;
use qhub::bridge::{Bridge, BridgeConfig, FdbCounters, FdbRow, Mode, PortId, Verdict};
use qhub::discard::DiscardReason;

const NS: Duration = Duration::from_nanos(1);
const AGEING: Duration = Duration::from_secs(1);

/// How soon an announcement of one station follows another.
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(10);

/// The ports: both ends of the range, and both sides of a boundary between words of a set.
const PORTS: [usize; 5] = [0, 1, 63, 64, 1023];

fn port(index: usize) -> PortId {
    PortId::new(index).expect("within the range")
}

/// A frame as a test thinks of it.
#[derive(Clone, Debug)]
struct Frame {
    destination: [u8; 6],
    source: [u8; 6],
    kind: Kind,
    /// It ends here, if that is before its end.
    cut: usize,
}

#[derive(Clone, Debug)]
enum Kind {
    Plain,
    Announcement,
    /// Tags, outermost first, as (service tag?, PCP and DEI, VID); then perhaps an announcement.
    Tagged(Vec<(bool, u8, u16)>, bool),
}

impl Frame {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.destination, self.source].concat();
        let ends_with: [u8; 2] = match &self.kind {
            Kind::Plain | Kind::Tagged(_, false) => [0x08, 0x00],
            Kind::Announcement | Kind::Tagged(_, true) => [0x80, 0x35],
        };
        if let Kind::Tagged(tags, _) = &self.kind {
            for &(is_service, priority, vid) in tags {
                bytes.extend(if is_service { [0x88, 0xa8] } else { [0x81, 0x00] });
                bytes.extend((u16::from(priority) << 12 | vid).to_be_bytes());
            }
        }
        bytes.extend(ends_with);
        bytes.extend([0x5a; 8]);
        bytes.truncate(self.cut);
        bytes
    }

    fn vid(&self) -> u16 {
        match &self.kind {
            // The tag is whole from octet 16 on.
            Kind::Tagged(tags, _) if self.cut >= 16 => tags.first().map_or(0, |&(_, _, vid)| vid),
            Kind::Plain | Kind::Announcement | Kind::Tagged(..) => 0,
        }
    }

    fn is_announcement(&self) -> bool {
        matches!(self.kind, Kind::Announcement)
    }
}

fn is_group(mac: [u8; 6]) -> bool {
    mac[0] % 2 == 1
}

#[derive(Clone, Debug)]
enum Step {
    Attach(usize),
    /// It comes, or comes anew, and stands for the same as another one from the start.
    Share(usize, usize),
    Detach(usize),
    /// It goes, and another takes its place.
    Replace(usize),
    Relay(usize, Frame),
    Sleep(Duration),
    Sweep,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Leaves { by: Vec<usize>, awaited: Option<usize> },
    Dropped(DiscardReason),
}

impl From<Verdict> for Fate {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Forward(egress) => {
                Self::Leaves { by: vec![egress.index()], awaited: Some(egress.index()) }
            }
            Verdict::Flood(flood) => Self::Leaves {
                by: flood.ports.iter().map(PortId::index).collect(),
                awaited: flood.awaited.map(PortId::index),
            },
            Verdict::Discard(reason) => Self::Dropped(reason),
        }
    }
}

/// Where a station was heard.
#[derive(Clone, Debug)]
struct Station {
    vid: u16,
    mac: [u8; 6],
    port: usize,
    heard: Instant,
}

#[derive(Debug)]
struct Model {
    mode: Mode,
    capacity: usize,
    ports: BTreeSet<usize>,
    /// Those that stand for one with others, each with the one that leads.
    leads: BTreeMap<usize, usize>,
    /// Those that were heard last of those that stand for one, by the one that leads.
    voices: BTreeMap<usize, usize>,
    /// The least recently heard first.
    stations: Vec<Station>,
    announced: BTreeMap<[u8; 6], Instant>,
    counters: FdbCounters,
}

impl Model {
    fn new(mode: Mode, capacity: usize) -> Self {
        Self {
            mode,
            capacity,
            ports: BTreeSet::new(),
            leads: BTreeMap::new(),
            voices: BTreeMap::new(),
            stations: Vec::new(),
            announced: BTreeMap::new(),
            counters: FdbCounters::default(),
        }
    }

    fn share(&mut self, port: usize, other: usize) {
        let lead = self.lead(other);
        self.ports.insert(port);
        self.leads.extend([(lead, lead), (port, lead)]);
        self.voices.entry(lead).or_insert(lead);
    }

    fn lead(&self, port: usize) -> usize {
        self.leads.get(&port).copied().unwrap_or(port)
    }

    /// The port and all that stand for the same.
    fn mates(&self, port: usize) -> Vec<usize> {
        self.ports.iter().copied().filter(|&mate| self.lead(mate) == self.lead(port)).collect()
    }

    fn detach(&mut self, port: usize) {
        let rest: Vec<usize> = self.mates(port).into_iter().filter(|&mate| mate != port).collect();
        self.ports.remove(&port);
        let Some(lead) = self.leads.remove(&port) else {
            self.stations.retain(|station| station.port != port);
            self.forget_announcements();
            return;
        };
        // The first of the rest leads, if the leader leaves; the stations stay with them.
        let next = if lead == port { rest[0] } else { lead };
        self.leads.extend(rest.iter().map(|&mate| (mate, next)));
        self.stations
            .iter_mut()
            .filter(|station| station.port == port)
            .for_each(|station| station.port = next);
        let voice = self.voices.remove(&lead).expect("one that leads");
        self.voices.insert(next, if voice == port { next } else { voice });
        if let [last] = rest[..] {
            self.leads.remove(&last);
            self.voices.remove(&last);
        }
    }

    fn relay(&mut self, ingress: usize, frame: &Frame, now: Instant) -> Fate {
        match frame.cut {
            0 => return Fate::Dropped(DiscardReason::Empty),
            1..14 => return Fate::Dropped(DiscardReason::Runt),
            _ => {}
        }
        let lead = self.lead(ingress);
        if let Some(voice) = self.voices.get_mut(&lead) {
            *voice = ingress;
        }
        if !is_group(frame.source) && frame.source != [0; 6] {
            self.learn(frame.vid(), frame.source, lead, now);
            if frame.is_announcement() {
                self.announce(frame.source, lead, now);
            }
        }
        let heard = self
            .stations
            .iter()
            .filter(|_| !is_group(frame.destination))
            .filter(|station| station.vid == frame.vid() && station.mac == frame.destination)
            .find(|station| !is_aged(station, now))
            .map(|station| station.port);
        let mates = self.mates(ingress);
        let others: Vec<usize> = self.ports.iter().copied().filter(|port| !mates.contains(port)).collect();
        if self.mode == Mode::Switch {
            if frame.destination == [0x01, 0x80, 0xc2, 0, 0, 0x01] {
                return Fate::Dropped(DiscardReason::Pause);
            }
            if let Some(egress) = heard {
                return if egress == lead {
                    Fate::Dropped(DiscardReason::SamePort)
                } else {
                    let awaited = self.voices.get(&egress).copied().unwrap_or(egress);
                    Fate::Leaves { by: self.mates(egress), awaited: Some(awaited) }
                };
            }
        }
        match others[..] {
            [] => Fate::Dropped(DiscardReason::NoPort),
            [only] => Fate::Leaves { by: others, awaited: Some(only) },
            _ => Fate::Leaves { by: others, awaited: heard.filter(|&egress| egress != lead) },
        }
    }

    fn learn(&mut self, vid: u16, mac: [u8; 6], port: usize, now: Instant) {
        let known = self.stations.iter().position(|station| station.vid == vid && station.mac == mac);
        if let Some(known) = known {
            let station = self.stations.remove(known);
            self.counters.moved += u64::from(station.port != port);
        } else {
            self.make_room();
            self.counters.learned += 1;
        }
        self.stations.push(Station { vid, mac, port, heard: now });
    }

    /// The port that holds most gives its least recently heard; of equals, the last.
    fn make_room(&mut self) {
        if self.stations.len() < self.capacity {
            return;
        }
        let held = |port: &usize| self.stations.iter().filter(|station| station.port == *port).count();
        let fullest = self.ports.iter().copied().max_by_key(held).expect("the ingress is there");
        let oldest = self.stations.iter().position(|station| station.port == fullest);
        self.stations.remove(oldest.expect("it holds something"));
        self.forget_announcements();
        self.counters.evicted += 1;
    }

    /// The station is now here in each VLAN in which it is remembered.
    fn announce(&mut self, mac: [u8; 6], port: usize, now: Instant) {
        let is_tagged = |station: &&Station| station.mac == mac && station.vid != 0;
        let tagged: Vec<Station> = self.stations.iter().filter(is_tagged).cloned().collect();
        if tagged.is_empty() {
            return;
        }
        if self.announced.get(&mac).is_some_and(|&at| now - at < ANNOUNCE_INTERVAL) {
            return;
        }
        self.announced.insert(mac, now);
        for station in tagged.iter().filter(|station| !is_aged(station, now)) {
            self.learn(station.vid, mac, port, now);
        }
    }

    /// A station that is in no VLAN any more may announce at once when it is in one again.
    fn forget_announcements(&mut self) {
        let stations = &self.stations;
        let is_tagged = |mac: [u8; 6]| stations.iter().any(|station| station.mac == mac && station.vid != 0);
        self.announced.retain(|&mac, _| is_tagged(mac));
    }

    fn sweep(&mut self, now: Instant) {
        let before = self.stations.len();
        self.stations.retain(|station| !is_aged(station, now));
        self.forget_announcements();
        self.counters.expired += u64::try_from(before - self.stations.len()).expect("small");
    }

    fn rows(&self, now: Instant) -> Vec<FdbRow> {
        let live = self.stations.iter().filter(|station| !is_aged(station, now));
        let mut rows: Vec<FdbRow> = live
            .map(|station| FdbRow {
                vid: station.vid,
                mac: Mac(station.mac),
                port: port(station.port),
                age: now - station.heard,
            })
            .collect();
        rows.sort();
        rows
    }
}

fn is_aged(station: &Station, now: Instant) -> bool {
    now - station.heard > AGEING
}

/// Plays `steps` to both.
fn play(mode: Mode, capacity: usize, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut bridge = Bridge::new(BridgeConfig { mode, ageing: AGEING, fdb_max: capacity });
    let mut model = Model::new(mode, capacity);
    let mut now = qhub::hub::now();
    for step in steps {
        match step {
            Step::Attach(index) => {
                bridge.attach(port(*index));
                model.ports.insert(*index);
            }
            Step::Share(index, other) if index != other && model.ports.contains(other) => {
                bridge.detach(port(*index));
                model.detach(*index);
                bridge.attach(port(*index));
                bridge.share(port(*index), port(*other));
                model.share(*index, *other);
            }
            Step::Share(..) => {}
            Step::Detach(index) => {
                bridge.detach(port(*index));
                model.detach(*index);
            }
            Step::Replace(index) => {
                bridge.detach(port(*index));
                model.detach(*index);
                bridge.attach(port(*index));
                model.ports.insert(*index);
            }
            Step::Relay(ingress, frame) if model.ports.contains(ingress) => {
                let fate = Fate::from(bridge.relay(port(*ingress), &frame.bytes(), now));
                prop_assert_eq!(fate, model.relay(*ingress, frame, now), "{:?}", step);
            }
            Step::Relay(..) => {}
            Step::Sleep(time) => now += *time,
            Step::Sweep => {
                bridge.sweep(now);
                model.sweep(now);
            }
        }
        prop_assert_eq!(bridge.fdb_rows(now), model.rows(now), "after {:?}", step);
        prop_assert_eq!(bridge.has_stations(), !model.stations.is_empty(), "after {:?}", step);
        let conflicts = bridge.fdb_counters().conflicts;
        let counters = FdbCounters { conflicts, ..model.counters };
        prop_assert_eq!(bridge.fdb_counters(), counters, "after {:?}", step);
    }
    Ok(())
}

fn station() -> impl Strategy<Value = [u8; 6]> {
    (0_u8..4).prop_map(|last| [0x52, 0x54, 0, 0, 0, last])
}

fn destination() -> impl Strategy<Value = [u8; 6]> {
    prop_oneof![
        12 => station(),
        1 => Just([0xff; 6]),
        1 => Just([0x33, 0x33, 0, 0, 0, 1]),
        1 => Just([0; 6]),
        1 => (0..=0x10_u8).prop_map(|last| [0x01, 0x80, 0xc2, 0, 0, last]),
        1 => Just([0x01, 0x80, 0xc2, 0, 0, 0x01]),
    ]
}

fn source() -> impl Strategy<Value = [u8; 6]> {
    prop_oneof![
        20 => station(),
        1 => station().prop_map(|[_, rest @ ..]| [0x53, rest[0], rest[1], rest[2], rest[3], rest[4]]),
        1 => Just([0xff; 6]),
        1 => Just([0; 6]),
    ]
}

fn kind(vids: &'static [u16]) -> impl Strategy<Value = Kind> {
    let tag = (any::<bool>(), 0..16_u8, prop::sample::select(vids));
    let tags = prop::collection::vec(tag, 1..3);
    prop_oneof![
        5 => Just(Kind::Plain),
        3 => Just(Kind::Announcement),
        4 => (tags, any::<bool>()).prop_map(|(tags, announces)| Kind::Tagged(tags, announces)),
    ]
}

fn frame(vids: &'static [u16]) -> impl Strategy<Value = Frame> {
    let cut = prop_oneof![1 => 0..18_usize, 8 => Just(usize::MAX)];
    (destination(), source(), kind(vids), cut).prop_map(|(destination, source, kind, cut)| Frame {
        destination,
        source,
        kind,
        cut,
    })
}

fn sleep() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(NS),
        Just(ANNOUNCE_INTERVAL - NS),
        Just(ANNOUNCE_INTERVAL),
        Just(AGEING - NS),
        Just(AGEING),
        Just(AGEING / 3),
        Just(2 * AGEING),
    ]
}

fn steps(vids: &'static [u16]) -> impl Strategy<Value = Vec<Step>> {
    let index = || prop::sample::select(&PORTS[..]);
    let step = prop_oneof![
        6 => index().prop_map(Step::Attach),
        4 => (index(), index()).prop_map(|(port, other)| Step::Share(port, other)),
        3 => index().prop_map(Step::Detach),
        3 => index().prop_map(Step::Replace),
        40 => (index(), frame(vids)).prop_map(|(ingress, frame)| Step::Relay(ingress, frame)),
        6 => sleep().prop_map(Step::Sleep),
        1 => Just(Step::Sweep),
    ];
    prop::collection::vec(step, 1..150)
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![1 => Just(Mode::Hub), 2 => Just(Mode::Switch)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_bridge_with_room_does_as_the_model(mode in mode(), steps in steps(&[0, 7, 8, 4095])) {
        play(mode, 64, &steps)?;
    }

    /// With one VID beside 0, an announcement moves one station at the most, so the order in which
    /// they were last heard is never in doubt.
    #[test]
    fn a_small_bridge_does_as_the_model(
        mode in mode(),
        capacity in 1_usize..7,
        steps in steps(&[0, 7]),
    ) {
        play(mode, capacity, &steps)?;
    }
}
