//! The loop guard: a bus that many share may be joined to this hub in another way as well, and then
//! every broadcast goes round for ever.
//!
//! It remembers what was sent to a bus lately. When a station seems to have moved, and the frame that
//! says so is one of these, it has come back: that is a proof. One is told; several at once mute the
//! port that came later, for a while.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::{PortId, PortSet};

/// Frames remembered.
const SENT: usize = 64;

/// How long one may take to come back.
const ROUND: Duration = Duration::from_secs(1);

/// Proofs within that time that mute a port.
const PROOFS: u32 = 8;

/// How long a port is muted.
const MUTED: Duration = Duration::from_secs(60);

/// Octets that tell frames apart; a shorter one counts as if it were padded.
const HEAD: usize = 128;

/// A loop that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopFound {
    /// The bus that the frame was sent to.
    pub bus: PortId,
    /// The port that it came back by.
    pub other: PortId,
    /// Which of them is muted from now on.
    pub muted: Option<PortId>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    print: u64,
    ingress: PortId,
    bus: PortId,
    /// Was it sent to this bus only?
    is_only: bool,
    at: Instant,
}

/// Proofs against one port, since the first of them.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    port: PortId,
    proofs: u32,
    since: Instant,
}

#[derive(Debug, Default)]
pub(super) struct LoopGuard {
    buses: PortSet,
    /// All ports, in the order in which they came.
    joined: Vec<PortId>,
    hasher: RandomState,
    sent: VecDeque<Sent>,
    suspicion: Option<Suspicion>,
    muted: Vec<(PortId, Instant)>,
    found: Option<LoopFound>,
}

impl LoopGuard {
    pub(super) fn attach(&mut self, port: PortId, is_bus: bool) {
        self.joined.push(port);
        if is_bus {
            self.buses.insert(port);
        }
    }

    pub(super) fn detach(&mut self, port: PortId) {
        self.joined.retain(|&joined| joined != port);
        self.buses.remove(port);
        self.sent.retain(|sent| sent.ingress != port && sent.bus != port);
        self.suspicion = self.suspicion.filter(|suspicion| suspicion.port != port);
        self.muted.retain(|&(muted, _)| muted != port);
        self.found = self.found.filter(|found| found.bus != port && found.other != port);
    }

    /// Is there anything to guard?
    pub(super) fn is_needed(&self) -> bool {
        !self.buses.is_empty()
    }

    pub(super) fn is_muted(&self, port: PortId) -> bool {
        self.muted.iter().any(|&(muted, _)| muted == port)
    }

    /// Takes out a port that has been muted long enough.
    pub(super) fn unmute(&mut self, now: Instant) -> Option<PortId> {
        let due = self.muted.iter().position(|&(_, until)| now >= until)?;
        Some(self.muted.swap_remove(due).0)
    }

    /// A loop that has not been told yet.
    pub(super) fn take_found(&mut self) -> Option<LoopFound> {
        self.found.take()
    }

    /// `frame` from `ingress` leaves by `ports`.
    pub(super) fn note_sent(&mut self, ingress: PortId, frame: &[u8], ports: &PortSet, now: Instant) {
        let mut buses = self.buses.iter().filter(|&bus| ports.contains(bus));
        let Some(bus) = buses.next() else { return };
        let is_only = buses.next().is_none();
        let print = self.print(frame);
        // One that goes round keeps the port that it came from.
        if self.find(print, now).is_some() {
            return;
        }
        if self.sent.len() == SENT {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent { print, ingress, bus, is_only, at: now });
    }

    /// `frame` from `ingress` has a source that was heard elsewhere. Returns the port to mute, if its
    /// own frames come back to this hub too often.
    pub(super) fn suspect(&mut self, ingress: PortId, frame: &[u8], now: Instant) -> Option<PortId> {
        let Sent { ingress: origin, bus, is_only, .. } = *self.find(self.print(frame), now)?;
        let age = |port| self.joined.iter().position(|&joined| joined == port);
        // Which of several buses is joined twice, nobody knows.
        let younger = if is_only && age(bus) > age(ingress) { bus } else { ingress };
        if ingress == origin || ingress == bus || self.is_muted(younger) {
            return None;
        }
        let proofs = match self.suspicion {
            Some(Suspicion { port, proofs, since })
                if port == ingress && now.saturating_duration_since(since) < ROUND =>
            {
                self.suspicion = Some(Suspicion { port, proofs: proofs + 1, since });
                proofs + 1
            }
            _ => {
                self.suspicion = Some(Suspicion { port: ingress, proofs: 1, since: now });
                1
            }
        };
        let muted = (proofs >= PROOFS).then_some(younger);
        if let Some(port) = muted {
            self.suspicion = None;
            self.muted.push((port, now + MUTED));
        }
        self.found = Some(LoopFound { bus, other: ingress, muted });
        muted
    }

    fn find(&self, print: u64, now: Instant) -> Option<&Sent> {
        self.sent.iter().find(|sent| sent.print == print && now.saturating_duration_since(sent.at) < ROUND)
    }

