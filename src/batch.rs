//! The arena: the frames of one receive, in the layout of a QEMU stream whatever they came by.
//!
//! So a run of frames that leave by one stream port is one slice and one write: nothing is framed
//! again, copied or allocated per frame.

use hub_protocol::stream::{self, BadLength, MAX_FRAME, PREFIX_LEN, Scan};

use crate::discard::{DiscardReason, Drops};

/// Octets that one receive takes at the most.
pub const ARENA: usize = 256 * 1024;

/// The same where a receiver has a backlog: more would only wait, and make what waits older.
pub const SHORT: usize = 32 * 1024;

/// Datagrams that one system call receives at the most.
pub const SLOTS: usize = 32;

/// From one slot to the next: no multiple of a page, or they would share the same few lines of the
/// cache.
const STRIDE: usize = MAX_FRAME + 128;

/// Consecutive frames: whole records in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    /// The records.
    pub records: &'a [u8],
    /// How many.
    pub frames: usize,
}

impl<'a> Run<'a> {
    /// What `records` hold, counted.
    pub fn of(records: &'a [u8]) -> Self {
        Self { records, frames: stream::count(records) }
    }

    /// Octets of the frames themselves.
    pub fn payload(&self) -> usize {
        self.extent().payload()
    }

    /// All of it.
    pub fn extent(&self) -> Taken {
        Taken { octets: self.records.len(), frames: self.frames }
    }

    /// The first frame.
    pub fn first(&self) -> Taken {
        let octets = stream::record_len(self.records).unwrap_or_default();
        Taken { octets, frames: usize::from(octets > 0) }
    }

    /// As many frames from its start as `octets` and `frames` allow.
    pub fn start(&self, octets: usize, frames: usize) -> Taken {
        if self.records.len() <= octets && self.frames <= frames {
            return self.extent();
        }
        let mut taken = Taken::default();
        for frame in stream::frames(self.records).take(frames) {
            let end = taken.octets + PREFIX_LEN + frame.len();
            if end > octets {
                break;
            }
            taken = Taken { octets: end, frames: taken.frames + 1 };
        }
        taken
    }

    /// What was taken, and what was left.
    pub fn split(self, taken: Taken) -> (Self, Self) {
        let (before, behind) = self.records.split_at(taken.octets);
        let frames = self.frames - taken.frames;
        (Self { records: before, frames: taken.frames }, Self { records: behind, frames })
    }
}

/// How much of a run was taken, from its start: whole records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Octets of records.
    pub octets: usize,
    /// Records.
    pub frames: usize,
}

impl Taken {
    /// Octets of the frames themselves.
    pub fn payload(&self) -> usize {
        self.octets - self.frames * PREFIX_LEN
    }
}

/// Whole frames, received at once from one port.
#[derive(Debug)]
pub struct FrameBatch {
    arena: Box<[u8]>,
    /// Where datagrams are received that come several at once; made when there are any.
    slots: Vec<u8>,
    /// Octets of whole records.
    whole: usize,
    /// Octets that one receive may take.
    limit: usize,
    /// Frames that came with these and were lost before they got here.
    lost: Drops,
}

impl Default for FrameBatch {
    fn default() -> Self {
        Self {
            arena: vec![0; ARENA].into_boxed_slice(),
            slots: Vec::new(),
            whole: 0,
            limit: ARENA,
            lost: Drops::default(),
        }
    }
}

impl FrameBatch {
    /// Forgets the frames. The next receive takes some `limit` octets.
    pub fn clear(&mut self, limit: usize) {
        self.whole = 0;
        self.limit = limit;
        self.lost = Drops::default();
    }

    /// Is there room for several datagrams more?
    pub fn is_half_empty(&self) -> bool {
        self.whole < self.limit / 2
    }

    /// Holds `records`, which are whole and not more than an arena.
    pub fn load(&mut self, records: &[u8]) {
        self.arena[..records.len()].copy_from_slice(records);
        self.whole = records.len();
    }

    /// Holds what `other` holds.
    pub fn copy(&mut self, other: &Self) {
        self.load(other.records());
        self.lost = other.lost;
    }

    /// Takes octets of a stream: behind `tail`, the beginning of a record that an earlier call cut,
    /// come those that `read` puts into the room it is offered. Leaves in `tail` what is not whole
    /// yet, which is never more than one record.
    ///
    /// On an error of `read`, `tail` is as before. An impossible length ends the batch; it is
    /// returned to be acted upon after the frames before it.
    pub fn fill_stream(
        &mut self,
        tail: &mut Vec<u8>,
        read: impl FnOnce(&mut [u8]) -> std::io::Result<usize>,
    ) -> std::io::Result<Filled> {
        let held = tail.len();
        let offered = self.limit.min(self.arena.len() - held);
        let taken = read(&mut self.arena[held..][..offered])?;
        if stream::record_len(tail).is_some_and(|record| held + taken < record) {
            // A record that comes in small pieces costs as much as its octets, not their square.
            tail.extend_from_slice(&self.arena[held..held + taken]);
            return Ok(Filled { taken, offered, fault: None });
        }
        self.arena[..held].copy_from_slice(tail);
        let bytes = &self.arena[..held + taken];
        let Scan { whole, fault } = stream::scan(bytes);
        self.whole = whole;
        tail.clear();
        if fault.is_none() {
            tail.extend_from_slice(&bytes[whole..]);
        }
        if tail.is_empty() {
            // A link that idles keeps no memory.
            *tail = Vec::new();
        }
        Ok(Filled { taken, offered, fault })
    }

