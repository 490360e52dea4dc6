//! QEMU's framing of Ethernet on a byte stream (`-netdev stream`, `-netdev socket`): records of a
//! 32-bit big-endian length and that many octets of frame, one after the other
//! (QEMU `net/stream.c`, `net/socket.c`).
//!
//! There is no magic number, so a length that cannot be right leaves no way to find the next record.
//! qhub keeps frames of every origin in this layout, which makes a run of them one slice.

use std::fmt;

/// Octets of the length in front of each frame.
pub const PREFIX_LEN: usize = 4;

/// The longest frame that QEMU sends or takes (its `NET_BUFSIZE`), in octets.
pub const MAX_FRAME: usize = 69_632;

/// The length of a record that no peer can mean: more than [`MAX_FRAME`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLength(pub u32);

impl fmt::Display for BadLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame length {} exceeds {MAX_FRAME}", self.0)
    }
}

impl std::error::Error for BadLength {}

/// What [`scan`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Octets of whole records at the start; what follows is the beginning of one more.
    pub whole: usize,
    /// Set when the record after them has an impossible length.
    pub fault: Option<BadLength>,
}

/// Measures the whole records at the start of what was received so far.
pub fn scan(bytes: &[u8]) -> Scan {
    let mut whole = 0;
    while let Some(prefix) = bytes[whole..].first_chunk::<PREFIX_LEN>() {
        let length = u32::from_be_bytes(*prefix);
        let Some(record) = checked_record_len(length) else {
            return Scan { whole, fault: Some(BadLength(length)) };
        };
        if bytes.len() - whole < record {
            break;
        }
        whole += record;
        // Lengths repeat in bulk traffic: comparing four octets beats decoding them.
        while bytes.len() - whole >= record && bytes[whole..].starts_with(prefix) {
            whole += record;
        }
    }
    Scan { whole, fault: None }
}

/// The length of the record that begins with `bytes`, however much of it is there; `None` while its
/// prefix is not whole, or says an impossible length.
pub fn record_len(bytes: &[u8]) -> Option<usize> {
    bytes.first_chunk().copied().map(u32::from_be_bytes).and_then(checked_record_len)
}

fn checked_record_len(length: u32) -> Option<usize> {
    let length = usize::try_from(length).ok()?;
    (length <= MAX_FRAME).then_some(PREFIX_LEN + length)
}

/// The length prefix of a frame; `None` when the frame is longer than [`MAX_FRAME`].
pub fn prefix(frame: &[u8]) -> Option<[u8; PREFIX_LEN]> {
    let length = u32::try_from(frame.len()).ok()?;
    checked_record_len(length).map(|_| length.to_be_bytes())
}

/// Appends a record to `records`; `false`, and nothing is appended, when the frame is too long.
pub fn append(records: &mut Vec<u8>, frame: &[u8]) -> bool {
    let Some(prefix) = prefix(frame) else { return false };
    records.extend_from_slice(&prefix);
    records.extend_from_slice(frame);
    true
}

/// The frames of a slice of whole records, without their prefixes.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

/// Walks whole records, as [`scan`] measured them; ends at the first that is not whole.
pub fn frames(records: &[u8]) -> Frames<'_> {
    Frames { rest: records }
}

impl<'a> Iterator for Frames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (prefix, rest) = self.rest.split_first_chunk::<PREFIX_LEN>()?;
        let length = usize::try_from(u32::from_be_bytes(*prefix)).ok()?;
        let (frame, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(frame)
    }
}

/// Where a cut falls; see [`cut`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Octets of the records that lie before the cut as a whole.
    pub whole: usize,
    /// How many these are.
    pub frames: usize,
    /// Where the record ends that the cut falls into; the same as `whole` between two records.
    pub end: usize,
}

/// Finds where a cut at the octet `at` falls in whole `records`.
pub fn cut(records: &[u8], at: usize) -> Cut {
    let (mut whole, mut frames) = (0, 0);
    while whole < at {
        let Some(record) = records.get(whole..).and_then(record_len) else { break };
        if whole + record > at {
            return Cut { whole, frames, end: whole + record };
        }
        let prefix = &records[whole..whole + PREFIX_LEN];
        whole += record;
        frames += 1;
        while whole + record <= at && records[whole..].starts_with(prefix) {
            whole += record;
            frames += 1;
        }
    }
    Cut { whole, frames, end: whole }
}

