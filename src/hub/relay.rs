//! Relaying a batch: it is split into runs, the longest stretches of frames that leave together, and
//! each run is sent where the bridge says.
//!
//! Bulk traffic repeats its lengths and addresses, so a frame that begins like the one before it
//! shares its fate for the price of a comparison; the bridge is asked only when they change.

use std::ops::{ControlFlow, Range};
use std::time::Instant;

use hub_protocol::stream::{self, PREFIX_LEN};
use log::warn;

use super::Hub;
use crate::batch::{ARENA, Bundle, Load, Run, Taken};
use crate::bridge::{LoopFound, PortId, PortSet, Verdict};
use crate::discard::DiscardReason;
use crate::port::{QUIET, as_u64};

/// Length, addresses, type and the tag behind it: with these equal, the bridge can't tell two
/// frames apart, but for its guard against loops, which remembers the first of them.
const ALIKE: usize = PREFIX_LEN + 16;

/// Sends that the frames of one port, or of the peers of one datagram server, may cause in one turn:
/// runs times their egress ports. What is left waits for the next turn, behind the other ports.
const DELIVERIES: usize = 1024;

impl Hub {
    /// Forwards the `records` of the batch, which came from `ingress`, as far as one turn may go.
    pub(super) fn relay(&mut self, ingress: PortId, records: Range<usize>, now: Instant) {
        let Self { bridge, ports, batch, segments, copies, deliveries, .. } = self;
        let Some(port) = ports.slab.get_mut(ingress) else { return };
        let (max_frame, held) = (port.max_frame(), port.held());
        let Range { start, end } = records;
        if start == end {
            return;
        }
        port.usual_record = stream::record_len(&batch.records()[start..]).unwrap_or_default();
        if held > 0 || *deliveries >= DELIVERIES {
            // Those that are held come first. Nobody stops a datagram server for one of its peers.
            *copies += as_u64(ports.hold(ingress, &batch.finished(start..end), now));
            return;
        }
        let mut awaited = PortSet::default();
        let is_guarded = bridge.is_guarded();
        let mut decide = |frame: &[u8], longest: usize| {
            if longest > max_frame {
                return Verdict::Discard(DiscardReason::TooBig);
            }
            bridge.relay(ingress, frame, now)
        };
        let mut pass = |verdict: Verdict, load: Load<'_>| {
            let extent = load.extent();
            match verdict {
                Verdict::Forward(port) => awaited.insert(port),
                Verdict::Flood(flood) => flood.awaited.into_iter().for_each(|port| awaited.insert(port)),
                Verdict::Discard(_) => {}
            }
            if let Some(port) = ports.slab.get_mut(ingress) {
                port.count_received(extent);
                if let Verdict::Discard(reason) = verdict {
                    port.count_dropped(reason, extent.frames);
                    *copies += as_u64(extent.frames);
                }
            }
            for port in verdict.ports().iter() {
                *copies += as_u64(extent.frames);
                *deliveries += 1;
                ports.deliver(port, load, segments, now);
            }
            segments.clear();
            segments.shrink_to(ARENA);
            if *deliveries < DELIVERIES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let (mut relayed, mut flow) = (start, ControlFlow::Continue(()));
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        for (records, gso) in batch.pieces(start..end) {
            if flow.is_break() {
                break;
            }
            relayed += records.len();
            let cut = match Bundle::of(records, gso) {
                Some(bundle) if bundle.longest() <= max_frame => {
                    // Where it may come back, it may have been cut up on the way.
                    let frame = if is_guarded { bundle.first(&mut first) } else { bundle.frame };
                    flow = pass(decide(frame, bundle.longest()), Load::Bundle(bundle));
                    continue;
                }
                bundle => bundle.map(|bundle| bundle.segmented()),
            };
            let records = cut.as_deref().unwrap_or(records);
            let each = |frame: &[u8]| decide(frame, frame.len());
            let octets = for_each_run(records, each, |verdict, run| {
                flow = pass(verdict, Load::Run(run));
                flow
            });
            rest.extend_from_slice(&records[octets..]);
        }
        rest.extend_from_slice(&batch.finished(relayed..end));
        if let Some(port) = ports.slab.get_mut(ingress) {
            port.awaited = awaited;
        }
        *copies += as_u64(ports.hold(ingress, &rest, now));
        self.warn_of_conflict(now);
        self.warn_of_loop(now);
    }

