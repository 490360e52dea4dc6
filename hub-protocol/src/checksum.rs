//! The Internet checksum (RFC 1071): the complement of a ones' complement sum of 16-bit words.
//!
//! Such a sum does not care for the order of octets within all of its words, so it is taken in the
//! order of this machine, and in wide lanes whose carries are folded in at the end (RFC 1071 2).

/// Octets that the loop takes at a time: enough lanes for two vectors of the smallest x86-64.
const BLOCK: usize = 32;

/// A ones' complement sum that grows piece by piece.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of a pseudo-header, but for the length of what it belongs to: `addresses` are both, as
    /// the header of IPv4 (RFC 9293 3.1) or IPv6 (RFC 8200 8.1) has them, one behind the other.
    pub fn pseudo_header(addresses: &[u8], protocol: u8) -> Self {
        Self::default().with(addresses).with_word(protocol.into())
    }

    /// With `octets`, padded with a zero if their number is odd: then they have to be the last.
    #[must_use]
    pub fn with(self, octets: &[u8]) -> Self {
        // Bounded, so that no number of pieces overflows it.
        Self((self.0 >> 32) + (self.0 & 0xffff_ffff) + wide_sum(octets))
    }

    /// With one more word.
    #[must_use]
    pub fn with_word(self, word: u16) -> Self {
        self.with(&word.to_be_bytes())
    }

    /// With two more words, such as the length in the pseudo-header of IPv6.
    #[must_use]
    pub fn with_u32(self, words: u32) -> Self {
        self.with(&words.to_be_bytes())
    }

    /// The sum as a word. It is 0 only when all that was added was.
    pub fn fold(self) -> u16 {
        let mut sum = self.0;
        loop {
            match u16::try_from(sum) {
                Ok(sum) => return u16::from_be(sum),
                Err(_) => sum = (sum >> 16) + (sum & 0xffff),
            }
        }
    }

    /// The checksum: what makes the sum 0xffff in the place of a zero.
    pub fn checksum(self) -> u16 {
        !self.fold()
    }
}

/// The sum of `octets` as 32-bit words of this machine, which folds to the same as that of 16-bit ones.
fn wide_sum(octets: &[u8]) -> u64 {
    let (blocks, rest) = octets.as_chunks::<BLOCK>();
    let mut lanes = [0_u64; BLOCK / 4];
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks().0) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let (words, rest) = rest.as_chunks();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let tail = words.iter().chain([&last]).map(|word| u64::from(u32::from_ne_bytes(*word)));
    lanes.into_iter().chain(tail).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{octets, sum};
    use proptest::prelude::*;

    #[test]
    fn golden_sum_of_rfc_1071() {
        let total = Sum::default().with(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!((total.fold(), total.checksum()), (0xddf2, 0x220d));
        assert_eq!(Sum::default().fold(), 0);
        assert_eq!(Sum::default().with(&[0; 65]).checksum(), 0xffff);
        assert_eq!(Sum::default().with_word(0xffff).with_word(0xffff).fold(), 0xffff);
        assert_eq!(Sum::default().with_u32(0x0001_fffe).fold(), 0xffff);
        assert_eq!(Sum::default().with(&[0x12]).fold(), 0x1200);
    }

    #[test]
    fn pseudo_headers_have_addresses_and_protocol() {
        let addresses = [10, 77, 0, 1, 10, 77, 0, 2];
        let total = Sum::pseudo_header(&addresses, 6).with_u32(20);
        assert_eq!(total.fold(), sum(&[10, 77, 0, 1, 10, 77, 0, 2, 0, 6, 0, 20]));
    }

    #[test]
    fn carries_are_never_lost() {
        let ones = [0xff; 65_535];
        assert_eq!(Sum::default().with(&ones).fold(), sum(&ones));
        let mut total = Sum::default();
        for _ in 0..1000 {
            total = total.with(&ones[..65_534]);
        }
        assert_eq!(total.with_word(1).fold(), 1);
    }

    #[test]
    fn any_length_and_alignment() {
        let all = octets(400, 3);
        for start in 0..40 {
            for end in start..all.len() {
                assert_eq!(Sum::default().with(&all[start..end]).fold(), sum(&all[start..end]));
            }
        }
    }

    proptest! {
        #[test]
        fn any_pieces_sum_like_the_whole(
            octets in prop::collection::vec(any::<u8>(), 0..2000),
            cuts in prop::collection::vec(0_usize..1000, 0..5),
        ) {
            let mut at: Vec<_> = cuts.iter().map(|cut| (cut * 2).min(octets.len() / 2 * 2)).collect();
            at.sort_unstable();
            at.push(octets.len());
            let (mut total, mut start) = (Sum::default(), 0);
            for end in at {
                total = total.with(&octets[start..end]);
                start = end;
            }
            prop_assert_eq!(total.fold(), sum(&octets));
        }
    }
}
