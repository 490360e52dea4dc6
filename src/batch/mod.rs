//! The arena: the frames of one receive, in the layout of a QEMU stream whatever they came by.
//!
//! So a run of frames that leave by one stream port is one slice and one write: nothing is framed
//! again, copied or allocated per frame.

mod bundle;
mod many;
mod run;

use std::borrow::Cow;
use std::ops::Range;

use hub_protocol::gso::Gso;
use hub_protocol::stream::{self, BadLength, Cut, MAX_FRAME, PREFIX_LEN, Scan};
use hub_protocol::vnet::{VnetHeader, finish_checksum};

pub use bundle::{Bundle, Load};
pub use many::MANY;
pub use run::{Run, Taken};

use crate::discard::{DiscardReason, Drops};

/// Octets that one receive takes at the most.
pub const ARENA: usize = 256 * 1024;

/// The same where a receiver has a backlog: more would only wait, and make what waits older.
pub const SHORT: usize = 32 * 1024;

/// Octets of the frames that one bundle may stand for: 64 KiB in segments of 8 octets are less.
const BUNDLE: usize = 4 * ARENA;

/// Whole frames, received at once from one port.
#[derive(Debug)]
pub struct FrameBatch {
    arena: Box<[u8]>,
    /// Where what is longer than expected goes on, of datagrams that come several at once; made when there
    /// are any.
    overflow: Vec<u8>,
    /// Records of the same receive that found no room, and where the next of them begins.
    later: (Vec<u8>, usize),
    /// Octets of whole records.
    whole: usize,
    /// Where a record stands for several frames, in their order.
    bundles: Vec<(usize, Gso)>,
    /// Octets that one receive may take.
    limit: usize,
    /// Frames that came with these and were lost before they got here.
    lost: Drops,
}

impl Default for FrameBatch {
    fn default() -> Self {
        Self {
            arena: vec![0; ARENA].into_boxed_slice(),
            overflow: Vec::new(),
            later: (Vec::new(), 0),
            whole: 0,
            bundles: Vec::new(),
            limit: ARENA,
            lost: Drops::default(),
        }
    }
}

impl FrameBatch {
    /// Forgets the frames. The next receive takes some `limit` octets.
    pub fn clear(&mut self, limit: usize) {
        self.whole = 0;
        self.bundles.clear();
        self.later = (Vec::new(), 0);
        self.limit = limit;
        self.lost = Drops::default();
    }

    /// Is there room for several datagrams more?
    pub fn is_half_empty(&self) -> bool {
        self.whole < self.limit / 2 && self.later.0.is_empty()
    }

    /// Goes on with what one receive gave beyond an arena; false when that was all.
    pub fn refill(&mut self) -> bool {
        let (later, at) = &mut self.later;
        let rest = &later[*at..];
        let Cut { whole, .. } = stream::cut(rest, self.arena.len().min(rest.len()));
        self.arena[..whole].copy_from_slice(&rest[..whole]);
        *at += whole;
        self.whole = whole;
        self.bundles.clear();
        whole > 0
    }

    /// Octets that the next receive is to take at the most.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Holds `records`, which are whole and not more than an arena.
    pub fn load(&mut self, records: &[u8]) {
        self.arena[..records.len()].copy_from_slice(records);
        self.whole = records.len();
        self.bundles.clear();
    }

