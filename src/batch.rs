//! The arena: the frames of one receive, in the layout of a QEMU stream whatever they came by.
//!
//! So a run of frames that leave by one stream port is one slice and one write: nothing is framed
//! again, copied or allocated per frame.

use hub_protocol::stream::{self, BadLength, MAX_FRAME, PREFIX_LEN, Scan};

use crate::discard::{DiscardReason, Drops};

/// Octets that one receive takes at the most.
pub const ARENA: usize = 256 * 1024;

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
    /// Octets of whole records.
    whole: usize,
    /// Frames that came with these and were lost before they got here.
    lost: Drops,
}

impl Default for FrameBatch {
    fn default() -> Self {
        Self { arena: vec![0; ARENA].into_boxed_slice(), whole: 0, lost: Drops::default() }
    }
}

impl FrameBatch {
    /// Forgets the frames.
    pub fn clear(&mut self) {
        self.whole = 0;
        self.lost = Drops::default();
    }

    /// Holds `records`, which are whole and not more than an arena.
    pub fn load(&mut self, records: &[u8]) {
        self.arena[..records.len()].copy_from_slice(records);
        self.whole = records.len();
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
        let offered = self.arena.len() - held;
        let taken = read(&mut self.arena[held..])?;
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
        self.arena.get_mut(start..=start + MAX_FRAME)
    }

    /// Makes a record of the first octets of [`Self::room`].
    pub fn push(&mut self, octets: usize) {
        let (prefix, frame) = self.arena[self.whole..].split_at_mut(PREFIX_LEN);
        if let Some(length) = stream::prefix(&frame[..octets]) {
            prefix.copy_from_slice(&length);
            self.whole += PREFIX_LEN + octets;
        }
    }

    /// Counts a frame that was lost.
    pub fn lose(&mut self, reason: DiscardReason, frames: u64) {
        self.lost.add(reason, frames);
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
        batch.clear();
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
