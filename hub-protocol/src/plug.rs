//! vde_plug's framing of Ethernet on a pipe (`vde_plug`, `dpipe`): records of a 16-bit big-endian length
//! and that many octets of frame, one after the other. A record without octets means nothing.
//!
//! As in [`stream`](crate::stream), a length that cannot be right leaves no way to find the next record.

use std::fmt;

/// Octets of the length in front of each frame.
pub const PREFIX_LEN: usize = 2;

/// The longest frame that vde_plug takes (vdeplug 4), in octets; it gives up at a longer one.
pub const MAX_FRAME: usize = 9_234;

/// Octets that [`Decoder::room`] has at the least: as many as a pipe holds.
pub const ROOM: usize = 64 * 1024;

/// The length of a record that no peer can mean: more than [`MAX_FRAME`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLength(pub u16);

impl fmt::Display for BadLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame length {} exceeds {MAX_FRAME}", self.0)
    }
}

impl std::error::Error for BadLength {}

/// Appends a record to `records`; `false`, and nothing is appended, when the frame is too long.
pub fn append(records: &mut Vec<u8>, frame: &[u8]) -> bool {
    let Ok(length) = u16::try_from(frame.len()) else { return false };
    if frame.len() > MAX_FRAME {
        return false;
    }
    records.extend_from_slice(&length.to_be_bytes());
    records.extend_from_slice(frame);
    true
}

/// Finds the frames in octets that arrive in pieces of any size.
#[derive(Clone, Debug)]
pub struct Decoder {
    bytes: Box<[u8]>,
    /// Octets at its start that are the beginning of a record.
    held: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { bytes: vec![0; PREFIX_LEN + MAX_FRAME + ROOM].into_boxed_slice(), held: 0 }
    }
}

impl Decoder {
    /// Where the next octets are to be put.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.held..]
    }

    /// Takes the first `octets` of [`Self::room`], and calls `each` with every frame that is whole.
    ///
    /// # Errors
    ///
    /// An impossible length, after the frames before it; there is nothing more to be decoded.
    pub fn advance(&mut self, octets: usize, mut each: impl FnMut(&[u8])) -> Result<(), BadLength> {
        let mut rest = &self.bytes[..self.held + octets];
        let end = rest.len();
        while let Some((prefix, behind)) = rest.split_first_chunk::<PREFIX_LEN>() {
            let length = u16::from_be_bytes(*prefix);
            if usize::from(length) > MAX_FRAME {
                return Err(BadLength(length));
            }
            let Some((frame, behind)) = behind.split_at_checked(length.into()) else { break };
            if !frame.is_empty() {
                each(frame);
            }
            rest = behind;
        }
        self.held = rest.len();
        self.bytes.copy_within(end - self.held..end, 0);
        Ok(())
    }

    /// Has no record begun that is not whole?
    pub fn is_at_boundary(&self) -> bool {
        self.held == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for frame in frames {
            assert!(append(&mut bytes, frame));
        }
        bytes
    }

    /// What comes out when `bytes` arrive in pieces of the lengths `cuts`, again and again.
    fn decode(mut bytes: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, Result<Decoder, BadLength>) {
        let (mut decoder, mut got) = (Decoder::default(), Vec::new());
        for &cut in cuts.iter().cycle() {
            let (piece, rest) = bytes.split_at(cut.min(bytes.len()));
            decoder.room()[..piece.len()].copy_from_slice(piece);
            if let Err(fault) = decoder.advance(piece.len(), |frame| got.push(frame.to_vec())) {
                return (got, Err(fault));
            }
            bytes = rest;
            if bytes.is_empty() {
                break;
            }
        }
        (got, Ok(decoder))
    }

    #[test]
    fn golden_record() {
        // As vde_plug 4.0.1 writes a broadcast of 60 octets.
        let mut frame = vec![0xff; 6];
        frame.extend_from_slice(&[0x52, 0x54, 0, 0, 0, 1, 0x08, 0x06]);
        frame.resize(60, 0x41);
        let bytes = records(std::slice::from_ref(&frame));
        assert_eq!(bytes[..10], [0x00, 0x3c, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54]);
        assert_eq!(bytes.len(), 62);
        assert_eq!(decode(&bytes, &[99]).0, [frame]);
        assert_eq!(records(&[vec![9; 0x0102]])[..3], [1, 2, 9]);
    }

    #[test]
    fn both_sides_of_the_longest_frame() {
        let longest = vec![7; MAX_FRAME];
        let bytes = records(std::slice::from_ref(&longest));
        let (got, decoder) = decode(&bytes, &[bytes.len()]);
        assert!(got == [longest] && decoder.unwrap().is_at_boundary());
        let (got, decoder) = decode(&bytes[..bytes.len() - 1], &[bytes.len()]);
        let mut decoder = decoder.unwrap();
        assert!(got.is_empty() && !decoder.is_at_boundary());
        assert!(decoder.room().len() > ROOM);

        let mut out = Vec::new();
        assert!(!append(&mut out, &[0; MAX_FRAME + 1]) && !append(&mut out, &[0; 65_536]) && out.is_empty());
        let mut bytes = records(&[vec![1; 20]]);
        bytes.extend_from_slice(&9_235_u16.to_be_bytes());
        let (got, fault) = decode(&bytes, &[1]);
        assert_eq!((got, fault.unwrap_err()), (vec![vec![1; 20]], BadLength(9_235)));
        assert_eq!(BadLength(9_235).to_string(), "frame length 9235 exceeds 9234");
    }

    #[test]
    fn a_split_prefix_is_kept() {
        for cut in 1..8 {
            let (got, _) = decode(&[0, 3, b'a', b'b', b'c', 0, 1, b'd'], &[cut]);
            assert_eq!(got, [b"abc".to_vec(), b"d".to_vec()], "pieces of {cut}");
        }
        let (got, decoder) = decode(&[0, 1, b'a', 0], &[9]);
        assert_eq!((got, decoder.unwrap().is_at_boundary()), (vec![b"a".to_vec()], false));
    }

    #[test]
    fn a_record_without_octets_is_skipped() {
        let (got, decoder) = decode(&[0, 0, 0, 1, b'a', 0, 0], &[9]);
        assert_eq!((got, decoder.unwrap().is_at_boundary()), (vec![b"a".to_vec()], true));
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_frames(
            sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..600), 0..20),
            cuts in prop::collection::vec(1_usize..700, 1..40),
        ) {
            let (got, decoder) = decode(&records(&sent), &cuts);
            prop_assert!(decoder.unwrap().is_at_boundary());
            prop_assert_eq!(got, sent);
        }

        #[test]
        fn any_bytes_give_the_same_in_any_pieces(
            bytes in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..300),
            cuts in prop::collection::vec(1_usize..50, 1..10),
        ) {
            let ((got, end), (expected, at_once)) = (decode(&bytes, &cuts), decode(&bytes, &[bytes.len()]));
            prop_assert_eq!(&got, &expected);
            prop_assert!(records(&got).len() <= bytes.len());
            match (end, at_once) {
                (Ok(end), Ok(at_once)) => prop_assert_eq!(end.is_at_boundary(), at_once.is_at_boundary()),
                (Err(end), Err(at_once)) => prop_assert!(end == at_once && end.0 > 9_234),
                _ => prop_assert!(false, "one has a fault, the other has none"),
            }
        }
    }
}