    fn print(&self, frame: &[u8]) -> u64 {
        let mut head = [0; HEAD];
        let known = frame.len().min(HEAD);
        head[..known].copy_from_slice(&frame[..known]);
        self.hasher.hash_one(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(index: usize) -> PortId {
        PortId::new(index).unwrap()
    }

    /// Port 0 is a guest, 1 a bus, 2 a stream that came later.
    fn guard() -> (LoopGuard, Instant) {
        let mut guard = LoopGuard::default();
        guard.attach(port(0), false);
        guard.attach(port(1), true);
        guard.attach(port(2), false);
        #[expect(clippy::disallowed_methods, reason = "an arbitrary start of virtual time")]
        let start = Instant::now();
        (guard, start)
    }

    fn all_but(index: usize) -> PortSet {
        (0..3).filter(|&other| other != index).map(port).collect()
    }

    #[test]
    fn one_return_is_told_and_several_mute_the_younger_port() {
        let (mut guard, now) = guard();
        guard.note_sent(port(0), b"frame", &all_but(0), now);
        for proof in 1..=PROOFS {
            let muted = guard.suspect(port(2), b"frame\0\0padded", now);
            assert_eq!(muted, None, "another frame");
            let muted = guard.suspect(port(2), b"frame", now);
            assert_eq!(muted, (proof == PROOFS).then_some(port(2)));
            assert_eq!(guard.take_found(), Some(LoopFound { bus: port(1), other: port(2), muted }));
        }
        assert!(guard.is_muted(port(2)) && !guard.is_muted(port(1)));
        let end = now + MUTED;
        assert_eq!(guard.unmute(end.checked_sub(Duration::from_nanos(1)).unwrap()), None);
        assert_eq!(guard.unmute(end), Some(port(2)));
        assert!(!guard.is_muted(port(2)));
    }

    #[test]
    fn a_bus_that_came_later_is_the_one_to_mute() {
        let (mut guard, now) = guard();
        guard.detach(port(1));
        guard.attach(port(1), true);
        guard.note_sent(port(0), b"frame", &all_but(0), now);
        let muted = (0..PROOFS).filter_map(|_| guard.suspect(port(2), b"frame", now)).last();
        assert_eq!(muted, Some(port(1)));
        guard.detach(port(1));
        assert!(!guard.is_muted(port(1)) && !guard.is_needed());
    }

    #[test]
    fn a_muted_port_is_not_muted_again() {
        let (mut guard, now) = guard();
        guard.note_sent(port(0), b"frame", &all_but(0), now);
        let muted = (0..100 * PROOFS).filter_map(|_| guard.suspect(port(2), b"frame", now)).count();
        assert_eq!((muted, guard.muted.len()), (1, 1));
    }

    #[test]
    fn of_several_buses_none_is_blamed() {
        let (mut guard, now) = guard();
        guard.attach(port(3), true);
        guard.attach(port(4), true);
        guard.note_sent(port(0), b"frame", &[port(3), port(4)].into_iter().collect(), now);
        let muted = (0..PROOFS).filter_map(|_| guard.suspect(port(2), b"frame", now)).last();
        assert_eq!(muted, Some(port(2)), "though the buses came later");
    }

    #[test]
    fn padding_on_the_way_changes_nothing() {
        let (mut guard, now) = guard();
        guard.note_sent(port(0), &[7; 42], &all_but(0), now);
        let mut padded = vec![7; 42];
        padded.resize(60, 0);
        guard.suspect(port(2), &padded, now);
        assert!(guard.take_found().is_some());
    }

    #[test]
    fn what_is_no_return_proves_nothing() {
        let (mut guard, now) = guard();
        guard.note_sent(port(0), b"repeated", &all_but(0), now);
        guard.suspect(port(0), b"repeated", now);
        guard.suspect(port(1), b"repeated", now);
        guard.suspect(port(2), b"repeated", now + ROUND);
        guard.note_sent(port(0), b"not to the bus", &[port(2)].into_iter().collect(), now);
        guard.suspect(port(2), b"not to the bus", now);
        assert_eq!(guard.take_found(), None);
    }

    #[test]
    fn proofs_count_within_a_second_only() {
        let (mut guard, mut now) = guard();
        for _ in 0..3 * PROOFS {
            guard.note_sent(port(0), b"frame", &all_but(0), now);
            assert_eq!(guard.suspect(port(2), b"frame", now), None);
            now += ROUND / (PROOFS - 1) + Duration::from_nanos(1);
        }
    }

    #[test]
    fn the_memory_is_a_ring() {
        let (mut guard, now) = guard();
        for number in 0..=SENT {
            guard.note_sent(port(0), &number.to_le_bytes(), &all_but(0), now);
        }
        assert_eq!(guard.sent.len(), SENT);
        guard.suspect(port(2), &0_usize.to_le_bytes(), now);
        assert_eq!(guard.take_found(), None, "the first has given way to the last");
        guard.suspect(port(2), &SENT.to_le_bytes(), now);
        assert!(guard.take_found().is_some());
    }
}
