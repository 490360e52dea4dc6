//! Frames that leave together, and how much of them has left.

use hub_protocol::stream::{self, PREFIX_LEN};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_run_keeps_both_limits() {
        let run = Run::of(b"\0\0\0\x02ab\0\0\0\x02cd\0\0\0\x02ef");
        for (octets, frames, taken) in [(18, 3, 3), (17, 3, 2), (18, 2, 2), (12, 9, 2), (5, 9, 0), (99, 0, 0)]
        {
            let start = run.start(octets, frames);
            assert_eq!(start, Taken { octets: 6 * taken, frames: taken }, "{octets} octets, {frames} frames");
        }
    }
}
