//! Datagrams that are received several at once: each where its record is to be, if it is as long as was
//! expected. So a bulk flow, whose frames have one length, is never copied.

use std::mem;

use hub_protocol::stream::{self, MAX_FRAME, PREFIX_LEN};

use super::FrameBatch;
use crate::discard::DiscardReason;

/// Datagrams that one system call receives at the most.
pub const MANY: usize = 64;

/// Octets of them: what stays in the cache until it is sent.
const LOAD: usize = 64 * 1024;

/// From one overflow to the next: no multiple of a page, or they would share the same few lines of the cache.
const STRIDE: usize = MAX_FRAME + 128;

impl FrameBatch {
    /// Rooms for frames, [`MANY`] at the most: each has two parts, the first of `expected` octets, and both
    /// together hold any frame and an octet, to tell one that is too long. What is put there counts with
    /// [`Self::push_many`]. The batch is to be [half empty](Self::is_half_empty).
    pub fn rooms(&mut self, expected: usize) -> impl ExactSizeIterator<Item = [&mut [u8]; 2]> {
        if self.overflow.is_empty() {
            self.overflow = vec![0; MANY * STRIDE];
        }
        let record = PREFIX_LEN + expected;
        let load = LOAD.min(self.limit).div_ceil(record).min(MANY);
        let near = self.arena[self.whole..].chunks_exact_mut(record);
        let far = self.overflow.chunks_exact_mut(STRIDE);
        let rooms = near.zip(far).take(load);
        rooms.map(move |(near, far)| [&mut near[PREFIX_LEN..], &mut far[expected..=MAX_FRAME]])
    }

    /// Makes records of what came into the [rooms](Self::rooms), of so many octets each. What `is_noise` is
    /// no frame. What has no room here is there after [`Self::refill`].
    pub fn push_many(&mut self, expected: usize, lengths: &[usize], is_noise: impl Fn(&[u8]) -> bool) {
        let first = self.whole + PREFIX_LEN;
        let (mut later, at) = mem::take(&mut self.later);
        for (room, &octets) in lengths.iter().enumerate() {
            let near = first + room * (PREFIX_LEN + expected);
            let is_expected = octets <= expected;
            if is_expected && is_noise(&self.arena[near..near + octets]) {
                continue;
            }
            if octets > MAX_FRAME {
                self.lose(DiscardReason::TooBig, 1);
            } else if is_expected && later.is_empty() {
                // It moves toward the front, if at all.
                if self.whole + PREFIX_LEN < near {
                    self.arena.copy_within(near..near + octets, self.whole + PREFIX_LEN);
                }
                self.push(octets);
            } else {
                let far = &mut self.overflow[room * STRIDE..];
                let head = octets.min(expected);
                far[..head].copy_from_slice(&self.arena[near..near + head]);
                let end = self.whole + PREFIX_LEN + octets;
                // In front of others it would cover them.
                if later.is_empty() && room + 1 == lengths.len() && end <= self.arena.len() {
                    self.arena[self.whole + PREFIX_LEN..end].copy_from_slice(&far[..octets]);
                    self.push(octets);
                } else {
                    stream::append(&mut later, &far[..octets]);
                }
            }
        }
        self.later = (later, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::ARENA;
    use proptest::prelude::*;

    /// Puts frames into the rooms, as the system does.
    fn receive(batch: &mut FrameBatch, expected: usize, frames: &[Vec<u8>]) -> Vec<usize> {
        for ([near, far], frame) in batch.rooms(expected).zip(frames) {
            let head = frame.len().min(near.len());
            near[..head].copy_from_slice(&frame[..head]);
            let tail = &frame[head..frame.len().min(head + far.len())];
            far[..tail.len()].copy_from_slice(tail);
        }
        frames.iter().map(Vec::len).collect()
    }

    proptest! {
        /// Whatever was expected, the frames are all there, in their order.
        #[test]
        fn frames_of_any_lengths_are_taken(
            expected in 1_usize..3000,
            before in 0_usize..2,
            lengths in prop::collection::vec(prop_oneof![0_usize..3000, Just(60), Just(1514), 60_000..=MAX_FRAME + 1], 1..12),
        ) {
            let mut batch = FrameBatch::default();
            for _ in 0..before {
                let room = batch.room().unwrap();
                room[..100].fill(0xff);
                batch.push(100);
            }
            let rooms = batch.rooms(expected).len();
            let frames: Vec<Vec<u8>> = (1_u8..).zip(&lengths).map(|(n, &length)| vec![n; length]).take(rooms).collect();
            let octets = receive(&mut batch, expected, &frames);
            batch.push_many(expected, &octets, <[u8]>::is_empty);
            let before = vec![vec![0xff; 100]; before];
            let sound = frames.into_iter().filter(|frame| (1..=MAX_FRAME).contains(&frame.len()));
            let wanted: Vec<Vec<u8>> = before.into_iter().chain(sound).collect();
            let lost = *batch.lost();
            let mut got = Vec::new();
            loop {
                got.extend(stream::frames(batch.records()).map(<[u8]>::to_vec));
                if !batch.refill() {
                    break;
                }
            }
            prop_assert_eq!(&got, &wanted);
            let too_long = octets.iter().filter(|&&octets| octets > MAX_FRAME).count();
            prop_assert_eq!(lost.count(DiscardReason::TooBig), u64::try_from(too_long).unwrap());
        }
    }

    #[test]
    fn rooms_are_many_but_not_more_than_stays_in_the_cache() {
        for (expected, limit, rooms) in [
            (60, ARENA, 64),
            (1514, ARENA, 44),
            (9014, ARENA, 8),
            (MAX_FRAME, ARENA, 1),
            (1514, 32 * 1024, 22),
        ] {
            let mut batch = FrameBatch::default();
            batch.clear(limit);
            assert_eq!(batch.rooms(expected).len(), rooms, "{expected}");
        }
    }
}
