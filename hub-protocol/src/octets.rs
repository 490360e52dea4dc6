//! Big-endian fields in the middle of octets that are known to reach so far.

pub(crate) fn u16_at(octets: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([octets[at], octets[at + 1]])
}

pub(crate) fn u32_at(octets: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
}

pub(crate) fn put_u16(octets: &mut [u8], at: usize, value: u16) {
    octets[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Writes a length that was seen to fit before.
pub(crate) fn put_length(octets: &mut [u8], at: usize, length: usize) {
    put_u16(octets, at, u16::try_from(length).unwrap_or(u16::MAX));
}

pub(crate) fn put_u32(octets: &mut [u8], at: usize, value: u32) {
    octets[at..at + 4].copy_from_slice(&value.to_be_bytes());
}
