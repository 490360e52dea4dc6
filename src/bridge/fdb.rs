//! The filtering database (IEEE 802.1Q, 8.8): which port each station was last heard on.
//!
//! * A key is (VID of the outer tag or 0, address): the segment is transparent for tags.
//! * An entry ages from the last frame of its station; a lookup checks the age itself, so the
//!   sweep only frees memory.
//! * The table is bounded. When it is full, the least recently used entry of the port that holds
//!   most gives way: a flood of addresses hurts only its sender (as Open vSwitch does it).
//! * The hash is keyed: guests choose addresses.
//!
//! Entries live in slots that never move; each port threads its own through a list, least
//! recently used first.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hub_protocol::mac::Mac;

use super::ports::PortId;

/// Moves of one station between live ports, within [`FIGHT_WINDOW`], that make a fight over it.
const FIGHT_MOVES: u8 = 3;
const FIGHT_WINDOW: Duration = Duration::from_secs(10);

/// Conflicts that wait to be told; more are only counted.
const CONFLICTS: usize = 16;

/// Least time between two announcements of one station that move its tagged entries.
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(10);

/// A station in a VLAN: the VID above the 48 bits of the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key(u64);

impl Key {
    fn new(vid: u16, mac: Mac) -> Self {
        Self(u64::from(vid) << 48 | mac.to_bits())
    }

    fn vid(self) -> u16 {
        let [high, low, ..] = self.0.to_be_bytes();
        u16::from_be_bytes([high, low])
    }

    fn mac(self) -> Mac {
        Mac::from_bits(self.0)
    }
}

type Slot = usize;

#[derive(Debug)]
struct Entry {
    key: Key,
    port: PortId,
    heard: Instant,
    older: Option<Slot>,
    newer: Option<Slot>,
    moves: u8,
    first_move: Instant,
    is_reported: bool,
}

impl Entry {
    fn row(&self, now: Instant) -> FdbRow {
        FdbRow {
            vid: self.key.vid(),
            mac: self.key.mac(),
            port: self.port,
            age: now.saturating_duration_since(self.heard),
        }
    }
}

#[derive(Debug, Default)]
struct PortList {
    oldest: Option<Slot>,
    newest: Option<Slot>,
    len: usize,
}

/// The tagged entries of one station.
#[derive(Debug, Default)]
struct Tagged {
    slots: BTreeSet<Slot>,
    announced: Option<Instant>,
}

/// Two ports that both claim one station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The station's address.
    pub mac: Mac,
    /// The VLAN in which they fight over it; 0 for untagged.
    pub vid: u16,
    /// The ports: where it was, and where it was heard now.
    pub ports: (PortId, PortId),
}

/// What happened to the table so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FdbCounters {
    /// Entries made.
    pub learned: u64,
    /// Entries that changed their port.
    pub moved: u64,
    /// Entries that aged out.
    pub expired: u64,
    /// Entries that gave way in a full table.
    pub evicted: u64,
    /// Stations found on two live ports at once.
    pub conflicts: u64,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FdbRow {
    /// VID of the outer tag; 0 for untagged.
    pub vid: u16,
    /// The station.
    pub mac: Mac,
    /// Where it was last heard.
    pub port: PortId,
    /// How long ago.
    pub age: Duration,
}

/// The table.
#[derive(Debug)]
pub(super) struct Fdb {
    ageing: Duration,
    capacity: usize,
    index: HashMap<Key, Slot, RandomState>,
    entries: Vec<Entry>,
    free: Vec<Slot>,
    lists: Vec<PortList>,
    /// (entries, port) of every port that has any: the last one holds most.
    by_load: BTreeSet<(usize, PortId)>,
    tagged: HashMap<Mac, Tagged, RandomState>,
    counters: FdbCounters,
    /// Entries that came, went, moved, or came back before a sweep met them.
    changes: u64,
    conflicts: VecDeque<Conflict>,
}