    /// Once in a while that there is a loop, and whenever it costs a port.
    fn warn_of_loop(&mut self, now: Instant) {
        let Some(LoopFound { bus, other, muted }) = self.bridge.take_loop() else { return };
        let is_news = self.loop_warned.is_none_or(|warned| now.saturating_duration_since(warned) >= QUIET);
        if muted.is_none() && !is_news {
            return;
        }
        self.loop_warned = Some(now);
        let name = |id| self.ports.slab.get(id).map_or("", |port| port.name.as_str());
        let (bus, other, muted) = (name(bus), name(other), muted.map(name));
        let consequence = muted.map_or_else(String::new, |port| format!("; {port} is muted for a minute"));
        warn!(
            "a frame that was sent to {bus} came back by {other}: the two are joined elsewhere too, which makes a loop; leave out one of them{consequence}"
        );
    }

    /// Once for each station, and not more often than people read.
    fn warn_of_conflict(&mut self, now: Instant) {
        if self.conflict_warned.is_some_and(|warned| now.saturating_duration_since(warned) < QUIET) {
            return;
        }
        let Some(conflict) = self.bridge.take_conflict() else { return };
        self.conflict_warned = Some(now);
        let shown = |id| {
            let port = self.ports.slab.get(id);
            port.map_or_else(String::new, |port| format!("{} ({})", port.name, port.peer))
        };
        let ports = [conflict.ports.0, conflict.ports.1].map(shown).join(", ");
        warn!(
            mac:% = conflict.mac, vid = conflict.vid, ports = ports.as_str();
            "two ports use one MAC address; give each VM its own with -device ...,mac= ('qhub mac' makes them)"
        );
    }
}

/// Calls `each` with one run of `records` after the other, and the verdict that all of its frames
/// got from `decide`, until it breaks. Returns the octets of the runs that it was called with.
fn for_each_run<'r, V: PartialEq>(
    records: &'r [u8],
    mut decide: impl FnMut(&[u8]) -> V,
    mut each: impl FnMut(V, Run<'r>) -> ControlFlow<()>,
) -> usize {
    let mut open: Option<(V, usize)> = None;
    let (mut start, mut at) = (0, 0);
    while let Some(frame) = stream::frames(&records[at..]).next() {
        let verdict = decide(frame);
        let next = stretch(&records[at..], frame.len());
        match &mut open {
            Some((shared, frames)) if *shared == verdict => *frames += next.frames,
            _ => {
                if let Some((verdict, frames)) = open.replace((verdict, next.frames)) {
                    if each(verdict, Run { records: &records[start..at], frames }).is_break() {
                        return at;
                    }
                    start = at;
                }
            }
        }
        at += next.octets;
    }
    if let Some((verdict, frames)) = open {
        // It is the last run in any case.
        let _ = each(verdict, Run { records: &records[start..at], frames });
    }
    at
}

/// The octets of the frame of `length` at the start of `records` and of those right behind it that
/// look alike, and how many these are.
fn stretch(records: &[u8], length: usize) -> Taken {
    let record = PREFIX_LEN + length;
    let mut octets = record;
    if let Some(head) = records.first_chunk::<ALIKE>().filter(|_| record >= ALIKE) {
        while records.len() - octets >= record && records[octets..].starts_with(head) {
            octets += record;
        }
    }
    Taken { octets, frames: octets / record }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for frame in frames {
            assert!(stream::append(&mut bytes, frame));
        }
        bytes
    }

    proptest! {
        /// A verdict that depends on what a bridge sees, asked once per stretch, splits as one that
        /// is asked for every frame.
        #[test]
        fn runs_are_those_of_a_frame_by_frame_walk(
            picks in prop::collection::vec((0_u8..3, 0_u8..2, 0_usize..5, any::<u8>()), 0..60),
        ) {
            let frames: Vec<Vec<u8>> = picks
                .iter()
                .map(|&(to, from, size, payload)| {
                    let mut frame = vec![to; 6];
                    frame.extend([from; 10]);
                    frame.resize([0, 9, 15, 16, 40][size], payload);
                    frame
                })
                .collect();
            let verdict = |frame: &[u8]| (frame.first().copied(), frame.len() < 14);
            let mut expected: Vec<(_, Vec<Vec<u8>>)> = Vec::new();
            for frame in &frames {
                match expected.last_mut() {
                    Some((last, run)) if *last == verdict(frame) => run.push(frame.clone()),
                    _ => expected.push((verdict(frame), vec![frame.clone()])),
                }
            }
            let bytes = records(&frames);
            let mut got = Vec::new();
            let all = for_each_run(&bytes, verdict, |verdict, run| {
                let frames: Vec<Vec<u8>> = stream::frames(run.records).map(<[u8]>::to_vec).collect();
                assert_eq!(run.frames, frames.len());
                got.push((verdict, frames));
                ControlFlow::Continue(())
            });
            prop_assert_eq!(all, bytes.len());
            prop_assert_eq!(&got, &expected);

            let first = for_each_run(&bytes, verdict, |_, _| ControlFlow::Break(()));
            let expected = expected.first().map_or(0, |(_, run)| records(run).len());
            prop_assert_eq!(first, expected);
        }
    }
}
