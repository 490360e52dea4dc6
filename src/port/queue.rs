//! The egress queue: whole records that wait for a slow peer, bounded in octets, oldest first.
//!
//! Records lie in blocks that no record spans, so each block is one write, and frames for a
//! datagram port can be taken from it too. All queues draw their blocks from one [`Memory`].

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Buf, BufMut, BytesMut};

use crate::batch::{Run, Taken};

/// Octets of a block, unless what is queued at once is larger.
const BLOCK: usize = 32 * 1024;

/// Octets that share a time, so that times take little beside the records.
const STAMP: u64 = 1024;

/// The allowance that all egress queues together live in, in octets.
#[derive(Debug)]
pub struct Memory {
    used: usize,
    limit: usize,
}

impl Memory {
    /// An allowance of `limit` octets.
    pub fn new(limit: usize) -> Self {
        Self { used: 0, limit }
    }

    /// Octets in use.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Takes `octets` for something else than a queue.
    pub(super) fn take(&mut self, octets: usize) {
        self.used += octets;
    }

    /// Gives back what was taken.
    pub(super) fn give(&mut self, octets: usize) {
        self.used -= octets;
    }

    /// By how much `more` octets would break the limit.
    pub fn excess(&self, more: usize) -> usize {
        (self.used + more).saturating_sub(self.limit)
    }
}

/// When records were queued: those from the octet `start` to the octet `end`, counted from the
/// first that was ever queued; the time is that of the first of them.
#[derive(Debug)]
struct Stamp {
    queued: Instant,
    start: u64,
    end: u64,
}

#[derive(Debug)]
struct Block {
    records: BytesMut,
    frames: usize,
    cost: usize,
}

/// Records that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct EgressQueue {
    blocks: VecDeque<Block>,
    stamps: VecDeque<Stamp>,
    len: usize,
    frames: usize,
    allocated: usize,
    taken: u64,
}

impl EgressQueue {
    /// Octets that wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Does nothing wait?
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Octets of memory held.
    pub(super) fn allocated(&self) -> usize {
        self.allocated
    }

    /// Memory that a [`Self::push`] of `octets` would take.
    pub(super) fn cost(&self, octets: usize) -> usize {
        let room = self.blocks.back().map_or(0, |block| block.records.capacity() - block.records.len());
        if room >= octets { 0 } else { octets.max(BLOCK) }
    }

    /// When the record at the front was queued, or one at most 1 KiB before it.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.stamps.front().map(|stamp| stamp.queued)
    }

    /// The frames at the front, in one piece; none when nothing waits.
    pub(super) fn front(&self) -> Run<'_> {
        match self.blocks.front() {
            Some(block) => Run { records: &block.records, frames: block.frames },
            None => Run { records: &[], frames: 0 },
        }
    }

    /// Frames that wait.
    pub(super) fn frames(&self) -> usize {
        self.frames
    }

    /// Appends frames.
    pub(super) fn push(&mut self, run: Run<'_>, now: Instant, memory: &mut Memory) {
        let cost = self.cost(run.records.len());
        if cost > 0 {
            self.allocated += cost;
            memory.used += cost;
            self.blocks.push_back(Block { records: BytesMut::with_capacity(cost), frames: 0, cost });
        }
        if let Some(block) = self.blocks.back_mut() {
            block.records.put_slice(run.records);
            block.frames += run.frames;
        }
        let start = self.end();
        self.len += run.records.len();
        self.frames += run.frames;
        let end = self.end();
        match self.stamps.back_mut() {
            Some(last) if last.queued == now || end - last.start <= STAMP => last.end = end,
            _ => self.stamps.push_back(Stamp { queued: now, start, end }),
        }
    }

    /// Drops what was sent of [`Self::front`].
    pub(super) fn advance(&mut self, taken: Taken, memory: &mut Memory) {
        let Some(block) = self.blocks.front_mut() else { return };
        block.records.advance(taken.octets);
        block.frames -= taken.frames;
        if block.records.is_empty() {
            self.allocated -= block.cost;
            memory.used -= block.cost;
            self.blocks.pop_front();
        }
        self.len -= taken.octets;
        self.frames -= taken.frames;
        self.taken += as_u64(taken.octets);
        while self.stamps.front().is_some_and(|stamp| stamp.end <= self.taken) {
            self.stamps.pop_front();
        }
    }

    /// Drops the newest block, and returns the frames that were in it.
    pub(super) fn drop_newest(&mut self, memory: &mut Memory) -> usize {
        let Some(block) = self.blocks.pop_back() else {
            return 0;
        };
        self.allocated -= block.cost;
        memory.used -= block.cost;
        self.len -= block.records.len();
        self.frames -= block.frames;
        let end = self.end();
        while let Some(last) = self.stamps.pop_back() {
            let before = self.stamps.back().map_or(self.taken, |stamp| stamp.end);
            if before < end {
                self.stamps.push_back(Stamp { end, ..last });
                break;
            }
        }
        block.frames
    }

    /// Drops everything, and returns the frames that waited.
    pub(super) fn clear(&mut self, memory: &mut Memory) -> usize {
        let frames = self.frames();
        memory.used -= self.allocated;
        *self = Self::default();
        frames
    }

    fn end(&self) -> u64 {
        self.taken + as_u64(self.len)
    }
}