    /// Holds what `other` holds.
    pub fn copy(&mut self, other: &Self) {
        self.load(other.records());
        self.bundles.clone_from(&other.bundles);
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

    /// Makes a record of a copy of `frame`; where there is no room left, it is lost.
    pub fn append(&mut self, frame: &[u8]) {
        let start = self.whole + PREFIX_LEN;
        match self.arena.get_mut(start..start + frame.len()) {
            Some(room) => {
                room.copy_from_slice(frame);
                self.push(frame.len());
            }
            None => self.lose(DiscardReason::Overrun, 1),
        }
    }

    /// Makes a record of the first `octets` of [`Self::room`], and does what `header` leaves to do: only
    /// what is still to be segmented stays as it is, and is a bundle.
    pub fn push_offloaded(&mut self, octets: usize, header: &VnetHeader) {
        let start = self.whole + PREFIX_LEN;
        let frame = &mut self.arena[start..][..octets];
        if header.gso.is_none() {
            match finish_checksum(frame, header) {
                Ok(()) => self.push(octets),
                Err(_) => self.lose(DiscardReason::BadOffload, 1),
            }
            return;
        }
        match Gso::parse(frame, header) {
            Ok(gso) if gso.octets(frame) <= BUNDLE => {
                self.bundles.push((self.whole, gso));
                self.push(octets);
            }
            Ok(_) | Err(_) => self.lose(DiscardReason::BadOffload, 1),
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

    /// The frames, as records of a stream; a record may be a bundle.
    pub fn records(&self) -> &[u8] {
        &self.arena[..self.whole]
    }

    /// The records in `range`, which begins and ends with whole ones: stretches of ordinary frames, and
    /// bundles one by one.
    pub fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = (&[u8], Option<Gso>)> {
        let records = &self.arena[..range.end.min(self.whole)];
        let first = self.bundles.partition_point(|&(at, _)| at < range.start);
        let mut bundles = self.bundles[first..].iter().take_while(move |&&(at, _)| at < range.end).peekable();
        let mut at = range.start;
        std::iter::from_fn(move || {
            let (end, gso) = match bundles.peek() {
                Some(&&(start, _)) if start > at => (start, None),
                Some(&&(start, gso)) => {
                    bundles.next();
                    (start + stream::record_len(&records[start..])?, Some(gso))
                }
                None if at < records.len() => (records.len(), None),
                None => return None,
            };
            let piece = &records[at..end];
            at = end;
            Some((piece, gso))
        })
    }

    /// The frames in `range`, none of them a bundle any more.
    pub fn finished(&self, range: Range<usize>) -> Cow<'_, [u8]> {
        if self.bundles.is_empty() {
            return Cow::Borrowed(&self.records()[range]);
        }
        let mut frames = Vec::new();
        for (records, gso) in self.pieces(range) {
            match Bundle::of(records, gso) {
                Some(bundle) => bundle.segment(&mut frames),
                None => frames.extend_from_slice(records),
            }
        }
        Cow::Owned(frames)
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
    use hub_protocol::vnet::{ChecksumState, GsoKind};
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
        batch.clear(ARENA);
        batch.fill_stream(&mut tail, |_| Err(io::ErrorKind::WouldBlock.into())).unwrap_err();
        assert_eq!((batch.records().len(), &tail), (0, &kept), "an error loses nothing");

        let filled = batch.fill_stream(&mut tail, feed(b"de")).unwrap();
        assert_eq!(filled.offered, ARENA - 5);
        assert_eq!(batch.records(), b"\0\0\0\x03cde");
        assert_eq!(tail.capacity(), 0);
    }

    /// A TCP segment of `payload` octets over IPv4, its checksum left to be finished, and what is said of it.
    fn tcp(payload: usize, gso: Option<GsoKind>) -> (Vec<u8>, VnetHeader) {
        let mut frame = vec![0; 14 + 20 + 20 + payload];
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        frame[14] = 0x45;
        frame[16..18].copy_from_slice(&u16::try_from(40 + payload).unwrap().to_be_bytes());
        frame[23] = 6;
        frame[46] = 0x50;
        let checksum = ChecksumState::Needed;
        let header =
            VnetHeader { checksum, gso, hdr_len: 54, gso_size: 100, csum_start: 34, csum_offset: 16 };
        (frame, header)
    }

    #[test]
    fn only_what_is_still_to_be_segmented_is_a_bundle() {
        let mut batch = FrameBatch::default();
        let mut push = |(frame, header): (Vec<u8>, VnetHeader)| {
            batch.room().unwrap()[..frame.len()].copy_from_slice(&frame);
            batch.push_offloaded(frame.len(), &header);
        };
        let kind = Some(GsoKind::TcpV4 { ecn: false });
        push(tcp(10, None));
        push(tcp(250, kind));
        push(tcp(20, None));
        push(tcp(0, kind));
        let (frame, header) = tcp(30, None);
        push((frame, VnetHeader { csum_start: 200, ..header }));
        assert_eq!(batch.lost().count(DiscardReason::BadOffload), 2, "no payload, and a checksum elsewhere");

        let all = 0..batch.records().len();
        let lengths = |pieces: &[u8]| stream::frames(pieces).map(<[u8]>::len).collect::<Vec<_>>();
        let pieces: Vec<_> =
            batch.pieces(all.clone()).map(|(piece, gso)| (lengths(piece), gso.is_some())).collect();
        assert_eq!(pieces, [(vec![64], false), (vec![304], true), (vec![74], false)]);
        let finished = batch.finished(all.clone());
        assert_eq!(lengths(&finished), [64, 154, 154, 104, 74]);
        for frame in stream::frames(&finished) {
            assert_ne!(frame[50..52], [0, 0], "its checksum is finished");
        }
        assert_eq!(lengths(&batch.finished(68..all.end)), [154, 154, 104, 74]);
        assert_eq!(batch.pieces(68..68 + 308).count(), 1);
        batch.clear(ARENA);
        assert_eq!(batch.pieces(0..0).count(), 0);
    }

    #[test]
    fn frames_are_appended_while_there_is_room() {
        let mut batch = FrameBatch::default();
        let frame = vec![7; ARENA / 4 - PREFIX_LEN];
        (0..3).for_each(|_| batch.append(&frame));
        batch.append(&frame[1..]);
        assert_eq!(batch.records().len(), ARENA - 1);
        assert_eq!(stream::count(batch.records()), 4);
        batch.append(b"a");
        assert_eq!((batch.records().len(), batch.lost().count(DiscardReason::Overrun)), (ARENA - 1, 1));
    }

    #[test]
    fn a_bad_length_comes_after_the_frames_before_it() {
        let (mut batch, mut tail) = (FrameBatch::default(), Vec::new());
        let filled = batch.fill_stream(&mut tail, feed(b"\0\0\0\x01a\xff\xff\xff\xff")).unwrap();
        assert_eq!(filled.fault, Some(BadLength(u32::MAX)));
        assert_eq!(batch.records(), b"\0\0\0\x01a");
    }
}
