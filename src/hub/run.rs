//! Splitting a batch into runs: the longest stretches of frames that leave together.
//!
//! Bulk traffic repeats its lengths and addresses, so a frame that begins like the one before it
//! shares its fate for the price of a comparison; the bridge is asked only when they change.

use std::ops::ControlFlow;

use hub_protocol::stream::{self, PREFIX_LEN};

use crate::batch::{Run, Taken};

/// Length, addresses, type and the tag behind it: with these equal, the bridge can't tell two
/// frames apart.
const ALIKE: usize = PREFIX_LEN + 16;

/// Calls `each` with one run of `records` after the other, and the verdict that all of its frames
/// got from `decide`, until it breaks. Returns the octets of the runs that it was called with.
pub(super) fn for_each_run<'r, V: PartialEq>(
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