    /// Room for one more frame of any length and an octet, to tell one that is too long; `None` when
    /// there is not so much left. What is put there counts with [`Self::push`].
    pub fn room(&mut self) -> Option<&mut [u8]> {
        let start = self.whole + PREFIX_LEN;
        self.arena.get_mut(start..=start + MAX_FRAME).filter(|_| self.whole < self.limit)
    }

    /// Makes a record of the first `octets` of [`Self::room`].
    pub fn push(&mut self, octets: usize) {
        let (prefix, frame) = self.arena[self.whole..].split_at_mut(PREFIX_LEN);
        if let Some(length) = stream::prefix(&frame[..octets]) {
            prefix.copy_from_slice(&length);
            self.whole += PREFIX_LEN + octets;
        }
    }

    /// A room for a frame of any length and an octet, [`SLOTS`] times; what is put there counts with
    /// [`Self::push_slot`].
    pub fn slots(&mut self) -> impl Iterator<Item = &mut [u8]> {
        if self.slots.is_empty() {
            self.slots = vec![0; SLOTS * STRIDE];
        }
        self.slots.chunks_exact_mut(STRIDE).map(|slot| &mut slot[..=MAX_FRAME])
    }

    /// Makes a record of the first `octets` of a slot, at the end of the batch, or of `rest` when the
    /// batch is full or there is something already.
    pub fn push_slot(&mut self, slot: usize, octets: usize, rest: &mut Vec<u8>) {
        let frame = &self.slots[slot * STRIDE..][..octets];
        let end = self.whole + PREFIX_LEN + octets;
        if end > self.arena.len() || !rest.is_empty() {
            stream::append(rest, frame);
            return;
        }
        self.arena[self.whole + PREFIX_LEN..end].copy_from_slice(frame);
        self.push(octets);
    }

    /// Counts a frame that was lost.
    pub fn lose(&mut self, reason: DiscardReason, frames: u64) {
        self.lost.add(reason, frames);
    }

    /// The first `octets` of a slot.
    pub fn slot(&self, slot: usize, octets: usize) -> &[u8] {
        &self.slots[slot * STRIDE..][..octets]
    }

    /// The frames that were lost.
    pub fn lost(&self) -> &Drops {
        &self.lost
    }

    /// The frames, as records of a stream.
    pub fn records(&self) -> &[u8] {
        &self.arena[..self.whole]
    }
}

/// What [`FrameBatch::fill_stream`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Octets read.
    pub taken: usize,
    /// Octets that there was room for.
    pub offered: usize,
    /// The impossible length that ended the batch.
    pub fault: Option<BadLength>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn the_start_of_a_run_keeps_both_limits() {
        let run = Run::of(b"\0\0\0\x02ab\0\0\0\x02cd\0\0\0\x02ef");
        for (octets, frames, taken) in [(18, 3, 3), (17, 3, 2), (18, 2, 2), (12, 9, 2), (5, 9, 0), (99, 0, 0)]
        {
            let start = run.start(octets, frames);
            assert_eq!(start, Taken { octets: 6 * taken, frames: taken }, "{octets} octets, {frames} frames");
        }
    }

    fn feed<'a>(bytes: &'a [u8]) -> impl FnOnce(&mut [u8]) -> io::Result<usize> + 'a {
        move |room| {
            room[..bytes.len()].copy_from_slice(bytes);
            Ok(bytes.len())
        }
    }

    #[test]
    fn a_cut_record_waits_in_the_tail() {
        let (mut batch, mut tail) = (FrameBatch::default(), Vec::new());
        let filled = batch.fill_stream(&mut tail, feed(b"\0\0\0\x02ab\0\0\0\x03c")).unwrap();
        assert_eq!(filled, Filled { taken: 11, offered: ARENA, fault: None });
        assert_eq!((batch.records(), tail.as_slice()), (&b"\0\0\0\x02ab"[..], &b"\0\0\0\x03c"[..]));

        let kept = tail.clone();
        batch.clear(ARENA);
        batch.fill_stream(&mut tail, |_| Err(io::ErrorKind::WouldBlock.into())).unwrap_err();
        assert_eq!((batch.records().len(), &tail), (0, &kept), "an error loses nothing");

        let filled = batch.fill_stream(&mut tail, feed(b"de")).unwrap();
        assert_eq!(filled.offered, ARENA - 5);
        assert_eq!(batch.records(), b"\0\0\0\x03cde");
        assert_eq!(tail.capacity(), 0);
    }

    #[test]
    fn a_bad_length_comes_after_the_frames_before_it() {
        let (mut batch, mut tail) = (FrameBatch::default(), Vec::new());
        let filled = batch.fill_stream(&mut tail, feed(b"\0\0\0\x01a\xff\xff\xff\xff")).unwrap();
        assert_eq!(filled.fault, Some(BadLength(u32::MAX)));
        assert_eq!(batch.records(), b"\0\0\0\x01a");
    }
}