/// The number of whole `records`.
pub fn count(records: &[u8]) -> usize {
    cut(records, records.len()).frames
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX_RECORD: usize = PREFIX_LEN + MAX_FRAME;

    fn records(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for frame in frames {
            assert!(append(&mut bytes, frame));
        }
        bytes
    }

    #[test]
    fn golden_record() {
        assert_eq!(records(&[b"abc".to_vec()]), b"\0\0\0\x03abc");
    }

    #[test]
    fn both_sides_of_the_longest_frame() {
        let longest = vec![7; MAX_FRAME];
        let bytes = records(std::slice::from_ref(&longest));
        assert_eq!(scan(&bytes), Scan { whole: MAX_RECORD, fault: None });
        assert_eq!(scan(&bytes[..MAX_RECORD - 1]), Scan { whole: 0, fault: None });

        let mut out = Vec::new();
        assert!(!append(&mut out, &[0; MAX_FRAME + 1]) && out.is_empty());
        let mut bytes = records(&[vec![1; 20]]);
        bytes.extend_from_slice(&69_633_u32.to_be_bytes());
        assert_eq!(scan(&bytes), Scan { whole: 24, fault: Some(BadLength(69_633)) });
        assert_eq!(BadLength(69_633).to_string(), "frame length 69633 exceeds 69632");
        assert_eq!(scan(&[0xff; 4]).fault, Some(BadLength(u32::MAX)));
    }

    #[test]
    fn a_record_says_its_length_once_its_prefix_is_whole() {
        let bytes = records(&[vec![0; 60]]);
        assert_eq!(record_len(&bytes[..3]), None);
        assert_eq!(record_len(&bytes[..4]), Some(64));
        assert_eq!(record_len(&bytes), Some(64));
        assert_eq!(record_len(&[0, 1, 0x10, 0]), Some(MAX_RECORD));
        assert_eq!(record_len(&[0, 1, 0x10, 1]), None);
    }

    #[test]
    fn empty_records_are_walked_over() {
        let bytes = records(&[vec![], vec![1], vec![]]);
        assert_eq!(scan(&bytes).whole, bytes.len());
        assert_eq!(frames(&bytes).map(<[u8]>::len).collect::<Vec<_>>(), [0, 1, 0]);
    }

    #[test]
    fn a_cut_falls_between_two_records_or_into_one() {
        let bytes = records(&[vec![0; 6], vec![0; 16], vec![1; 16]]);
        for (at, whole, frames, end) in [
            (0, 0, 0, 0),
            (1, 0, 0, 10),
            (9, 0, 0, 10),
            (10, 10, 1, 10),
            (11, 10, 1, 30),
            (30, 30, 2, 30),
            (31, 30, 2, 50),
            (50, 50, 3, 50),
            (99, 50, 3, 50),
        ] {
            assert_eq!(cut(&bytes, at), Cut { whole, frames, end }, "cut at {at}");
        }
        assert_eq!((count(&bytes), count(&[])), (3, 0));
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_frames(
            sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            cuts in prop::collection::vec(1_usize..50, 1..40),
        ) {
            let bytes = records(&sent);
            let (mut held, mut got, mut at) = (Vec::new(), Vec::new(), 0);
            for cut in cuts.iter().cycle() {
                if at == bytes.len() { break }
                let end = bytes.len().min(at + cut);
                held.extend_from_slice(&bytes[at..end]);
                at = end;
                let Scan { whole, fault } = scan(&held);
                prop_assert_eq!(fault, None);
                got.extend(frames(&held[..whole]).map(<[u8]>::to_vec));
                held.drain(..whole);
            }
            prop_assert!(held.is_empty());
            prop_assert_eq!(got, sent);
        }

        #[test]
        fn any_bytes_scan_to_whole_records(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let Scan { whole, fault } = scan(&bytes);
            prop_assert_eq!(count(&bytes[..whole]), frames(&bytes[..whole]).count());
            let walked: usize = frames(&bytes[..whole]).map(|frame| PREFIX_LEN + frame.len()).sum();
            prop_assert_eq!(walked, whole);
            if let Some(BadLength(length)) = fault {
                prop_assert!(length > 69_632);
            }
        }
    }
}