impl Fdb {
    /// An empty table of at most `capacity` entries, each forgotten `ageing` after its last frame.
    pub(super) fn new(ageing: Duration, capacity: usize) -> Self {
        Self {
            ageing,
            capacity: capacity.max(1),
            index: HashMap::default(),
            entries: Vec::new(),
            free: Vec::new(),
            lists: Vec::new(),
            by_load: BTreeSet::new(),
            tagged: HashMap::default(),
            counters: FdbCounters::default(),
            changes: 0,
            conflicts: VecDeque::new(),
        }
    }

    /// Notes that `mac` was heard on `port`: a move takes effect at once.
    pub(super) fn learn(&mut self, vid: u16, mac: Mac, port: PortId, now: Instant) {
        let key = Key::new(vid, mac);
        match self.index.get(&key) {
            Some(&slot) => self.refresh(slot, port, now),
            None => self.add(key, port, now),
        }
    }

    /// An announcement of `mac` on `port`: whatever VLAN it was known in, it is there now.
    ///
    /// This happens once in 10 ms for each station, because it costs as much as the station has
    /// VLANs; QEMU repeats its announcements over 0.8 s.
    pub(super) fn announce(&mut self, mac: Mac, port: PortId, now: Instant) {
        let Some(Tagged { slots, announced }) = self.tagged.get_mut(&mac) else { return };
        if announced.is_some_and(|at| now.saturating_duration_since(at) < ANNOUNCE_INTERVAL) {
            return;
        }
        *announced = Some(now);
        for slot in slots.iter().copied().collect::<Vec<_>>() {
            // What has aged out stays forgotten, whether a sweep has met it or not.
            if !self.is_aged(&self.entries[slot], now) {
                self.refresh(slot, port, now);
            }
        }
    }

    /// Where `mac` was last heard, if that was within the ageing time.
    pub(super) fn lookup(&self, vid: u16, mac: Mac, now: Instant) -> Option<PortId> {
        let entry = &self.entries[*self.index.get(&Key::new(vid, mac))?];
        (!self.is_aged(entry, now)).then_some(entry.port)
    }

    /// The entry of `mac`, if it lives.
    pub(super) fn row(&self, vid: u16, mac: Mac, now: Instant) -> Option<FdbRow> {
        let entry = &self.entries[*self.index.get(&Key::new(vid, mac))?];
        (!self.is_aged(entry, now)).then(|| entry.row(now))
    }

    /// Forgets all stations of `port`, and of no other.
    pub(super) fn flush(&mut self, port: PortId) {
        while let Some(slot) = self.list(port).oldest {
            self.remove(slot);
        }
        self.conflicts.retain(|conflict| conflict.ports.0 != port && conflict.ports.1 != port);
    }

    /// Lets `next`, which has none, have all stations of `port`.
    pub(super) fn hand_over(&mut self, port: PortId, next: PortId) {
        while let Some(slot) = self.list(port).oldest {
            self.changes += 1;
            self.unlink(slot);
            self.reload(port, |len| len - 1);
            self.entries[slot].port = next;
            self.link(slot);
            self.reload(next, |len| len + 1);
        }
        self.flush(port);
    }

    /// Changes the ageing time and the capacity.
    pub(super) fn set_limits(&mut self, ageing: Duration, capacity: usize) {
        self.ageing = ageing;
        self.capacity = capacity.max(1);
        while self.index.len() > self.capacity {
            self.evict();
        }
    }

    /// The ageing time and the capacity.
    pub(super) fn limits(&self) -> (Duration, usize) {
        (self.ageing, self.capacity)
    }

    /// Frees the entries that have aged out.
    pub(super) fn sweep(&mut self, now: Instant) {
        for list in 0..self.lists.len() {
            while let Some(slot) =
                self.lists[list].oldest.filter(|&slot| self.is_aged(&self.entries[slot], now))
            {
                self.remove(slot);
                self.counters.expired += 1;
            }
        }
    }

    /// How often an entry came, moved or went: while this stays the same, so do they. One that has aged out goes with
    /// the next sweep.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Is nothing held?
    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// What happened so far.
    pub(super) fn counters(&self) -> FdbCounters {
        self.counters
    }

    /// A fight over one station that has not been told yet.
    pub(super) fn take_conflict(&mut self) -> Option<Conflict> {
        self.conflicts.pop_front()
    }