/// A length as a counter has it; no address space is larger.
pub fn as_u64(octets: usize) -> u64 {
    octets as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub_protocol::stream;
    use proptest::prelude::*;
    use std::time::Duration;

    fn records(count: usize, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..count {
            assert!(stream::append(&mut bytes, &vec![0; length]));
        }
        bytes
    }

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "an arbitrary start of virtual time")]
        Instant::now()
    }

    #[test]
    fn the_oldest_frame_has_its_own_time_or_that_of_the_kilobyte_before_it() {
        let (mut queue, mut memory, start) = (EgressQueue::default(), Memory::new(1 << 20), start());
        let [second, third] = [3, 6].map(|ms| start + Duration::from_millis(ms));
        queue.push(Run::of(&records(2, 508)), start, &mut memory);
        queue.push(Run::of(&records(1, 508)), second, &mut memory);
        queue.push(Run::of(&records(1, 508)), third, &mut memory);
        for oldest in [start, start, second, second] {
            assert_eq!(queue.oldest(), Some(oldest));
            queue.advance(Taken { octets: 512, frames: 1 }, &mut memory);
        }
        assert_eq!((queue.oldest(), queue.len(), memory.used()), (None, 0, 0));
    }

    #[test]
    fn times_take_little_beside_the_records() {
        let (mut queue, mut memory, mut now) = (EgressQueue::default(), Memory::new(1 << 20), start());
        for _ in 0..10_000 {
            queue.push(Run::of(&records(1, 14)), now, &mut memory);
            now += Duration::from_millis(1);
        }
        assert!(queue.stamps.len() <= queue.len() / 1000, "{}", queue.stamps.len());
    }

    #[test]
    fn small_pushes_share_a_block_and_records_never_span_two() {
        let (mut queue, mut memory, start) = (EgressQueue::default(), Memory::new(1 << 20), start());
        for _ in 0..30 {
            queue.push(Run::of(&records(1, 1514)), start, &mut memory);
        }
        assert_eq!((queue.blocks.len(), memory.used()), (2, 2 * BLOCK));
        assert_eq!(queue.front().records.len() % 1518, 0);
        assert_eq!(queue.drop_newest(&mut memory), 30 - queue.front().frames);
        queue.push(Run::of(&records(100, 1514)), start, &mut memory);
        assert_eq!(memory.used(), BLOCK + 151_800, "what is larger than a block gets one of its size");
        assert_eq!(queue.clear(&mut memory), 121);
        assert_eq!((memory.used(), queue.len()), (0, 0));
    }

    #[test]
    fn the_limit_is_seen_on_both_sides() {
        let (mut queue, mut memory) = (EgressQueue::default(), Memory::new(2 * BLOCK));
        queue.push(Run::of(&records(1, 60)), start(), &mut memory);
        assert_eq!(memory.excess(BLOCK), 0);
        assert_eq!(memory.excess(BLOCK + 1), 1);
    }

    proptest! {
        #[test]
        fn books_balance(steps in prop::collection::vec((0_u8..4, 1_usize..40, 14_usize..4000), 1..80)) {
            let (mut queue, mut memory, mut now) = (EgressQueue::default(), Memory::new(usize::MAX), start());
            let mut waiting: VecDeque<(usize, Instant)> = VecDeque::new();
            for (step, count, length) in steps {
                now += Duration::from_millis(2);
                match step {
                    0 | 1 => {
                        queue.push(Run::of(&records(count, length)), now, &mut memory);
                        waiting.extend(std::iter::repeat_n((length + 4, now), count));
                    }
                    2 => {
                        let taken = queue.front().frames.min(count);
                        let octets: usize = waiting.drain(..taken).map(|(octets, _)| octets).sum();
                        queue.advance(Taken { octets, frames: taken }, &mut memory);
                    }
                    _ => {
                        let dropped = queue.drop_newest(&mut memory);
                        waiting.truncate(waiting.len() - dropped);
                    }
                }
                prop_assert_eq!(queue.frames(), waiting.len());
                prop_assert_eq!(queue.len(), waiting.iter().map(|(octets, _)| octets).sum::<usize>());
                prop_assert_eq!(queue.oldest().is_some(), !waiting.is_empty());
                prop_assert!(queue.oldest() <= waiting.front().map(|&(_, at)| at));
                prop_assert_eq!(memory.used(), queue.allocated());
                prop_assert!(memory.used() >= queue.len());
            }
        }
    }
}
