//! The end: nothing comes in any more, what waits is sent, and every QEMU finishes its frame.
//!
//! A QEMU whose connection is cut while it stands in the middle of a frame never transmits again
//! after it has reconnected (QEMU `net/stream.c`: the end of a connection resets neither its place
//! in the frame nor its wait for room). A unix peer is told to stop, so that its next send fails,
//! which does reset them; a TCP peer is read until it is silent between two frames.

use std::time::{Duration, Instant};

use super::Hub;
use super::ports::Ports;
use crate::bridge::PortSet;

/// How long a peer must have been silent to be believed to have finished.
const SILENCE: Duration = Duration::from_millis(20);

/// How long all of it may take.
const LIMIT: Duration = Duration::from_millis(500);

/// An end under way.
#[derive(Debug)]
pub(super) struct Drain {
    until: Instant,
    /// Ports whose peers were told to stop.
    told: PortSet,
}

impl Drain {
    /// When to look again.
    pub(super) fn deadline(&self, ports: &Ports, now: Instant) -> Instant {
        let streams = ports.slab.iter().filter(|(_, port)| port.may_be_cut());
        let quiet = streams.map(|(_, port)| port.heard + SILENCE).max();
        quiet.filter(|&quiet| quiet > now).map_or(self.until, |quiet| quiet.min(self.until))
    }
}

impl Hub {
    /// Begins the end: closes the doors and lets every peer finish. Turns go on until
    /// [`Self::is_drained`].
    pub fn drain(&mut self, now: Instant) {
        self.serve_doors_last(now);
        self.doors.close();
        let ids: Vec<_> = self.ports.slab.iter().map(|(id, _)| id).collect();
        let mut told = PortSet::default();
        for id in ids {
            if let Some(port) = self.ports.slab.get_mut(id) {
                port.heard = now;
                if port.stop_receiving() {
                    told.insert(id);
                }
            }
            self.ports.settle(id);
        }
        self.drain = Some(Drain { until: now + LIMIT, told });
    }

    /// Has every peer finished, or the time for it passed?
    pub fn is_drained(&self, now: Instant) -> bool {
        self.drain.as_ref().is_some_and(|drain| {
            now >= drain.until
                || self.ports.slab.iter().all(|(id, port)| {
                    let is_silent = now.saturating_duration_since(port.heard) >= SILENCE;
                    !port.has_unsent()
                        && (!port.may_be_cut()
                            || is_silent && (port.is_at_boundary() || drain.told.contains(id)))
                })
        })
    }
}