    /// Every live entry, by VID and address.
    pub(super) fn rows(&self, now: Instant) -> Vec<FdbRow> {
        let mut rows: Vec<FdbRow> = self
            .lists
            .iter()
            .flat_map(|list| std::iter::successors(list.oldest, |&slot| self.entries[slot].newer))
            .map(|slot| &self.entries[slot])
            .filter(|entry| !self.is_aged(entry, now))
            .map(|entry| entry.row(now))
            .collect();
        rows.sort_unstable();
        rows
    }

    fn is_aged(&self, entry: &Entry, now: Instant) -> bool {
        now.saturating_duration_since(entry.heard) > self.ageing
    }

    fn refresh(&mut self, slot: Slot, port: PortId, now: Instant) {
        let aged = self.is_aged(&self.entries[slot], now);
        self.changes += u64::from(aged || self.entries[slot].port != port);
        let entry = &mut self.entries[slot];
        entry.heard = now;
        let from = entry.port;
        if from == port {
            if entry.newer.is_some() {
                self.unlink(slot);
                self.link(slot);
            }
            return;
        }
        self.unlink(slot);
        self.reload(from, |len| len - 1);
        self.entries[slot].port = port;
        self.link(slot);
        self.reload(port, |len| len + 1);
        self.counters.moved += 1;
        if !aged {
            self.count_move(slot, from, now);
        }
    }

    /// A guest that migrates moves once; two that share an address move it with every frame.
    fn count_move(&mut self, slot: Slot, from: PortId, now: Instant) {
        let entry = &mut self.entries[slot];
        if entry.moves == 0 || now.saturating_duration_since(entry.first_move) > FIGHT_WINDOW {
            entry.moves = 0;
            entry.first_move = now;
        }
        entry.moves = entry.moves.saturating_add(1);
        if entry.moves >= FIGHT_MOVES && !entry.is_reported {
            entry.is_reported = true;
            self.counters.conflicts += 1;
            if self.conflicts.len() < CONFLICTS {
                let (mac, vid, ports) = (entry.key.mac(), entry.key.vid(), (from, entry.port));
                self.conflicts.push_back(Conflict { mac, vid, ports });
            }
        }
    }

    fn add(&mut self, key: Key, port: PortId, now: Instant) {
        if self.index.len() >= self.capacity {
            self.evict();
        }
        let entry = Entry {
            key,
            port,
            heard: now,
            older: None,
            newer: None,
            moves: 0,
            first_move: now,
            is_reported: false,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries[slot] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        self.index.insert(key, slot);
        if key.vid() != 0 {
            self.tagged.entry(key.mac()).or_default().slots.insert(slot);
        }
        self.link(slot);
        self.reload(port, |len| len + 1);
        self.counters.learned += 1;
        self.changes += 1;
    }

    /// Forgets the station that was heard least recently on the port that has most.
    fn evict(&mut self) {
        if let Some(&(_, fullest)) = self.by_load.last()
            && let Some(slot) = self.list(fullest).oldest
        {
            self.remove(slot);
            self.counters.evicted += 1;
        }
    }

    fn remove(&mut self, slot: Slot) {
        self.changes += 1;
        self.unlink(slot);
        let Entry { key, port, .. } = self.entries[slot];
        self.reload(port, |len| len - 1);
        self.index.remove(&key);
        if let Some(tagged) = self.tagged.get_mut(&key.mac()) {
            tagged.slots.remove(&slot);
            if tagged.slots.is_empty() {
                self.tagged.remove(&key.mac());
            }
        }
        self.free.push(slot);
    }

    fn list(&mut self, port: PortId) -> &mut PortList {
        if self.lists.len() <= port.index() {
            self.lists.resize_with(port.index() + 1, PortList::default);
        }
        &mut self.lists[port.index()]
    }

    /// Puts `slot` at the recently used end of its port's list.
    fn link(&mut self, slot: Slot) {
        let port = self.entries[slot].port;
        let older = self.list(port).newest.replace(slot);
        self.entries[slot].older = older;
        self.entries[slot].newer = None;
        match older {
            Some(older) => self.entries[older].newer = Some(slot),
            None => self.list(port).oldest = Some(slot),
        }
    }

    fn unlink(&mut self, slot: Slot) {
        let Entry { port, older, newer, .. } = self.entries[slot];
        match older {
            Some(older) => self.entries[older].newer = newer,
            None => self.list(port).oldest = newer,
        }
        match newer {
            Some(newer) => self.entries[newer].older = older,
            None => self.list(port).newest = older,
        }
    }

    /// Notes a change of how many entries `port` has.
    fn reload(&mut self, port: PortId, change: impl Fn(usize) -> usize) {
        let old = self.list(port).len;
        let new = change(old);
        self.list(port).len = new;
        if old > 0 {
            self.by_load.remove(&(old, port));
        }
        if new > 0 {
            self.by_load.insert((new, port));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGEING: Duration = Duration::from_secs(300);

    fn port(index: usize) -> PortId {
        PortId::new(index).unwrap()
    }

    fn mac(n: u64) -> Mac {
        Mac::from_bits(0x5254_0000_0000 | n)
    }

    fn fdb(capacity: usize) -> (Fdb, Instant) {
        #[expect(clippy::disallowed_methods, reason = "an arbitrary start of virtual time")]
        (Fdb::new(AGEING, capacity), Instant::now())
    }

    #[test]
    fn ages_exactly() {
        let (mut fdb, start) = fdb(8);
        fdb.learn(0, mac(1), port(1), start);
        assert_eq!(fdb.lookup(0, mac(1), start + AGEING), Some(port(1)));
        let late = start + AGEING + Duration::from_nanos(1);
        assert_eq!(fdb.lookup(0, mac(1), late), None, "before any sweep");
        assert_eq!((fdb.index.len(), fdb.rows(late).len()), (1, 0));
        fdb.sweep(start + AGEING);
        assert_eq!(fdb.index.len(), 1);
        fdb.sweep(late);
        assert!(fdb.is_empty());
        assert_eq!(fdb.counters().expired, 1);
    }

    #[test]
    fn changes_are_counted() {
        let (mut fdb, start) = fdb(8);
        fdb.learn(7, mac(1), port(1), start);
        assert_eq!(fdb.changes(), 1);
        let end = start + AGEING;
        let row = FdbRow { vid: 7, mac: mac(1), port: port(1), age: AGEING };
        assert_eq!((fdb.row(7, mac(1), end), fdb.row(0, mac(1), end)), (Some(row), None));
        fdb.learn(7, mac(1), port(1), end);
        assert_eq!(fdb.changes(), 1, "it is where it was");
        let late = end + AGEING + Duration::from_nanos(1);
        assert_eq!(fdb.row(7, mac(1), late), None);
        fdb.learn(7, mac(1), port(1), late);
        assert_eq!(fdb.changes(), 2, "it was gone");
        fdb.learn(7, mac(1), port(2), late);
        assert_eq!(fdb.changes(), 3, "it has moved");
        fdb.hand_over(port(2), port(3));
        assert_eq!(fdb.changes(), 4);
        fdb.flush(port(3));
        assert_eq!(fdb.changes(), 5);
        fdb.learn(7, mac(1), port(1), late);
        fdb.sweep(late + AGEING + Duration::from_nanos(1));
        assert_eq!(fdb.changes(), 7);
    }

    #[test]
    fn vlans_are_apart_until_an_announcement() {
        let (mut fdb, mut now) = fdb(8);
        fdb.learn(0, mac(1), port(1), now);
        fdb.learn(7, mac(1), port(2), now);
        fdb.learn(7, mac(2), port(2), now);
        assert_eq!(fdb.lookup(0, mac(1), now), Some(port(1)));
        assert_eq!(fdb.lookup(7, mac(1), now), Some(port(2)));
        fdb.announce(mac(1), port(3), now);
        assert_eq!(fdb.lookup(7, mac(1), now), Some(port(3)));
        assert_eq!(fdb.lookup(7, mac(2), now), Some(port(2)), "another station stays");

        fdb.learn(7, mac(1), port(2), now);
        now += ANNOUNCE_INTERVAL - Duration::from_nanos(1);
        fdb.announce(mac(1), port(3), now);
        assert_eq!(fdb.lookup(7, mac(1), now), Some(port(2)), "too soon after the last one");
        now += Duration::from_nanos(1);
        fdb.announce(mac(1), port(3), now);
        assert_eq!(fdb.lookup(7, mac(1), now), Some(port(3)));
    }

    #[test]
    fn announcements_skip_freed_slots() {
        let (mut fdb, now) = fdb(8);
        fdb.learn(7, mac(1), port(1), now);
        fdb.learn(8, mac(2), port(2), now);
        fdb.flush(port(1));
        fdb.announce(mac(1), port(2), now);
        assert_eq!(fdb.lookup(7, mac(1), now), None);
        assert_eq!(fdb.index.len(), 1);
    }

    #[test]
    fn the_fullest_port_gives_way_with_its_least_recently_used() {
        let (mut fdb, now) = fdb(4);
        fdb.learn(0, mac(1), port(1), now);
        for n in 2..=4 {
            fdb.learn(0, mac(n), port(2), now);
        }
        fdb.learn(0, mac(2), port(2), now);
        fdb.learn(0, mac(9), port(3), now);
        assert_eq!(fdb.lookup(0, mac(3), now), None, "the oldest of port 2");
        for n in [1, 2, 4, 9] {
            assert!(fdb.lookup(0, mac(n), now).is_some(), "station {n}");
        }
        assert_eq!((fdb.index.len(), fdb.counters().evicted), (4, 1));
        for n in 100..200 {
            fdb.learn(0, mac(n), port(2), now);
        }
        assert_eq!(fdb.lookup(0, mac(1), now), Some(port(1)), "a flood hurts only its sender");
        assert_eq!(fdb.lookup(0, mac(9), now), Some(port(3)));
        assert_eq!(fdb.index.len(), 4);
    }

    #[test]
    fn a_port_takes_only_its_own_entries_with_it() {
        let (mut fdb, now) = fdb(8);
        for n in 0..6 {
            fdb.learn(0, mac(n), port(usize::from(n % 2 == 0)), now);
        }
        fdb.flush(port(0));
        assert_eq!(fdb.rows(now).iter().map(|row| row.mac).collect::<Vec<_>>(), [mac(0), mac(2), mac(4)]);
    }

    #[test]
    fn a_move_is_instant_and_a_fight_is_reported_once() {
        let (mut fdb, now) = fdb(8);
        for (turn, at) in [1, 2, 1].into_iter().enumerate() {
            fdb.learn(0, mac(1), port(at), now);
            assert_eq!(fdb.lookup(0, mac(1), now), Some(port(at)));
            assert_eq!(fdb.take_conflict(), None, "move {turn}");
        }
        fdb.learn(0, mac(1), port(2), now);
        for at in [1, 2, 1, 2] {
            fdb.learn(0, mac(2), port(at), now);
        }
        for n in [1, 2] {
            let conflict = Conflict { mac: mac(n), vid: 0, ports: (port(1), port(2)) };
            assert_eq!(fdb.take_conflict(), Some(conflict));
        }
        for at in [1, 2, 1, 2] {
            fdb.learn(0, mac(1), port(at), now);
        }
        let later = now + FIGHT_WINDOW * 2;
        for at in [1, 2, 1, 2] {
            fdb.learn(0, mac(1), port(at), later);
        }
        assert_eq!(fdb.take_conflict(), None);
        assert_eq!((fdb.counters().moved, fdb.counters().conflicts), (14, 2));
    }

    #[test]
    fn slow_moves_are_no_fight() {
        let (mut fdb, mut now) = fdb(8);
        for turn in 0..9 {
            fdb.learn(0, mac(1), port(turn % 2), now);
            now += FIGHT_WINDOW / 2 + Duration::from_nanos(1);
        }
        assert_eq!(fdb.take_conflict(), None);
        assert_eq!(fdb.counters().moved, 8);
    }
}
